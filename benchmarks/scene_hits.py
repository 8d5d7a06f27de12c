"""Intersect many rays with many solids.

Rays are float32 [3, N] and start at one point [3, 1] or each at its own [3, N]; solids are P rows of arrays. Each ray is
first moved to where it passes a solid's centre: only small numbers are squared then, and wires stay exact far away.
"""

from dataclasses import dataclass

import numpy as np
import torch

from pano4d.benchmarks.scene_shapes import BALL, BOX, LEAF, ROD, Solids

_NEAR = 1e-4
_PAIRS = {"cpu": 1 << 15, "cuda": 1 << 26}


@dataclass(frozen=True)
class SolidTables:
    """Keep solids on a device.

    Attributes:
        solids: The same for NumPy.
        centers: float32 [P, 3].
        rotations: float32 [P, 3, 3].
        sizes: float32 [P, 3].
        paints: int64 [P].
        kinds: int64 [P].
    """

    solids: Solids
    centers: torch.Tensor
    rotations: torch.Tensor
    sizes: torch.Tensor
    paints: torch.Tensor
    kinds: torch.Tensor


def tables(solids: Solids, device: torch.device | str) -> SolidTables:
    """Move solids to a device.

    Args:
        solids: What stands in a world.
        device: Where to.

    Returns:
        The same as tensors.

    Raises:
        RuntimeError: The device is not there.
    """
    floats = [torch.from_numpy(a).to(device, torch.float32) for a in (solids.centers, solids.rotations, solids.sizes)]
    return SolidTables(solids, *floats, *(torch.from_numpy(a).to(device) for a in (solids.paints, solids.kinds)))


def first_hits(held: SolidTables, chosen: np.ndarray, origin: torch.Tensor,
               directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the first solid on each ray.

    Args:
        held: Solids.
        chosen: Which of them may be met. bool [P].
        origin: float32 [3, 1] or [3, N].
        directions: Unit vectors. float32 [3, N].

    Returns:
        Distance, infinite where nothing is met, float32 [N]; number of the solid, int64 [N].

    Raises:
        RuntimeError: The shapes do not fit.
    """
    count = directions.shape[1]
    best = torch.full((count,), torch.inf, device=directions.device)
    number = torch.zeros(count, dtype=torch.int64, device=directions.device)
    step = max(1, _PAIRS[directions.device.type] // max(count, 1))
    for kind, meet in _MEETS.items():
        rows = np.flatnonzero(chosen & (held.solids.kinds == kind))
        for start in range(0, len(rows), step):
            some = torch.from_numpy(rows[start:start + step]).to(directions.device)
            t, row = _recentred(held, some, origin, directions, meet).min(0)
            nearer = t < best
            best, number = torch.where(nearer, t, best), torch.where(nearer, some[row], number)
    return best, number


def to_local(rotations: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Turn vectors into the axes of solids.

    Args:
        rotations: One a vector, or one a row of vectors. float32 [..., 3, 3].
        vectors: float32 [3, ...].

    Returns:
        float32 [3, ...]. Multiplied out, since matrix products may run in fewer bits.

    Raises:
        RuntimeError: The shapes do not fit.
    """
    x, y, z = vectors
    return torch.stack([rotations[..., 0, j] * x + rotations[..., 1, j] * y + rotations[..., 2, j] * z for j in range(3)])


def _recentred(held, some, origin, directions, meet):
    """Return distances [P, N] along rays to solids of one kind."""
    rotations, centers, size = held.rotations[some, None], held.centers[some], held.sizes[some].T[:, :, None]
    d = to_local(rotations, directions[:, None])
    o = to_local(rotations, origin[:, None] - centers.T[:, :, None])
    middle = -(o * d).sum(0)
    t = middle + meet(o + middle * d, d, size)
    return torch.where(t > _NEAR, t, torch.inf)


def _meet_boxes(o, d, size):
    """Slabs: the last entry, if it comes before the first exit."""
    inverse = 1 / torch.where(d.abs() < 1e-9, torch.full_like(d, 1e-9), d)
    middle, reach = -o * inverse, size * inverse.abs()
    near, far = (middle - reach).amax(0), (middle + reach).amin(0)
    return torch.where(near <= far, near, torch.inf)


def _meet_balls(o, d, size):
    """A unit ball in stretched space."""
    o, d = o / size, d / size
    square = (d * d).sum(0)
    middle = -(o * d).sum(0) / square
    closest = o + middle * d
    half = (1 - (closest * closest).sum(0)) / square
    return torch.where(half >= 0, middle - half.clamp_min(0).sqrt(), torch.inf)


def _meet_rods(o, d, size):
    """A cone around y, cut at both ends, with lids."""
    (ox, oy, oz), (dx, dy, dz), (low, half, high) = o, d, size
    grow = (high - low) / (2 * half)
    radius = (low + high) / 2 + grow * oy
    flat, lean = dx * dx + dz * dz, grow * dy
    square = flat - lean * lean
    square = torch.where(square.abs() < 1e-12, torch.full_like(square, 1e-12), square)
    along, cross = ox * dx + oz * dz, ox * dz - oz * dx
    # The textbook's b*b - a*c with the large terms cancelled by hand.
    inside = flat * radius * radius - 2 * along * radius * lean + (ox * ox + oz * oz) * lean * lean - cross * cross
    root = inside.clamp_min(0).sqrt()
    best = torch.full_like(square, torch.inf)
    for t in ((radius * lean - along - root) / square, (radius * lean - along + root) / square):
        fits = (inside >= 0) & ((oy + t * dy).abs() <= half) & (radius + t * lean >= 0)
        best = torch.where(fits, torch.minimum(best, t), best)
    for lid, edge in ((-half, low), (half, high)):
        t = (lid - oy) / torch.where(dy.abs() < 1e-9, torch.full_like(dy, 1e-9), dy)
        x, z = ox + t * dx, oz + t * dz
        best = torch.where(x * x + z * z <= edge * edge, torch.minimum(best, t), best)
    return best


def _meet_leaves(o, d, size):
    """A flat lens: |x| / a <= 1 - (y / b)²."""
    t = -o[2] / torch.where(d[2].abs() < 1e-9, torch.full_like(d[2], 1e-9), d[2])
    x, y = (o[0] + t * d[0]) / size[0], (o[1] + t * d[1]) / size[1]
    return torch.where(x.abs() <= 1 - y * y, t, torch.inf)


_MEETS = {BOX: _meet_boxes, BALL: _meet_balls, ROD: _meet_rods, LEAF: _meet_leaves}
