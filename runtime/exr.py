"""Read and write OpenEXR pictures with nothing but NumPy and zlib.

Reading covers what renderers write: single-part scan-line files, half, float or uint
channels, without compression or with ZIP or ZIPS. Anything else is named and refused.
Written are halves R, G, B in linear light, with ZIP.
Layout: https://openexr.com/en/latest/OpenEXRFileLayout.html
"""

import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pano4d.runtime.errors import InputError
from pano4d.runtime.files import atomic_file

_MAGIC = b"\x76\x2f\x31\x01"
_TILED, _DEEP, _MULTIPART = 0x200, 0x800, 0x1000
_TYPES = (np.dtype("<u4"), np.dtype("<f2"), np.dtype("<f4"))
_ROWS_PER_BLOCK = {0: 1, 2: 1, 3: 16}
_COMPRESSIONS = ("none", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB")
_COLORS = ("R", "G", "B")
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
    return _open(path, max_pixels, _depth_channel)[..., 0]


def read_exr_picture(path: Path, max_pixels: int) -> np.ndarray:
    """Read the channels R, G and B of an EXR file as a picture of 8 bits.

    Args:
        path: The file.
        max_pixels: Largest picture to read, in pixels.

    Returns:
        sRGB of what is taken for linear light, clipped to 0..1. uint8 [H, W, 3].

    Raises:
        InputError: The file cannot be read, is damaged, too large or of a kind not covered.
    """
    linear = np.nan_to_num(_open(path, max_pixels, _color_channels), nan=0.0)
    return np.rint(255.0 * linear_to_srgb(linear)).astype(np.uint8)


def write_exr_picture(path: str | Path, pixels: np.ndarray) -> None:
    """Write a picture of 8 bits as EXR in linear light, whole or not at all.

    Halves tell all 256 levels apart, so `read_exr_picture` gives the same picture back; there are no more levels than before.

    Args:
        path: The file to write.
        pixels: sRGB. uint8 [H, W, 3].

    Raises:
        OutputError: The file system refuses the write.
    """
    height, width = pixels.shape[:2]
    linear = srgb_to_linear(np.arange(256) / 255.0).astype("<f2")
    rows = _ROWS_PER_BLOCK[3]
    blocks = []
    for y in range(0, height, rows):
        # A row after the other; in each all of B, then all of G, then all of R: the channels by name.
        raw = linear[pixels[y : y + rows, :, ::-1].transpose(0, 2, 1)].tobytes()
        packed = _deflate(raw)
        blocks.append(struct.pack("<iI", y, len(packed)) + packed)
    header = _header(height, width)
    offsets = len(header) + 8 * len(blocks) + np.cumsum([0, *map(len, blocks[:-1])])
    with atomic_file(path) as temporary:
        temporary.write_bytes(b"".join([header, offsets.astype("<u8").tobytes(), *blocks]))


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    """Turn sRGB into linear light (IEC 61966-2-1).

    Args:
        values: 0 to 1.

    Returns:
        0 to 1.

    Raises:
        Nothing.
    """
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(values: np.ndarray) -> np.ndarray:
    """Turn linear light into sRGB (IEC 61966-2-1).

    Args:
        values: Any; clipped to 0 to 1.

    Returns:
        0 to 1.

    Raises:
        Nothing.
    """
    values = np.clip(values, 0.0, 1.0)
    return np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1.0 / 2.4) - 0.055)


def _open(path: Path, max_pixels: int, choose: Callable[[Path, list[str]], Sequence[str]]) -> np.ndarray:
    """Read the channels that are chosen from their names. float32 [H, W, C]."""
    try:
        data = Path(path).read_bytes()
        return _read(path, data, max_pixels, choose)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    except (struct.error, zlib.error, IndexError, ValueError, KeyError) as error:
        raise InputError(f"{path} is a damaged EXR file; save it again, or as NPY.") from error


