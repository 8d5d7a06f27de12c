"""Optimise Gaussians against the panoramas they were placed from.

Still Gaussians once, against the mean of all frames outside the mask; then the moving ones frame by frame, each beginning
with what the frame before has learned. Views from the centre are compared with the panorama itself. Views off the centre
have no picture of their own: what they render is sent back, by its own rendered distance, to the panorama's pixel that lies
in the same direction, and is compared with it where the panorama's distance map says that pixel lies at that place. Where it
does not, the surface was hidden from the centre and nothing is known. All views are to be opaque.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pano4d.lifting.gaussians import Gaussians
from pano4d.lifting.optimize.objective import Objective, Target
from pano4d.lifting.optimize.settings import OptimizeSettings
from pano4d.lifting.optimize.surface_gaussians import Adam, SurfaceGaussians
from pano4d.lifting.optimize.views import PixelRays, ViewSampler, Views, view_size

Report = Callable[[int, int, float], None]
_REPORT_EVERY = 20
_NARROW_FOV_DEG = 42.0  # of views of what moves, which is small: half the side, a quarter of the pixels


class Scene:
    """Render still and moving Gaussians together.

    Args:
        rasterization: gsplat's function or one with its signature.
        trained: The Gaussians that take gradients.
        fixed: Splats of others, from `SurfaceGaussians.splats`, without gradients; None for none.
    """

    def __init__(self, rasterization: Callable, trained: SurfaceGaussians, fixed: tuple[Tensor, ...] | None = None) -> None:
        self._rasterization, self._trained, self._fixed = rasterization, trained, fixed

    def render(self, views: Views) -> tuple[Tensor, Tensor, Tensor]:
        """Render.

        Args:
            views: C square views.

        Returns:
            Colours and summed depths along the cameras' axes [C, h, w, 4], opacities [C, h, w, 1], and which of the trained
            Gaussians were seen, bool [N].
        """
        splats = self._trained.splats()
        if self._fixed is not None:
            splats = tuple(torch.cat(pair) for pair in zip(splats, self._fixed))
        rendered, alphas, meta = self._rasterization(*splats, views.viewmats, views.Ks, views.size, views.size,
                                                     render_mode="RGB+D")
        seen = torch.zeros(len(splats[0]), dtype=torch.bool, device=alphas.device)
        seen[meta["gaussian_ids"]] = True
        return rendered, alphas, seen[:len(self._trained)]


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
    if not steps:
        return
    views, adam = sampler.series(steps, settings.centred_views, settings.off_views), Adam(trained, steps)
    device = views.viewmats.device
    objective = Objective(target, PixelRays(sampler.size, sampler.fov_deg, device), settings, device)
    for step in range(steps):
        rendered, alphas, seen = scene.render(views[step])
        told = (step + 1) % _REPORT_EVERY == 0 or step + 1 == steps
        loss, psnr = objective(rendered[None], alphas[None], views.viewmats[step][None], told)
        if before is not None:
            loss = loss + settings.carry_weight * _change(trained, before)
        loss.backward()
        adam.step(seen)
        if told:
            report(step + 1, steps, float(psnr))  # waits for the GPU


def _change(trained: SurfaceGaussians, before: SurfaceGaussians) -> Tensor:
    """Take the mean square of what all but the colours do otherwise than in the frame before."""
    return sum(((value - before.parameters[name].detach()) ** 2).mean()
               for name, value in trained.parameters.items() if name != "sh")
