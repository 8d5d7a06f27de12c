"""Guess distances from one panorama without any model.

A world of three parts, for outdoor pictures taken by someone standing on level ground:
the ground plane below the horizon, a dome for the sky (`skyline`), and upright walls where
something rises over the horizon, the nearer the higher it rises. Bright things stand out a little.
Neither metric nor right in every picture: it makes views off the centre move plausibly.
Give a depth map where truth matters.
"""

import math

import numpy as np
from PIL import Image

from pano4d.lifting.skyline import refined, skyline
from pano4d.runtime.sphere import pixel_lonlat

EYE_HEIGHT_M = 1.6
DOME_M = 60.0
NEAREST_WALL_M = 6.0
WALL_HEIGHT_M = 12.0
RELIEF = 0.04
"""Change of log distance that the brightest detail causes."""

_WORK_WIDTH = 512


def prior_distance(panorama: np.ndarray) -> np.ndarray:
    """Guess the distance along each pixel's ray.

    Args:
        panorama: uint8 [H, W, 3].

    Returns:
        Metres, between about EYE_HEIGHT_M and DOME_M, without a seam; it steps where the sky ends. float32 [H, W].

    Raises:
        Nothing.
    """
    height, width = panorama.shape[:2]
    small_width = 2 * (min(_WORK_WIDTH, width) // 2)
    small_height = max(2, min(_WORK_WIDTH // 2, height))
    picture = Image.fromarray(panorama).resize((small_width, small_height), Image.Resampling.BOX)
    colors = _blur(np.asarray(picture, np.float32) / 255.0, 1.0)
    luma = colors @ np.array([0.299, 0.587, 0.114], np.float32)
    detail = _blur(luma, 1.5) - _blur(luma, 12.0)
    relief = RELIEF * np.tanh(4.0 * detail) * np.cos(pixel_lonlat(*detail.shape)[1])[:, None]
    rows = skyline(colors)
    sky = np.arange(height)[:, None] < refined(panorama, rows, small_height)
    distance = np.where(sky, DOME_M, _walls_and_ground(rows, small_height, height, width))
    return (distance * np.exp(-_enlarge(_blur(relief, 2.0), height, width))).astype(np.float32)


def _walls_and_ground(rows: np.ndarray, small_height: int, height: int, width: int) -> np.ndarray:
    """Give ray distances of what is not sky [H, W], the nearer the higher the sky ends in a small picture's columns [w]."""
    top = math.pi / 2 - rows * math.pi / small_height
    reach = WALL_HEIGHT_M / np.tan(np.clip(top, 1e-3, math.radians(80.0)))
    log_reach = _blur(np.log(np.clip(reach, NEAREST_WALL_M, DOME_M))[None], 5.0)
    wall = np.exp(_enlarge(log_reach, 1, width))
    lat = pixel_lonlat(height, width)[1][:, None]
    ground = EYE_HEIGHT_M / np.maximum(np.sin(-lat), EYE_HEIGHT_M / DOME_M)
    return np.minimum(np.minimum(ground, DOME_M), wall / np.maximum(np.cos(lat), 1e-3))


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
