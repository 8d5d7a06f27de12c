"""Compile kernels with NVRTC when they are first needed, keep the result on disk, and launch them.

A cubin is kept under the hash of everything that decides it: source, header, definitions, architecture, compiler.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pano4d.runtime import tiles
from pano4d.runtime.device import Device, DeviceArray, call, driver
from pano4d.runtime.errors import BackendError, OutputError
from pano4d.runtime.files import atomic_file

FOLDER = Path(__file__).parent
HEADERS = ("common.cuh", "patch.cuh")
CACHE_VARIABLE = "PANO4D_CACHE"
THREADS = 128
"""Threads of a block, where a kernel has one for each element."""


def blocks(count: int) -> int:
    """Count the blocks of ``THREADS`` that have a thread for each of so many elements."""
    return -(-count // THREADS)


def pixels_each(size: int) -> int:
    """Count the neighbouring pixels of a tile that a thread reads together: two where every row begins with a pair."""
    return 2 - size % 2


def definitions(element_bytes: int = 2, **more: int | bool) -> dict[str, str]:
    """Give what every kernel is compiled with, and more.

    Args:
        element_bytes: 2 for engines that speak float16, 4 for float32.
        **more: Further definitions, such as ``guided=True``; names become upper case.

    Returns:
        Macro names and values.
    """
    values = {"ELEMENT_BYTES": str(element_bytes), "FEATHER_SHARE": f"{tiles.FEATHER_SHARE!r}f",
              "LOWEST_WEIGHT": f"{tiles.LOWEST_WEIGHT!r}f"}
    return values | {name.upper(): str(int(value)) for name, value in more.items()}


def compile_cubin(source: str, arch: str, defined: dict[str, str]) -> bytes:
    """Compile a kernel file, or find it compiled.

    Args:
        source: File name in this folder, such as ``blend.cu``.
        arch: ``sm_90`` and so on.
        defined: Macros.

    Returns:
        The cubin.

    Raises:
        BackendError: NVRTC is missing, does not know the architecture, or finds an error in the source.
    """
    nvrtc = _nvrtc()
    text = (FOLDER / source).read_bytes()
    headers = [(FOLDER / name).read_bytes() for name in HEADERS]
    options = [f"--gpu-architecture={arch}", "--std=c++17", "--fmad=true",
               *(f"-D{name}={value}" for name, value in sorted(defined.items()))]
    version = _nvrtc_call(nvrtc.nvrtcVersion)
    key = hashlib.sha256(repr((source, text, headers, options, version)).encode()).hexdigest()
    kept = cache_folder() / f"{key}.cubin"
    if kept.is_file() and (cubin := kept.read_bytes()):
        return cubin
    cubin = _compile(nvrtc, source, text, headers, options)
    # A cache that cannot be written costs time, nothing else.
    with contextlib.suppress(OSError, OutputError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(kept) as temporary:
            temporary.write_bytes(cubin)
    return cubin


def cache_folder() -> Path:
    """Give the folder for compiled kernels: PANO4D_CACHE, else the user's cache folder."""
    home = os.environ.get(CACHE_VARIABLE) or os.environ.get("XDG_CACHE_HOME")
    base = Path(home) if home else Path.home() / ".cache"
    return (base if os.environ.get(CACHE_VARIABLE) else base / "pano4d") / "cubins"


@dataclass(frozen=True)
class Kernel:
    """A loaded kernel.

    Attributes:
        device: Where it is loaded.
        handle: The driver's function.
        name: Its name.
    """

    device: Device
    handle: Any
    name: str

    def __call__(self, grid: tuple[int, ...], threads: int, *arguments: DeviceArray | np.generic,
                 early: bool = False) -> None:
        """Enqueue on the device's stream.

        Args:
            grid: Number of blocks, up to three axes.
            threads: Threads of a block.
            *arguments: Device arrays, and NumPy scalars of the width that the kernel declares.
            early: Whether it may begin while the kernel before it still runs, which says ``follow()``; it says ``wait()``
                before it reads what that one writes. From sm_90 on; before, it begins afterwards.

        Raises:
            BackendError: The driver refuses.
        """
        values, pointers = packed(arguments)
        cuda, blocks = driver(), (*grid, 1, 1)[:3]
        if early and int(self.device.arch.removeprefix("sm_")) >= 90:
            config, attribute = cuda.CUlaunchConfig(), cuda.CUlaunchAttribute()
            config.gridDimX, config.gridDimY, config.gridDimZ = blocks
            config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
            config.hStream = self.device.stream
            attribute.id = cuda.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            attribute.value.programmaticStreamSerializationAllowed = 1
            config.attrs, config.numAttrs = [attribute], 1
            call(cuda.cuLaunchKernelEx, config, self.handle, ctypes.addressof(pointers), 0)
        else:
            call(cuda.cuLaunchKernel, self.handle, *blocks, threads, 1, 1, 0, self.device.stream,
                 ctypes.addressof(pointers), 0)
        del values  # the driver has copied them


