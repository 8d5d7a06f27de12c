"""Draw the first state: one noise field on the sphere, white in every tile, shared where tiles overlap.

The field lives on fine cells of equal area. A tile pixel is the sum of the cells whose centres it contains over the
square root of their number. Within a tile every cell belongs to one pixel, so pixels are independent with unit
variance; where two tiles overlap, their pixels hold the same cells.
"""

import numpy as np

from pano4d.runtime.tiles import Layout, project

CELLS_PER_PIXEL = 6.0
_GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))
_FIELD, _FILL = 2, 3  # keys of the random streams


def fibonacci_sphere(count: int) -> np.ndarray:
    """Spread points evenly over the sphere. Unit vectors, float64 [count, 3]."""
    i = np.arange(count) + 0.5
    y = 1 - 2 * i / count
    radius, angle = np.sqrt(1 - y * y), i * _GOLDEN_ANGLE
    return np.stack([radius * np.cos(angle), y, radius * np.sin(angle)], axis=-1)


def sphere_noise(layout: Layout, size: int, frames: int, channels: int, seed: int, shared: bool = True) -> np.ndarray:
    """Draw unit noise for every tile.

    Args:
        layout: Tile layout of V tiles.
        size: Side of a tile's latent, s.
        frames: T.
        channels: C.
        seed: Not negative.
        shared: False draws every tile for itself.

    Returns:
        float32 [V, T, C, s, s].
    """
    fill = np.random.Generator(np.random.Philox(key=[seed, _FILL]))
    noise = fill.standard_normal((layout.count, frames, channels, size, size), np.float32)
    if not shared:
        return noise
    cells = fibonacci_sphere(_cell_count(layout, size))
    pixels = [_pixel_of(layout, v, cells, size) for v in range(layout.count)]
    for t in range(frames):
        stream = np.random.Generator(np.random.Philox(key=[seed, _FIELD + (t << 8)]))
        field = stream.standard_normal((channels, len(cells)), np.float32)
        for v, (held, pixel) in enumerate(pixels):
            count = np.bincount(pixel, minlength=size * size)
            filled = count > 0
            for c in range(channels):
                total = np.bincount(pixel, weights=field[c, held], minlength=size * size)
                # A pixel without a cell keeps its own number: as white as the rest, only not shared.
                noise[v, t, c].reshape(-1)[filled] = total[filled] / np.sqrt(count[filled])
    return noise


def _cell_count(layout: Layout, size: int) -> int:
    """Count the cells needed for ``CELLS_PER_PIXEL`` in the smallest pixel, that in a tile's corner."""
    corner = 1 + 2 * np.tan(np.radians(layout.fov_deg) / 2) ** 2
    smallest = 1 / (layout.focal(size) ** 2 * corner ** 1.5)
    return int(np.ceil(CELLS_PER_PIXEL * 4 * np.pi / smallest))


def _pixel_of(layout: Layout, v: int, cells: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the cells that a tile holds, and the flat pixel each of them lies in."""
    x, y, inside = project(layout, v, cells, size)
    held = np.flatnonzero(inside)
    column = np.clip(np.round(x[held]), 0, size - 1).astype(np.int64)
    row = np.clip(np.round(y[held]), 0, size - 1).astype(np.int64)
    return held, row * size + column
