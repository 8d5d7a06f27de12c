"""Read SOG (version 2), which `sog` writes; its higher harmonics, which `sog` does not write, are left out."""

import io
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pano4d.lifting.formats.archive import PLAIN_NAME, open_zip, read_zipped
from pano4d.lifting.formats.storage import read_bytes, require_plausible
from pano4d.lifting.gaussians import Gaussians
from pano4d.runtime.errors import InputError

_META_BYTES = 2**20
_PIXELS_BYTES = 20
_FAULTS = (OSError, ValueError, SyntaxError, struct.error, EOFError, Image.DecompressionBombError)


def read_sog(path: Path) -> Gaussians:
    """Read Gaussians from a .sog file.

    Args:
        path: The file.

    Returns:
        The Gaussians, K = 1.

    Raises:
        InputError: The file cannot be read or is no SOG file of version 2.
    """
    return unpack_sog(read_bytes(path), str(path))


def unpack_sog(data: bytes, name: str) -> Gaussians:
    """Read Gaussians from the bytes of a .sog file.

    Args:
        data: The bytes.
        name: What to call them in an error.

    Returns:
        The Gaussians, K = 1.

    Raises:
        InputError: The bytes are not those of an SOG file of version 2.
    """
    with open_zip(data, name, stored=False) as archive:
        if "meta.json" not in archive.NameToInfo or archive.getinfo("meta.json").file_size > _META_BYTES:
            raise InputError(f"{name} holds no meta.json of an SOG file; name one.")
        count, low, high, scale_table, color_table, files = _parse(read_zipped(archive, "meta.json", name), name)
        require_plausible(name, len(data), _PIXELS_BYTES * count)
        rows = [_decode(read_zipped(archive, file, name), count, f"{name}: {file}") for file in files]
    lower, upper, scales, quats, colors = rows
    steps = lower[:, :3].astype(np.uint16) | upper[:, :3].astype(np.uint16) << 8
    logs = low + (high - low) * (steps / 65535.0)
    means = np.sign(logs) * np.expm1(np.abs(logs))
    sizes, sh = np.exp(scale_table[scales[:, :3]]), color_table[colors[:, :3]][:, None]
    return Gaussians(means.astype(np.float32), _unpack_quats(quats), sizes.astype(np.float32),
                     colors[:, 3] / np.float32(255), sh.astype(np.float32))


def _parse(meta: bytes, name: str) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Give the count, ends of the positions, both tables and the names of the pictures."""
    try:
        told = json.loads(meta.decode("utf-8"))
        count = told["count"]
        ends = [_numbers(told["means"][end], 3, 40.0) for end in ("mins", "maxs")]
        tables = [_numbers(told[part]["codebook"], 256, most) for part, most in (("scales", 87.0), ("sh0", 1e6))]
        files = [*_names(told["means"], 2), *(_names(told[part], 1)[0] for part in ("scales", "quats", "sh0"))]
        if told["version"] != 2 or not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{name}: meta.json is not that of an SOG file of version 2; name one.") from error
    return count, *ends, *tables, files


def _numbers(values: Any, count: int, most: float) -> np.ndarray:
    if len(values) != count or not all(type(v) in (int, float) and abs(v) <= most and math.isfinite(v) for v in values):
        raise ValueError
    return np.array(values, np.float64)


def _names(part: dict, count: int) -> list[str]:
    names = part["files"]
    if len(names) != count or not all(isinstance(one, str) and PLAIN_NAME.fullmatch(one) for one in names):
        raise ValueError
    return names


def _decode(data: bytes, count: int, name: str) -> np.ndarray:
    """Read the first pixels of a lossless picture. uint8 [count, 4]."""
    width, height = _size_of(data, name)
    # Before a pixel is unpacked: a uniform picture of a gigabyte takes a few hundred bytes.
    if not count <= width * height <= 2 * count + 2**16:
        raise InputError(f"{name} is {width}x{height} for {count} Gaussians; fetch or write it again.")
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as picture:
            if picture.size != (width, height) or getattr(picture, "n_frames", 1) != 1:
                raise ValueError
            pixels = np.asarray(picture.convert("RGBA"))
    except _FAULTS as error:
        raise InputError(f"{name} is no WebP picture, or damaged; fetch or write it again.") from error
    return pixels.reshape(-1, 4)[:count]


def _size_of(data: bytes, name: str) -> tuple[int, int]:
    """Read width and height from the header of a lossless WebP picture."""
    if len(data) >= 30 and data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        if data[12:16] == b"VP8L" and data[20] == 0x2F:
            both = int.from_bytes(data[21:25], "little")
            return (both & 0x3FFF) + 1, (both >> 14 & 0x3FFF) + 1
        if data[12:16] == b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    raise InputError(f"{name} is no lossless WebP picture; fetch or write it again.")


def _unpack_quats(codes: np.ndarray) -> np.ndarray:
    """Unpack to unit quaternions w x y z. float32 [N, 4]."""
    largest = np.clip(codes[:, 3].astype(np.int64) - 252, 0, 3)
    others = (codes[:, :3] / 127.5 - 1.0) / math.sqrt(2.0)
    quats = np.zeros((len(codes), 4))
    quats[np.arange(4) != largest[:, None]] = others.reshape(-1)
    np.put_along_axis(quats, largest[:, None], np.sqrt(np.maximum(0.0, 1.0 - (others**2).sum(1)))[:, None], 1)
    return (quats / np.maximum(np.linalg.norm(quats, axis=1, keepdims=True), 1e-6)).astype(np.float32)
