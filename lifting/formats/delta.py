"""Store Gaussians as what their SPZ codes differ by from those of a keyframe. Laid out in docs/p4d.md; loses nothing."""

import struct
from dataclasses import replace

import numpy as np

from pano4d.lifting.formats.spz import compress, decompress
from pano4d.lifting.formats.spz_codes import Codes
from pano4d.runtime.errors import InputError

_HEADER = struct.Struct("<4sIII")
_MAGIC = b"P4DD"
_WIDTHS = {"positions": 3, "alphas": 1, "colors": 1, "scales": 1, "rotations": 4, "sh": 1}


def fits(codes: Codes, keyframe: Codes) -> bool:
    """Tell whether a delta between two frames can be written.

    Args:
        codes: Of the frame.
        keyframe: Of the other one.

    Returns:
        Whether they have as many Gaussians, harmonics and fractional bits.

    Raises:
        Nothing.
    """
    return codes.bits == keyframe.bits and codes.sh.shape == keyframe.sh.shape


def pack_delta(codes: Codes, keyframe: Codes) -> bytes:
    """Write a delta.

    Args:
        codes: Of N Gaussians.
        keyframe: Of the same Gaussians in the keyframe; `fits`.

    Returns:
        The bytes of a .delta file.

    Raises:
        Nothing.
    """
    parts = [_HEADER.pack(_MAGIC, 1, len(codes.alphas), _payload_bytes(codes) - _HEADER.size)]
    for name, width in _WIDTHS.items():
        apart = getattr(codes, name).astype(np.int64) - getattr(keyframe, name).astype(np.int64)
        parts += [((apart >> 8 * i) & 255).astype(np.uint8).tobytes() for i in range(width)]
    return compress(b"".join(parts))


def unpack_delta(data: bytes, keyframe: Codes, name: str) -> Codes:
    """Read a delta.

    Args:
        data: The bytes of a .delta file.
        keyframe: Codes of the keyframe.
        name: What to call the file in an error.

    Returns:
        The codes of the frame.

    Raises:
        InputError: The bytes are no delta of this keyframe.
    """
    total = _payload_bytes(keyframe)

    def size_of(head: bytes) -> int:
        if _HEADER.unpack(head) != (_MAGIC, 1, len(keyframe.alphas), total - _HEADER.size):
            raise InputError(f"{name} is no delta of its keyframe; fetch or write the scene again.")
        return total

    raw, start, read = np.frombuffer(decompress(data, name, size_of), np.uint8), _HEADER.size, {}
    for part, width in _WIDTHS.items():
        base = getattr(keyframe, part)
        apart = np.zeros(base.size, np.int64)
        for i in range(width):
            apart += raw[start : start + base.size].astype(np.int64) << 8 * i
            start += base.size
        # Back into the range of the code: positions have a sign, the others none.
        lowest = -(2**23) if part == "positions" else 0
        total_code = base.astype(np.int64) + apart.reshape(base.shape)
        read[part] = ((total_code - lowest) % 2 ** (8 * width) + lowest).astype(base.dtype)
    return replace(keyframe, **read)


def _payload_bytes(codes: Codes) -> int:
    return _HEADER.size + sum(width * getattr(codes, name).size for name, width in _WIDTHS.items())
