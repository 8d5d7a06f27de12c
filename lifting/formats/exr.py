"""Read one channel of an OpenEXR picture with nothing but NumPy and zlib.

Covers what renderers write for depth: single-part scan-line files, half, float or uint
channels, without compression or with ZIP or ZIPS. Anything else is named and refused.
Layout: https://openexr.com/en/latest/OpenEXRFileLayout.html
"""

import struct
import zlib
from pathlib import Path

import numpy as np

from pano4d.runtime.errors import InputError

_MAGIC = b"\x76\x2f\x31\x01"
_TILED, _DEEP, _MULTIPART = 0x200, 0x800, 0x1000
_TYPES = (np.dtype("<u4"), np.dtype("<f2"), np.dtype("<f4"))
_ROWS_PER_BLOCK = {0: 1, 2: 1, 3: 16}
_COMPRESSIONS = ("none", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB")
_CHANNELS = ("Z", "depth", "Depth", "depth.Z", "Depth.Z", "distance", "Y", "V", "R")


def read_exr_channel(path: Path, max_pixels: int) -> np.ndarray:
    """Read the depth channel of an EXR file: Z, depth, Y, V or R, or the only one.

    Args:
        path: The file.
        max_pixels: Largest picture to read, in pixels.

    Returns:
        float32 [H, W].

    Raises:
        InputError: The file cannot be read, is damaged, too large or of a kind not covered.
    """
    try:
        data = Path(path).read_bytes()
        return _read(path, data, max_pixels)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    except (struct.error, zlib.error, IndexError, ValueError, KeyError) as error:
        raise InputError(f"{path} is a damaged EXR file; save it again, or as NPY.") from error


def _read(path: Path, data: bytes, max_pixels: int) -> np.ndarray:
    if data[:4] != _MAGIC:
        raise InputError(f"{path} is not an EXR file; give EXR, 16-bit PNG or NPY.")
    if struct.unpack_from("<I", data, 4)[0] & (_TILED | _DEEP | _MULTIPART):
        raise InputError(f"{path} is a tiled, deep or multi-part EXR; save it as scan lines.")
    attributes, position = _read_attributes(data, 8)
    compression = attributes["compression"][0]
    if compression not in _ROWS_PER_BLOCK:
        name = _COMPRESSIONS[compression] if compression < len(_COMPRESSIONS) else compression
        raise InputError(f"{path} uses EXR compression {name}; save it with ZIP or none, or as NPY.")
    x0, y0, x1, y1 = struct.unpack("<4i", attributes["dataWindow"])
    width, height = x1 - x0 + 1, y1 - y0 + 1
    if width < 1 or height < 1 or width * height > max_pixels:
        raise InputError(f"{path} is {width}x{height}; at most {max_pixels} pixels can be read.")
    layout = _channel_layout(path, attributes["channels"], width)
    return _read_rows(data, position, compression, height, y0, layout)


def _read_attributes(data: bytes, position: int) -> tuple[dict[str, bytes], int]:
    """Return the header's attributes and where the offset table starts."""
    attributes = {}
    while data[position]:
        end = data.index(b"\0", position)
        name = data[position:end].decode("latin-1")
        end = data.index(b"\0", end + 1)
        size = struct.unpack_from("<I", data, end + 1)[0]
        position = end + 5 + size
        attributes[name] = data[end + 5 : position]
    return attributes, position + 1


def _channel_layout(path: Path, table: bytes, width: int) -> tuple[np.dtype, int, int, int]:
    """Return the wanted channel's type, its byte offset in a row, the row's bytes, the width."""
    offsets, position, row_bytes = {}, 0, 0
    while table[position]:
        end = table.index(b"\0", position)
        kind, x_sampling, y_sampling = struct.unpack_from("<I4x2i", table, end + 1)
        if x_sampling != 1 or y_sampling != 1:
            raise InputError(f"{path} has subsampled channels; save depth as one full channel.")
        offsets[table[position:end].decode("latin-1")] = (_TYPES[kind], row_bytes)
        row_bytes += width * _TYPES[kind].itemsize
        position = end + 17
    wanted = [n for n in _CHANNELS if n in offsets] or (list(offsets) if len(offsets) == 1 else [])
    if not wanted:
        raise InputError(f"{path} has the channels {', '.join(offsets)}; name the depth one Z.")
    return (*offsets[wanted[0]], row_bytes, width)


def _read_rows(data, position, compression, height, first_row, layout) -> np.ndarray:
    """Decode every block of scan lines and pick the wanted channel out of it."""
    dtype, offset, row_bytes, width = layout
    rows = _ROWS_PER_BLOCK[compression]
    blocks = -(-height // rows)
    picture = np.full((height, width), np.nan, np.float32)
    for start in struct.unpack_from(f"<{blocks}Q", data, position):
        y, size = struct.unpack_from("<iI", data, start)
        y -= first_row
        count = min(rows, height - y)
        if y < 0 or count < 1:
            raise ValueError("a block lies outside the picture")
        block = _inflate(data[start + 8 : start + 8 + size], count * row_bytes, compression)
        block = block.reshape(count, row_bytes)[:, offset : offset + width * dtype.itemsize]
        picture[y : y + count] = np.ascontiguousarray(block).view(dtype)
    return picture


def _inflate(packed: bytes, size: int, compression: int) -> np.ndarray:
    """Undo EXR's ZIP: deflate, then running differences, then two interleaved halves."""
    # Blocks that would not shrink are stored as they are.
    if compression == 0 or len(packed) == size:
        return np.frombuffer(packed, np.uint8, size)
    unpacked = zlib.decompressobj().decompress(packed, size)
    steps = np.frombuffer(unpacked, np.uint8, size).astype(np.int64)
    steps[1:] -= 128
    values = np.cumsum(steps).astype(np.uint8)
    half = (size + 1) // 2
    block = np.empty(size, np.uint8)
    block[0::2], block[1::2] = values[:half], values[half:]
    return block
