"""Read and write SPZ: gzip of a header of 16 bytes and one array after another.

Version 3 is written, 2 and 3 are read; version 4 (zstd) is neither. What each number keeps of a Gaussian: `spz_codes`.
Axes are those of the PLY files, OpenCV's, as nearly all viewers take them: they show the numbers as they stand.
"""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pano4d.lifting.formats.spz_codes import Codes, decode, encode, fitting_bits, pack_rotations
from pano4d.lifting.formats.storage import read_bytes, require_plausible, write_bytes
from pano4d.lifting.gaussians import Gaussians
from pano4d.runtime.errors import InputError

_HEADER = struct.Struct("<IIIBBBB")
_MAGIC = 0x5053474E
_REST = (0, 3, 8, 15)


def write_spz(path: Path, gaussians: Gaussians) -> int:
    """Write Gaussians to an SPZ file.

    Args:
        path: File to write; replaced if it exists.
        gaussians: What to write; positions in steps of 2^-12 m, or coarser ones where they are farther than 2 km.

    Returns:
        Size of the file in bytes.

    Raises:
        OSError: The file cannot be written.
    """
    farthest = float(np.abs(gaussians.means).max(initial=0.0))
    return write_bytes(path, compress(to_bytes(encode(gaussians, fitting_bits(farthest)))))


def read_spz(path: Path) -> Gaussians:
    """Read Gaussians from an SPZ file.

    Args:
        path: The file.

    Returns:
        The Gaussians.

    Raises:
        InputError: The file cannot be read or is no SPZ file of version 2 or 3.
    """
    return decode(unpack(read_bytes(path), str(path)))


def to_bytes(codes: Codes) -> bytes:
    """Lay codes out as SPZ 3 does before compression.

    Args:
        codes: Of N Gaussians.

    Returns:
        16 + (20 + 3 (K - 1)) N bytes.

    Raises:
        Nothing.
    """
    header = _HEADER.pack(_MAGIC, 3, len(codes.alphas), _REST.index(codes.sh.shape[1]), codes.bits, 0, 0)
    positions = np.ascontiguousarray(codes.positions, "<i4").view(np.uint8).reshape(-1, 4)[:, :3]
    arrays = (positions, codes.alphas, codes.colors, codes.scales, codes.rotations.astype("<u4"), codes.sh)
    return b"".join([header, *(array.tobytes() for array in arrays)])


def compress(payload: bytes) -> bytes:
    """Compress as gzip, the same bytes for the same payload.

    Args:
        payload: From `to_bytes`.

    Returns:
        A gzip file.

    Raises:
        Nothing.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(payload) + packer.flush()


def decompress(data: bytes, name: str, sizes: Callable[[bytes], int]) -> bytes:
    """Take gzip apart without ever holding more than its header promises.

    Args:
        data: A gzip file.
        name: What to call it in an error.
        sizes: Tells from the first 16 bytes how many there are in all; raises InputError where that is
            more than can be.

    Returns:
        The payload.

    Raises:
        InputError: It is no gzip file, cut short, damaged, or longer than its header says.
    """
    unpacker = zlib.decompressobj(31)
    try:
        head = unpacker.decompress(data, _HEADER.size)
        while len(head) < _HEADER.size and unpacker.unconsumed_tail:
            head += unpacker.decompress(unpacker.unconsumed_tail, _HEADER.size - len(head))
        if len(head) < _HEADER.size:
            raise InputError(f"{name} is cut short in its header; fetch or write it again.")
        wanted = sizes(head)
        body = [head]
        left = wanted - len(head)
        while left > 0 and unpacker.unconsumed_tail:
            body.append(unpacker.decompress(unpacker.unconsumed_tail, left))
            if not body[-1]:
                break
            left -= len(body[-1])
        more = unpacker.decompress(unpacker.unconsumed_tail, 1) if not unpacker.eof else b""
    except zlib.error as error:
        raise InputError(f"{name} is damaged, or not compressed with gzip; fetch or write it again.") from error
    if left > 0 or not (unpacker.eof or more):
        raise InputError(f"{name} is cut short: {max(left, 0)} of {wanted} bytes are missing; fetch or write it again.")
    if more or unpacker.unused_data:
        raise InputError(f"{name} is longer than its header says; fetch or write it again.")
    return b"".join(body)


def unpack(data: bytes, name: str) -> Codes:
    """Read the codes from the bytes of an SPZ file.

    Args:
        data: All of the file.
        name: What to call it in an error.

    Returns:
        The codes; rotations of version 2 in those of version 3.

    Raises:
        InputError: The bytes are not those of an SPZ file of version 2 or 3.
    """
    if data[:4] == b"NGSP":
        raise InputError(f"{name} is SPZ version 4; versions 2 and 3 can be read: write it as version 3.")

    def size_of(head: bytes) -> int:
        wanted = _parse(head, name)[-1]
        require_plausible(name, len(data), wanted)
        return wanted

    payload = decompress(data, name, size_of)
    count, version, degree, bits, _ = _parse(payload[: _HEADER.size], name)
    ends = np.cumsum([_HEADER.size, 9 * count, count, 3 * count, 3 * count, (4 if version == 3 else 3) * count])
    raw = np.frombuffer(payload, np.uint8)
    positions, alphas, colors, scales, rotations = (raw[a:b] for a, b in zip(ends, ends[1:]))
    wide = np.zeros((count, 3, 4), np.uint8)
    wide[:, :, 1:] = positions.reshape(count, 3, 3)
    rotations = rotations.view("<u4") if version == 3 else _rotations_of_2(rotations.reshape(count, 3))
    return Codes(bits, wide.view("<i4")[..., 0] >> 8, alphas, colors.reshape(count, 3), scales.reshape(count, 3),
                 rotations.astype(np.uint32), raw[ends[-1] :].reshape(count, _REST[degree], 3))


def _parse(head: bytes, name: str) -> tuple[int, int, int, int, int]:
    """Give count, version, degree, bits and the size of the payload."""
    magic, version, count, degree, bits, _, _ = _HEADER.unpack(head)
    if magic != _MAGIC or version not in (2, 3) or degree > 3 or bits > 23:
        raise InputError(f"{name} is no SPZ file of version 2 or 3; name one.")
    return count, version, degree, bits, _HEADER.size + count * ((20 if version == 3 else 19) + 3 * _REST[degree])


def _rotations_of_2(stored: np.ndarray) -> np.ndarray:
    """Pack rotations of version 2, x y z in 8 bits each, as version 3 does. uint32 [N]."""
    xyz = stored.astype(np.float64) / 127.5 - 1.0
    w = np.sqrt(np.maximum(0.0, 1.0 - (xyz * xyz).sum(1, keepdims=True)))
    return pack_rotations(np.concatenate([w, xyz], 1))
