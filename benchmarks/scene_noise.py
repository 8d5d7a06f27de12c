"""Make noise out of integer arithmetic: the same numbers on every device, and no state.

Value noise: each corner of a lattice of cubes has a number, hashed from its integer coordinates; between corners it is
interpolated smoothly. A sum of octaves gives textures whose spectrum falls like that of photographs. Octaves that a
pixel could not resolve are left out, so that pictures do not flicker with distance.
"""

import numpy as np
import torch

_AXES = (374761393, 668265263, 1274126177)
_SEED, _MIX = 362437, 1103515245


def draw(seed: int, count: int) -> np.ndarray:
    """Draw numbers for a layout.

    Args:
        seed: Which sequence.
        count: How many numbers N.

    Returns:
        Evenly spread over 0 to 1. float64 [N].

    Raises:
        ValueError: The count is negative.
    """
    state = np.arange(count, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(seed) * np.uint64(97531)
    for _ in range(2):
        state = (state ^ (state >> np.uint64(15))) * np.uint64(2246822519) & np.uint64(0xFFFFFFFF)
    return (state ^ (state >> np.uint64(16))).astype(np.float64) / 2.0**32


def hash_cells(x: torch.Tensor, y: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
    """Give each cell of a plane a number.

    Args:
        x: Columns, whole numbers of any dtype. [N]
        y: Rows. [N]
        seed: Which numbers. int32 [N].

    Returns:
        0 to 1. float32 [N].

    Raises:
        RuntimeError: The shapes do not fit.
    """
    return _finish(x.int() * _AXES[0] ^ y.int() * _AXES[1] ^ seed * _SEED)


def value_noise(points: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
    """Interpolate hashed numbers between the points with whole coordinates.

    Args:
        points: float32 [3, ..., N].
        seed: Which noise. int32 [N].

    Returns:
        -1 to 1. float32 [..., N].

    Raises:
        RuntimeError: The shapes do not fit.
    """
    corner = points.floor()
    x, y, z = (points - corner).unbind(0)
    x, y, z = (share * share * (3 - 2 * share) for share in (x, y, z))
    left, top, front = (whole * prime for whole, prime in zip(corner.int().unbind(0), _AXES, strict=True))
    right, bottom, back = left + _AXES[0], top + _AXES[1], front + _AXES[2]
    front, back = front ^ seed * _SEED, back ^ seed * _SEED
    planes = []
    for depth in (front, back):
        rows = [torch.lerp(_finish(left ^ row), _finish(right ^ row), x) for row in (top ^ depth, bottom ^ depth)]
        planes.append(torch.lerp(rows[0], rows[1], y))
    return torch.lerp(planes[0], planes[1], z).mul_(2).sub_(1)


def octaves(points: torch.Tensor, wavelength: torch.Tensor, footprint: torch.Tensor, seed: torch.Tensor,
            count: int = 8, gain: float = 0.72) -> torch.Tensor:
    """Add up noise of wavelengths that halve from one to the next.

    Args:
        points: Metres. float32 [3, N].
        wavelength: Longest wavelength, metres. float32 [N].
        footprint: Side of a pixel on the surface, metres; shorter wavelengths fade out. float32 [N].
        seed: Which noise. int32 [N].
        count: How many octaves.
        gain: Amplitude of an octave over that of the one before, which is twice as long.

    Returns:
        About -1.5 to 1.5, mean 0; the first octave alone spans -1 to 1. float32 [N].

    Raises:
        RuntimeError: The shapes do not fit.
    """
    level = torch.arange(count, device=points.device)[:, None]
    lengths = wavelength * 0.5**level
    # Each octave is turned and moved, or their lattices would show.
    turned = torch.stack([points[0] + 0.37 * points[2], points[1] - 0.29 * points[0], points[2] + 0.31 * points[1]])
    noise = value_noise(turned[:, None] / lengths + 17.3 * level, seed)
    return (noise * gain**level * (lengths / footprint - 1).clamp(0, 1)).sum(0)


def _finish(mixed: torch.Tensor) -> torch.Tensor:
    """Turn mixed bits, int32, into 0..1."""
    mixed = (mixed ^ (mixed >> 15)) * _MIX
    mixed = (mixed ^ (mixed >> 13)) * _AXES[0]
    return ((mixed >> 8) & 0xFFFF).float().mul_(1 / 65535)
