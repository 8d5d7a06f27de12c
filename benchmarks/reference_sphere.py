"""Give the sphere of the original 4K4DGen (arXiv 2406.13527): its 20 views, and how they are fused.

The original scatters 56 million points over the sphere. A point takes the values of its two nearest view pixels, a
target (view pixel or panorama pixel) those of its two nearest points, both weighted by 1 / distance. Both maps are
linear and fixed, so they are composed here once: a target is a weighted sum of four view pixels. Only points that some
target asks for are ever made, and nothing is searched on the CPU: the same numbers for far less work.

Axes are those of ``runtime.sphere``. In the original's, x is forward, y left and z up.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pano4d.runtime.sphere import directions_to_lonlat, rotation

TAN_HALF_FOV = 1.5 * (3 - math.sqrt(5))  # 1.5 times the circle round a face of the icosahedron
_FACE_LATITUDES_DEG = (52.62263186, 10.81231696)
_ROLL_BACK = math.atan(2 / (1 + math.sqrt(5)))  # 31.717 degrees: from a vertex at the pole to an edge
_GOLDEN_RATIO, _GOLDEN_ANGLE = (1 + math.sqrt(5)) / 2, math.pi * (3 - math.sqrt(5))
_POLAR_HEIGHT = 0.8
_REACH = 6  # cells to each side: those of the sparse lattice are 3.2 times as wide, and at the border both count
_CAP = 128  # points round the lattice's axis: out to 6 cells
_WINDOW = 4  # view pixels round a projection, each way
_CHUNK = 4096  # targets at a time: temporaries of 60 MiB each


@dataclass(frozen=True)
class Fusion:
    """Sum four view pixels into each target.

    Attributes:
        sources: Flat view pixels (view, row, column). int64 [N, 4].
        weights: Their shares, which add up to 1. float32 [N, 4].
    """

    sources: torch.Tensor
    weights: torch.Tensor

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Fuse.

        Args:
            values: Any floating dtype, on the device of the operator. [P, F].

        Returns:
            [N, F], summed in float32, in the dtype of ``values``.

        Raises:
            IndexError: There are fewer values than the views have pixels.
        """
        total = self.weights[:, :1] * values[self.sources[:, 0]]
        for k in range(1, 4):
            total += self.weights[:, k:k + 1] * values[self.sources[:, k]]
        return total.to(values.dtype)


def view_rotations() -> np.ndarray:
    """Give the camera-to-world rotation of the 20 views, most of which are rolled.

    The views are the faces of an icosahedron that stands on a vertex, upright, and are then all rolled about the
    panorama's centre, with their content, until it stands on an edge.

    Returns:
        float64 [20, 3, 3].

    Raises:
        ValueError: Never.
    """
    cos, sin = math.cos(_ROLL_BACK), -math.sin(_ROLL_BACK)
    roll = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    rings = [(lat, 54.0) for lat in _FACE_LATITUDES_DEG] + [(-lat, 18.0) for lat in reversed(_FACE_LATITUDES_DEG)]
    return np.stack([roll @ rotation(first + 72.0 * k, lat) for lat, first in rings for k in range(5)])


def view_directions(size: int) -> np.ndarray:
    """Give the direction of every view pixel.

    Args:
        size: Side of a view, s.

    Returns:
        Unit vectors, float64 [20, s, s, 3].

    Raises:
        ValueError: The size is negative.
    """
    axis = (np.arange(size) + 0.5 - size / 2) * (2 * TAN_HALF_FOV / size)
    x, y = np.meshgrid(axis, axis)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    return np.einsum("vij,yxj->vyxi", view_rotations(), rays)


def view_grid(size: int) -> torch.Tensor:
    """Say where view pixels look up the panorama, in the coordinates of ``grid_sample``.

    Args:
        size: Side of a view, s.

    Returns:
        Column and row in -1..1, float32 [20, s, s, 2].

    Raises:
        ValueError: The size is negative.
    """
    lon, lat = directions_to_lonlat(view_directions(size))
    return torch.from_numpy(np.stack([lon / np.pi, -2 * lat / np.pi], axis=-1)).float()


