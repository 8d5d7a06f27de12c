"""Every kernel compiles for every architecture, without a GPU; compiled kernels are kept; faults are one sentence."""

import ctypes

import numpy as np
import pytest

from pano4d.runtime.device import DeviceArray
from pano4d.runtime.errors import BackendError
from pano4d.runtime.kernels import compiler

pytest.importorskip("cuda.bindings")

SOURCES = sorted(path.name for path in compiler.FOLDER.glob("*.cu"))
SIZES = {"size": 512, "frames_each": 7, "patch_rows": 8, "together": 2, "threads": 128, "pixels_each": 2, "strip": 4}
ARCHS = ("sm_80", "sm_89", "sm_90", "sm_100", "sm_120")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(compiler.CACHE_VARIABLE, str(tmp_path))
    return tmp_path / "cubins"


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("source", SOURCES)
def test_compiles(source, arch):
    for element, both in ((2, True), (4, False)):
        defined = compiler.definitions(element, guided=both, second_order=both, fuse_samples=both, lay=both, **SIZES)
        assert compiler.compile_cubin(source, arch, defined)[:4] == b"\x7fELF"
    for guided in (True, False):
        mixed = compiler.definitions(guided=guided, next_guided=not guided, kept=guided, reused=not guided,
                                     second_order=True, fuse_samples=True, lay=guided, **SIZES)
        assert compiler.compile_cubin(source, arch, mixed)[:4] == b"\x7fELF"


def test_a_second_process_finds_it_compiled(cache, monkeypatch):
    defined = compiler.definitions(guided=True)
    first = compiler.compile_cubin("prepare.cu", "sm_90", defined)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(compiler, "_compile", lambda *_: pytest.fail("compiled again"))
    assert compiler.compile_cubin("prepare.cu", "sm_90", defined) == first


def test_what_decides_the_result_decides_the_name(cache):
    for arch, more in (("sm_90", {"guided": True}), ("sm_80", {"guided": True}), ("sm_90", {"guided": False})):
        compiler.compile_cubin("prepare.cu", arch, compiler.definitions(**more))
    assert len(list(cache.iterdir())) == 3


def test_a_cache_that_cannot_be_written_is_no_fault(cache):
    cache.write_text("a file where the folder should be")
    assert compiler.compile_cubin("prepare.cu", "sm_90", compiler.definitions(guided=True))


def test_a_kernel_that_does_not_compile_is_one_sentence(cache):
    with pytest.raises(BackendError, match=r"blend.cu does not compile for sm_90 .*error") as caught:
        compiler.compile_cubin("blend.cu", "sm_90", compiler.definitions(guided=True) | {"FEATHER_SHARE": "nonsense"})
    assert "\n" not in str(caught.value) and not cache.exists()


def test_an_unknown_architecture_is_one_sentence():
    with pytest.raises(BackendError, match="sm_10 ") as caught:
        compiler.compile_cubin("blend.cu", "sm_10", compiler.definitions(guided=True))
    assert "\n" not in str(caught.value)


def test_a_python_number_is_not_passed_to_a_kernel():
    with pytest.raises(AssertionError, match="width"):
        compiler.packed([1.0])


def test_arguments_lie_one_after_another_in_their_own_width():
    three = np.array((5, 7, 9), np.dtype([("a", np.int32), ("b", np.int32), ("c", np.int32)]))[()]
    array = DeviceArray(2**40 + 3, (1,), np.dtype("uint8"), None)
    values, pointers = compiler.packed([np.float32(1.5), array, three, np.int64(-2)])
    begin = ctypes.addressof(values)
    assert [pointer - begin for pointer in pointers] == [0, 8, 16, 32]
    assert ctypes.c_float.from_address(pointers[0]).value == 1.5
    assert ctypes.c_uint64.from_address(pointers[1]).value == array.pointer
    assert list((ctypes.c_int32 * 3).from_address(pointers[2])) == [5, 7, 9]
    assert ctypes.c_int64.from_address(pointers[3]).value == -2
