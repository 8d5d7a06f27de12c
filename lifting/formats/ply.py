"""Read and write Gaussians as PLY in the Inria layout, which every viewer opens.

Binary little-endian, one vertex per Gaussian, all properties float32:
x y z, nx ny nz (zero, kept because some viewers insist on them), f_dc_0..2, f_rest_*
(channel by channel), opacity as a logit, scale_0..2 as logarithms, rot_0..3 as w x y z.
Axes are OpenCV's (y down), as in files trained from COLMAP cameras.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pano4d.lifting.formats.storage import read_bytes, write_bytes
from pano4d.lifting.gaussians import Gaussians
from pano4d.runtime.errors import InputError

_LONGEST_HEADER = 64 * 1024
_REST_COUNTS = (0, 9, 24, 45)


def property_names(sh_count: int) -> tuple[str, ...]:
    """List the vertex properties in the order in which they are stored.

    Args:
        sh_count: Number K of spherical harmonics: 1, 4, 9 or 16.

    Returns:
        Names, 17 of them for K = 1.

    Raises:
        Nothing.
    """
    rest = (f"f_rest_{i}" for i in range(3 * (sh_count - 1)))
    return (
        *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"), *rest,
        *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
    )


def to_rows(gaussians: Gaussians) -> np.ndarray:
    """Pack Gaussians into the rows that a PLY file holds.

    Args:
        gaussians: N Gaussians, scales above 0.

    Returns:
        Little-endian float32 [N, 17 + 3 (K - 1)].

    Raises:
        Nothing.
    """
    n, k = gaussians.sh.shape[:2]
    rows = np.zeros((n, 14 + 3 * k), "<f4")
    # An opacity of exactly 0 or 1 has no finite logit.
    opacity = np.clip(gaussians.opacities.astype(np.float64), 1e-6, 1.0 - 1e-6)
    rows[:, 0:3] = gaussians.means
    rows[:, 6:9] = gaussians.sh[:, 0]
    rows[:, 9 : 6 + 3 * k] = gaussians.sh[:, 1:].transpose(0, 2, 1).reshape(n, 3 * k - 3)
    rows[:, 6 + 3 * k] = np.log(opacity / (1.0 - opacity))
    rows[:, 7 + 3 * k : 10 + 3 * k] = np.log(gaussians.scales.astype(np.float64))
    rows[:, 10 + 3 * k : 14 + 3 * k] = gaussians.quats
    return rows


def pack_rows(parts: Iterable[np.ndarray]) -> bytes:
    """Pack rows as one PLY file in memory.

    Args:
        parts: Row arrays of the same width, from ``to_rows``, one after another.

    Returns:
        The bytes of the file.

    Raises:
        Nothing.
    """
    return b"".join(_pieces(parts))


def write_rows(path: Path, parts: Iterable[np.ndarray]) -> int:
    """Write packed rows as one PLY file, which appears under its name only when whole.

    Args:
        path: File to write; replaced if it exists.
        parts: As for `pack_rows`.

    Returns:
        Size of the file in bytes.

    Raises:
        OSError: The file cannot be written.
    """
    return write_bytes(path, *_pieces(parts))


def _pieces(parts: Iterable[np.ndarray]) -> list[bytes | memoryview]:
    """Give the header, and the rows where they lie in memory."""
    parts = [np.ascontiguousarray(p, "<f4") for p in parts]
    names = property_names((parts[0].shape[1] - 14) // 3)
    header = "ply\nformat binary_little_endian 1.0\n"
    header += f"element vertex {sum(map(len, parts))}\n"
    header += "".join(f"property float {name}\n" for name in names) + "end_header\n"
    return [header.encode("ascii"), *(part.data for part in parts)]


def write_ply(path: Path, gaussians: Gaussians) -> int:
    """Write Gaussians to a PLY file.

    Args:
        path: File to write; replaced if it exists.
        gaussians: What to write.

    Returns:
        Size of the file in bytes.

    Raises:
        OSError: The file cannot be written.
    """
    return write_rows(path, [to_rows(gaussians)])


def read_properties(path: Path) -> dict[str, np.ndarray]:
    """Read the vertex properties of a PLY file as they are stored.

    Args:
        path: A binary little-endian PLY file with float properties.

    Returns:
        Property name to values. float32 [N] each.

    Raises:
        InputError: The file cannot be read, is no such PLY file or is cut short.
    """
    return _split(read_bytes(path), str(path))


def _split(data: bytes, path: str) -> dict[str, np.ndarray]:
    """Return the vertex properties of a PLY file's bytes. float32 [N] each."""
    end = data.find(b"end_header\n", 0, _LONGEST_HEADER)
    if not data.startswith(b"ply\n") or end < 0:
        raise InputError(f"{path} is not a PLY file; name one written by 'pano4d lift'.")
    start = end + len(b"end_header\n")
    count, names = _parse_header(path, data[:end].decode("ascii", "replace"))
    needed = 4 * count * len(names)
    if len(data) - start < needed:
        raise InputError(
            f"{path} is cut short: {len(data) - start} bytes of Gaussians where its header "
            f"promises {needed}; write it again with 'pano4d lift'."
        )
    rows = np.frombuffer(data, "<f4", count * len(names), start).reshape(count, len(names))
    return {name: rows[:, i].astype(np.float32) for i, name in enumerate(names)}


