"""Run ONNX engines with onnxruntime on the CPU."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from pano4d.runtime.backends.base import Availability, Engine, TensorSpec
from pano4d.runtime.bundle import Bundle
from pano4d.runtime.errors import BackendError

DEVICE = "cpu"
# The GPU is a backend of its own, without copies and without a silent way back to the CPU.
PROVIDER = "CPUExecutionProvider"
_INSTALL = "pip install onnxruntime"


class OnnxruntimeEngine(Engine):
    """One network as an onnxruntime session.

    Args:
        path: The .onnx file.
        inputs: Tensors it reads.
        outputs: Tensors it writes.

    Raises:
        BackendError: onnxruntime is not installed or refuses the file.
    """

    def __init__(self, path: os.PathLike | str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        runtime = import_onnxruntime()
        self.inputs, self.outputs = inputs, outputs
        try:
            self._session = runtime.InferenceSession(str(path), session_options(), providers=[PROVIDER])
        except Exception as error:
            raise BackendError(f"onnxruntime {runtime.__version__} cannot load {path} ({first_line(error)}): build the "
                               "bundle again with `pano4d build --force`.") from error
        check_tensors(self._session, path, inputs, outputs)

    def run(self, buffers: Mapping[str, np.ndarray], stream: Any = None) -> None:
        """Read and write the caller's arrays directly. See ``Engine.run``.

        Raises:
            BackendError: A buffer does not fit, or onnxruntime fails.
        """
        self.check(buffers)
        binding = self._session.io_binding()
        for spec in self.inputs:
            binding.bind_cpu_input(spec.name, buffers[spec.name])
        for spec in self.outputs:
            array = buffers[spec.name]
            binding.bind_output(spec.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise BackendError(f"onnxruntime failed while running an engine ({first_line(error)}): use smaller "
                               "tiles or more memory.") from error

    def close(self) -> None:
        """Release the session and its memory."""
        self._session = None


def load(bundle: Bundle, network: str) -> OnnxruntimeEngine:
    """Load one network of a bundle.

    Args:
        bundle: Bundle of ONNX engines.
        network: Name of the network.

    Returns:
        The engine.

    Raises:
        BackendError: The engine is of another kind or cannot be loaded.
        BundleError: The bundle has no such network.
    """
    described = bundle.network(network)
    if described.path.suffix != ".onnx":
        raise BackendError(f"{described.path.name} is no ONNX engine: use --backend {bundle.manifest['backend']['name']}"
                           " or build a bundle with `pano4d build --backend onnxruntime`.")
    return OnnxruntimeEngine(described.path, described.inputs, described.outputs)


def available() -> Availability:
    """Say which onnxruntime is installed and what it runs on."""
    try:
        runtime = import_onnxruntime()
    except BackendError:
        return Availability(False, "onnxruntime is not installed", _INSTALL)
    return Availability(True, f"onnxruntime {runtime.__version__} on {PROVIDER}")


def session_options() -> Any:
    """Make the session options that every engine is loaded with.

    Returns:
        An ``onnxruntime.SessionOptions``.

    Raises:
        BackendError: onnxruntime is not installed.
    """
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    # The pattern plans one block for all tensors at once: twice the peak memory of the decoder, and no faster.
    options.enable_mem_pattern = False
    # Threads that spin while they wait are 3 % faster alone and half as fast beside another busy process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # 0 lets onnxruntime take every core. OpenMP allows a list, one number per level of nesting.
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    options.intra_op_num_threads = int(asked) if asked.isdigit() else 0
    return options


def check_tensors(session: Any, path: os.PathLike | str, inputs: tuple[TensorSpec, ...],
                  outputs: tuple[TensorSpec, ...]) -> None:
    """Refuse a file whose tensors are not those of its manifest.

    Args:
        session: The loaded file.
        path: Its path.
        inputs: Tensors it should read.
        outputs: Tensors it should write.

    Raises:
        BackendError: Names or shapes differ.
    """
    for specs, nodes in ((inputs, session.get_inputs()), (outputs, session.get_outputs())):
        found = {node.name: tuple(node.shape) for node in nodes}
        needed = {spec.name: spec.shape for spec in specs}
        if found != needed:
            raise BackendError(f"{path} has tensors {found}, and its manifest says {needed}: build the bundle again with "
                               "`pano4d build --force`.")


def import_onnxruntime() -> Any:
    """Import onnxruntime.

    Raises:
        BackendError: It is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(f"The backend 'onnxruntime' is not installed: {_INSTALL}.") from error
    return onnxruntime


def first_line(error: Exception) -> str:
    """Shorten what an error says to its first line."""
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
