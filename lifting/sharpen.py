"""Bring the steps of estimated distances to where the picture has its edges.

Estimators of depth see a picture at a fraction of its resolution: a step from near to far comes out as a ramp some pixels
wide, in which nothing is where it is said to be. Seen from off the centre, ramps are veils between things. A pixel of a ramp
therefore takes the distance of those settled pixels around, on the near side or on the far one, whose colours are more like
its own: a joint bilateral filter (Petschnigg et al. 2004) with two candidates instead of an average of both sides. What lies
between two steps, at a distance of its own, is no ramp and stays.
"""

from dataclasses import replace
from functools import partial

import numpy as np

from pano4d.lifting.distances import Distances
from pano4d.lifting.edges import STEP, shift, unexplained
from pano4d.runtime.parallel import each

RAMP_CELLS = 6
"""How far a ramp reaches from its middle, at most, in pixels of what the estimator sees."""

_STRIDE = 3  # pixels between those that are asked
_COLOR_SIGMA = 18.0  # grey levels
_SETTLED = 0.15  # of a step's height: how far from its top or bottom a pixel may be to be asked
_BAND = 0.08  # of a step's height: closer to its top or bottom a pixel is settled itself
_STEEPNESS = 0.03  # of a step's height: a pixel of a ramp differs by more from both neighbours along it
_MOST_VOTES = 3.0  # of a pixel's colour, either way
_PLACE_VOTES = 4.0  # of where in the ramp it lies, at its bottom rather than its top
_BLOCK = 1 << 15


def sharpen(distances: Distances, frames: np.ndarray, reach_px: int) -> Distances:
    """Sharpen the distances of a video.

    Args:
        distances: Of all frames.
        frames: Panoramas. uint8 [T, H, W, 3].
        reach_px: How far a ramp may reach from its middle.

    Returns:
        The same, but for pixels of ramps.

    Raises:
        Nothing.
    """
    static = sharpen_map(distances.static, frames[0], reach_px)
    if not distances.changing:
        return replace(distances, static=static)
    moving = np.zeros(static.shape, bool)
    moving.reshape(-1)[distances.pixels] = True

    still, changes = static.reshape(-1)[distances.pixels], np.empty_like(distances.changes)
    for number in range(len(changes)):  # one after another: the parts of a map are several at a time
        sharp = sharpen_map(distances.frame(number), frames[number], reach_px, moving)
        changes[number] = np.log(sharp.reshape(-1)[distances.pixels] / still)
    return Distances(static, distances.pixels, changes)


def sharpen_map(distance: np.ndarray, picture: np.ndarray, reach_px: int, where: np.ndarray | None = None) -> np.ndarray:
    """Sharpen one map.

    Args:
        distance: Along each pixel's ray, metres, above 0. float32 [H, W].
        picture: Panorama. uint8 [H, W, 3].
        reach_px: How far a ramp may reach from its middle.
        where: Pixels that may change; None: all. bool [H, W].

    Returns:
        float32 [H, W].

    Raises:
        Nothing.
    """
    near_step = _near_steps(np.float32(1) / distance, reach_px)
    pixels = np.flatnonzero(near_step if where is None else near_step & where)
    logs, colors, result = np.log(distance), picture.reshape(-1, 3), distance.copy()
    blocks = [pixels[start:start + _BLOCK] for start in range(0, len(pixels), _BLOCK)]
    found = each(partial(_find_sides, logs, colors, reach_px), blocks)
    if found:
        ramp, votes, sides = (np.concatenate(parts, -1) for parts in zip(*found))
        result.reshape(-1)[ramp] = np.exp(np.where(votes > 0, *sides))
    return result


def _near_steps(nearness: np.ndarray, reach: int) -> np.ndarray:
    """Tell where nearness changes within reach as no plane does. bool [H, W]."""
    found = np.zeros(nearness.shape, bool)
    rows = np.arange(len(nearness))
    for axis in (0, 1):
        far_left, left, right, far_right = (
            np.roll(nearness, -k, 1) if axis else nearness[np.clip(rows + k, 0, rows[-1])]
            for k in (-2 * reach, -reach, reach, 2 * reach))
        found |= unexplained(right - left, 2 * (left - far_left), 2 * (far_right - right)) > STEP * np.maximum(left, right)
    return found


def _find_sides(logs: np.ndarray, colors: np.ndarray, reach: int, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Find which of some pixels near steps lie in a ramp, what speaks for its near side rather than the far one, and the log
    of distance on both. int64 [R], float32 [R], float32 [2, R]."""
    flat, shape = logs.reshape(-1), logs.shape
    around = [(down, right) for down in range(-reach, reach + 1, _STRIDE) for right in range(-reach, reach + 1, _STRIDE)
              if 0 < down * down + right * right <= reach * reach]
    places = np.stack([shift(shift(pixels, down, 0, shape), right, 1, shape) for down, right in around])
    asked = flat[places]
    bottom, top = asked.min(0), asked.max(0)
    own, height = flat[pixels], np.maximum(top - bottom, np.float32(1e-6))
    mine = (own - bottom) / height
    rise = [np.minimum(*(np.abs(flat[shift(pixels, side, axis, shape)] - own) for side in (-1, 1))) for axis in (0, 1)]
    ramp = (top - bottom > STEP) & (mine > _BAND) & (mine < 1 - _BAND) & (np.maximum(*rise) > _STEEPNESS * height)
    pixels, places, asked, mine = pixels[ramp], places[:, ramp], asked[:, ramp], mine[ramp]
    share = (asked - bottom[ramp]) / height[ramp]
    difference = np.abs(colors[places].astype(np.int16) - colors[pixels].astype(np.int16)).mean(-1, dtype=np.float32)
    apart = np.array([down * down + right * right for down, right in around], np.float32)[:, None]
    likeness = np.exp(-0.5 * (difference / np.float32(_COLOR_SIGMA)) ** 2 - apart * np.float32(2 / reach**2)) + np.float32(1e-6)
    sides, alike = [], []
    for settled in (share < _SETTLED, share > 1 - _SETTLED):
        weight = likeness * settled
        total = weight.sum(0)
        # Likeness of a side's pixels on average: the larger side has no more say than the smaller.
        alike.append(np.log(total / settled.sum(0)))
        sides.append((weight * asked).sum(0) / total)
    votes = np.clip(alike[0] - alike[1], -_MOST_VOTES, _MOST_VOTES) + np.float32(_PLACE_VOTES) * (np.float32(0.5) - mine)
    return pixels, votes, np.stack(sides)
