"""Render Gaussians to a picture on the CPU, for previews and tests.

Each Gaussian is projected with the local affine approximation of EWA splatting
(Zwicker et al., 2001) and all are composited front to back, as viewers do; a hole in
the scene shows as background. The picture is worked off in bands of rows, so memory
does not grow with it.
"""

import math
from dataclasses import replace

import numpy as np

from pano4d.lifting.gaussians import SH_C0, Gaussians, sh_to_colors
from pano4d.lifting.rotations import quats_to_matrices

NEAREST_M = 0.02
DILATION_PX2 = 0.3
"""Variance added in the picture so that no Gaussian is thinner than a pixel (as in 3DGS)."""

_REACH_SIGMAS = 3.33
_LARGEST_ALPHA = 0.999
# A band's pixel numbers then fit 16 bits, which NumPy sorts by radix.
_BAND_PIXELS = 1 << 15


def splat(
    gaussians: Gaussians, viewmat: np.ndarray, K: np.ndarray, width: int, height: int,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> np.ndarray:
    """Render a perspective view.

    Args:
        gaussians: The scene.
        viewmat: World to camera. float64 [4, 4].
        K: Intrinsics, pixels. float64 [3, 3].
        width: Picture width in pixels.
        height: Picture height in pixels.
        background: RGB, 0 to 1, seen where the scene lets light through.

    Returns:
        uint8 [height, width, 3].

    Raises:
        Nothing.
    """
    centers, conics, extents, kept = project(gaussians, viewmat, K, width, height)
    colors = np.clip(sh_to_colors(gaussians.sh[kept]), 0.0, 1.0).astype(np.float64)
    opacities = gaussians.opacities[kept].astype(np.float64)
    picture = np.empty((height, width, 3))
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixel, index, alpha = _pairs(centers, conics, extents, opacities, width, top, bottom)
        band = _composite(pixel, alpha, colors[index], (bottom - top) * width, background)
        picture[top:bottom] = band.reshape(-1, width, 3)
    return np.rint(255.0 * np.clip(picture, 0.0, 1.0)).astype(np.uint8)


def coverage(gaussians: Gaussians, viewmat: np.ndarray, K: np.ndarray, width: int, height: int) -> np.ndarray:
    """Render how much of a perspective view the scene covers.

    Args:
        gaussians: The scene.
        viewmat: World to camera. float64 [4, 4].
        K: Intrinsics, pixels. float64 [3, 3].
        width: Picture width in pixels.
        height: Picture height in pixels.

    Returns:
        1 where nothing is seen through, 0 in a hole, in steps of 1/255. float32 [height, width].

    Raises:
        Nothing.
    """
    # Black Gaussians before a white wall: what is bright is wall.
    black = replace(gaussians, sh=np.full_like(gaussians.sh[:, :1], -0.5 / SH_C0))
    wall = splat(black, viewmat, K, width, height, background=(1.0, 1.0, 1.0))[..., 0]
    return 1.0 - wall.astype(np.float32) / 255.0


def project(
    gaussians: Gaussians, viewmat: np.ndarray, K: np.ndarray, width: int, height: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Project Gaussians into a picture, nearest first.

    Args:
        gaussians: N Gaussians.
        viewmat: World to camera. float64 [4, 4].
        K: Intrinsics, pixels. float64 [3, 3].
        width: Picture width in pixels.
        height: Picture height in pixels.

    Returns:
        Of the M that touch the picture: centres in pixels float64 [M, 2], inverse covariances
        a, b, c of a x^2 + 2 b x y + c y^2 float64 [M, 3], half extents of their boxes in
        pixels float64 [M, 2], and their indices int64 [M].

    Raises:
        Nothing.
    """
    points = gaussians.means @ viewmat[:3, :3].T + viewmat[:3, 3]
    kept = np.flatnonzero(points[:, 2] > NEAREST_M)
    points = points[kept]
    slope = points[:, :2] / points[:, 2:]
    # The affine approximation fails far outside the picture: its Jacobian is taken at the
    # nearest point not much beyond the border, as 3DGS does.
    limit = np.array([0.65 * width / K[0, 0], 0.65 * height / K[1, 1]])
    clipped = np.clip(slope, -limit, limit)
    jacobian = np.zeros((len(kept), 2, 3))
    jacobian[:, 0, 0] = K[0, 0] / points[:, 2]
    jacobian[:, 1, 1] = K[1, 1] / points[:, 2]
    jacobian[:, :, 2] = -clipped * np.diagonal(K)[:2] / points[:, 2:]
    axes = quats_to_matrices(gaussians.quats[kept]) * gaussians.scales[kept][:, None, :]
    spread = jacobian @ (viewmat[:3, :3] @ axes)
    covariance = spread @ spread.transpose(0, 2, 1)
    var_x, var_y = (covariance[:, i, i] + DILATION_PX2 for i in (0, 1))
    cov = covariance[:, 0, 1]
    determinant = var_x * var_y - cov * cov
    conics = np.stack([var_y, -cov, var_x], -1) / determinant[:, None]
    centers = slope * np.diagonal(K)[:2] + K[:2, 2]
    extents = _REACH_SIGMAS * np.sqrt(np.stack([var_x, var_y], -1))
    size = np.array([width, height])
    seen = np.flatnonzero(((centers + extents > 0) & (centers - extents < size)).all(-1))
    seen = seen[np.argsort(points[seen, 2], kind="stable")]
    return centers[seen], conics[seen], extents[seen], kept[seen]


def _pairs(centers, conics, extents, opacities, width, top, bottom):
    """List every pixel of a band with every Gaussian over it, by pixel and nearest first."""
    size, corner = np.array([width, bottom]), np.array([0, top])
    first = np.maximum(np.ceil(centers - extents - 0.5), corner).astype(np.int64)
    last = np.minimum(np.floor(centers + extents - 0.5), size - 1).astype(np.int64)
    spans = np.maximum(last - first + 1, 0)
    # Row by row first, then column by column: both lists stay in order of distance.
    index, row = _expand(spans[:, 1] * (spans[:, 0] > 0), first[:, 1])
    run, column = _expand(spans[index, 0], first[index, 0])
    index, row = index[run], row[run]
    x, y = column + 0.5 - centers[index, 0], row + 0.5 - centers[index, 1]
    a, b, c = conics[index].T
    power = a * x * x + 2.0 * b * x * y + c * y * y
    alpha = np.minimum(opacities[index] * np.exp(-0.5 * power), _LARGEST_ALPHA)
    strong = np.flatnonzero(alpha > 1.0 / 255.0)
    pixel = ((row[strong] - top) * width + column[strong]).astype(np.uint16)
    order = np.argsort(pixel, kind="stable")
    chosen = strong[order]
    return pixel[order].astype(np.int64), index[chosen], alpha[chosen]


def _expand(counts: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each range start, start + 1, ... of the given length, and whose range it is."""
    owner = np.repeat(np.arange(len(counts)), counts)
    begin = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) - begin[owner] + starts[owner]


def _composite(pixel, alpha, colors, count, background) -> np.ndarray:
    """Blend pairs sorted by pixel and distance over the background. float64 [count, 3]."""
    through = np.log1p(-alpha)
    before = np.cumsum(through) - through
    start = np.searchsorted(pixel, np.arange(count))
    base = before[np.minimum(start[pixel], max(len(pixel) - 1, 0))]
    weight = alpha * np.exp(before - base)
    left = np.exp(np.bincount(pixel, through, count))
    return np.stack([
        np.bincount(pixel, weight * colors[:, i], count) + left * background[i] for i in range(3)
    ], -1)
