"""Cut tiles out of a panorama one sample after another, in any precision: what ``encode_tiles.cu`` must compute."""

import numpy as np

from pano4d.runtime.tiles import Layout


def encode_tiles_ref(panorama: np.ndarray, layout: Layout, size: int, samples: int, dtype=np.float64) -> np.ndarray:
    """Average ``samples`` x ``samples`` bilinear samples per tile pixel, as grey levels -1..1.

    Args:
        panorama: uint8 [H, W, 3].
        layout: Tile layout of V tiles.
        size: Side of a tile, s.
        samples: Samples per pixel and axis.
        dtype: Precision of all arithmetic.

    Returns:
        ``dtype`` [V, 3, s, s].
    """
    one = dtype(1)
    at = ((np.arange(size * samples, dtype=dtype) + dtype(0.5)) / samples - dtype(size) / 2) / dtype(layout.focal(size))
    x, y = np.meshgrid(at, at)
    rays = np.stack([x, y, np.full_like(x, one)], axis=-1)
    result = np.empty((layout.count, 3, size, size), dtype)
    for v in range(layout.count):
        world = rays @ layout.rotations[v].astype(dtype).T
        levels = _bilinear(panorama.astype(dtype), world)
        means = levels.reshape(size, samples, size, samples, 3).mean(axis=(1, 3))
        result[v] = np.moveaxis(means, -1, 0) / dtype(127.5) - one
    return result


def _bilinear(panorama: np.ndarray, world: np.ndarray) -> np.ndarray:
    dtype, (height, width) = panorama.dtype.type, panorama.shape[:2]
    flat = np.sqrt(world[..., 0] ** 2 + world[..., 2] ** 2)
    column = (np.arctan2(world[..., 0], world[..., 2]) / dtype(2 * np.pi) + dtype(0.5)) * width - dtype(0.5)
    row = (dtype(0.5) + np.arctan2(world[..., 1], flat) / dtype(np.pi)) * height - dtype(0.5)
    upper = np.floor(row)
    part = (row - upper)[..., None]
    above, below = (_line(panorama, upper.astype(int) + step, column) for step in (0, 1))
    return (1 - part) * above + part * below


def _line(panorama: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    height, width = panorama.shape[:2]
    over = (row < 0) | (row >= height)
    row = np.where(row < 0, -1 - row, np.where(row >= height, 2 * height - 1 - row, row))
    column = column + over.astype(column.dtype) * (width / 2)
    left = np.floor(column)
    part = (column - left)[..., None].astype(panorama.dtype)
    left = left.astype(int) % width
    return (1 - part) * panorama[row, left] + part * panorama[row, (left + 1) % width]
