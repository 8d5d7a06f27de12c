"""Compose tiles onto the panorama in float64, one pixel after another: what ``compose`` must compute."""

import numpy as np

from pano4d.runtime.kernels.blend_ref import bilinear_ref
from pano4d.runtime.sphere import pixel_directions
from pano4d.runtime.tiles import Layout, feather_at, project


def compose_ref(layout: Layout, pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Blend decoded tiles: panorama(p) = sum_v w_v(q) tile_v(q) / sum_v w_v(q).

    Args:
        layout: Tile layout of V tiles.
        pixels: Decoded tiles. [V, K, s, s].
        height: Rows of the panorama.
        width: Columns of the panorama.

    Returns:
        float64 [K, H, W].
    """
    pixels = np.asarray(pixels, np.float64)
    size = pixels.shape[-1]
    result = np.zeros((pixels.shape[1], height, width))
    directions = pixel_directions(height, width)
    for row in range(height):
        for column in range(width):
            total, weights = 0.0, 0.0
            for v in range(layout.count):
                x, y, inside = project(layout, v, directions[row, column], size)
                if inside:
                    weight = float(feather_at(x, y, size))
                    total = total + weight * bilinear_ref(pixels[v], float(x), float(y))
                    weights += weight
            result[:, row, column] = total / weights
    return result
