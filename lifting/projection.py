"""Project Gaussians into a pinhole picture, in torch, by the rules of gsplat's kernels.

The local affine approximation of EWA splatting (Zwicker et al., 2001):

    covariance in the picture = J R Sigma R^T J^T + eps2d I        J = d(pixel) / d(camera point)

J is taken at the centre, or, beyond the picture, where the ray leaves it by 30 % of the half field of view.
"""

from typing import NamedTuple

import torch
from torch import Tensor

FAINTEST = 1.0 / 255.0
"""Opacity below which nothing is drawn."""

REACH_SIGMAS = 3.33
_BEYOND = 0.3


class Projection(NamedTuple):
    """M Gaussians that touch a picture.

    Attributes:
        means2d: Centres, pixels; a pixel's own centre lies at + 0.5. float [M, 2].
        conics: Inverse covariances a, b, c of a x^2 + 2 b x y + c y^2, 1 / pixels^2. float [M, 3].
        depths: Along the camera's axis, metres. float [M].
        radii: Half extents of the boxes that are drawn, pixels. int32 [M, 2].
    """

    means2d: Tensor
    conics: Tensor
    depths: Tensor
    radii: Tensor


def axes_of(quats: Tensor, scales: Tensor) -> Tensor:
    """Return each Gaussian's axes, as long as its standard deviations: Sigma = axes axes^T.

    Args:
        quats: w x y z, of any length above 0. float [N, 4].
        scales: Standard deviations, metres. float [N, 3].

    Returns:
        Axes in the columns. float [N, 3, 3].

    Raises:
        Nothing.
    """
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, -1).reshape(-1, 3, 3) * scales[:, None, :]


def project(means: Tensor, axes: Tensor, opacities: Tensor, viewmat: Tensor, K: Tensor, width: int, height: int, *,
            near_plane: float, far_plane: float, radius_clip: float, eps2d: float) -> tuple[Tensor, Projection]:
    """Find the Gaussians that touch a picture, and where they lie in it.

    Args:
        means: Centres, metres. float [N, 3].
        axes: See `axes_of`. float [N, 3, 3].
        opacities: At the centre. float [N].
        viewmat: World to camera. float [4, 4].
        K: Intrinsics, pixels. float [3, 3].
        width: Picture width in pixels.
        height: Picture height in pixels.
        near_plane: Least depth that is drawn, metres.
        far_plane: Largest depth that is drawn, metres.
        radius_clip: Gaussians of at most this radius are left out, pixels.
        eps2d: Variance added in the picture, pixels^2.

    Returns:
        The Gaussians' numbers in ascending order, int64 [M], and their projection, differentiable by the first four.

    Raises:
        Nothing.
    """
    with torch.no_grad():
        depths = means @ viewmat[2, :3] + viewmat[2, 3]
        near = ((depths >= near_plane) & (depths <= far_plane) & (opacities >= FAINTEST)).nonzero()[:, 0]
        rough = _project(means[near], axes[near], opacities[near], viewmat, K, width, height, eps2d)
        ids = near[_touches(rough, width, height, radius_clip)]
    chosen = (values.index_select(0, ids) for values in (means, axes, opacities))
    return ids, _project(*chosen, viewmat, K, width, height, eps2d)


def _project(means: Tensor, axes: Tensor, opacities: Tensor, viewmat: Tensor, K: Tensor, width: int, height: int,
             eps2d: float) -> Projection:
    """Project all of the given Gaussians, which lie in front of the camera."""
    x, y, z = (means @ viewmat[:3, :3].T + viewmat[:3, 3]).unbind(-1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    beyond_x, beyond_y = _BEYOND * 0.5 * width / fx, _BEYOND * 0.5 * height / fy
    slope_x = (x / z).clamp(-(cx / fx + beyond_x), (width - cx) / fx + beyond_x)
    slope_y = (y / z).clamp(-(cy / fy + beyond_y), (height - cy) / fy + beyond_y)
    spread = viewmat[:3, :3] @ axes
    across = (fx / z)[:, None] * (spread[:, 0] - slope_x[:, None] * spread[:, 2])
    down = (fy / z)[:, None] * (spread[:, 1] - slope_y[:, None] * spread[:, 2])
    var_x, var_y = (across * across).sum(-1) + eps2d, (down * down).sum(-1) + eps2d
    cov = (across * down).sum(-1)
    determinant = var_x * var_y - cov * cov
    with torch.no_grad():
        reach = (2.0 * torch.log(opacities / FAINTEST)).clamp_min(0.0).sqrt().clamp_max(REACH_SIGMAS)
        radii = torch.ceil(reach[:, None] * torch.stack([var_x, var_y], -1).sqrt())
        radii *= (determinant > 0.0)[:, None]
    return Projection(torch.stack([fx * x / z + cx, fy * y / z + cy], -1),
                      torch.stack([var_y, -cov, var_x], -1) / determinant[:, None], z, radii.to(torch.int32))


def _touches(splats: Projection, width: int, height: int, radius_clip: float) -> Tensor:
    """Tell which boxes reach into the picture. bool [M]."""
    size = torch.tensor([width, height], device=splats.means2d.device)
    reaches = (splats.means2d + splats.radii > 0) & (splats.means2d - splats.radii < size)
    return reaches.all(-1) & (splats.radii > radius_clip).any(-1) & (splats.radii > 0).all(-1)
