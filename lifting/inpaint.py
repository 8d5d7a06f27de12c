"""Continue what lies behind near things: from the steps of a nearness map inwards."""

import numpy as np

from pano4d.lifting.edges import STEP, shift
from pano4d.runtime.sphere import pixel_lonlat

_ALIKE = 1.25
_ROUNDS = 40


def spread_behind(nearness: np.ndarray, steps: list[tuple[np.ndarray, np.ndarray]], offset: float) -> np.ndarray:
    """Say which far pixel continues behind each pixel that a viewer's step aside uncovers.

    A step by ``offset`` moves a thing by offset * nearness radians at most: it uncovers
    a band of offset * (near - far) behind the edge of what is near.

    Args:
        nearness: One over metres. float32 [H, W].
        steps: Pixels on the near and on the far side of steps. Pairs of int32 [E].
        offset: How far the viewer steps aside, metres.

    Returns:
        The far side's pixel; -1 where nothing is uncovered. int32 [H, W].

    Raises:
        Nothing.
    """
    flat, (height, width) = nearness.reshape(-1), nearness.shape
    left = np.full(flat.size, -1.0, np.float32)
    source = np.full(flat.size, -1, np.int32)
    for near, far in steps:
        band = offset * (flat[near] - flat[far])
        better = band > left[near]
        left[near[better]], source[near[better]] = band[better], far[better]
    front = np.flatnonzero(source >= 0)
    moves = _moves(height, width)
    for _ in range(2 * height):
        if not len(front):
            break
        fresh = []
        for axis_steps, lengths in moves:
            there = front
            for axis, count in axis_steps:
                there = shift(there, count, axis, nearness.shape)
            rest = left[front] - lengths[front // width]
            behind = source[front]
            better = (rest > np.maximum(left[there], 0.0)) & (flat[there] > (1.0 + STEP) * flat[behind])
            better &= there != front
            there = there[better]
            left[there], source[there] = rest[better], behind[better]
            fresh.append(there)
        front = np.unique(np.concatenate(fresh))
    return source.reshape(height, width)


def diffuse(values: np.ndarray, nearness: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Smooth what was spread: each pixel becomes the mean of its neighbours on its own surface.

    Args:
        values: What to smooth. float32 [H, W, C].
        nearness: Of the surface behind, one over metres. float32 [H, W].
        inside: Pixels that may change; the others are given. bool [H, W].

    Returns:
        float32 [H, W, C].

    Raises:
        Nothing.
    """
    flat, depth = values.reshape(-1, values.shape[2]).copy(), nearness.reshape(-1)
    pixels = np.flatnonzero(inside)
    around = [shift(pixels, count, axis, nearness.shape) for axis in (0, 1) for count in (-1, 1)]
    alike = [np.maximum(depth[n], depth[pixels]) < _ALIKE * np.minimum(depth[n], depth[pixels]) for n in around]
    total = 1.0 + sum(a.astype(np.float32) for a in alike)
    for _ in range(_ROUNDS):
        mean = flat[pixels]
        for neighbour, same in zip(around, alike):
            mean += flat[neighbour] * same[:, None]
        flat[pixels] = mean / total[:, None]
    return flat.reshape(values.shape)


def mean_alike(values: np.ndarray, nearness: np.ndarray, pixels: np.ndarray, reach: int) -> np.ndarray:
    """Average what is around pixels on their own surface.

    Args:
        values: float32 [H, W, C].
        nearness: One over metres. float32 [H, W].
        pixels: Flat places. int [N].
        reach: Half the side of the square that counts, pixels.

    Returns:
        float32 [N, C].

    Raises:
        Nothing.
    """
    flat, depth = values.reshape(-1, values.shape[2]), nearness.reshape(-1)
    total, count = np.zeros((len(pixels), values.shape[2]), np.float32), np.zeros(len(pixels), np.float32)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            there = shift(shift(pixels, down, 0, nearness.shape), right, 1, nearness.shape)
            alike = np.maximum(depth[there], depth[pixels]) < _ALIKE * np.minimum(depth[there], depth[pixels])
            total += flat[there] * alike[:, None]
            count += alike
    return total / count[:, None]


def _moves(height: int, width: int) -> list:
    """Return steps to the eight neighbours and their lengths in each row, radians."""
    _, lat = pixel_lonlat(height, width)
    across = (2.0 * np.pi / width * np.cos(lat)).astype(np.float32)
    up = np.full(height, np.pi / height, np.float32)
    moves = [([(axis, count)], (up, across)[axis]) for axis in (0, 1) for count in (-1, 1)]
    slanted = np.hypot(up, across)
    return moves + [([(0, i), (1, j)], slanted) for i in (-1, 1) for j in (-1, 1)]
