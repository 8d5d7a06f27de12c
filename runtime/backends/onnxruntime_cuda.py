"""Run ONNX engines with onnxruntime's CUDA provider, on arrays that stay on the GPU.

A session computes on one stream, fixed when it is loaded. It is a stream of the engine's own; events order it after what
the caller's stream was given before a run, and the caller's stream after the run, so that nothing waits on the CPU.
"""

import contextlib
import io
from collections.abc import Mapping
from typing import Any

from pano4d.runtime.backends.base import Availability
from pano4d.runtime.backends.device_engine import DeviceEngine
from pano4d.runtime.backends.onnxruntime_ import check_tensors, first_line, import_onnxruntime, session_options
from pano4d.runtime.bundle import Bundle, Network
from pano4d.runtime.device import Device, as_device_array, call, driver
from pano4d.runtime.errors import BackendError, DeviceMemoryError

DEVICE = "cuda"
PROVIDER = "CUDAExecutionProvider"
_INSTALL = "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
_FULL = ("out of memory", "alloc_failed", "failed to allocate memory", "smaller than requested bytes")


class OnnxruntimeCudaEngine(DeviceEngine):
    """One network as a session on the GPU. Run it from one thread at a time.

    Args:
        described: Its file and tensors, as ``Bundle.network`` gives them.
        device: Where; closed with the engine.

    Raises:
        BackendError: onnxruntime refuses the file, would compute some of it on the CPU, or finds other tensors in it than
            the manifest says.
        DeviceMemoryError: The GPU is full.
    """

    def __init__(self, described: Network, device: Device) -> None:
        runtime = import_onnxruntime()
        # CUDA and cuDNN among pip's packages. What is not there it prints, and the session says in its error.
        with contextlib.redirect_stdout(io.StringIO()):
            runtime.preload_dlls()
        self.inputs, self.outputs, self._device = described.inputs, described.outputs, device
        options = session_options()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        providers = [(PROVIDER, _provider_options(described, device))]
        try:
            self._session = runtime.InferenceSession(str(described.path), options, providers=providers, enable_fallback=0)
        except Exception as error:
            raise _told(error, f"cannot load {described.path} on the GPU", "install the CUDA and cuDNN that it names, or "
                        "use --backend onnxruntime") from error
        if PROVIDER not in self._session.get_providers():
            raise BackendError(f"onnxruntime fell back to the CPU for {described.path}: install its CUDA and cuDNN, or use "
                               "--backend onnxruntime.")
        check_tensors(self._session, described.path, self.inputs, self.outputs)
        self._binding, self._options = self._session.io_binding(), runtime.RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def run(self, buffers: Mapping[str, Any], stream: Any = None) -> None:
        """Compute on the caller's arrays. See ``Engine.run``.

        Args:
            buffers: As for ``Engine.run``; anything that ``as_device_array`` takes.
            stream: The ``CUstream`` handle to be ordered with, as an int; None for the default stream, and to wait.

        Raises:
            BackendError: A buffer is missing or does not fit its spec, or onnxruntime fails.
            DeviceMemoryError: The GPU is full.
        """
        arrays = {name: as_device_array(array) for name, array in buffers.items()}
        self.check(arrays)
        for specs, bind in ((self.inputs, self._binding.bind_input), (self.outputs, self._binding.bind_output)):
            for spec in specs:
                array = arrays[spec.name]
                bind(spec.name, "cuda", self._device.ordinal, array.dtype, array.shape, array.pointer)
        self._device.activate()
        self._device.chain(int(stream or 0), self._device.stream)
        try:
            self._session.run_with_iobinding(self._binding, self._options)
        except Exception as error:
            raise _told(error, "failed while running an engine", "use smaller tiles or more memory") from error
        self._device.chain(self._device.stream, int(stream or 0))
        if stream is None:
            self._device.synchronize()

    def close(self) -> None:
        """Release the session, its memory and its stream."""
        if self._device is not None:
            self._device.activate()
            self._device.synchronize()
            self._binding = self._session = None
            self._device.close()
            self._device = None


def load(bundle: Bundle, network: str) -> OnnxruntimeCudaEngine:
    """Load one network of a bundle of ONNX engines; arguments and errors as of ``onnxruntime_.load``."""
    described = bundle.network(network)
    if described.path.suffix != ".onnx":
        raise BackendError(f"{described.path.name} is no ONNX engine: build a bundle with `pano4d build --backend "
                           "onnxruntime`.")
    return load_file(described)


def load_file(described: Network) -> OnnxruntimeCudaEngine:
    """Load an ONNX file on a device of its own; arguments and errors as of `OnnxruntimeCudaEngine`."""
    device = Device()
    try:
        return OnnxruntimeCudaEngine(described, device)
    except Exception:
        device.close()
        raise


def available() -> Availability:
    """Say whether the installed onnxruntime has CUDA."""
    try:
        runtime = import_onnxruntime()
    except BackendError:
        return Availability(False, "onnxruntime is not installed", "pip install onnxruntime-gpu")
    if PROVIDER not in runtime.get_available_providers():
        return Availability(False, f"onnxruntime {runtime.__version__} has no CUDA", _INSTALL)
    try:
        driver().cuInit(0)
        found = call(driver().cuDeviceGetCount)
    except Exception:  # the bindings raise errors of their own where the driver library is not to be found
        found = 0
    if not found:
        return Availability(False, f"onnxruntime {runtime.__version__} has CUDA, and no NVIDIA GPU was found",
                            "install the NVIDIA driver, and pip install 'pano4d[gpu]'")
    return Availability(True, f"onnxruntime {runtime.__version__} on {PROVIDER}")


def _provider_options(described: Network, device: Device) -> dict[str, str]:
    # Memory is taken as it is asked for, not in powers of two.
    chosen = {"user_compute_stream": str(device.stream), "arena_extend_strategy": "kSameAsRequested"}
    if any(spec.dtype != "float16" for spec in described.outputs):
        # Products of float32 are not rounded to TF32. What gives float16 has products of float16 alone, and without TF32
        # onnxruntime would keep their convolutions from tensor cores too.
        chosen["use_tf32"] = "0"
    if device.ordinal:
        # Of a device that is named, 0 too, onnxruntime looks for a plugin first, and prints a warning that there is none.
        chosen["device_id"] = str(device.ordinal)
    return chosen


def _told(error: Exception, what: str, remedy: str) -> BackendError:
    if any(word in str(error).lower() for word in _FULL):
        return DeviceMemoryError()
    return BackendError(f"onnxruntime {what} ({first_line(error)}): {remedy}.")