def sample_views(panorama: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Sample views bilinearly from a panorama, as the original does: no wrap at the seam, coordinates in its dtype.

    Args:
        panorama: [C, H, W].
        grid: What ``view_grid`` gives, on the same device. [V, s, s, 2].

    Returns:
        [V, C, s, s].

    Raises:
        RuntimeError: The shapes or devices do not fit.
    """
    panoramas = panorama[None].expand(len(grid), -1, -1, -1)
    return nn.functional.grid_sample(panoramas, grid.to(panorama.dtype), mode="bilinear", padding_mode="border",
                                     align_corners=False)


def lattice_points(indices: torch.Tensor, count: int) -> torch.Tensor:
    """Place points of a Fibonacci lattice, whose axis points to the left.

    Args:
        indices: Numbers of the points, int64 [...].
        count: How many points the lattice has.

    Returns:
        Unit vectors, float64 [..., 3].

    Raises:
        ZeroDivisionError: The lattice has one point.
    """
    left = 1 - indices.double() * (2 / (count - 1))
    radius, angle = (1 - left * left).clamp_min(0).sqrt(), indices.double() * _GOLDEN_ANGLE
    return torch.stack([-left, -radius * angle.sin(), radius * angle.cos()], dim=-1)


def is_kept(points: torch.Tensor, dense: bool) -> torch.Tensor:
    """Say which points of the dense lattice (near the poles) or of the sparse one (elsewhere) the original keeps.

    Args:
        points: Unit vectors [..., 3].
        dense: Whether they are points of the dense lattice.

    Returns:
        bool [...].

    Raises:
        IndexError: The points have no axes.
    """
    polar = points[..., 1].abs() >= _POLAR_HEIGHT
    return polar if dense else ~polar


def nearest_points(targets: torch.Tensor, lattice: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the two lattice points nearest to each target.

    Args:
        targets: Unit vectors, float64 [N, 3].
        lattice: Number of points of the dense and of the sparse lattice, before each is cut to its zone.

    Returns:
        The points, float64 [N, 2, 3], and their shares by 1 / distance, float64 [N, 2].

    Raises:
        RuntimeError: Memory for a chunk's candidates is short.
    """
    points, distances = [], []
    for count, dense in zip(lattice, (True, False)):
        indices = _lattice_candidates(targets, count)
        found = lattice_points(indices, count)
        usable = (indices >= 0) & (indices < count) & is_kept(found, dense)
        usable[:, 1:] &= indices[:, 1:] != indices[:, :-1]
        distances.append((found - targets[:, None]).norm(dim=-1).masked_fill(~usable, math.inf))
        points.append(found)
    nearest, at = torch.cat(distances, dim=1).topk(2, dim=1, largest=False)
    return torch.cat(points, dim=1).gather(1, at[..., None].expand(-1, -1, 3)), _inverse_shares(nearest)


def _lattice_candidates(targets: torch.Tensor, count: int) -> torch.Tensor:
    """Number the points round each target, ascending, with doubles and numbers beyond the lattice. int64 [N, K].

    On the cylinder round its axis the lattice is a plane lattice, of which two steps by neighbouring Fibonacci numbers
    are a short basis, the numbers depending on the latitude (Keinert et al. 2015, "Spherical Fibonacci Mapping"). Round
    the axis itself the cylinder tells little, and the first or last points are all tried.
    """
    left, angle = -targets[:, 0], torch.atan2(-targets[:, 1], targets[:, 2])
    start = ((1 - left) * ((count - 1) / 2)).round()
    order = (count * math.pi * math.sqrt(5) * (1 - left * left)).clamp_min(1).log() / math.log(_GOLDEN_RATIO**2)
    order = order.floor().clamp_min(2)
    # Rows of steps: to the nearest lattice node in coordinates of the basis, then to all nodes round it.
    steps = torch.stack([(_GOLDEN_RATIO ** (order + k) / math.sqrt(5)).round() for k in (0, 1)], dim=-1)
    turns, drops = _wrapped(steps * _GOLDEN_ANGLE), steps * (-2 / (count - 1))
    turn, drop = _wrapped(angle - start * _GOLDEN_ANGLE), left - (1 - start * (2 / (count - 1)))
    determinant = turns[:, 0] * drops[:, 1] - turns[:, 1] * drops[:, 0]
    first = ((turn * drops[:, 1] - drop * turns[:, 1]) / determinant).round()
    second = ((drop * turns[:, 0] - turn * drops[:, 0]) / determinant).round()
    centre = start + first * steps[:, 0] + second * steps[:, 1]
    reach = torch.arange(-_REACH, _REACH + 1, device=targets.device)
    around = (steps[:, 0, None, None] * reach[:, None] + steps[:, 1, None, None] * reach).flatten(1)
    cap = torch.arange(_CAP, device=targets.device) + torch.where(left > 0, 0, count - _CAP)[:, None]
    return torch.cat([(centre[:, None] + around).long(), cap], dim=1).sort(dim=1).values


def _wrapped(angle: torch.Tensor) -> torch.Tensor:
    return angle - 2 * math.pi * (angle / (2 * math.pi)).round()


def _inverse_shares(distances: torch.Tensor) -> torch.Tensor:
    """Turn distances [..., 2] into shares; the original divides by 0 where a point is hit exactly."""
    inverse = 1 / distances.clamp_min(1e-30)
    return inverse / inverse.sum(-1, keepdim=True)


def nearest_pixels(points: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the two view pixels nearest to each point, in any views.

    In every view the pixels round the point's projection are candidates; where it falls beside the view, those at its
    border. A pixel further off is never among the nearest two, since every direction is well inside two views.

    Args:
        points: Unit vectors, float64 [M, 3].
        size: Side of a view, s; at least 4.

    Returns:
        Flat view pixels (view, row, column), int64 [M, 2], and their shares by 1 / distance, float64 [M, 2].

    Raises:
        RuntimeError: Memory for a chunk's candidates is short.
    """
    rotations = torch.from_numpy(view_rotations()).to(points.device)
    camera = torch.einsum("mi,vij->mvj", points, rotations)
    focal, front = size / 2 / TAN_HALF_FOV, camera[..., 2:] > 0.1
    projected = camera[..., :2] / camera[..., 2:].masked_fill(~front, 1.0) * focal + (size / 2 - 0.5)
    corner = (projected.floor() - (_WINDOW / 2 - 1)).clamp(0, size - _WINDOW)
    window = torch.arange(_WINDOW, device=points.device)
    column, row = (corner[..., :1] + window)[:, :, None, :], (corner[..., 1:] + window)[:, :, :, None]
    x, y = (column + (0.5 - size / 2)) / focal, (row + (0.5 - size / 2)) / focal
    rays = torch.stack(torch.broadcast_tensors(x, y, torch.ones((), dtype=x.dtype, device=x.device)), dim=-1)
    rays = rays / rays.norm(dim=-1, keepdim=True)
    distances = (rays - camera[:, :, None, None]).norm(dim=-1).masked_fill(~front[..., None], math.inf)
    nearest, at = distances.flatten(1).topk(2, dim=1, largest=False)
    view = torch.arange(len(rotations), device=points.device)[:, None, None]
    pixels = ((view * size + row.long()) * size + column.long()).flatten(1)
    return pixels.gather(1, at), _inverse_shares(nearest)


def fusion(targets: torch.Tensor, lattice: tuple[int, int], size: int) -> Fusion:
    """Compose both maps of the original: from view pixels to lattice points, from these to targets.

    Args:
        targets: Unit vectors on the device to work on, float64 [N, 3].
        lattice: Number of points of the dense and of the sparse lattice, before each is cut to its zone.
        size: Side of a view; at least 4.

    Returns:
        The operator, on the device of the targets.

    Raises:
        RuntimeError: Memory for a chunk's candidates is short.
    """
    sources, weights = [], []
    for chunk in targets.split(_CHUNK):
        points, outer = nearest_points(chunk, lattice)
        pixels, inner = nearest_pixels(points.flatten(0, 1), size)
        sources.append(pixels.reshape(-1, 4))
        weights.append((outer[..., None] * inner.reshape(-1, 2, 2)).reshape(-1, 4).float())
    return Fusion(torch.cat(sources), torch.cat(weights))
