"""Talk to an NVIDIA GPU through the driver: context, stream, memory, events. Every return code is checked.

A `Device` makes a stream in the primary context, which it shares with whatever else runs in the process, or takes part
in a caller's: given a ``CUstream`` handle it works on that stream, in the context that is current, and never
synchronises unless asked to. Arrays travel both ways without a copy, by ``__cuda_array_interface__`` and DLPack.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from pano4d.runtime import dlpack
from pano4d.runtime.errors import BackendError, DeviceMemoryError

_DRIVER = "install the NVIDIA driver, and pip install 'pano4d[gpu]'"


def driver() -> ModuleType:
    """Import the bindings of the CUDA driver.

    Returns:
        ``cuda.bindings.driver``.

    Raises:
        BackendError: cuda-python is not installed.
    """
    try:
        from cuda.bindings import driver as bindings
    except ImportError as error:
        raise BackendError("The CUDA runtime needs the package cuda-python, which is not installed: "
                           "pip install 'pano4d[gpu]'.") from error
    return bindings


def call(function: Any, *arguments: Any) -> Any:
    """Call the driver and check what it returns.

    Args:
        function: A function of ``cuda.bindings.driver``.
        *arguments: Its arguments.

    Returns:
        None, its one result, or a tuple of its results.

    Raises:
        BackendError: The driver reports an error; memory that is short gets a remedy of its own.
    """
    code, *results = function(*arguments)
    if int(code) != 0:
        raise _error(function.__name__, code)
    return None if not results else results[0] if len(results) == 1 else tuple(results)


def _error(name: str, code: Any) -> BackendError:
    bindings = driver()
    if code == bindings.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
        return DeviceMemoryError()
    text = bindings.cuGetErrorString(code)[1]
    return BackendError(f"The GPU reports {text.decode() if text else code} ({code.name}) in {name}: run again, and "
                        "if it stays so, check the GPU with nvidia-smi.")


Arrays = dict[str, tuple[tuple[int, ...], str]]
"""Shape and element type of arrays by name; what is planned is what is taken."""


def total_bytes(arrays: Arrays) -> int:
    """Add up the bytes of arrays."""
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in arrays.values())


@dataclass(eq=False)
class DeviceArray:
    """An array in the memory of a GPU, in C order.

    Attributes:
        pointer: Device address.
        shape: Shape.
        dtype: Element type.
        owner: What keeps the memory alive; None once freed.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype
    owner: Any = field(repr=False)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.size * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Describe the array to CuPy, PyTorch, Numba (version 3 of the interface; no stream to wait for)."""
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.pointer, False), "version": 3,
                "strides": None, "stream": None}

    def __dlpack_device__(self) -> tuple[int, int]:
        """Name the kind and number of the device, as DLPack does."""
        return dlpack.CUDA, getattr(self.owner, "ordinal", 0)

    def __dlpack__(self, **_: Any) -> Any:
        """Lend the array as a DLPack capsule. Work on our stream must be done before another stream reads it.

        Raises:
            BackendError: The element type has no place in DLPack.
        """
        return dlpack.lend(self.pointer, self.shape, self.dtype, self, self.__dlpack_device__()[1])

    def __getitem__(self, index: int) -> DeviceArray:
        """View one entry of the first axis; it shares the memory.

        Raises:
            IndexError: There is no such entry.
        """
        if not 0 <= index < self.shape[0]:
            raise IndexError(f"entry {index} of {self.shape[0]}")
        step = self.nbytes // self.shape[0]
        return DeviceArray(self.pointer + index * step, self.shape[1:], self.dtype, self.owner)


def as_device_array(source: Any) -> DeviceArray:
    """View another library's GPU array.

    Args:
        source: A `DeviceArray`, or anything with ``__cuda_array_interface__`` or ``__dlpack__``, in C order.

    Returns:
        A view; it keeps ``source`` alive.

    Raises:
        BackendError: The object is no contiguous GPU array.
    """
    if isinstance(source, DeviceArray):
        return source
    described = getattr(source, "__cuda_array_interface__", None)
    if described is None:
        return _from_dlpack(source)
    shape, dtype = tuple(described["shape"]), np.dtype(described["typestr"])
    strides = described.get("strides")
    if strides is not None and tuple(strides) != _contiguous_strides(shape, dtype):
        raise BackendError("A GPU array in C order was needed and one with other strides was given: call contiguous() "
                           "on it.")
    return DeviceArray(described["data"][0], shape, dtype, source)


def _from_dlpack(source: Any) -> DeviceArray:
    kind = source.__dlpack_device__()[0] if hasattr(source, "__dlpack_device__") else None
    if kind != dlpack.CUDA:
        raise BackendError(f"A GPU array was needed and {type(source).__name__} was given: pass a torch or CuPy tensor "
                           "on the GPU.")
    pointer, shape, dtype, _, loan = dlpack.take(source.__dlpack__())
    return DeviceArray(pointer, shape, dtype, loan)


def _contiguous_strides(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    return tuple(dtype.itemsize * math.prod(shape[i + 1:]) for i in range(len(shape)))


class Device:
    """One GPU, one stream on it, and the memory taken there.

    Args:
        ordinal: Number of the GPU, as nvidia-smi counts; ignored with ``stream``.
        stream: A ``CUstream`` handle of the caller's; its context must be current. None makes a stream of our own in
            the primary context.

    Attributes:
        stream: Handle of the stream.
        arch: Compute capability, such as ``sm_90``.
        ordinal: Number of the GPU.
        name: Name of the GPU.
        allocated_bytes: Memory taken through this object and not freed.

    Raises:
        BackendError: There is no driver or no such GPU.
    """

    def __init__(self, ordinal: int = 0, stream: int | None = None) -> None:
        self._cu = _initialised()
        self._primary, self._own_stream = None, stream is None
        self._blocks: dict[int, int] = {}
        self.allocated_bytes = 0
        if stream is None:
            handle = self._device(ordinal)
            self._context = call(self._cu.cuDevicePrimaryCtxRetain, handle)
            self._primary = handle
            call(self._cu.cuCtxSetCurrent, self._context)
            self.stream = int(call(self._cu.cuStreamCreate, self._cu.CUstream_flags.CU_STREAM_NON_BLOCKING))
        else:
            handle, self.stream = call(self._cu.cuCtxGetDevice), int(stream)
            self._context = call(self._cu.cuCtxGetCurrent)
        self.ordinal = int(handle)
        self.name = call(self._cu.cuDeviceGetName, 100, handle).split(b"\0")[0].decode()
        attribute = self._cu.CUdevice_attribute
        major, minor = (call(self._cu.cuDeviceGetAttribute, one, handle) for one in (
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR))
        self.arch = f"sm_{major}{minor}"

    def _device(self, ordinal: int) -> Any:
        count = call(self._cu.cuDeviceGetCount)
        if not 0 <= ordinal < count:
            raise BackendError(f"GPU {ordinal} was asked for and this machine has {count}: choose another, or run on the "
                               "CPU with a bundle for onnxruntime.")
        return call(self._cu.cuDeviceGet, ordinal)

    def activate(self) -> None:
        """Make the context current in this thread.

        Raises:
            BackendError: The driver refuses.
        """
        call(self._cu.cuCtxSetCurrent, self._context)

    def memory(self) -> tuple[int, int]:
        """Tell free and total memory of the GPU, in bytes.

        Raises:
            BackendError: The driver refuses.
        """
        return call(self._cu.cuMemGetInfo)

    def driver_cuda(self) -> str:
        """Name the newest CUDA that the driver knows, such as 13.0.

        Raises:
            BackendError: The driver refuses.
        """
        version = call(self._cu.cuDriverGetVersion)
        return f"{version // 1000}.{version % 1000 // 10}"

    def empty(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """Take memory, contents unknown.

        Args:
            shape: Shape; no axis may be 0.
            dtype: NumPy element type.

        Returns:
            The array; `free` or `close` gives the memory back.

        Raises:
            BackendError: The GPU has not enough memory.
        """
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        pointer = int(call(self._cu.cuMemAlloc, size))
        self._blocks[pointer] = size
        self.allocated_bytes += size
        return DeviceArray(pointer, tuple(shape), dtype, self)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """Take memory and set it to zero, on the stream. As `empty`."""
        array = self.empty(shape, dtype)
        self.clear(array)
        return array

    def clear(self, array: DeviceArray) -> None:
        """Set an array to zero, on the stream.

        Raises:
            BackendError: The driver refuses.
        """
        call(self._cu.cuMemsetD8Async, array.pointer, 0, array.nbytes, self.stream)

    def upload(self, source: np.ndarray, target: DeviceArray | None = None) -> DeviceArray:
        """Copy to the GPU, on the stream; a source in pageable memory may be changed once this returns.

        Args:
            source: Array of any dtype.
            target: Where to; None takes memory.

        Returns:
            The array on the GPU.

        Raises:
            BackendError: The target differs in size, or the GPU has not enough memory.
        """
        source = np.ascontiguousarray(source)
        target = target or self.empty(source.shape, source.dtype)
        _same_bytes(source.nbytes, target.nbytes)
        call(self._cu.cuMemcpyHtoDAsync, target.pointer, source.ctypes.data, source.nbytes, self.stream)
        return target

    def download(self, source: DeviceArray, target: np.ndarray | None = None) -> np.ndarray:
        """Copy from the GPU and wait for it.

        Args:
            source: Array on the GPU.
            target: Where to, C-contiguous; None makes an array.

        Returns:
            The array.

        Raises:
            BackendError: The target differs in size, or earlier work on the stream failed.
        """
        target = np.empty(source.shape, source.dtype) if target is None else target
        _same_bytes(source.nbytes, target.nbytes)
        call(self._cu.cuMemcpyDtoHAsync, target.ctypes.data, source.pointer, source.nbytes, self.stream)
        self.synchronize()
        return target

    def copy(self, source: DeviceArray, target: DeviceArray, stream: int | None = None) -> None:
        """Copy within the GPU, on the stream or on another one of the same context.

        Raises:
            BackendError: The arrays differ in size.
        """
        _same_bytes(source.nbytes, target.nbytes)
        call(self._cu.cuMemcpyDtoDAsync, target.pointer, source.pointer, source.nbytes,
             self.stream if stream is None else stream)

    def free(self, *arrays: DeviceArray) -> None:
        """Give memory back; arrays taken elsewhere are left alone.

        Raises:
            BackendError: The driver refuses.
        """
        for array in arrays:
            size = self._blocks.pop(array.pointer, None) if array.owner is self else None
            if size is not None:
                self.allocated_bytes -= size
                call(self._cu.cuMemFree, array.pointer)

    def event(self) -> Any:
        """Make an event that can time, and record it on the stream.

        Raises:
            BackendError: The driver refuses.
        """
        event = call(self._cu.cuEventCreate, self._cu.CUevent_flags.CU_EVENT_DEFAULT)
        call(self._cu.cuEventRecord, event, self.stream)
        return event

    def chain(self, first: int, then: int) -> None:
        """Let what a stream is given from now on wait for what another was given so far; the CPU does not wait.

        Raises:
            BackendError: The driver refuses.
        """
        event = call(self._cu.cuEventCreate, self._cu.CUevent_flags.CU_EVENT_DISABLE_TIMING)
        call(self._cu.cuEventRecord, event, first)
        call(self._cu.cuStreamWaitEvent, then, event, 0)
        call(self._cu.cuEventDestroy, event)

    def wait(self, event: Any) -> None:
        """Wait for an event and give it back.

        Raises:
            BackendError: Work before the event failed.
        """
        call(self._cu.cuEventSynchronize, event)
        call(self._cu.cuEventDestroy, event)

    def reached(self, event: Any) -> bool:
        """Tell whether the GPU has come past an event; it stays.

        Raises:
            BackendError: Work before the event failed.
        """
        code, = self._cu.cuEventQuery(event)
        if code == self._cu.CUresult.CUDA_ERROR_NOT_READY:
            return False
        if int(code) != 0:
            raise _error("cuEventQuery", code)
        return True

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """Wait for the second of two events and tell the milliseconds between them; both are used up.

        Raises:
            BackendError: The driver refuses.
        """
        call(self._cu.cuEventSynchronize, end)
        elapsed = float(call(self._cu.cuEventElapsedTime, begin, end))
        for event in (begin, end):
            call(self._cu.cuEventDestroy, event)
        return elapsed

    def synchronize(self) -> None:
        """Wait for the stream.

        Raises:
            BackendError: Work on the stream failed.
        """
        call(self._cu.cuStreamSynchronize, self.stream)

    def settle(self) -> None:
        """Wait for everything that was enqueued in the context, on whatever stream.

        Raises:
            BackendError: Work failed.
        """
        call(self._cu.cuCtxSynchronize)

    def close(self) -> None:
        """Give everything back; a caller's stream and context stay as they are.

        Raises:
            BackendError: The driver refuses.
        """
        if self._context is None:
            return
        self.activate()
        for pointer in list(self._blocks):
            call(self._cu.cuMemFree, pointer)
        self._blocks.clear()
        self.allocated_bytes = 0
        if self._own_stream:
            call(self._cu.cuStreamDestroy, self.stream)
            call(self._cu.cuDevicePrimaryCtxRelease, self._primary)
        self._context = None

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Scope:
    """Take memory that is given back when the block ends, also by an error, but for what is kept.

        with Scope(device) as scope:
            table, tiles = scope.upload(values), scope.empty((12, 3, 64, 64), "float16")
            ...
            scope.keep(tiles)

    Args:
        device: Where.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._taken: list[DeviceArray] = []

    def empty(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """Take memory as `Device.empty` does."""
        self._taken.append(self.device.empty(shape, dtype))
        return self._taken[-1]

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """Take memory as `Device.zeros` does."""
        array = self.empty(shape, dtype)
        self.device.clear(array)
        return array

    def upload(self, source: np.ndarray) -> DeviceArray:
        """Copy to the GPU as `Device.upload` does."""
        return self.device.upload(source, self.empty(source.shape, source.dtype))

    def hold(self, array: DeviceArray) -> DeviceArray:
        """Give an array that was taken elsewhere back with the others."""
        self._taken.append(array)
        return array

    def keep(self, *arrays: DeviceArray) -> None:
        """Leave arrays to the caller; all of them if none is named."""
        self._taken = [array for array in self._taken if arrays and array not in arrays]

    def __enter__(self) -> Scope:
        return self

    def __exit__(self, *_: object) -> None:
        self.device.free(*self._taken)


def _initialised() -> ModuleType:
    bindings = driver()
    try:
        code = bindings.cuInit(0)[0]
    except Exception as error:  # the bindings raise errors of their own where the driver library is not to be found
        raise BackendError(f"No NVIDIA driver was found on this machine: {_DRIVER}.") from error
    if int(code) != 0:
        raise BackendError(f"The NVIDIA driver does not start ({code.name}): {_DRIVER}, and check with nvidia-smi that "
                           "a GPU is seen.")
    return bindings


def _same_bytes(source: int, target: int) -> None:
    if source != target:
        raise BackendError(f"{source} bytes were to be copied into {target}: the arrays must be of one size.")
