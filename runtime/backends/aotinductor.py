"""Run networks that torch compiled ahead of time: a .pt2 package of kernels, and its weights in a file beside it.

A package is code, made for one kind of GPU and one version of torch. Weights are read straight to the device and belong
to this module, not to the package: engines that name the same file share one copy of it.
"""

import contextlib
import functools
import json
import platform
import traceback
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pano4d.runtime.backends.base import Availability, Engine
from pano4d.runtime.bundle import Bundle, Network
from pano4d.runtime.errors import BackendError, DeviceMemoryError

try:
    import torch
except ImportError:  # the module must import, so that `doctor` can say what is missing
    torch = None

DEVICE = None
STRIDES = "strides"
"""Key in the metadata of a weight file: strides, by name, of the weights that were compiled in another order than the
file's, such as with their channels last; as JSON."""

_FULL = ("out of memory", "ALLOC_FAILED")
_INSTALL = "pip install torch"
_REBUILD = "build one here with `pano4d build --backend aotinductor`"


class Weights(dict):
    """Weights of one file by name; a class of its own, since a plain dict cannot be referred to weakly."""


class Package:
    """The kernels of a .pt2 file, called with tensors. Use it from one thread at a time.

    The loader of torch is used as it is: its Python wrapper first imports the compiler, and asks the C++ compiler what
    the CPU can do, which takes 40 s where nothing of it is cached.

    Args:
        path: The .pt2 file. It is code: its hash must have been checked.

    Raises:
        BackendError: torch refuses the file.
    """

    def __init__(self, path: Path) -> None:
        try:
            # The other mode asks events how far the GPU is, which cannot be recorded in a CUDA graph.
            single_threaded, runners, device = True, 1, -1
            self._loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", single_threaded, runners, device)
        except Exception as error:
            raise BackendError(f"torch {torch.__version__} cannot load {path} ({_first_line(error)}): build the bundle "
                               "again with `pano4d build --force`.") from error

    @property
    def names(self) -> list[str]:
        """Names of the weights that the kernels read."""
        return self._loader.get_constant_fqns()

    def bind(self, weights: Mapping[str, Any]) -> None:
        """Let the kernels read these weights, of which only the pointers are kept.

        Args:
            weights: Tensors by name, at least those of ``names``, where and as the kernels expect them.
        """
        inactive, full_update, user_managed = False, True, True
        self._loader.load_constants({name: weights[name] for name in self.names}, inactive, full_update, user_managed)

    def __call__(self, *inputs: Any) -> Any:
        """Compute the one output; enqueued on torch's current stream."""
        return self._loader.run(list(inputs))[0]


_loaded: "weakref.WeakValueDictionary[tuple[str, str, bool], Weights]" = weakref.WeakValueDictionary()


class AotinductorEngine(Engine):
    """One network as a compiled package. Run it from one thread at a time.

    Args:
        package: The package, its weights bound.
        weights: What was bound; kept alive with the engine.
        described: Its tensors, as ``Bundle.network`` gives them.
        device: ``cpu`` or ``cuda``.
        exact: Whether convolutions keep float32 where they could round to TF32.
        graph: Whether a GPU replays one CUDA graph instead of launching every kernel.
    """

    def __init__(self, package: Package, weights: Weights, described: Network, device: str, exact: bool,
                 graph: bool = True) -> None:
        self.inputs, self.outputs, self.device = described.inputs, described.outputs, device
        self._package, self._weights, self._exact = package, weights, exact
        self._wants_graph = graph and device == "cuda"
        self._graph = self._held = self._result = self._pool = None

    def run(self, buffers: Mapping[str, Any], stream: Any = None) -> None:
        """Compute on the caller's arrays without copying them to another device. See ``Engine.run``.

        Args:
            buffers: As for ``Engine.run``.
            stream: On a GPU the ``CUstream`` handle to enqueue on, as an int; None for torch's current stream. The
                first run waits for the GPU, later ones only enqueue.

        Raises:
            BackendError: A buffer is missing or does not fit its spec, the package fails, or the GPU has no room.
        """
        self.check(buffers)
        inputs = [torch.as_tensor(buffers[spec.name]) for spec in self.inputs]
        output = torch.as_tensor(buffers[self.outputs[0].name])
        compute = self._replay if self._wants_graph else self._compute
        try:
            with _memory_told(), torch.inference_mode(), _on(self.device, stream):
                output.copy_(compute(inputs))
        except RuntimeError as error:
            raise BackendError(f"A compiled engine failed while running ({_first_line(error)}): use a bundle of a smaller "
                               "--tile-batch, or more memory.") from error

    def allocate(self) -> dict[str, Any]:
        """Make NumPy arrays, or tensors of torch on the GPU. See ``Engine.allocate``.

        Raises:
            DeviceMemoryError: The GPU has no room for them.
        """
        if self.device == "cpu":
            return super().allocate()
        with _memory_told():
            made = {spec.name: torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype), device="cuda")
                    for spec in (*self.inputs, *self.outputs)}
        # Another stream may use them next.
        torch.cuda.synchronize()
        return made

    def write(self, buffer: Any, values: np.ndarray) -> None:
        """Copy to where the buffer lies. See ``Engine.write``."""
        torch.as_tensor(buffer).copy_(torch.from_numpy(values))

    def read(self, buffer: Any) -> np.ndarray:
        """Copy from where the buffer lies. See ``Engine.read``."""
        return torch.as_tensor(buffer).cpu().numpy()

    def close(self) -> None:
        """Release the graph, the package, and the weights unless another engine uses them."""
        if self.device == "cuda" and self._package is not None:
            # A stream of the caller may still be reading what is about to be handed out again.
            torch.cuda.synchronize()
        self._graph = self._held = self._result = self._package = self._weights = None
        self._pool = None  # last: what is in it must be gone
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def _compute(self, inputs: list) -> Any:
        with without_tf32() if self._exact else contextlib.nullcontext():
            return self._package(*inputs)

    def _replay(self, inputs: list) -> Any:
        """Compute in the engine's own tensors, so that one graph serves every set of buffers."""
        if self._graph is None:
            self._capture(inputs)
        for held, given in zip(self._held, inputs):
            held.copy_(given)
        self._graph.replay()
        return self._result

    def _capture(self, inputs: list) -> None:
        side, pool = _capture_stream(torch.cuda.current_device()), _graph_pool(torch.cuda.current_device())
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            _make_workspaces()
            # Kernels are loaded by the first call, which a graph could not record. It works in the memory of the graphs,
            # so that it needs none beside theirs.
            with torch.cuda.use_mem_pool(pool):
                self._held = [tensor.clone() for tensor in inputs]
                self._compute(self._held)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool.id, stream=side, capture_error_mode="thread_local"):
            self._result = self._compute(self._held)
        torch.cuda.synchronize()
        self._graph, self._pool = graph, pool


