"""Draw Gaussians differentiably: gsplat on a GPU, else the same picture and gradients in plain torch.

`rasterization` takes the arguments of gsplat 1.5.3's function of that name and follows its kernels' rules (`projection`,
`compositing`), so that what is written against one runs on the other. It needs torch and nothing else.
"""

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

from pano4d.lifting.compositing import composite
from pano4d.lifting.harmonics import sh_colors
from pano4d.lifting.projection import Projection, axes_of, project
from pano4d.runtime.errors import SettingsError

RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")


def rasterization(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor, Ks: Tensor,
    width: int, height: int, near_plane: float = 0.01, far_plane: float = 1e10, radius_clip: float = 0.0,
    eps2d: float = 0.3, sh_degree: int | None = None, backgrounds: Tensor | None = None, render_mode: str = "RGB",
) -> tuple[Tensor, Tensor, dict]:
    """Draw Gaussians into the pictures of several pinhole cameras.

    Args:
        means: Centres, metres. float [N, 3].
        quats: w x y z, of any length above 0. float [N, 4].
        scales: Standard deviations, metres. float [N, 3].
        opacities: At the centre, 0 to 1. float [N].
        colors: Colours or any D features, float [N, D] or [C, N, D]; with `sh_degree` spherical harmonics, float
            [N, K, 3] or [C, N, K, 3].
        viewmats: World to camera. float [C, 4, 4].
        Ks: Intrinsics, pixels. float [C, 3, 3].
        width: Picture width in pixels.
        height: Picture height in pixels.
        near_plane: Least depth that is drawn, metres.
        far_plane: Largest depth that is drawn, metres.
        radius_clip: Gaussians of at most this radius are left out, pixels.
        eps2d: Variance added in the picture, pixels^2.
        sh_degree: Degree of harmonics to use, 0 to 3; None: `colors` are colours.
        backgrounds: float [C, D]; None: 0.
        render_mode: RGB: colours. D: depth along the camera's axis, summed with the weights of the Gaussians; ED: that
            over the coverage. RGB+D, RGB+ED: colours, then depth as the last channel.

    Returns:
        Pictures, float [C, height, width, X]; coverage, float [C, height, width, 1]; and of the pairs of a camera and a
        Gaussian in its picture, ordered by camera and then Gaussian, as with gsplat's `packed`: ``camera_ids`` and
        ``gaussian_ids`` int64 [M], ``means2d`` float [M, 2] (call its `retain_grad` for its gradient), ``radii`` int32
        [M, 2], ``depths`` float [M], ``conics`` float [M, 3], ``opacities`` float [M]; besides ``width``, ``height``
        and ``n_cameras``. Differentiable by all tensors but `Ks`.

    Raises:
        SettingsError: No such mode, or spherical harmonics that do not fit `sh_degree`.
    """
    if render_mode not in RENDER_MODES:
        raise SettingsError(f"The render mode {render_mode!r} is unknown; use one of {', '.join(RENDER_MODES)}.")
    planes = {"near_plane": near_plane, "far_plane": far_plane, "radius_clip": radius_clip, "eps2d": eps2d}
    axes = axes_of(quats, scales)
    found = [project(means, axes, opacities, view, K, width, height, **planes) for view, K in zip(viewmats, Ks.detach())]
    meta = _meta(found, opacities) | {"width": width, "height": height, "n_cameras": len(viewmats)}
    counts = [len(ids) for ids, _ in found]
    pictures, coverages = [], []
    # The parts are cut out of what `meta` holds, so that their gradients can be asked for there.
    parts = zip(*(meta[name].split(counts) for name in (*Projection._fields, "opacities", "gaussian_ids")))
    for camera, (means2d, conics, depths, radii, opacity, ids) in enumerate(parts):
        features = []
        if render_mode.startswith("RGB"):
            own = colors[camera] if colors.dim() == (3 if sh_degree is None else 4) else colors
            features.append(_colors(own, ids, means, viewmats[camera], sh_degree))
        if render_mode != "RGB":
            features.append(depths[:, None])
        background = None if backgrounds is None else _behind(backgrounds[camera], render_mode)
        splats = Projection(means2d, conics, depths, radii)
        picture, coverage = composite(splats, opacity, torch.cat(features, -1), background, width, height)
        if render_mode.endswith("ED"):
            expected = picture[..., -1:] / coverage.clamp_min(1e-10)
            picture = torch.cat([picture[..., :-1], expected], -1)
        pictures.append(picture)
        coverages.append(coverage)
    return torch.stack(pictures), torch.stack(coverages), meta


def rasterizer(device: torch.device | str) -> Callable[..., tuple[Tensor, Tensor, dict]]:
    """Choose what draws on a device.

    Args:
        device: Where the Gaussians lie, such as "cpu" or "cuda".

    Returns:
        gsplat's `rasterization` on a CUDA device where gsplat is installed, else the one of this module.

    Raises:
        Nothing.
    """
    on_gpu = torch.device(device).type == "cuda" and torch.cuda.is_available()
    # Where there is no GPU the mere import of gsplat may start a compiler.
    if on_gpu and importlib.util.find_spec("gsplat"):
        from gsplat import rasterization as by_gsplat

        return by_gsplat
    return rasterization


def _meta(found: list[tuple[Tensor, Projection]], opacities: Tensor) -> dict:
    """Join what the cameras see into one list."""
    ids = torch.cat([numbers for numbers, _ in found])
    cameras = [torch.full_like(numbers, camera) for camera, (numbers, _) in enumerate(found)]
    joined = {name: torch.cat([getattr(splats, name) for _, splats in found]) for name in Projection._fields}
    return {"camera_ids": torch.cat(cameras), "gaussian_ids": ids, "opacities": opacities.index_select(0, ids), **joined}


def _colors(colors: Tensor, ids: Tensor, means: Tensor, viewmat: Tensor, sh_degree: int | None) -> Tensor:
    """Return the colours in which a camera sees Gaussians. float [M, D]."""
    chosen = colors.index_select(0, ids)
    if sh_degree is None:
        return chosen
    eye = -viewmat[:3, :3].T @ viewmat[:3, 3]
    return sh_colors(sh_degree, means.index_select(0, ids) - eye, chosen)


def _behind(background: Tensor, render_mode: str) -> Tensor:
    """Fit a background to the channels of a mode; behind depth there is nothing. float [X]."""
    depth = background.new_zeros(0 if render_mode == "RGB" else 1)
    return torch.cat([background, depth]) if render_mode.startswith("RGB") else depth
