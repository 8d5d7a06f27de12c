"""A stand-in for a GPU: the kernels' own source, compiled as C++ and run as loops over NumPy memory."""

import ctypes
import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np

from pano4d.runtime.device import DeviceArray
from pano4d.runtime.errors import DeviceMemoryError
from pano4d.runtime.kernels import compiler

HERE = Path(__file__).parent


class HostDevice:
    """Offer of `Device` what launchers use; it refuses memory after `left` more arrays, if that is set."""

    stream, arch, name = 0, "host", "host"

    def __init__(self):
        self.blocks, self.sizes, self.peak_bytes, self.left = {}, {}, 0, None

    @property
    def allocated_bytes(self):
        return sum(self.sizes[pointer] for pointer in self.blocks)

    def empty(self, shape, dtype):
        assert all(shape), shape
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise DeviceMemoryError
        memory = np.empty(int(np.prod(shape)) + 1, dtype)
        memory.view(np.uint8)[:] = 0xAB  # what nothing writes shows
        self.blocks[memory.ctypes.data] = memory
        self.sizes[memory.ctypes.data] = int(np.prod(shape)) * memory.itemsize
        self.peak_bytes = max(self.peak_bytes, self.allocated_bytes)
        return DeviceArray(memory.ctypes.data, tuple(shape), np.dtype(dtype), self)

    def zeros(self, shape, dtype):
        array = self.empty(shape, dtype)
        self.clear(array)
        return array

    def clear(self, array):
        ctypes.memset(array.pointer, 0, array.nbytes)

    def upload(self, source, target=None):
        source = np.ascontiguousarray(source)
        target = target or self.empty(source.shape, source.dtype)
        assert source.nbytes == target.nbytes
        ctypes.memmove(target.pointer, source.ctypes.data, source.nbytes)
        return target

    def download(self, source, target=None):
        target = np.empty(source.shape, source.dtype) if target is None else target
        assert source.nbytes == target.nbytes
        ctypes.memmove(target.ctypes.data, source.pointer, source.nbytes)
        return target

    def copy(self, source, target):
        assert source.nbytes == target.nbytes
        ctypes.memmove(target.pointer, source.pointer, source.nbytes)

    def free(self, *arrays):
        for array in arrays:
            self.blocks.pop(array.pointer, None)

    def synchronize(self):
        pass

    def event(self):
        return None

    def wait(self, event):
        pass


class HostKernel:
    """Call a compiled kernel as `compiler.Kernel` does."""

    def __init__(self, function):
        self.function = function

    def __call__(self, grid, threads, *arguments, early=False):
        values, pointers = compiler.packed(arguments)
        self.function((ctypes.c_int * 3)(*(*grid, 1, 1)[:3]), ctypes.c_int(threads), pointers)
        del values


def host_kernels(folder: Path):
    """Make a `load_kernels` that compiles with the C++ compiler into a folder; None where there is none."""
    found = shutil.which("g++") or shutil.which("c++")

    def load(device, source, names, defined):
        text = f'#include "{compiler.FOLDER / source}"\n' + "".join(
            f'extern "C" void host_{name}(const int* grid, int threads, void** args) '
            f"{{ launch({name}, grid, threads, args); }}\n" for name in names)
        options = [f"-D{key}={value}" for key, value in defined.items()]
        if "__syncthreads" in (compiler.FOLDER / source).read_text():
            options.append("-DBARRIERS")
        stem = folder / hashlib.sha256(repr((text, options)).encode()).hexdigest()[:16]
        if not stem.with_suffix(".so").exists():
            stem.with_suffix(".cpp").write_text(text)
            subprocess.run([found, "-O2", "-std=c++17", "-w", "-shared", "-fPIC", "-DPANO4D_ON_HOST", f"-I{HERE}",
                            f"-I{compiler.FOLDER}", *options, str(stem.with_suffix(".cpp")), "-o",
                            str(stem.with_suffix(".so"))], check=True)
        library = ctypes.CDLL(str(stem.with_suffix(".so")))
        return tuple(HostKernel(getattr(library, f"host_{name}")) for name in names)

    return load if found else None
