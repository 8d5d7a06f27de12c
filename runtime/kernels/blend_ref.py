"""Fuse tiles and take a step, in float64 and one pixel after another: what ``blend`` must compute."""

import numpy as np

from pano4d.runtime.tiles import Layout, feather_at, project, tile_directions


def fuse_ref(layout: Layout, values: np.ndarray) -> np.ndarray:
    """Average tiles where they overlap: fused_i(p) = sum_j w_j(q) D_j(q) / sum_j w_j(q), q = where j sees p.

    Args:
        layout: Tile layout of V tiles.
        values: What is fused, D. [V, K, h, w].

    Returns:
        float64 [V, K, h, w].
    """
    values = np.asarray(values, np.float64)
    count, _, size, _ = values.shape
    directions = tile_directions(layout, size)
    fused = np.zeros_like(values)
    for i in range(count):
        for y in range(size):
            for x in range(size):
                fused[i, :, y, x] = _fuse_pixel(layout, values, i, y, x, directions[i, y, x])
    return fused


def blend_ref(layout: Layout, x, v, sigma: float, sigma_next: float, *, v_uncond=None, guidance=None, static=None,
              static_latents=None, fuse: str = "denoised", previous=None,
              extrapolation: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Compute ``blend`` in float64. Arguments as there."""
    x, v = np.asarray(x, np.float64), np.asarray(v, np.float64)
    if v_uncond is not None:
        v_uncond = np.asarray(v_uncond, np.float64)
        v = v_uncond + np.asarray(guidance, np.float64)[:, None, None, None] * (v - v_uncond)
    denoised = x / (sigma ** 2 + 1) - v * sigma / np.sqrt(sigma ** 2 + 1)
    if static is not None:
        denoised[static] = np.asarray(static_latents, np.float64)[static][:, None]
    shape = x.shape
    if fuse == "denoised":
        denoised = fuse_ref(layout, denoised.reshape(shape[0], -1, *shape[-2:])).reshape(shape)
    target = denoised + extrapolation * (denoised - previous) if extrapolation else denoised
    stepped = target + sigma_next / sigma * (x - target)
    if fuse == "sample":
        fused = fuse_ref(layout, stepped.reshape(shape[0], -1, *shape[-2:])).reshape(shape)
        for v in range(len(x)):
            stepped[v] = stepped[v] if static is not None and static[v] else fused[v]
    return stepped, denoised


def _fuse_pixel(layout: Layout, values: np.ndarray, i: int, y: int, x: int, direction: np.ndarray) -> np.ndarray:
    size = values.shape[-1]
    weight = float(feather_at(x, y, size))
    total, weights = weight * values[i, :, y, x], weight
    for j in range(len(values)):
        at_x, at_y, inside = project(layout, j, direction, size)
        if j == i or not inside:
            continue
        weight = float(feather_at(at_x, at_y, size))
        total = total + weight * bilinear_ref(values[j], float(at_x), float(at_y))
        weights += weight
    return total / weights


def bilinear_ref(plane: np.ndarray, x: float, y: float) -> np.ndarray:
    """Sample [K, h, w] at continuous coordinates, clamped to the outermost pixel centres. [K]."""
    height, width = plane.shape[-2:]
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    fx, fy = x - left, y - top
    upper = (1 - fx) * plane[:, top, left] + fx * plane[:, top, left + 1]
    lower = (1 - fx) * plane[:, top + 1, left] + fx * plane[:, top + 1, left + 1]
    return (1 - fy) * upper + fy * lower
