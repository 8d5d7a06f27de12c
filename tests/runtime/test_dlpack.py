"""DLPack both ways, with NumPy as the other side."""

import gc

import numpy as np
import pytest

from pano4d.runtime import dlpack
from pano4d.runtime.errors import BackendError


class Lender:
    """An array of ours as another library sees it."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return dlpack.CPU, 0

    def __dlpack__(self, **_):
        return dlpack.lend(self.array.ctypes.data, self.array.shape, self.array.dtype, self.array, 0, dlpack.CPU)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int32", "int64"])
def test_numpy_reads_what_is_lent(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    seen = np.from_dlpack(Lender(array))
    assert seen.dtype == array.dtype and (seen == array).all() and seen.ctypes.data == array.ctypes.data


def test_the_owner_lives_as_long_as_the_loan():
    before = len(dlpack._lent)
    seen = np.from_dlpack(Lender(np.full((5,), 7.0)))
    gc.collect()
    assert len(dlpack._lent) == before + 1 and (seen == 7).all()
    del seen
    gc.collect()
    assert len(dlpack._lent) == before


def test_a_loan_that_nobody_takes_ends_with_its_capsule():
    before = len(dlpack._lent)
    capsule = Lender(np.zeros(3)).__dlpack__()
    assert len(dlpack._lent) == before + 1
    del capsule
    assert len(dlpack._lent) == before


def test_what_numpy_lends_is_taken_once():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    capsule = array.__dlpack__()
    pointer, shape, dtype, device, loan = dlpack.take(capsule)
    assert (pointer, shape, dtype, device) == (array.ctypes.data, (2, 3), np.float32, dlpack.CPU)
    with pytest.raises(BackendError, match="taken already"):
        dlpack.take(capsule)
    del loan


def test_other_strides_and_types_are_refused():
    with pytest.raises(BackendError, match="C order"):
        dlpack.take(np.zeros((3, 4), np.float32).T.__dlpack__())
    with pytest.raises(BackendError, match="complex"):
        dlpack.lend(0, (1,), np.dtype("complex64"), None, 0)
    with pytest.raises(BackendError, match="no name for"):
        dlpack.take(np.zeros(3, np.complex64).__dlpack__())