def load(bundle: Bundle, network: str, graph: bool = True) -> AotinductorEngine:
    """Load one network of a bundle.

    Args:
        bundle: Bundle of .pt2 engines, verified: a package is code, and loading runs it.
        network: Name of the network.
        graph: Whether a GPU replays one CUDA graph instead of launching every kernel.

    Returns:
        The engine.

    Raises:
        BackendError: torch is missing, the engine was made for another kind of machine or version of torch, or the GPU
            has no room for its weights.
        BundleError: The bundle has no such network.
    """
    described = bundle.network(network)
    check_target(bundle, described)
    with _memory_told():
        return _loaded_engine(bundle, network, described, graph)


def _loaded_engine(bundle: Bundle, network: str, described: Network, graph: bool) -> AotinductorEngine:
    device = bundle.manifest["target"].get("device")
    exact = bundle.manifest["precision"]["compute"] == "float32"
    weights = _shared_weights(bundle, network, device, exact)
    package = Package(described.path)
    absent = sorted(set(package.names) - weights.keys())
    if absent:
        raise BackendError(f"The weights of {described.path.name} lack {len(absent)} tensors, such as {absent[0]}: build "
                           "the bundle again with `pano4d build --force`.")
    package.bind(weights)
    if device == "cuda":
        torch.cuda.synchronize()
    return AotinductorEngine(package, weights, described, device, exact, graph)


def available() -> Availability:
    """Say which torch is installed and what it runs on."""
    if torch is None:
        return Availability(False, "torch is not installed", _INSTALL)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return Availability(True, f"torch {torch.__version__} on {device}")


def check_target(bundle: Bundle, described: Network) -> None:
    """Refuse an engine that this machine cannot run, before any of it is loaded.

    Args:
        bundle: The bundle; its manifest says what it was made for.
        described: The network.

    Raises:
        BackendError: Says what was found, what is needed and what to do.
    """
    target, backend, name = bundle.manifest["target"], bundle.manifest["backend"], described.path.name
    if torch is None:
        raise BackendError(f"The backend 'aotinductor' cannot run here, since torch is not installed: {_INSTALL}.")
    if described.path.suffix != ".pt2":
        raise BackendError(f"{name} is no AOTInductor engine: use --backend {backend['name']} or {_REBUILD}.")
    if _release(backend["version"]) != _release(torch.__version__):
        release = _release(backend["version"])
        raise BackendError(f"{name} was compiled with torch {backend['version']} and this is torch {torch.__version__}: "
                           f"install torch {release} (pip install 'torch=={release}.*') or {_REBUILD}.")
    found, needed = _machine(target.get("device")), kind_of_machine(target)
    if found != needed:
        raise BackendError(f"{name} was compiled for {needed} and this machine has {found}: use a machine of that kind "
                           f"or {_REBUILD}.")