def _depth_channel(path: Path, names: list[str]) -> Sequence[str]:
    wanted = [name for name in _CHANNELS if name in names] or (names if len(names) == 1 else [])
    if not wanted:
        raise InputError(f"{path} has the channels {', '.join(names)}; name the depth one Z.")
    return wanted[:1]


def _color_channels(path: Path, names: list[str]) -> Sequence[str]:
    if not set(_COLORS) <= set(names):
        raise InputError(f"{path} has the channels {', '.join(names)}; a picture has R, G and B.")
    return _COLORS


def _header(height: int, width: int) -> bytes:
    """Give all that stands before the offsets of the blocks."""
    channels = b"".join(name.encode() + struct.pack("<xI4x2i", 1, 1, 1) for name in sorted(_COLORS)) + b"\0"
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    attributes = {
        "channels": ("chlist", channels), "compression": ("compression", b"\x03"), "dataWindow": ("box2i", window),
        "displayWindow": ("box2i", window), "lineOrder": ("lineOrder", b"\0"),
        "pixelAspectRatio": ("float", struct.pack("<f", 1.0)), "screenWindowCenter": ("v2f", bytes(8)),
        "screenWindowWidth": ("float", struct.pack("<f", 1.0))}
    told = b"".join(f"{name}\0{kind}\0".encode() + struct.pack("<I", len(value)) + value
                    for name, (kind, value) in attributes.items())
    return _MAGIC + struct.pack("<I", 2) + told + b"\0"


def _read(path: Path, data: bytes, max_pixels: int, choose: Callable[[Path, list[str]], Sequence[str]]) -> np.ndarray:
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
    offsets, row_bytes = _channel_layout(path, attributes["channels"], width)
    wanted = [offsets[name] for name in choose(path, list(offsets))]
    return _read_rows(data, position, compression, (height, width), y0, wanted, row_bytes)


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


def _channel_layout(path: Path, table: bytes, width: int) -> tuple[dict[str, tuple[np.dtype, int]], int]:
    """Return each channel's type and its byte offset in a row, and the row's bytes."""
    offsets, position, row_bytes = {}, 0, 0
    while table[position]:
        end = table.index(b"\0", position)
        kind, x_sampling, y_sampling = struct.unpack_from("<I4x2i", table, end + 1)
        if x_sampling != 1 or y_sampling != 1:
            raise InputError(f"{path} has subsampled channels; save them all in full.")
        offsets[table[position:end].decode("latin-1")] = (_TYPES[kind], row_bytes)
        row_bytes += width * _TYPES[kind].itemsize
        position = end + 17
    return offsets, row_bytes


def _read_rows(data: bytes, position: int, compression: int, size: tuple[int, int], first_row: int,
               wanted: list[tuple[np.dtype, int]], row_bytes: int) -> np.ndarray:
    """Decode every block of scan lines and pick the wanted channels out of it."""
    height, width = size
    rows = _ROWS_PER_BLOCK[compression]
    blocks = -(-height // rows)
    picture = np.full((height, width, len(wanted)), np.nan, np.float32)
    for start in struct.unpack_from(f"<{blocks}Q", data, position):
        y, size = struct.unpack_from("<iI", data, start)
        y -= first_row
        count = min(rows, height - y)
        if y < 0 or count < 1:
            raise ValueError("a block lies outside the picture")
        block = _inflate(data[start + 8 : start + 8 + size], count * row_bytes, compression)
        block = block.reshape(count, row_bytes)
        for channel, (dtype, offset) in enumerate(wanted):
            row = np.ascontiguousarray(block[:, offset : offset + width * dtype.itemsize])
            picture[y : y + count, :, channel] = row.view(dtype)
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


def _deflate(raw: bytes) -> bytes:
    """Apply EXR's ZIP: two interleaved halves, then running differences, then deflate."""
    data = np.frombuffer(raw, np.uint8)
    split = np.concatenate([data[0::2], data[1::2]])
    # The differences are modulo 256, and 128 higher.
    split[1:] = np.diff(split) + np.uint8(128)
    packed = zlib.compress(split.tobytes(), 4)
    return packed if len(packed) < len(raw) else raw
