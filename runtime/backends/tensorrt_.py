"""Run plans of TensorRT: networks compiled for one kind of GPU and, unless built otherwise, one version of TensorRT.

A plan is code. Whether this machine can run it is decided by the manifest, before any of the plan is read.
"""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pano4d.runtime.backends.base import Availability
from pano4d.runtime.backends.device_engine import DeviceEngine
from pano4d.runtime.backends.tensorrt_bindings import FULL, LEAN, failure, find, listen, start
from pano4d.runtime.backends.tensorrt_target import REBUILD, check_device, check_version
from pano4d.runtime.bundle import Bundle, Network
from pano4d.runtime.device import Device, DeviceArray, as_device_array, total_bytes
from pano4d.runtime.errors import BackendError, DeviceMemoryError
from pano4d.runtime.graph import Graph

DEVICE = "cuda"
_AGAIN = "build the bundle again with `pano4d build --force`"
_NOT_LOADED = (
    ("magic", "it is damaged, or no plan for this TensorRT", _AGAIN),
    ("empty memory buffer", "it is empty", _AGAIN),
    ("platform specific tag", "it was built under another operating system, or for another kind of processor", REBUILD),
    ("version tag", "it was built by another version of TensorRT than its manifest says", REBUILD),
)
"""What TensorRT says of plans that it does not load, what that means, and what to do."""