def kind_of_machine(target: Mapping[str, Any]) -> str:
    """Say in words what an engine was made for, as far as a machine must agree with it.

    Args:
        target: The manifest's ``target`` block, or what ``this_machine`` returns.

    Returns:
        A few words, the same for targets that can run one another's engines.
    """
    if target.get("device") == "cpu":
        return f"a {target.get('machine')} CPU with {target.get('isa')}"
    return f"a GPU of compute capability {target.get('compute_capability')}"


def this_machine(device: str) -> dict[str, str]:
    """Describe what decides whether an engine runs here.

    Args:
        device: ``cpu`` or ``cuda``; a GPU must be there.

    Returns:
        ``device``, and ``compute_capability`` of the GPU or ``machine`` and ``isa`` of the CPU.

    Raises:
        RuntimeError: torch sees no GPU.
    """
    if device == "cuda":
        return {"device": "cuda", "compute_capability": "{}.{}".format(*torch.cuda.get_device_capability())}
    return {"device": "cpu", "machine": platform.machine(), "isa": torch.backends.cpu.get_cpu_capability()}


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Keep cuDNN from rounding float32 to the 10 bits of TF32, which it does unless told."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@functools.cache
def _capture_stream(device: int) -> Any:
    """Give one stream for all captures of a GPU: cuBLAS keeps a workspace for every stream it has seen."""
    return torch.cuda.Stream(device)


_pools: "weakref.WeakValueDictionary[int, Any]" = weakref.WeakValueDictionary()


def _graph_pool(device: int) -> Any:
    """Give one pool of memory for all graphs of a GPU: a result is copied out before the next graph can run.

    It goes with the last engine that holds it.
    """
    pool = _pools.get(device)
    if pool is None:
        pool = _pools[device] = torch.cuda.MemPool()
    return pool


def _make_workspaces() -> None:
    """Let cuBLAS take its workspaces of the current stream, which it never gives back, outside of any pool."""
    one = torch.zeros((16, 16), dtype=torch.float16, device="cuda")
    torch.addmm(one, one, one), torch.nn.functional.linear(one, one, one[0])


def _machine(device: str | None) -> str:
    if device != "cpu" and not torch.cuda.is_available():
        return "no GPU that torch can use"
    return kind_of_machine(this_machine("cpu" if device == "cpu" else "cuda"))


def _release(version: str) -> str:
    """Give major and minor of a version."""
    return ".".join(version.split("+")[0].split(".")[:2])


def _shared_weights(bundle: Bundle, network: str, device: str, exact: bool) -> Weights:
    extra = bundle.manifest["networks"][network].get("extra_files", [])
    record = next((record for record in extra if record["file"].endswith(".safetensors")), None)
    if record is None:
        return Weights()
    key = (record["sha256"], device, exact)
    weights = _loaded.get(key)
    if weights is None:
        weights = _loaded[key] = _read_weights(bundle.path / record["file"], device, exact)
        if device == "cuda":
            weakref.finalize(weights, _give_back, list(weights.values())).atexit = False
    return weights


def _give_back(tensors: list) -> None:
    """Free weights that nothing uses any more: packages keep tensors they were bound to, even when they are gone."""
    for tensor in tensors:
        tensor.untyped_storage().resize_(0)


def _read_weights(path: Path, device: str, exact: bool) -> Weights:
    """Read weights to a device, widened to float32 if that is what the engine computes in."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(path, "pt") as file:
            strides = json.loads((file.metadata() or {}).get(STRIDES, "{}"))
        read = load_file(path, device="cuda:{}".format(torch.cuda.current_device()) if device == "cuda" else device)
    except (SafetensorError, OSError, ValueError) as error:
        raise BackendError(f"{path} cannot be read ({_first_line(error)}): build the bundle again with `pano4d build "
                           "--force`.") from error
    # One after another, so that no more than one tensor is there twice.
    return Weights((name, _as_compiled(read.pop(name), exact, strides.get(name))) for name in list(read))


def _as_compiled(tensor: Any, exact: bool, stride: list[int] | None) -> Any:
    wide = tensor.float() if exact and tensor.dtype == torch.float16 else tensor
    if stride is None:
        return wide
    return torch.empty_strided(wide.shape, stride, dtype=wide.dtype, device=wide.device).copy_(wide)


@contextlib.contextmanager
def _on(device: str, stream: Any) -> Iterator[None]:
    """Make the caller's stream torch's current one."""
    if device == "cpu" or stream is None:
        yield
        return
    chosen = torch.cuda.ExternalStream(int(stream)) if int(stream) else torch.cuda.default_stream()
    with torch.cuda.stream(chosen):
        yield


@contextlib.contextmanager
def _memory_told() -> Iterator[None]:
    """Raise one error for all the ways in which torch says that a GPU is full, and give back what it left there.

    Raises:
        DeviceMemoryError: The GPU is full.
    """
    try:
        yield
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise DeviceMemoryError() from error


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Look for full memory in an error and in what led to it: the end of a capture hides why it failed."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in _FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