def load_kernels(device: Device, source: str, names: tuple[str, ...], defined: dict[str, str]) -> tuple[Kernel, ...]:
    """Load kernels of one file.

    Args:
        device: Where to.
        source: File name in this folder.
        names: Names of the kernels.
        defined: Macros.

    Returns:
        The kernels, in the order of the names. The module stays loaded as long as the context.

    Raises:
        BackendError: It does not compile or load.
    """
    device.activate()
    module = call(driver().cuModuleLoadData, compile_cubin(source, device.arch, defined))
    return tuple(Kernel(device, call(driver().cuModuleGetFunction, module, name.encode()), name) for name in names)


def packed(arguments: Sequence[DeviceArray | np.generic]) -> tuple[ctypes.Array, ctypes.Array]:
    """Lay arguments of a kernel out in memory.

    Args:
        arguments: As `Kernel` takes them.

    Returns:
        Their bytes, each at a multiple of eight, and their addresses; the first must live as long as the second.
    """
    values, offsets, at = [], [], 0
    for argument in arguments:
        if isinstance(argument, DeviceArray):
            value = int(argument.pointer).to_bytes(8, sys.byteorder)
        else:
            # A Python number would be passed in a width of its own, and arrive as nonsense.
            assert isinstance(argument, np.generic), f"{argument!r} has no fixed width"
            value = argument.tobytes()
            value += bytes(-len(value) % 8)
        values.append(value)
        offsets.append(at)
        at += len(value)
    buffer = ctypes.create_string_buffer(b"".join(values), at)
    begin = ctypes.addressof(buffer)
    return buffer, (ctypes.c_void_p * len(offsets))(*[begin + offset for offset in offsets])


@lru_cache(maxsize=1)
def _nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except Exception as error:  # the bindings raise errors of their own where the library is not to be found
        raise BackendError("The CUDA kernels are compiled by NVRTC, which was not found: "
                           "pip install 'pano4d[gpu]'.") from error
    return nvrtc


def _nvrtc_call(function: Any, *arguments: Any) -> Any:
    code, *results = function(*arguments)
    if int(code) != 0:
        raise BackendError(f"NVRTC reports {code.name} in {function.__name__}: pip install --upgrade 'pano4d[gpu]'.")
    return None if not results else results[0] if len(results) == 1 else tuple(results)


def _compile(nvrtc: Any, source: str, text: bytes, headers: list[bytes], options: list[str]) -> bytes:
    names = [name.encode() for name in HEADERS]
    program = _nvrtc_call(nvrtc.nvrtcCreateProgram, text, source.encode(), len(headers), headers, names)
    try:
        code = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])[0]
        if int(code) != 0:
            log = bytearray(_nvrtc_call(nvrtc.nvrtcGetProgramLogSize, program))
            nvrtc.nvrtcGetProgramLog(program, log)
            lines = log.decode(errors="replace").strip("\0\n ").splitlines() or [code.name]
            raise BackendError(f"The kernel {source} does not compile for {options[0].split('=')[1]} ({lines[0]}): "
                               "pip install --upgrade 'pano4d[gpu]'.")
        cubin = bytearray(_nvrtc_call(nvrtc.nvrtcGetCUBINSize, program))
        _nvrtc_call(nvrtc.nvrtcGetCUBIN, program, cubin)
        return bytes(cubin)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
