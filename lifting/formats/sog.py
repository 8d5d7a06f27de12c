"""Write SOG (version 2): a zip of lossless WebP pictures and meta.json, the smallest form of one frame.

A Gaussian is a pixel of each picture. Positions: 16 bits between the ends of sign(x) ln(1 + |x|); rotations: three
components of 8 bits and the name of the fourth; logarithms of scales, and colours, as 8 bits into a table of 256
numbers, here evenly spaced; opacity: 8 bits. Of the harmonics the constant one is written. Gaussians are put in
another order, along a curve.
"""

import io
import json
import math
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from pano4d.lifting.formats.storage import write_bytes
from pano4d.lifting.gaussians import Gaussians, take
from pano4d.lifting.ordering import curve_order

LEVELS = 256
MOST_SIDE = 16383
"""Pixels that a WebP picture may be wide or high."""


def write_sog(path: Path, gaussians: Gaussians) -> int:
    """Write Gaussians to a .sog file.

    Args:
        path: File to write; replaced if it exists.
        gaussians: N Gaussians, N > 0, scales above 0.

    Returns:
        Size of the file in bytes.

    Raises:
        OSError: The file cannot be written.
        ValueError: There are no Gaussians, or more than a picture has pixels.
    """
    return write_bytes(path, pack_sog(gaussians))


def pack_sog(gaussians: Gaussians) -> bytes:
    """Make the bytes of a .sog file.

    Args:
        gaussians: N Gaussians, N > 0, scales above 0.

    Returns:
        The bytes, the same for the same Gaussians.

    Raises:
        ValueError: There are no Gaussians, or more than a picture has pixels.
    """
    width, height = _size(len(gaussians))
    gaussians = take(gaussians, curve_order(gaussians.means))
    logs = np.sign(gaussians.means) * np.log1p(np.abs(gaussians.means.astype(np.float64)))
    low, high = logs.min(0), logs.max(0)
    means = np.rint((logs - low) / np.maximum(high - low, 1e-12) * 65535.0).astype(np.uint16)
    scale_table, scales = _tabulate(np.log(gaussians.scales.astype(np.float64)))
    color_table, colors = _tabulate(gaussians.sh[:, 0].astype(np.float64))
    opacities = np.rint(np.clip(gaussians.opacities, 0.0, 1.0) * 255.0)[:, None].astype(np.uint8)
    meta = {"version": 2, "asset": {"generator": "pano4d"}, "count": len(gaussians), "antialias": False,
            "means": {"mins": low.tolist(), "maxs": high.tolist(), "files": ["means_l.webp", "means_u.webp"]},
            "scales": {"codebook": scale_table.tolist(), "files": ["scales.webp"]}, "quats": {"files": ["quats.webp"]},
            "sh0": {"codebook": color_table.tolist(), "files": ["sh0.webp"]}}
    pictures = {"means_l.webp": (means & 255).astype(np.uint8), "means_u.webp": (means >> 8).astype(np.uint8),
                "quats.webp": _pack_quats(gaussians.quats), "scales.webp": scales,
                "sh0.webp": np.concatenate([colors, opacities], 1)}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("meta.json"), json.dumps(meta))
        for name, rows in pictures.items():
            archive.writestr(zipfile.ZipInfo(name), _encode(rows, width, height))
    return packed.getvalue()


def _size(count: int) -> tuple[int, int]:
    """Choose width and height of the pictures: near a square, multiples of 4."""
    width = 4 * math.ceil(math.sqrt(count) / 4)
    height = 4 * math.ceil(count / max(width, 1) / 4)
    if not 0 < width <= MOST_SIDE:
        raise ValueError(f"a .sog file holds 1 to {(MOST_SIDE // 4 * 4) ** 2} Gaussians, not {count}")
    return width, height


def _tabulate(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Put values on 256 even levels. The levels, and uint8 of the values' shape."""
    low, high = values.min(), values.max()
    step = max((high - low) / (LEVELS - 1), 1e-12)
    return low + step * np.arange(LEVELS), np.rint((values - low) / step).astype(np.uint8)


def _pack_quats(quats: np.ndarray) -> np.ndarray:
    """Name the largest of w x y z and store the others. uint8 [N, 4]."""
    norms = np.linalg.norm(quats.astype(np.float64), axis=1, keepdims=True)
    quats = np.where(norms > 1e-12, quats / np.maximum(norms, 1e-12), [1.0, 0.0, 0.0, 0.0])
    largest = np.abs(quats).argmax(1)
    quats = np.where(np.take_along_axis(quats, largest[:, None], 1) < 0, -quats, quats)
    others = quats[np.arange(4) != largest[:, None]].reshape(-1, 3)
    codes = np.clip(np.rint((others * math.sqrt(2.0) + 1.0) * 127.5), 0, 255)
    return np.concatenate([codes, 252 + largest[:, None]], 1).astype(np.uint8)


def _encode(rows: np.ndarray, width: int, height: int) -> bytes:
    """Lay rows of 3 or 4 bytes out as a picture."""
    pixels = np.zeros((height * width, 4), np.uint8)
    pixels[:, 3] = 255
    pixels[: len(rows), : rows.shape[1]] = rows
    picture = io.BytesIO()
    # "exact" keeps the colour of pixels whose opacity is 0.
    Image.fromarray(pixels.reshape(height, width, 4)).save(picture, "WEBP", lossless=True, exact=True, method=4)
    return picture.getvalue()
