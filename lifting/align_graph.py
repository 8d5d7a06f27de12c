"""Find the scale, or the scale and shift, of every tile from what overlapping tiles say of the same places.

With l the logarithm of a tile's distance, scales s solve

    l_i + s_i = l_j + s_j

and with p a disparity, known up to scale and shift, and c the cosine between a ray and the tile's axis where p is of
depth along the axis (1 where it is of distance along the ray), a and b solve

    a_i p_i c_i + b_i c_i = a_j p_j c_j + b_j c_j

relative to disparity: rows are divided by it, as of the round before. The common scale is free in both. The common shift
is free where disparity is of rays; of depth along the axis it is told by the overlaps, since c differs. Where they do not
tell, the farthest places are taken to be as much farther than the near ones as the caller says.
"""

import numpy as np

from pano4d.lifting.align_overlaps import Overlaps, sample_tiles
from pano4d.lifting.least_squares import LEAST_DEVIATION, huber_weights, normal_equations

_ROUNDS = 10
_RIDGE = 1e-7
_FAR_WEIGHT = 2e-4
"""Weight of the farthest places' distance, as a share of all rows."""

_FLOOR = 0.05
"""Least disparity that rows are divided by, over that of near places."""

_NEAR, _FAR = (0.7, 0.8), 0.01
"""Near places are those between these quantiles of disparity, the farthest those below that one. Half of a scene may be
sky: the middle would tell nothing."""


def solve_scales(tiles: np.ndarray, overlaps: Overlaps, weights: np.ndarray) -> np.ndarray:
    """Find what to add to each tile's log distance.

    Args:
        tiles: Log of distance along the ray. float32 [V, s, s].
        overlaps: Places that two tiles see.
        weights: How much each place counts. float64 [K].

    Returns:
        Logarithms of scales, their mean 0. float64 [V].

    Raises:
        Nothing.
    """
    count = len(tiles)
    first, second = (sample_tiles(tiles, *side).astype(np.float64) for side in overlaps.sides())
    columns = np.stack([overlaps.first, overlaps.second], axis=1)
    values = np.tile([1.0, -1.0], (len(columns), 1))
    shifts = np.zeros(count)
    for _ in range(_ROUNDS):
        residuals = first - second + shifts[overlaps.first] - shifts[overlaps.second]
        w = weights * huber_weights(residuals, LEAST_DEVIATION)
        matrix, vector = normal_equations(columns, values, second - first, w, count)
        # What no row tells is left at the mean, which is 0.
        matrix += (w.sum() / count**2) + _RIDGE * w.sum() * np.eye(count)
        shifts = np.linalg.solve(matrix, vector)
    return shifts - shifts.mean()


def solve_lines(tiles: np.ndarray, cosines: np.ndarray, overlaps: Overlaps, weights: np.ndarray,
                far_share: float) -> tuple[np.ndarray, np.ndarray]:
    """Find the scale and the shift of each tile's disparity.

    Args:
        tiles: Disparities of like spread (`align_time.read_tile`). float32 [V, s, s].
        cosines: Of a pixel's ray and the tile's axis, or ones if disparity is that of rays. float32 [s, s].
        overlaps: Places that two tiles see.
        weights: How much each place counts. float64 [K].
        far_share: Near distance over the farthest, to go by where overlaps do not tell the common shift.

    Returns:
        Scales, their mean 1, and shifts, float64 [V] each: a tile's disparity along the ray is
        ``(scale * tile + shift) * cosine``.

    Raises:
        Nothing.
    """
    count = len(tiles)
    rows = _Rows(tiles, cosines, overlaps)
    lines, divisor, far_row = _first_guess(count), np.ones(len(weights)), None
    for _ in range(_ROUNDS):
        w = weights * huber_weights(rows.mismatch(lines) / divisor, LEAST_DEVIATION) / divisor**2
        matrix, _ = normal_equations(rows.columns, rows.values, np.zeros(len(w)), w, 2 * count)
        total, vector = w.sum(), np.zeros(2 * count)
        mean_scale = np.repeat([1.0 / count, 0.0], count)
        matrix += 10 * total * np.outer(mean_scale, mean_scale) + _RIDGE * total / count * np.eye(2 * count)
        vector += 10 * total * mean_scale + _RIDGE * total / count * _first_guess(count)
        if far_row is not None:
            matrix += _FAR_WEIGHT * total * np.outer(far_row, far_row)
        lines = np.linalg.solve(matrix, vector)
        far_row, divisor = _gauge(rows, lines, far_share, told=bool(np.ptp(cosines) > 0))
    scales, shifts = lines[:count], lines[count:]
    return scales, shifts


def _first_guess(count: int) -> np.ndarray:
    """Scales of 1 and shifts of 0, [2 V]."""
    return np.repeat([1.0, 0.0], count)


class _Rows:
    """Rows ``a_i f_i + b_i c_i - a_j f_j - b_j c_j`` of the unknowns a [V] and b [V]."""

    def __init__(self, tiles: np.ndarray, cosines: np.ndarray, overlaps: Overlaps) -> None:
        count, parts = len(tiles), []
        for number, x, y in overlaps.sides():
            c = sample_tiles(cosines[None], 0, x, y).astype(np.float64)
            parts.append((number, sample_tiles(tiles, number, x, y) * c, c))
        (i, f_i, c_i), (j, f_j, c_j) = parts
        self.columns = np.stack([i, i + count, j, j + count], axis=1)
        self.values = np.stack([f_i, c_i, -f_j, -c_j], axis=1)

    def mismatch(self, lines: np.ndarray) -> np.ndarray:
        """Give the difference of both tiles' disparities, [K]."""
        return (self.values * lines[self.columns]).sum(1)

    def disparity(self, lines: np.ndarray) -> np.ndarray:
        """Give the mean of both tiles' disparities, [K]."""
        signed = self.values * lines[self.columns]
        return 0.5 * (signed[:, :2].sum(1) - signed[:, 2:].sum(1))

    def mean_of(self, chosen: np.ndarray, count: int) -> np.ndarray:
        """Give the row that means the first tiles' disparities over chosen places, [2 V]."""
        columns, values = self.columns[chosen, :2], self.values[chosen, :2]
        return np.bincount(columns.ravel(), values.ravel(), count) / max(1, len(chosen))


def _gauge(rows: _Rows, lines: np.ndarray, far_share: float, told: bool) -> tuple[np.ndarray, np.ndarray]:
    """Tell what the farthest places should be, as a row that is to be 0, and what to divide each row by."""
    disparity = rows.disparity(lines)
    low, below, above = np.quantile(disparity, [_FAR, *_NEAR])
    far, near = np.flatnonzero(disparity <= low), np.flatnonzero((disparity >= below) & (disparity <= above))
    u_far, u_near = disparity[far].mean(), disparity[near].mean()
    shift = (far_share * u_near - u_far) / (1.0 - far_share)
    if told and u_far > 0.25 * far_share * u_near:
        shift = 0.0
    u_near = max(u_near + shift, 1e-9)
    row = (rows.mean_of(far, len(lines)) - far_share * rows.mean_of(near, len(lines))) / u_near
    return row, np.maximum((disparity + shift) / u_near, _FLOOR) * u_near
