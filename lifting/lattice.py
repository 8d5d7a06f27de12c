"""Spread sample directions evenly over the sphere.

The Fibonacci lattice: heights in equal steps (equal heights cut equal areas off a
sphere), longitudes in steps of the golden angle. Every sample stands for the same
solid angle, 4 pi / N, so there is no crowding at the poles as on a pixel grid.
"""

import math

import numpy as np

from pano4d.runtime.errors import SettingsError

LARGEST_DEFAULT = 1_000_000
SMALLEST = 16
_GOLDEN_ANGLE = math.pi * (3.0 - math.sqrt(5.0))


def default_count(height: int, width: int) -> int:
    """Choose a number of Gaussians for a panorama.

    A quarter of the pixels: the equirectangular grid holds pi/2 times more pixels than
    its equator's density asks for, and a Gaussian is a little wider than a pixel.

    Args:
        height: Panorama height in pixels.
        width: Panorama width in pixels.

    Returns:
        A count, at most ``LARGEST_DEFAULT``.

    Raises:
        Nothing.
    """
    return max(SMALLEST, min(height * width // 4, LARGEST_DEFAULT))


def check_count(count: int) -> None:
    """Refuse too few Gaussians.

    Args:
        count: Number of Gaussians N.

    Returns:
        Nothing.

    Raises:
        SettingsError: They cannot surround the viewer.
    """
    if count < SMALLEST:
        raise SettingsError(
            f"{count} Gaussians cannot surround the viewer; give at least {SMALLEST} "
            "with --gaussians."
        )


def lattice_directions(count: int) -> np.ndarray:
    """Compute the directions of the lattice, from the top of the sphere to the bottom.

    Args:
        count: Number of samples N, at least ``SMALLEST``.

    Returns:
        Unit vectors in OpenCV axes (x right, y down, z forward). float64 [N, 3].

    Raises:
        SettingsError: The count is too small to surround the viewer.
    """
    check_count(count)
    index = np.arange(count, dtype=np.float64)
    down = (2.0 * index + 1.0) / count - 1.0
    # Reduced before the sine: a large angle would cost it digits.
    lon = np.mod(index * _GOLDEN_ANGLE, 2.0 * math.pi)
    around = np.sqrt(1.0 - down * down)
    return np.stack([around * np.sin(lon), down, around * np.cos(lon)], axis=-1)


def lattice_spacing(count: int) -> float:
    """Return the side of one sample's share of the sphere, in radians.

    Args:
        count: Number of samples N.

    Returns:
        sqrt(4 pi / N).

    Raises:
        Nothing.
    """
    return math.sqrt(4.0 * math.pi / count)
