"""Find a smooth correction per tile for what scale and shift leave.

An estimator bends its pictures: errors that change slowly over a tile, and differently in its neighbour. Every tile gets
a few control values in between which the correction g is bilinear; they solve, over places q that tiles i and j see,

    l_i + g_i(q) = l_j + g_j(q)

while neighbouring control values of a tile are held alike, and all of them near 0.
"""

import numpy as np

from pano4d.lifting.align_overlaps import Overlaps, sample_tiles
from pano4d.lifting.least_squares import LEAST_DEVIATION, huber_weights, normal_equations

CONTROL_POINTS = 8
"""Control values along each side of a tile, at most."""

MOST_UNKNOWNS = 2000
STIFFNESS = 1.0
PULL = 0.01
"""Weights of what holds neighbours alike, and of what holds all near 0, over a control value's rows."""

_ROUNDS = 3


def solve_field(tiles: np.ndarray, overlaps: Overlaps, weights: np.ndarray) -> np.ndarray:
    """Find the control values of all tiles together.

    Args:
        tiles: Aligned log distances. float32 [V, s, s].
        overlaps: Places that two tiles see.
        weights: How much each place counts. float64 [K].

    Returns:
        What to add to the tiles, at control points that lie on their corners, borders and evenly between. float64
        [V, g, g]; fewer of them for many tiles.

    Raises:
        Nothing.
    """
    count = len(tiles)
    side = min(CONTROL_POINTS, max(2, int(np.sqrt(MOST_UNKNOWNS / count))))
    first, second = (sample_tiles(tiles, *place).astype(np.float64) for place in overlaps.sides())
    parts = [_hats(number, x, y, side, overlaps.size) for number, x, y in overlaps.sides()]
    columns = np.concatenate([parts[0][0], parts[1][0]], axis=1)
    values = np.concatenate([parts[0][1], -parts[1][1]], axis=1)
    stiff, field = _stiffness(side), np.zeros(count * side * side)
    for _ in range(_ROUNDS):
        residuals = first - second + (values * field[columns]).sum(1)
        w = weights * huber_weights(residuals, LEAST_DEVIATION)
        matrix, vector = normal_equations(columns, values, second - first, w, len(field))
        per_value = w.sum() / len(field)
        blocks = matrix.reshape(count, side * side, count, side * side)
        for v in range(count):
            blocks[v, :, v] += per_value * (STIFFNESS * stiff + PULL * np.eye(side * side))
        field = np.linalg.solve(matrix, vector)
    return field.reshape(count, side, side)


def expand_field(control: np.ndarray, size: int) -> np.ndarray:
    """Interpolate control values over a tile.

    Args:
        control: float64 [g, g].
        size: Side of the tile in pixels.

    Returns:
        float32 [s, s].

    Raises:
        Nothing.
    """
    x, y = np.meshgrid(*[np.arange(size) * (len(control) - 1) / max(size - 1, 1)] * 2)
    return sample_tiles(control[None].astype(np.float32), 0, x, y)


def _hats(number: np.ndarray, x: np.ndarray, y: np.ndarray, side: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """List the four control values around each place: their unknowns, int64 [K, 4], and shares, float64 [K, 4]."""
    x, y = (np.clip(at * (side - 1) / max(size - 1, 1), 0, side - 1) for at in (x, y))
    left, top = (np.minimum(at.astype(np.int64), side - 2) for at in (x, y))
    share_x, share_y = x - left, y - top
    corner = (number * side + top) * side + left
    return (np.stack([corner, corner + 1, corner + side, corner + side + 1], axis=1),
            np.stack([(1 - share_y) * (1 - share_x), (1 - share_y) * share_x, share_y * (1 - share_x),
                      share_y * share_x], axis=1))


def _stiffness(side: int) -> np.ndarray:
    """Sum the squared differences of neighbours, as a matrix [g g, g g]."""
    line = np.diff(np.eye(side), axis=0)
    along = line.T @ line
    return np.kron(along, np.eye(side)) + np.kron(np.eye(side), along)
