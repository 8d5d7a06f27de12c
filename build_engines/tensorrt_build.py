"""Compile ONNX files into plans of TensorRT, on the GPU they are for.

Networks are strongly typed: what is computed in float16 and what in float32 is what the ONNX file says. How long kernels
take is measured on the GPU, which takes minutes for a large network, and kept for the next build in a file for each GPU and
version of TensorRT.
"""

import contextlib
import functools
import os
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx

from pano4d.build_engines.plan_options import PlanOptions
from pano4d.runtime.backends.tensorrt_bindings import failure, find, listen, one_line, start
from pano4d.runtime.errors import BackendError

Progress = Callable[[str, int, int], None]


def build_plan(source: Path, path: Path, options: PlanOptions, exact: bool, gpu: str,
               progress: Progress = lambda *_: None) -> None:
    """Compile an ONNX file; nothing is written unless it succeeds.

    Args:
        source: The ONNX file; strongly typed, its shapes fixed.
        path: The .plan file to write.
        options: How.
        exact: Whether float32 must not be rounded to the 10 bits of TF32.
        gpu: Name of the GPU, for the file of timings.
        progress: Called with phase, done, total as TensorRT goes on.

    Raises:
        BackendError: TensorRT is missing, or refuses the network or the GPU.
        KeyboardInterrupt: Ctrl-C was pressed; TensorRT stops at its next step.
    """
    trt = find()
    log = listen(trt)
    builder = start(trt, log, lambda: trt.Builder(log))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, log, network, source)
    config = builder.create_builder_config()
    _configure(trt, config, options, exact)
    timings = timing_cache(gpu, trt.__version__)
    _use_timings(config, timings)
    with _signals_held() as interrupted:
        monitor = _monitor_class(trt)(path.stem, progress, interrupted)
        config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
    if monitor.error is not None:
        raise monitor.error
    if plan is None and interrupted():
        # A handler of the caller's that raises nothing.
        raise KeyboardInterrupt
    if plan is None:
        raise failure(trt, log, f"cannot build {path.name}", "allow more memory with --workspace, use a smaller --tile-batch, "
                      "or end what else uses the GPU")
    path.write_bytes(plan)
    cache = config.get_timing_cache()
    if cache is not None:
        _keep_timings(timings, bytes(cache.serialize()))


def timing_cache(gpu: str, version: str) -> Path:
    """Name the file in which the timings of a GPU are kept."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pano4d" / "tensorrt"
    return folder / f"{re.sub('[^A-Za-z0-9]+', '-', gpu).strip('-')}_{version}.timings"


def _parse(trt: ModuleType, log: Any, network: Any, source: Path) -> None:
    parser = trt.OnnxParser(network, log)
    if parser.parse_from_file(str(source)):
        return
    if not parser.num_errors:
        raise failure(trt, log, f"cannot read {source.name}", "build with the versions of pano4d[build]")
    fault, count = parser.get_error(0), parser.num_errors
    more = f"; {count - 1} more" if count > 1 else ""
    raise BackendError(f"TensorRT {trt.__version__} cannot read {source.name}{_place(fault, source)}: "
                       f"{one_line(fault.desc())} ({fault.code().name}){more}. Build with the versions of pano4d[build], "
                       "or with a newer TensorRT.")


def _place(fault: Any, source: Path) -> str:
    """Say at which node of the file the parser gave up, and on which shapes."""
    if fault.node() < 0 or not fault.node_operator():
        return ""
    said = f" at node {fault.node()} {fault.node_name()!r}, {fault.node_operator()}"
    with contextlib.suppress(Exception):  # a file that the parser cannot read need not be one that onnx can
        graph = onnx.load(source, load_external_data=False).graph
        node = next(node for node in graph.node if node.name == fault.node_name())
        shapes = {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
                  for value in (*graph.value_info, *graph.input, *graph.output)}
        shapes |= {value.name: list(value.dims) for value in graph.initializer}
        said += " of " + ", ".join(str(shapes.get(name, "unknown shape")) for name in node.input)
    return said


def _configure(trt: ModuleType, config: Any, options: PlanOptions, exact: bool) -> None:
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    config.builder_optimization_level = options.optimization_level
    # Weights that are only left out come back as they were, and kernels may rely on that.
    refit = [trt.BuilderFlag.REFIT] if options.refit else [trt.BuilderFlag.REFIT_IDENTICAL] if options.strip else []
    for flag in (*refit, *([trt.BuilderFlag.STRIP_PLAN] * options.strip),
                 *([trt.BuilderFlag.VERSION_COMPATIBLE] * options.version_compatible),
                 *([trt.BuilderFlag.WEIGHT_STREAMING] * options.weight_streaming)):
        config.set_flag(flag)
    if exact:
        config.clear_flag(trt.BuilderFlag.TF32)


def _use_timings(config: Any, path: Path) -> None:
    """Give the builder what was measured before; what is damaged or of another GPU is measured again."""
    content = path.read_bytes() if path.is_file() else b""
    for known in (content, b""):
        cache = config.create_timing_cache(known)
        if cache is not None and config.set_timing_cache(cache, False):
            return


def _keep_timings(path: Path, content: bytes) -> None:
    """Replace the file at once; where it cannot be written the next build only takes longer."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(content)
        os.replace(file.name, path)


@functools.cache
def _monitor_class(trt: ModuleType) -> type:
    class Monitor(trt.IProgressMonitor):
        """Tells how far a build is, and whether it shall stop. TensorRT calls it from any of its threads.

        An error must not leave it, since there is C++ around it: it is kept, and the build stops.
        """

        def __init__(self, name: str, progress: Progress, interrupted: Callable[[], bool]) -> None:
            trt.IProgressMonitor.__init__(self)
            self.error: BaseException | None = None
            self._name, self._progress, self._interrupted = name, progress, interrupted
            self._phases: dict[str, tuple[str, int]] = {}
            self._lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Show phases of the build, and the phases of those; there are too many below."""
            with self._lock:
                if not parent_phase:
                    self._phases[phase_name] = (self._name, num_steps)
                elif self._phases.get(parent_phase, ("",))[0] == self._name:
                    self._phases[phase_name] = (phase_name, num_steps)
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Say whether to go on."""
            self._tell(phase_name, step + 1)
            return self.error is None and not self._interrupted()

        def phase_finish(self, phase_name: str) -> None:
            """Nothing to do: a phase that ends early is followed by another."""

        def _tell(self, phase: str, done: int) -> None:
            with self._lock:
                shown = self._phases.get(phase)
                if shown and self.error is None:
                    try:
                        self._progress(shown[0], done, shown[1])
                    except BaseException as error:  # noqa: BLE001
                        self.error = error

    return Monitor


@contextlib.contextmanager
def _signals_held() -> Iterator[Callable[[], bool]]:
    """Keep Ctrl-C and SIGTERM from being raised in the middle of TensorRT, and raise them afterwards.

    Python runs handlers in its main thread, which waits in TensorRT; the file descriptor is written to at once.

    Yields:
        A function that says whether one of them has come; for any thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    # What is ignored, as Ctrl-C is by what runs in the background, stays so.
    held = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    seen: list[int] = []
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(False)

    def interrupted() -> bool:
        with contextlib.suppress(OSError):  # nothing has come, or the build is over
            seen.extend(number for number in reader.recv(64) if number in held)
        return bool(seen)

    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda *_: None) for number in held}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(descriptor)
        interrupted()
        reader.close()
        writer.close()
        if seen:
            signal.raise_signal(seen[0])
