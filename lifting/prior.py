"""Guess distances from one panorama without any model.

A world of three parts, for outdoor pictures taken by someone standing on level ground:
the ground plane below the horizon, a dome for the sky, and upright walls where something
rises over the horizon, the nearer the higher it rises. Bright things stand out a little.
Neither metric nor right in every picture: it makes views off the centre move plausibly.
Give a depth map where truth matters.
"""

import math

import numpy as np
from PIL import Image

EYE_HEIGHT_M = 1.6
DOME_M = 60.0
NEAREST_WALL_M = 6.0
WALL_HEIGHT_M = 12.0
RELIEF = 0.04
"""Change of log distance that the brightest detail causes."""

_WORK_WIDTH = 512
_SKY_TOLERANCE = 0.1


def prior_distance(panorama: np.ndarray) -> np.ndarray:
    """Guess the distance along each pixel's ray.

    Args:
        panorama: uint8 [H, W, 3].

    Returns:
        Metres, between about EYE_HEIGHT_M and DOME_M, without a seam. float32 [H, W].

    Raises:
        Nothing.
    """
    height, width = panorama.shape[:2]
    small_width = 2 * (min(_WORK_WIDTH, width) // 2)
    small_height = max(2, min(_WORK_WIDTH // 2, height))
    picture = Image.fromarray(panorama).resize((small_width, small_height), Image.Resampling.BOX)
    colors = _blur(np.asarray(picture, np.float32) / 255.0, 1.0)
    log_distance = np.log(_walls_and_ground(find_sky(colors)))
    luma = colors @ np.array([0.299, 0.587, 0.114], np.float32)
    detail = _blur(luma, 1.5) - _blur(luma, 12.0)
    lat = _latitudes(small_height)[:, None]
    log_distance = log_distance - RELIEF * np.tanh(4.0 * detail) * np.cos(lat)
    return np.exp(_enlarge(_blur(log_distance, 2.0), height, width)).astype(np.float32)


def find_sky(colors: np.ndarray) -> np.ndarray:
    """Find the pixels that the zenith reaches downwards without crossing an edge.

    A reference colour per column is carried down row by row; it follows what it finds
    and, behind something that is not sky, what its neighbours find.

    Args:
        colors: Panorama, RGB 0 to 1, slightly blurred. float32 [H, W, 3].

    Returns:
        True for sky; never below the horizon. bool [H, W].

    Raises:
        Nothing.
    """
    height, width = colors.shape[:2]
    sky = np.zeros((height, width), bool)
    reference = np.broadcast_to(colors[: max(1, height // 12)].mean((0, 1)), (width, 3)).copy()
    trust, above = np.ones((width, 1), np.float32), np.ones(width, bool)
    for row in range(height // 2):
        near = np.abs(colors[row] - reference).max(-1) < _SKY_TOLERANCE
        sky[row] = above = near & _touched_runs(near, above)
        reference[above] += 0.5 * (colors[row, above] - reference[above])
        trust = np.where(above[:, None], 1.0, 0.7 * trust).astype(np.float32)
        spread = _box_around(np.concatenate([reference * trust, trust], -1), max(1, width // 64))
        reference = spread[:, :3] / np.maximum(spread[:, 3:], 1e-6)
    return sky


def _touched_runs(row: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Tell which columns lie in a run of equal values that touches what is set above. [W]"""
    reach = row & (above | np.roll(above, 1) | np.roll(above, -1))
    runs = np.cumsum(np.diff(row, prepend=row[:1]))
    # A run that crosses the seam is one run.
    runs[runs == runs[-1]] = 0 if row[0] == row[-1] else runs[-1]
    return np.bincount(runs[reach], minlength=runs.max() + 1)[runs] > 0


def _walls_and_ground(sky: np.ndarray) -> np.ndarray:
    """Turn a sky mask into ray distances [H, W]: ground, walls and dome."""
    height, width = sky.shape
    lat = _latitudes(height)
    above = lat > 0
    standing = _grown_from_horizon(~sky[above])
    # Counted, not measured to the top: a thin streak over a column does not bring it near.
    top = standing.sum(0) * math.pi / height
    reach = WALL_HEIGHT_M / np.tan(np.clip(top, 1e-3, math.radians(80.0)))
    reach = np.exp(_blur(np.log(np.clip(reach, NEAREST_WALL_M, DOME_M))[None], 5.0)[0])
    ground = EYE_HEIGHT_M / np.maximum(np.sin(-lat), EYE_HEIGHT_M / DOME_M)
    wall = reach[None] / np.maximum(np.cos(lat), 1e-3)[:, None]
    distance = np.minimum(np.where(above, DOME_M, ground)[:, None], DOME_M)
    below_or_standing = np.concatenate([standing, np.ones((height - len(standing), width), bool)])
    return np.where(below_or_standing, np.minimum(distance, wall), distance)


def _grown_from_horizon(solid: np.ndarray) -> np.ndarray:
    """Keep what hangs together with the lowest row; a cloud with sky under it goes. [h, W]"""
    standing, below = np.zeros_like(solid), np.ones(solid.shape[1], bool)
    for row in range(len(solid) - 1, -1, -1):
        standing[row] = below = solid[row] & _touched_runs(solid[row], below)
    return standing


def _latitudes(height: int) -> np.ndarray:
    """Return the latitude of each row's centre in radians, [height]."""
    return math.pi / 2 - (np.arange(height) + 0.5) / height * math.pi


def _box_around(values: np.ndarray, radius: int) -> np.ndarray:
    """Return the running mean over 2 radius + 1 columns, around the seam. [W, C]."""
    padded = np.concatenate([values[-radius:], values, values[:radius]])
    sums = np.cumsum(np.concatenate([np.zeros_like(padded[:1]), padded]), axis=0)
    return (sums[2 * radius + 1 :] - sums[: -2 * radius - 1]) / (2 * radius + 1)


def _blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Blur [H, W, ...] with a Gaussian, in pixels, around the seam and over the poles."""
    radius = min(int(3 * sigma) + 1, picture.shape[1] - 1)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    columns = np.arange(picture.shape[1])
    across = sum(
        k * picture[:, (columns + i - radius) % len(columns)] for i, k in enumerate(kernel)
    )
    if picture.shape[0] == 1:
        return across
    opposite = np.roll(across, across.shape[1] // 2, axis=1)
    reach = min(radius, len(across))
    padded = np.concatenate([opposite[:reach][::-1], across, opposite[-reach:][::-1]])
    height = len(across)
    # A kernel taller than the picture is cut: rows past the second pole say nothing new.
    inside = kernel[radius - reach : radius + reach + 1]
    return sum(k * padded[i : i + height] for i, k in enumerate(inside / inside.sum()))


def _enlarge(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resample [h, w] to [height, width] bilinearly, around the seam."""
    y = np.clip((np.arange(height) + 0.5) * len(picture) / height - 0.5, 0, len(picture) - 1)
    x = (np.arange(width) + 0.5) * picture.shape[1] / width - 0.5
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    bottom, columns = np.minimum(top + 1, len(picture) - 1), picture.shape[1]
    share_y, share_x = (y - top)[:, None], x - left
    rows = picture[top] * (1 - share_y) + picture[bottom] * share_y
    return rows[:, left % columns] * (1 - share_x) + rows[:, (left + 1) % columns] * share_x
