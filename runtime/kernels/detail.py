"""Give composed frames back the detail that the autoencoder loses, as long as a place keeps its look.

The decoded first frame d_0 should be the input picture I; what it lacks, r = I - d_0, the other frames lack too.

    c   = mean of r about a latent cell's width        a cast, the same in every frame
    w_t = exp(-(mean |d_t - d_0| / LEVELS)^2)          1 where nothing has changed, 0 where something else is seen
    out_t = d_t + c + w_t (r - c)

so the first frame is the input, detail stays where the picture stands still, and leaves where it moves away.
"""

import numpy as np

LEVELS = 16.0
"""Change, in grey levels, over which detail fades."""


def keep_detail(acc: np.ndarray, select: np.ndarray, panorama: np.ndarray, cell_px: float) -> None:
    """Add cast and detail to composed frames.

    Args:
        acc: Composed pixels in grey levels. float32 [T, P, 3], changed in place.
        select: The composed pixels, P of them true. bool [H, W].
        panorama: Input picture. uint8 [H, W, 3].
        cell_px: Width of a latent cell on the panorama, in pixels.
    """
    near, around = radii(cell_px)
    first = acc[0].copy()
    residual = panorama[select].astype(np.float32) - first
    cast = masked_mean(residual, select, around)
    detail = residual - cast
    for frame in acc:
        change = np.abs(frame - first).mean(axis=1, keepdims=True)
        weight = np.exp(-np.square(masked_mean(change, select, near) / LEVELS))
        frame += cast + weight * detail


def radii(cell_px: float) -> tuple[int, int]:
    """Give half the sides of the squares over which change and cast are averaged, in pixels.

    Args:
        cell_px: Width of a latent cell on the panorama, in pixels.

    Returns:
        For the change, for the cast.
    """
    return max(1, round(cell_px / 2)), max(1, round(1.5 * cell_px))


def masked_mean(values: np.ndarray, select: np.ndarray, radius: int) -> np.ndarray:
    """Average values over the selected pixels of a square round each, round the seam but not over the poles.

    Args:
        values: One row per selected pixel. float32 [P, C].
        select: bool [H, W], P of them true.
        radius: Half the square's side, in pixels; the square has 2 radius + 1.

    Returns:
        float32 [P, C].
    """
    grid = np.zeros((*select.shape, values.shape[1] + 1), np.float32)
    grid[select, :-1], grid[select, -1] = values, 1.0
    sums = _box_sum(_box_sum(grid, radius, 1, wrap=True), radius, 0, wrap=False)[select]
    return sums[:, :-1] / sums[:, -1:]


def _box_sum(grid: np.ndarray, radius: int, axis: int, wrap: bool) -> np.ndarray:
    """Add up 2 radius + 1 neighbours along an axis of [H, W, C]."""
    length = grid.shape[axis]
    radius = min(radius, (length - 1) // 2)
    pad = [(0, 0)] * 3
    pad[axis] = (radius + 1, radius)
    padded = np.pad(grid, pad, mode="wrap" if wrap else "constant")
    # In double precision: a running sum over a row would lose the small values at its end.
    running = np.cumsum(padded, axis=axis, dtype=np.float64)
    window = 2 * radius + 1
    upper, lower = [slice(None)] * 3, [slice(None)] * 3
    upper[axis], lower[axis] = slice(window, window + length), slice(0, length)
    return (running[tuple(upper)] - running[tuple(lower)]).astype(np.float32)
