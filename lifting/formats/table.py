"""Read and write Gaussians in the format that a file's suffix names."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pano4d.lifting.formats.ply import read_ply, write_ply
from pano4d.lifting.formats.sog import write_sog
from pano4d.lifting.formats.sog_read import read_sog
from pano4d.lifting.formats.splat import read_splat, write_splat
from pano4d.lifting.formats.spz import read_spz, write_spz
from pano4d.lifting.gaussians import Gaussians
from pano4d.runtime.errors import InputError

FORMATS: dict[str, tuple[Callable[[Path], Gaussians], Callable[[Path, Gaussians], int]]] = {
    ".ply": (read_ply, write_ply),
    ".splat": (read_splat, write_splat),
    ".spz": (read_spz, write_spz),
    ".sog": (read_sog, write_sog),
}
CONSTANT_COLOR = (".splat", ".sog")
"""Formats that are written without colour that depends on the direction."""


def read_gaussians(path: str | Path) -> Gaussians:
    """Read Gaussians from a file.

    Args:
        path: A .ply, .splat, .spz or .sog file.

    Returns:
        The Gaussians.

    Raises:
        InputError: There is no such format, or the file cannot be used.
    """
    return _find(Path(path))[0](Path(path))


def write_gaussians(path: str | Path, gaussians: Gaussians) -> int:
    """Write Gaussians to a file.

    Args:
        path: File to write, ending in .ply, .splat, .spz or .sog; replaced if it exists.
        gaussians: N Gaussians.

    Returns:
        Size of the file in bytes.

    Raises:
        InputError: There is no such format, or some numbers are none.
        OSError: The file cannot be written.
    """
    write = _find(Path(path))[1]
    parts = (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.sh)
    bad = sum(~np.isfinite(part.reshape(len(part), -1)).all(1) for part in parts if len(part))
    if np.any(bad) or not (gaussians.scales > 0).all():
        count = np.count_nonzero(bad | ~(gaussians.scales > 0).all(1))
        raise InputError(f"{count} of {len(gaussians)} Gaussians hold numbers that are none, or no size; {path} was not "
                         "written.")
    if not len(gaussians):
        raise InputError(f"There are no Gaussians to write to {path}.")
    return write(Path(path), gaussians)


def require_format(path: Path) -> None:
    """Refuse a file whose suffix names no format.

    Args:
        path: The file.

    Raises:
        InputError: There is no such format.
    """
    _find(path)


def _find(path: Path) -> tuple[Callable[[Path], Gaussians], Callable[[Path, Gaussians], int]]:
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path.name} ends in {suffix or 'nothing'}; Gaussians are read and written as "
                         f"{', '.join(FORMATS)}.")
    return FORMATS[suffix]
