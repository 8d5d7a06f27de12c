"""Optimise Gaussians against the panoramas they were placed from.

Still Gaussians once, against the mean of all frames outside the mask; then the moving ones frame by frame, each beginning
with what the frame before has learned. Views from the centre are compared with the panorama itself. Views off the centre
have no picture of their own: what they render is sent back, by its own rendered distance, to the panorama's pixel that lies
in the same direction, and is compared with it where the panorama's distance map says that pixel lies at that place. Where it
does not, the surface was hidden from the centre and nothing is known. All views are to be opaque.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pano4d.lifting.gaussians import Gaussians
from pano4d.lifting.optimize.losses import photometric, smoothness, weighted_mean
from pano4d.lifting.optimize.sphere_picture import SpherePicture
from pano4d.lifting.optimize.surface_gaussians import Adam, SurfaceGaussians
from pano4d.lifting.optimize.views import ViewSampler, Views, view_size

Report = Callable[[int, int, float], None]
_REPORT_EVERY = 20
_NARROW_FOV_DEG = 42.0  # of views of what moves, which is small: half the side, a quarter of the pixels
_SAME_PLACE = 0.03  # of log distance: closer than this, a rendered surface is the one that the panorama shows


@dataclass(frozen=True)
class OptimizeSettings:
    """How to optimise.

    Attributes:
        iterations: Steps of the still Gaussians; 0 leaves all as they were placed.
        moving_iterations: Steps of the moving ones of each frame; None: a sixth of those, twice as many for the first.
        centred_views: Views from the centre in a step.
        off_views: Views off the centre in a step.
        reach: How far off, as a share of the median distance.
        off_weight: Weight of the views off the centre.
        depth_weight: Weight of the distance that views show.
        smooth_weight: Weight of its smoothness off the centre.
        opaque_weight: Weight of what views let through.
        carry_weight: Weight of what a moving Gaussian does otherwise than in the frame before.
        seed: Of the views.
    """

    iterations: int = 400
    moving_iterations: int | None = None
    centred_views: int = 3
    off_views: int = 1
    reach: float = 0.1
    off_weight: float = 0.5
    depth_weight: float = 0.05
    smooth_weight: float = 0.02
    opaque_weight: float = 0.1
    carry_weight: float = 0.02
    seed: int = 0

    def steps_of_frame(self, frame: int) -> int:
        """Steps of the moving Gaussians of a frame."""
        each = self.iterations // 6 if self.moving_iterations is None else self.moving_iterations
        return each if frame else 2 * each


class Target:
    """What the sphere shows: colours, distances, and where they count.

    Args:
        frame: Colours 0 to 1, float32 [H, W, 3], or grey levels, uint8 [H, W, 3].
        distance: Along each pixel's ray, metres. float32 [H, W].
        weight: What counts, 0 to 1. float32 [H, W].
        device: Where.
    """

    def __init__(self, frame: np.ndarray, distance: np.ndarray, weight: np.ndarray, device: torch.device) -> None:
        colors = torch.from_numpy(np.ascontiguousarray(frame)).to(device).permute(2, 0, 1)
        if frame.dtype == np.uint8:
            colors = colors.float() / 255
        rest = torch.from_numpy(np.stack([distance, weight]).astype(np.float32)).to(device)
        self._colors, self._rest = SpherePicture(colors.contiguous()), SpherePicture(rest)

    def at(self, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Look up colours [..., 3], distances [...] and weights [...]; the latter two of the nearest pixel."""
        distance, weight = self._rest.at(directions, "nearest").unbind(-1)
        return self._colors.at(directions), distance, weight