def read_ply(path: Path) -> Gaussians:
    """Read Gaussians from a PLY file in the Inria layout.

    Args:
        path: The file. Normals and unknown properties are ignored.

    Returns:
        The Gaussians; quaternions as stored.

    Raises:
        InputError: The file cannot be read or does not hold Gaussians.
    """
    return unpack_ply(read_bytes(path), str(path))


def unpack_ply(data: bytes, path: str) -> Gaussians:
    """Read Gaussians from the bytes of a PLY file in the Inria layout.

    Args:
        data: The bytes.
        path: What to call them in an error.

    Returns:
        The Gaussians; quaternions as stored.

    Raises:
        InputError: The bytes do not hold Gaussians.
    """
    stored = _split(data, path)
    rest_count = sum(name.startswith("f_rest_") for name in stored)
    wanted = set(property_names(1 + rest_count // 3)) - {"nx", "ny", "nz"}
    missing = sorted(wanted - set(stored))
    if missing or rest_count not in _REST_COUNTS:
        raise InputError(
            f"{path} holds no Gaussians in the Inria layout (missing: "
            f"{', '.join(missing) or 'f_rest_*'}); write one with 'pano4d lift'."
        )

    def gather(prefix: str, names: Iterable) -> np.ndarray:
        return np.stack([stored[f"{prefix}{name}"] for name in names], axis=-1)

    sh = gather("f_dc_", range(3))[:, None]
    if rest_count:
        rest = gather("f_rest_", range(rest_count)).reshape(len(sh), 3, -1)
        sh = np.concatenate([sh, rest.transpose(0, 2, 1)], axis=1)
    # A file may hold what is no number, and scales beyond all numbers; they stay what they are.
    with np.errstate(over="ignore", invalid="ignore"):
        opacities = 1.0 / (1.0 + np.exp(-stored["opacity"].astype(np.float64)))
        scales = np.exp(gather("scale_", range(3)).astype(np.float64)).astype(np.float32)
    return Gaussians(gather("", "xyz"), gather("rot_", range(4)), scales, opacities.astype(np.float32), sh)


def _parse_header(path: str, header: str) -> tuple[int, list[str]]:
    """Return the vertex count and property names; refuse layouts other than ours."""
    count, names, element = None, [], None
    for line in header.splitlines()[1:]:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "element" and len(words) == 3 and element is None and words[2].isdigit() \
                and len(words[2]) < 19:
            element, count = words[1], int(words[2])
        elif words[0] == "property" and len(words) == 3 and words[1] in ("float", "float32"):
            names.append(words[2])
        elif words != ["format", "binary_little_endian", "1.0"]:
            raise InputError(
                f"{path} has the header line '{line.strip()[:60]}'; only binary little-endian "
                "PLY with one element of floats can be read."
            )
    if element != "vertex" or not names:
        raise InputError(f"{path} has no vertices; name a PLY file of Gaussians.")
    return count, names
