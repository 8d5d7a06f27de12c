"""Draw Gaussians differentiably: gsplat on a GPU, else the same picture and gradients in plain torch.

`rasterization` takes the arguments of gsplat 1.5.3's function of that name and follows its kernels' rules (`projection`,
`compositing`), so that what is written against one runs on the other. It needs torch and nothing else.
"""

import importlib.util
import math
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
    eps2d: float = 0.3, sh_degree: int | None = None, packed: bool = True, backgrounds: Tensor | None = None,
    render_mode: str = "RGB",
) -> tuple[Tensor, Tensor, dict]:
    """Draw Gaussians into the pictures of several pinhole cameras, or several sets each into those of cameras of its own.

    Args:
        means: Centres, metres. float [..., N, 3]; leading axes, the same in all arguments, count sets.
        quats: w x y z, of any length above 0. float [..., N, 4].
        scales: Standard deviations, metres. float [..., N, 3].
        opacities: At the centre, 0 to 1. float [..., N].
        colors: Colours or any D features, float [..., N, D] or [..., C, N, D]; with `sh_degree` spherical harmonics, float
            [..., N, K, 3] or [..., C, N, K, 3].
        viewmats: World to camera. float [..., C, 4, 4].
        Ks: Intrinsics, pixels. float [..., C, 3, 3].
        width: Picture width in pixels.
        height: Picture height in pixels.
        near_plane: Least depth that is drawn, metres.
        far_plane: Largest depth that is drawn, metres.
        radius_clip: Gaussians of at most this radius are left out, pixels.
        eps2d: Variance added in the picture, pixels^2.
        sh_degree: Degree of harmonics to use, 0 to 3; None: `colors` are colours.
        packed: How what is returned last is laid out.
        backgrounds: float [..., C, D]; None: 0.
        render_mode: RGB: colours. D: depth along the camera's axis, summed with the weights of the Gaussians; ED: that
            over the coverage. RGB+D, RGB+ED: colours, then depth as the last channel.

    Returns:
        Pictures, float [..., C, height, width, X]; coverage, float [..., C, height, width, 1]; and of the pairs of a camera
        and a Gaussian in its picture, ordered by set, camera and then Gaussian, as with gsplat's `packed`: ``batch_ids``,
        ``camera_ids`` and ``gaussian_ids``, each within the one before, int64 [M]; ``means2d`` float [M, 2] (call its
        `retain_grad` for its gradient), ``radii`` int32 [M, 2], ``depths`` float [M], ``conics`` float [M, 3],
        ``opacities`` float [M]; besides ``width``, ``height``, ``n_batches`` and ``n_cameras``. If not `packed`, [..., C, N]
        stands for [M], radii are 0 of what is not seen, and the ids are None. Differentiable by all tensors but `Ks`.

    Raises:
        SettingsError: No such mode, or spherical harmonics that do not fit `sh_degree`.
    """
    if render_mode not in RENDER_MODES:
        raise SettingsError(f"The render mode {render_mode!r} is unknown; use one of {', '.join(RENDER_MODES)}.")
    planes = {"near_plane": near_plane, "far_plane": far_plane, "radius_clip": radius_clip, "eps2d": eps2d}
    sets, batch, cameras, count = math.prod(means.shape[:-2]), means.shape[:-2], viewmats.shape[-3], means.shape[-2]
    axes = axes_of(quats.reshape(-1, 4), scales.reshape(-1, 3)).reshape(sets, count, 3, 3)
    means, opacities = means.reshape(sets, count, 3), opacities.reshape(sets, count)
    of_cameras = colors.dim() - len(batch) == (3 if sh_degree is None else 4)
    colors = colors.reshape(sets, *colors.shape[len(batch):])
    viewmats, Ks = viewmats.reshape(-1, 4, 4), Ks.detach().reshape(-1, 3, 3)
    images = [divmod(image, cameras) for image in range(sets * cameras)]
    found = [project(means[own], axes[own], opacities[own], view, K, width, height, **planes)
             for (own, _), view, K in zip(images, viewmats, Ks)]
    pairs = _pairs(found, opacities, cameras)
    meta, counts = pairs, [len(ids) for ids, _ in found]
    if not packed:
        meta, pairs = _spread(pairs, (*batch, cameras, count))
    pictures, coverages = [], []
    # The parts are cut out of what `meta` holds, so that their gradients can be asked for there.
    parts = zip(*(pairs[name].split(counts) for name in (*Projection._fields, "opacities", "gaussian_ids")))
    for image, (means2d, conics, depths, radii, opacity, ids) in enumerate(parts):
        own, camera = images[image]
        features = []
        if render_mode.startswith("RGB"):
            shades = colors[own, camera] if of_cameras else colors[own]
            features.append(_colors(shades, ids, means[own], viewmats[image], sh_degree))
        if render_mode != "RGB":
            features.append(depths[:, None])
        background = None if backgrounds is None else _behind(backgrounds.flatten(0, -2)[image], render_mode)
        splats = Projection(means2d, conics, depths, radii)
        picture, coverage = composite(splats, opacity, torch.cat(features, -1), background, width, height)
        if render_mode.endswith("ED"):
            expected = picture[..., -1:] / coverage.clamp_min(1e-10)
            picture = torch.cat([picture[..., :-1], expected], -1)
        pictures.append(picture)
        coverages.append(coverage)
    drawn = (torch.stack(made).reshape(*batch, cameras, height, width, -1) for made in (pictures, coverages))
    return *drawn, meta | {"width": width, "height": height, "n_batches": sets, "n_cameras": cameras}


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


def _pairs(found: list[tuple[Tensor, Projection]], opacities: Tensor, cameras: int) -> dict[str, Tensor]:
    """Join what the cameras of all sets, with opacities [B, N], see into one list."""
    ids = torch.cat([numbers for numbers, _ in found])
    images = torch.cat([torch.full_like(numbers, image) for image, (numbers, _) in enumerate(found)])
    joined = {name: torch.cat([getattr(splats, name) for _, splats in found]) for name in Projection._fields}
    own = torch.div(images, cameras, rounding_mode="floor")
    chosen = opacities.reshape(-1).index_select(0, own * opacities.shape[1] + ids)
    return {"batch_ids": own, "camera_ids": images % cameras, "gaussian_ids": ids, "opacities": chosen, **joined}


def _spread(pairs: dict[str, Tensor], shape: tuple[int, ...]) -> tuple[dict, dict[str, Tensor]]:
    """Lay pairs out over [..., C, N], with 0 where nothing is seen; and list them again out of that."""
    *_, cameras, count = shape
    place = (pairs["batch_ids"] * cameras + pairs["camera_ids"]) * count + pairs["gaussian_ids"]
    spread: dict = dict.fromkeys(("batch_ids", "camera_ids", "gaussian_ids"))
    listed = {"gaussian_ids": pairs["gaussian_ids"]}
    for name in (*Projection._fields, "opacities"):
        values = pairs[name]
        empty = values.new_zeros(math.prod(shape), *values.shape[1:])
        spread[name] = empty.index_copy(0, place, values).reshape(*shape, *values.shape[1:])
        listed[name] = spread[name].reshape(empty.shape).index_select(0, place)
    return spread, listed


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