class Scene:
    """Render still and moving Gaussians together.

    Args:
        rasterization: gsplat's function or one with its signature.
        trained: The Gaussians that take gradients.
        fixed: Splats of others, from `SurfaceGaussians.splats`, without gradients; None for none.
    """

    def __init__(self, rasterization: Callable, trained: SurfaceGaussians, fixed: tuple[Tensor, ...] | None = None) -> None:
        self._rasterization, self._trained, self._fixed = rasterization, trained, fixed

    def render(self, views: Views) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Render.

        Args:
            views: C square views.

        Returns:
            Colours [C, h, w, 3], depths along the cameras' axes [C, h, w], opacities [C, h, w], and which of the trained
            Gaussians were seen, bool [N].
        """
        splats = self._trained.splats()
        if self._fixed is not None:
            splats = tuple(torch.cat(pair) for pair in zip(splats, self._fixed))
        rendered, alphas, meta = self._rasterization(
            *splats, views.viewmats, views.Ks, views.size, views.size, sh_degree=0, render_mode="RGB+ED")
        seen = torch.zeros(len(splats[0]), dtype=torch.bool, device=alphas.device)
        seen[meta["gaussian_ids"]] = True
        return rendered[..., :3], rendered[..., 3], alphas[..., 0], seen[:len(self._trained)]


def loss_of_views(scene: Scene, views: Views, centred: int, target: Target, settings: OptimizeSettings) \
        -> tuple[Tensor, Tensor, Tensor]:
    """Take the loss of a batch of views.

    Args:
        scene: What is rendered.
        views: The first ``centred`` from the centre, the others from near it.
        centred: How many.
        target: What should be seen.
        settings: Weights.

    Returns:
        The loss, which trained Gaussians were seen, and the PSNR from the centre in dB.

    Raises:
        Nothing.
    """
    colors, depth, alpha, seen = scene.render(views)
    rays = views.rays()
    wanted, distance, weight = target.at(rays[:centred])
    loss = photometric(colors[:centred], wanted, weight)
    length = rays.norm(dim=-1)
    opaque = weighted_mean(1 - alpha[:centred], weight)
    loss = loss + settings.depth_weight * _depth_loss(depth[:centred] * length[:centred], distance, weight * (alpha[:centred] > 0.5))
    squares = weighted_mean(((colors[:centred].detach() - wanted) ** 2).mean(-1), weight)
    if centred < len(rays):
        part = slice(centred, None)
        points = views.positions[part, None, None] + rays[part] * depth[part, ..., None]
        wanted, distance, weight = target.at(points.detach())
        error = (points.norm(dim=-1).clamp(min=1e-6) / distance).log()
        known = weight * (error.detach().abs() < _SAME_PLACE) * (alpha[part] > 0.5)
        loss = loss + settings.off_weight * photometric(colors[part], wanted, known)
        loss = loss + settings.depth_weight * weighted_mean(error.abs(), known)
        loss = loss + settings.smooth_weight * smoothness(depth[part].clamp(min=1e-3), colors[part].detach(), known)
        opaque = opaque + (1 - alpha[part]).mean()
    return loss + settings.opaque_weight * opaque, seen, -10 * torch.log10(squares.clamp(min=1e-10))


def _depth_loss(rendered: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    return weighted_mean((rendered.clamp(min=1e-3) / wanted).log().abs().clamp(max=0.5), weight)


def optimize_static(gaussians: Gaussians, target: Target, width: int, reach_m: float, rasterization: Callable,
                    device: torch.device, settings: OptimizeSettings,
                    report: Report = lambda done, total, psnr: None) -> SurfaceGaussians:
    """Optimise the still Gaussians.

    Args:
        gaussians: As placed.
        target: The panorama; weight 0 where something moves.
        width: Width of the panorama in pixels.
        reach_m: How far off the centre views stand, metres.
        rasterization: gsplat's function or one with its signature.
        device: Where.
        settings: How.
        report: Called now and then with steps done, all steps, and PSNR from the centre in dB.

    Returns:
        The Gaussians, in the same order.

    Raises:
        Nothing.
    """
    trained = SurfaceGaussians(gaussians, device)
    sampler = ViewSampler(view_size(width), reach_m, settings.seed, device)
    _run(Scene(rasterization, trained), trained, sampler, target, settings, settings.iterations, None, report)
    return trained


class MovingOptimizer:
    """Optimise the moving Gaussians of one frame after another.

    Args:
        static: Still Gaussians, as they stay.
        width: Width of the panorama in pixels.
        reach_m: How far off the centre views stand, metres.
        rasterization: gsplat's function or one with its signature.
        device: Where.
        settings: How.

    Attributes:
        before: What the frame before has learned; None before the first.
    """

    def __init__(self, static: Gaussians, width: int, reach_m: float, rasterization: Callable, device: torch.device,
                 settings: OptimizeSettings) -> None:
        with torch.no_grad():
            self._still = tuple(part.detach() for part in SurfaceGaussians(static, device).splats())
        self._width, self._reach_m, self._rasterization = width, reach_m, rasterization
        self._device, self._settings = device, settings
        self.before: SurfaceGaussians | None = None

    def optimize(self, frame: int, gaussians: Gaussians, target: Target,
                 report: Report = lambda done, total, psnr: None) -> SurfaceGaussians:
        """Optimise those of the next frame.

        Args:
            frame: Its number.
            gaussians: As placed: the same samples in every frame.
            target: Its panorama; weight 0 well outside of what moves.
            report: As for `optimize_static`.

        Returns:
            The Gaussians, in the same order.
        """
        trained = SurfaceGaussians(gaussians, self._device)
        if self.before is not None:
            trained.follow(self.before)
        towards = torch.nn.functional.normalize(torch.from_numpy(gaussians.means), dim=-1)
        size, seed = view_size(self._width, _NARROW_FOV_DEG), self._settings.seed + 1 + frame
        sampler = ViewSampler(size, self._reach_m, seed, self._device, towards, _NARROW_FOV_DEG)
        _run(Scene(self._rasterization, trained, self._still), trained, sampler, target, self._settings,
             self._settings.steps_of_frame(frame), self.before, report)
        return trained


def _run(scene: Scene, trained: SurfaceGaussians, sampler: ViewSampler, target: Target, settings: OptimizeSettings, steps: int,
         before: SurfaceGaussians | None, report: Report) -> None:
    adam, centred = Adam(trained, steps), settings.centred_views
    views = sampler.series(steps, centred, settings.off_views) if steps else None
    for step in range(steps):
        loss, seen, psnr = loss_of_views(scene, views[step], centred, target, settings)
        if before is not None:
            loss = loss + settings.carry_weight * _change(trained, before)
        loss.backward()
        adam.step(seen)
        if (step + 1) % _REPORT_EVERY == 0 or step + 1 == steps:
            report(step + 1, steps, float(psnr))  # waits for the GPU


def _change(trained: SurfaceGaussians, before: SurfaceGaussians) -> Tensor:
    """Take the mean square of what all but the colours do otherwise than in the frame before."""
    return sum(((value - before.parameters[name].detach()) ** 2).mean()
               for name, value in trained.parameters.items() if name != "sh")