class TensorrtEngine(DeviceEngine):
    """One network as a plan. Run it from one thread, and on one stream, at a time.

    Args:
        trt: TensorRT, or its lean runtime.
        described: Its file and tensors, as ``Bundle.network`` gives them.
        device: Where; closed with the engine.
        plan: How it was built: the ``plan`` block of the manifest's target.
        weights: ONNX file to take the weights from; None for those in the plan.
        graph: Whether to replay one CUDA graph instead of launching every kernel.

    Attributes:
        workspace_bytes: What an execution takes beside weights and buffers, the buffers of the graph included.

    Raises:
        BackendError: TensorRT refuses the plan or the weights, or its tensors are others than the manifest's.
        DeviceMemoryError: The GPU is full.
    """

    def __init__(self, trt: ModuleType, described: Network, device: Device, plan: Mapping[str, Any],
                 weights: Path | None = None, graph: bool = True) -> None:
        self.inputs, self.outputs = described.inputs, described.outputs
        self._trt, self._device, self._log, self._file = trt, device, listen(trt), described.path
        self._graph = self._held = None
        self._runtime = self._make_runtime(plan)
        self._engine = self._deserialise()
        self._check_tensors()
        if weights is not None:
            self._refit(weights)
        streams = bool(plan.get("weight_streaming"))
        if streams:
            # Before there is a context, whose memory depends on it. What TensorRT would choose its bindings return as 32
            # bits, too few for these weights.
            free, _ = device.memory()
            self._engine.weight_streaming_budget_v2 = min(self._engine.streamable_weights_size, free // 2)
        # What is copied from the host at every execution is not recorded.
        self._wants_graph = graph and not streams
        needed = int(self._engine.device_memory_size_v2)
        self._workspace = device.empty((max(1, needed),), np.uint8)
        arrays = {spec.name: (spec.shape, spec.dtype) for spec in (*self.inputs, *self.outputs)}
        self.workspace_bytes = needed + (total_bytes(arrays) if self._wants_graph else 0)
        self._context = self._make_context()

    def run(self, buffers: Mapping[str, Any], stream: Any = None) -> None:
        """Compute on the caller's arrays, on the caller's stream. See ``Engine.run``.

        Args:
            buffers: As for ``Engine.run``.
            stream: The ``CUstream`` handle to enqueue on, as an int; None for a stream of the engine's own, for which it
                waits. The first run waits for the GPU, later ones only enqueue.

        Raises:
            BackendError: A buffer is missing or does not fit its spec, or the execution fails.
        """
        self.check(buffers)
        self._device.activate()
        arrays = {spec.name: as_device_array(buffers[spec.name]) for spec in (*self.inputs, *self.outputs)}
        handle = self._device.stream if stream is None else int(stream)
        if self._wants_graph and self._graph is None:
            self._record()
        if self._graph is not None:
            self._replay(arrays, handle)
        else:
            self._execute(arrays, handle)
        if stream is None:
            self._device.synchronize()

    def close(self) -> None:
        """Release graph, context, plan and memory, arrays of ``allocate`` included."""
        if self._device is None:
            return
        self._device.activate()
        # A stream of the caller may still be reading what is about to be handed out again.
        self._device.settle()
        if self._graph is not None:
            self._graph.close()
        self._graph = self._held = None
        # In this order: each needs those after it for as long as it lives.
        self._context = None
        self._engine = None
        self._runtime = None
        self._device.close()
        self._device = None

    def _make_runtime(self, plan: Mapping[str, Any]) -> Any:
        runtime = start(self._trt, self._log, lambda: self._trt.Runtime(self._log))
        if plan.get("version_compatible"):
            # Such a plan carries a runtime of its own version, which is code; the bundle's hashes vouch for it.
            runtime.engine_host_code_allowed = True
        return runtime

    def _deserialise(self) -> Any:
        engine = self._runtime.deserialize_cuda_engine(self._file.read_bytes())
        if engine is None:
            raise failure(self._trt, self._log, f"cannot load {self._file}", _AGAIN, _NOT_LOADED)
        return engine

    def _make_context(self) -> Any:
        context = self._engine.create_execution_context(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise failure(self._trt, self._log, f"cannot prepare {self._file.name} for running",
                          "free memory of the GPU, or use a bundle of a smaller --tile-batch")
        context.set_device_memory(self._workspace.pointer, self._workspace.nbytes)
        return context

    def _check_tensors(self) -> None:
        trt, engine = self._trt, self._engine
        dtypes = {trt.DataType.FLOAT: "float32", trt.DataType.HALF: "float16"}
        found = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            reads = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            dtype = engine.get_tensor_dtype(name)
            found[name] = (reads, dtypes.get(dtype, str(dtype)), tuple(engine.get_tensor_shape(name)))
        needed = {spec.name: (reads, spec.dtype, spec.shape)
                  for reads, specs in ((True, self.inputs), (False, self.outputs)) for spec in specs}
        if found != needed:
            raise BackendError(f"{self._file} has tensors {_said(found)}, and its manifest says {_said(needed)}: {_AGAIN}.")

    def _refit(self, weights: Path) -> None:
        trt, engine = self._trt, self._engine
        if not engine.refittable:
            raise BackendError(f"{self._file.name} takes no weights, though its manifest says so: {_AGAIN}.")
        refitter = trt.Refitter(engine, self._log)
        parser = trt.OnnxParserRefitter(refitter, self._log)
        if not parser.refit_from_file(str(weights)):
            told = parser.get_error(0).desc() if parser.num_errors else self._log.told()
            raise BackendError(f"TensorRT {trt.__version__} cannot take the weights of {self._file.name} from {weights} "
                               f"({' '.join(told.split())}): give the ONNX file it was built from, or {_AGAIN}.")
        missing = refitter.get_missing_weights()
        if missing:
            raise BackendError(f"{weights} lacks {len(missing)} weights of {self._file.name}, such as {missing[0]}: give the "
                               f"ONNX file it was built from, or {_AGAIN}.")
        if not refitter.refit_cuda_engine():
            raise failure(trt, self._log, f"cannot put the weights into {self._file.name}", _AGAIN)

    def _execute(self, arrays: Mapping[str, DeviceArray], stream: int) -> None:
        """Enqueue one execution on arrays that lie where they will when it runs."""
        for name, array in arrays.items():
            if not self._context.set_tensor_address(name, array.pointer):
                raise failure(self._trt, self._log, f"does not take the buffer {name!r}", "make the buffers with allocate()")
        if not self._context.execute_async_v3(stream):
            raise failure(self._trt, self._log, f"failed while running {self._file.name}",
                          "use a bundle of a smaller --tile-batch, or more memory")

    def _record(self) -> None:
        """Record an execution in arrays of the engine's own, so that one graph serves every set of buffers."""
        held = self.allocate()
        # Kernels are loaded by the first execution, which a graph could not record.
        self._execute(held, self._device.stream)
        self._device.synchronize()
        try:
            self._graph = Graph.record(self._device.stream, lambda: self._execute(held, self._device.stream))
            self._held = held
        except DeviceMemoryError:
            raise
        except BackendError:
            # A plan may do what cannot be recorded; it runs as well without.
            self._wants_graph = False
            self._device.free(*held.values())

    def _replay(self, arrays: Mapping[str, DeviceArray], stream: int) -> None:
        for spec in self.inputs:
            self._device.copy(arrays[spec.name], self._held[spec.name], stream)
        self._graph.launch(stream)
        for spec in self.outputs:
            self._device.copy(self._held[spec.name], arrays[spec.name], stream)


def load(bundle: Bundle, network: str, weights: Path | None = None, graph: bool = True) -> TensorrtEngine:
    """Load one network of a bundle.

    Args:
        bundle: Bundle of plans, verified: a plan is code, and loading runs it.
        network: Name of the network.
        weights: ONNX file to take the weights from, of the same network; None for the bundle's own. Other weights need a
            bundle that was built with --refit.
        graph: Whether to replay one CUDA graph instead of launching every kernel.

    Returns:
        The engine.

    Raises:
        BackendError: TensorRT is missing, the plan was made for another kind of machine or version, or is refused.
        BundleError: The bundle has no such network.
        DeviceMemoryError: The GPU has no room for it.
    """
    described = bundle.network(network)
    trt = check_version(bundle, described)
    plan = bundle.manifest["target"].get("plan", {})
    if weights is not None and not plan.get("refittable"):
        raise BackendError(f"{described.path.name} takes no weights but its own, and {weights} was given: leave it out, or "
                           "build the bundle with --refit.")
    if weights is None and plan.get("stripped"):
        weights = _stripped_weights(bundle, network)
    device = Device()
    try:
        check_device(bundle, described, device)
        return TensorrtEngine(trt, described, device, plan, weights, graph)
    except BaseException:
        device.close()
        raise


def available() -> Availability:
    """Say which TensorRT is installed and what it runs on."""
    there, missing = {}, None
    for module in (FULL, LEAN):
        try:
            there[module] = find(module).__version__
        except BackendError as error:
            missing = missing or error
    if not there:
        detail, _, remedy = str(missing).rstrip(".").rpartition(": ")
        return Availability(False, detail.removeprefix("TensorRT is needed, and "), remedy)
    found = f"TensorRT {there[FULL]}" if FULL in there else ""
    if LEAN in there:
        found += f"{' and ' if found else ''}the lean runtime {there[LEAN]}, which runs version-compatible plans"
    try:
        with Device() as device:
            return Availability(True, f"{found} on {device.name}")
    except BackendError as error:
        reason, _, remedy = str(error).rstrip(".").partition(": ")
        return Availability(False, f"{found}; {reason}", remedy)


def check_bundle(bundle: Bundle) -> None:
    """Say before anything is loaded whether this machine can run the plans of a bundle.

    Args:
        bundle: The bundle.

    Raises:
        BackendError: Says what was found, what is needed and what to do.
    """
    described = [bundle.network(name) for name in bundle.manifest["networks"]]
    for one in described:
        check_version(bundle, one)
    with Device() as device:
        check_device(bundle, described[0], device)


def _stripped_weights(bundle: Bundle, network: str) -> Path:
    for record in bundle.manifest["networks"][network].get("extra_files", ()):
        if record["file"].endswith(".onnx"):
            return bundle.path / record["file"]
    raise BackendError(f"The plan of {network} was stripped of its weights, and the bundle does not hold them: {_AGAIN}.")


def _said(tensors: Mapping[str, tuple[bool, str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{'in' if reads else 'out'} {name} {dtype} {list(shape)}"
                     for name, (reads, dtype, shape) in sorted(tensors.items()))
