"""Find the ramps that steps of estimated distances come out as, and how wide they are."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pano4d.lifting.edges import STEP, unexplained
from pano4d.runtime.sphere import pixel_lonlat

_LEAST_HEIGHT = 0.3  # of a step that the blur is read off, in log distance
_FLAT = 0.1  # of its height: how much both of its ends may rise
_FEWEST = 20  # steps that the blur is read off
_QUANTILE = 0.25  # of their widths: what runs into something else looks wider than it is
_LOW = np.pi / 3  # latitude up to which they are looked for
_LINES = 512  # rows, and twice as many columns, along which they are looked for
_ALIKE, _SPECK = 0.1, 0.16  # of log distance; share of a square that a speck takes at most, less than a line through it
_LEAST_RISE = 0.05  # of log distance from a pixel to the next, where a step is steepest


def find_blur(distance: np.ndarray, reach_px: int) -> float:
    """Read off the steps of a map how much they were blurred.

    A step of height h that a Gaussian of standard deviation s has blurred is nowhere steeper than h / (s sqrt(2 pi)).

    Args:
        distance: Along each pixel's ray, metres, above 0. float32 [H, W].
        reach_px: How far a ramp may reach from its middle.

    Returns:
        Standard deviation down the map, in pixels; 0 where too few steps stand alone.

    Raises:
        Nothing.
    """
    _, lat = pixel_lonlat(*distance.shape)
    apart = max(1, len(distance) // _LINES)
    low = np.flatnonzero(np.abs(lat) <= _LOW)
    across, row = _widths(np.log(distance[low[::apart]]), reach_px)
    down, _ = _widths(np.log(distance[low][:, ::apart].T), reach_px)
    widths = np.concatenate([across * np.cos(lat[low[::apart]])[row], down])
    return float(np.quantile(widths, _QUANTILE)) if len(widths) >= _FEWEST else 0.0


def largest_around(maps: np.ndarray, reach: int) -> np.ndarray:
    """Give the largest value within a square around each pixel.

    Args:
        maps: float32 [B, h, w].
        reach: Half the square's side, pixels.

    Returns:
        float32 [B, h, w]

    Raises:
        Nothing.
    """
    for axis in (1, 2):
        padded = np.pad(maps, [(reach, reach) if axis == one else (0, 0) for one in range(3)], mode="edge")
        maps = _running_largest(padded, 2 * reach + 1, axis)
    return maps


def without_specks(maps: np.ndarray, reach: int) -> np.ndarray:
    """Give places that few around are like the median of what is around.

    Args:
        maps: Logs of distances. float32 [B, h, w].
        reach: Half the side of the square that is around, pixels.

    Returns:
        float32 [B, h, w]

    Raises:
        Nothing.
    """
    side = 2 * reach + 1
    around = sliding_window_view(np.pad(maps, [(0, 0), (reach, reach), (reach, reach)], mode="edge"), (side, side), (1, 2))
    alike = np.zeros(maps.shape, np.int16)
    for row, column in np.ndindex(side, side):
        alike += np.abs(around[..., row, column] - maps) < _ALIKE
    specks = alike <= _SPECK * side * side
    result = maps.copy()
    if specks.any():
        result[specks] = np.median(around[specks], (1, 2))
    return result


def _running_largest(values: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Give the largest of each so many neighbours along an axis, which gets shorter by all but one."""
    values, have = np.moveaxis(values, axis, 0), 1
    while have < count:
        step = min(have, count - have)
        values, have = np.maximum(values[:-step], values[step:]), have + step
    return np.moveaxis(values, 0, axis)


def _widths(logs: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Read off the steps along rows [n, m] how wide their blur is, and in which rows they are. float [E], int [E]"""
    rise = np.abs(np.diff(logs, axis=1))
    middle = rise[:, reach:-reach]
    row, column = np.nonzero((middle == _running_largest(rise, 2 * reach + 1, 1)) & (middle > _LEAST_RISE))
    steepest = middle[row, column]
    across = logs[row[:, None], column[:, None] + np.arange(2 * reach + 2)]
    height, third = np.ptp(across, 1), 1 + reach // 3
    ends = np.maximum(*(np.abs(across[:, one] - across[:, other]) for one, other in ((0, third), (-1, -1 - third))))
    alone = (height > _LEAST_HEIGHT) & (ends < _FLAT * height) & (np.abs(across[:, 0] - across[:, -1]) > (1 - _FLAT) * height)
    return height[alone] / steepest[alone] / np.sqrt(2 * np.pi), row[alone]


def near_steps(nearness: np.ndarray, reach: int) -> np.ndarray:
    """Tell where nearness changes as no plane does.

    Args:
        nearness: One over metres. float32 [H, W].
        reach: Within how many pixels.

    Returns:
        bool [H, W]

    Raises:
        Nothing.
    """
    found = np.zeros(nearness.shape, bool)
    rows = np.arange(len(nearness))
    for axis in (0, 1):
        far_left, left, right, far_right = (
            np.roll(nearness, -k, 1) if axis else nearness[np.clip(rows + k, 0, rows[-1])]
            for k in (-2 * reach, -reach, reach, 2 * reach))
        found |= unexplained(right - left, 2 * (left - far_left), 2 * (far_right - right)) > STEP * np.maximum(left, right)
    return found
