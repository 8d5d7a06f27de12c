"""Read and write ``.splat``: 32 bytes a Gaussian, no header, no colour that depends on the direction.

Each row: position float32 x 3, scale float32 x 3 (linear), colour and opacity uint8 x 4, rotation uint8 x 4 (w x y z,
128 is 0). Little endian. Colours keep to half a grey level, opacity to 1/510, components of a quaternion to 1/254.
"""

from pathlib import Path

import numpy as np

from pano4d.lifting.formats.storage import read_bytes, write_bytes
from pano4d.lifting.gaussians import Gaussians, colors_to_sh, sh_to_colors
from pano4d.runtime.errors import InputError

_ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])


def write_splat(path: Path, gaussians: Gaussians) -> int:
    """Write Gaussians to a .splat file; of the harmonics the constant one.

    Args:
        path: File to write; replaced if it exists.
        gaussians: N Gaussians.

    Returns:
        Size of the file in bytes, 32 N.

    Raises:
        OSError: The file cannot be written.
    """
    rows = np.zeros(len(gaussians), _ROW)
    rows["mean"], rows["scale"] = gaussians.means, gaussians.scales
    rgba = np.concatenate([sh_to_colors(gaussians.sh), gaussians.opacities[:, None]], 1)
    rows["rgba"] = np.rint(255.0 * np.clip(rgba, 0.0, 1.0))
    norms = np.maximum(np.linalg.norm(gaussians.quats, axis=1, keepdims=True), 1e-20)
    rows["quat"] = np.clip(np.rint(128.0 + 127.0 * gaussians.quats / norms), 0, 255)
    return write_bytes(path, rows.tobytes())


def read_splat(path: Path) -> Gaussians:
    """Read Gaussians from a .splat file.

    Args:
        path: The file.

    Returns:
        The Gaussians; quaternions of unit length.

    Raises:
        InputError: The file cannot be read or is no such file.
    """
    return unpack_splat(read_bytes(path), str(path))


def unpack_splat(data: bytes, name: str) -> Gaussians:
    """Read Gaussians from the bytes of a .splat file.

    Args:
        data: The bytes.
        name: What to call them in an error.

    Returns:
        The Gaussians.

    Raises:
        InputError: The bytes are not those of such a file.
    """
    if len(data) % _ROW.itemsize:
        raise InputError(f"{name} has {len(data)} bytes, and a .splat file has 32 for each Gaussian: it is cut short, or "
                         "something else.")
    rows = np.frombuffer(data, _ROW)
    numbers = np.concatenate([rows["mean"], rows["scale"]], 1)
    if not np.isfinite(numbers).all() or (rows["scale"] < 0).any():
        raise InputError(f"{name} holds positions or scales that are no numbers; it is damaged, or no .splat file.")
    rgba, quats = rows["rgba"] / np.float32(255), rows["quat"] / np.float32(127) - np.float32(128 / 127)
    norms = np.linalg.norm(quats, axis=1, keepdims=True)
    quats = np.where(norms > 1e-6, quats / np.maximum(norms, 1e-6), np.float32([1, 0, 0, 0]))
    return Gaussians(rows["mean"].astype(np.float32), quats.astype(np.float32), rows["scale"].astype(np.float32),
                     rgba[:, 3].astype(np.float32), colors_to_sh(rgba[:, :3]))
