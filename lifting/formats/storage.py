"""Read and write the bytes of a file, and say how much memory they may ask for."""

import os
from pathlib import Path

from pano4d.runtime.errors import InputError

DENSEST = 64
"""Times that compressed Gaussians may grow; those of real scenes grow two to twenty times."""

_SPARE_BYTES = 2**20


def read_bytes(path: Path) -> bytes:
    """Read a file of Gaussians.

    Args:
        path: The file.

    Returns:
        All of it.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); name a file of Gaussians.") from error


def write_bytes(path: Path, *pieces: bytes | memoryview) -> int:
    """Write a file, which appears under its name only when whole.

    Args:
        path: File to write; replaced if it exists.
        *pieces: What to write, one after another.

    Returns:
        Its size in bytes.

    Raises:
        OSError: The file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.part")
    try:
        with open(partial, "wb") as file:
            size = sum(map(file.write, pieces))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return size


def require_plausible(name: str, stored_bytes: int, unpacked_bytes: int) -> None:
    """Refuse a file that claims to hold far more than its size can justify.

    Args:
        name: What to call the file.
        stored_bytes: Its size.
        unpacked_bytes: What its header promises.

    Raises:
        InputError: It promises more than 64 bytes for each of its own.
    """
    if unpacked_bytes > DENSEST * stored_bytes + _SPARE_BYTES:
        raise InputError(f"{name} promises {unpacked_bytes} bytes of Gaussians in {stored_bytes} bytes; that is no "
                         "scene: fetch or write the file again.")
