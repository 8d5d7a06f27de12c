"""Hand arrays to other libraries and take theirs, without a copy, by DLPack (version 0.8 of its C structures)."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from pano4d.runtime.errors import BackendError

CPU, CUDA = 1, 2
_KINDS = {"i": 0, "u": 1, "f": 2}


class _Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
                ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
                ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
                ("byte_offset", ctypes.c_uint64)]


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]

_python = ctypes.pythonapi
_python.PyCapsule_New.restype = ctypes.py_object
_python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_python.PyCapsule_GetPointer.restype = ctypes.c_void_p
_python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_python.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]
_python.PyCapsule_IsValid.argtypes = [ctypes.py_object, ctypes.c_char_p]
_python.PyCapsule_SetName.restype = _python.PyCapsule_IsValid.restype = ctypes.c_int
_NAME, _USED = b"dltensor", b"used_dltensor"  # capsules point at their names, so these must live as long as they do

_lent: dict[int, tuple] = {}


@_Deleter
def _release(managed: Any) -> None:
    _lent.pop(ctypes.addressof(managed.contents), None)


# The same two functions for a capsule that is being destroyed, of which only the address is left.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _python))
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _python))


@ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
def _drop(capsule: int) -> None:
    if _is_valid(capsule, _NAME):
        _lent.pop(_pointer_of(capsule, _NAME), None)


def lend(pointer: int, shape: tuple[int, ...], dtype: np.dtype, owner: Any, device_id: int, device_type: int = CUDA) -> Any:
    """Make a capsule that keeps the owner alive until its taker is done.

    Args:
        pointer: Address.
        shape: Shape, C order.
        dtype: Integer or floating element type.
        owner: What keeps the memory.
        device_id: Number of the GPU.
        device_type: ``CUDA`` or ``CPU``.

    Returns:
        A PyCapsule named ``dltensor``.

    Raises:
        BackendError: The element type has no place in DLPack.
    """
    if dtype.kind not in _KINDS:
        raise BackendError(f"An array of {dtype} cannot be lent by DLPack: use integers or floating point.")
    sizes = (ctypes.c_int64 * max(1, len(shape)))(*shape)
    tensor = _Tensor(pointer, device_type, device_id, len(shape), _KINDS[dtype.kind], dtype.itemsize * 8, 1, sizes, None, 0)
    managed = _Managed(tensor, None, _release)
    _lent[ctypes.addressof(managed)] = (managed, sizes, owner)
    return _python.PyCapsule_New(ctypes.addressof(managed), _NAME, ctypes.cast(_drop, ctypes.c_void_p))


class _Loan:
    """Give a taken capsule back when the last view of it is gone."""

    def __init__(self, managed: Any) -> None:
        self.managed = managed

    def __del__(self) -> None:
        if self.managed.contents.deleter:
            self.managed.contents.deleter(self.managed)


def take(capsule: Any) -> tuple[int, tuple[int, ...], np.dtype, int, Any]:
    """Take what a capsule describes.

    Args:
        capsule: A PyCapsule named ``dltensor``.

    Returns:
        Address, shape, element type, device type, and what keeps the memory alive.

    Raises:
        BackendError: It was taken before, is not in C order, or holds elements that NumPy has no name for.
    """
    if not _python.PyCapsule_IsValid(capsule, _NAME):
        raise BackendError("A DLPack capsule was given that something else has taken already: pass the array itself.")
    managed = ctypes.cast(_python.PyCapsule_GetPointer(capsule, _NAME), ctypes.POINTER(_Managed))
    tensor = managed.contents.tensor
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    kinds = {code: kind for kind, code in _KINDS.items()}
    if tensor.code not in kinds or tensor.lanes != 1:
        raise BackendError("A DLPack array of a type was given that NumPy has no name for: convert it to float16 or "
                           "float32 first.")
    if tensor.strides and not _c_order(shape, [tensor.strides[i] for i in range(tensor.ndim)]):
        raise BackendError("A DLPack array in C order was needed and one with other strides was given: call contiguous() "
                           "on it.")
    _python.PyCapsule_SetName(capsule, _USED)
    dtype = np.dtype(f"{kinds[tensor.code]}{tensor.bits // 8}")
    return (tensor.data or 0) + tensor.byte_offset, shape, dtype, tensor.device_type, _Loan(managed)


def _c_order(shape: tuple[int, ...], strides: list[int]) -> bool:
    wanted = 1
    for size, stride in zip(reversed(shape), reversed(strides)):
        if size != 1 and stride != wanted:
            return False
        wanted *= size
    return True
