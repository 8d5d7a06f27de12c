"""Optimise Gaussians against the panoramas they were placed from.

Still Gaussians once, against the mean of all frames outside the mask; then the moving ones, several frames at a time
(`moving`). Views from the centre are compared with the panorama itself. Views off the centre have no picture of their own:
what they render is sent back, by its own rendered distance, to the panorama's pixel that lies in the same direction, and is
compared with it where the panorama's distance map says that pixel lies at that place. Where it does not, the surface was
hidden from the centre and nothing is known. All views are to be opaque.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pano4d.lifting.gaussians import Gaussians
from pano4d.lifting.optimize.objective import Objective, Target
from pano4d.lifting.optimize.settings import OptimizeSettings
from pano4d.lifting.optimize.surface_gaussians import Adam, SurfaceGaussians
from pano4d.lifting.optimize.views import PixelRays, ViewSampler, Views, side_by_side, view_size

Report = Callable[[int, int, list[float]], None]
"""Called with steps done, all steps, and PSNR from the centre of each frame in dB."""

BLUR = 0.2
"""Variance that is added to Gaussians in the picture, pixels^2. Viewers add 0.3. What is optimised under as much narrows until
that alone closes the gaps, and in views finer than the panorama, as most windows show them, gaps are dark outlines. Less than
0.2 costs more in views that are as fine as it."""

_REPORT_EVERY = 20


class Scene:
    """Render still Gaussians together with the moving ones of several frames.

    Args:
        rasterization: gsplat's function or one with its signature.
        trained: The Gaussians that take gradients, of one frame after another.
        frames: B, of how many frames they are.
        fixed: Splats of others, from `SurfaceGaussians.splats`, without gradients, in all frames; None for none.
    """

    def __init__(self, rasterization: Callable, trained: SurfaceGaussians, frames: int = 1,
                 fixed: tuple[Tensor, ...] | None = None) -> None:
        self._rasterization, self._trained, self._shape = rasterization, trained, (frames, len(trained) // frames)
        self._fixed = None if fixed is None else [part.expand(frames, *part.shape) for part in fixed]

    def render(self, views: Views) -> tuple[Tensor, Tensor, Tensor]:
        """Render.

        Args:
            views: C square views of each frame.

        Returns:
            Colours and summed depths along the cameras' axes [B, C, h, w, 4], opacities [B, C, h, w, 1], and which of the
            trained Gaussians were seen, bool [B N].
        """
        splats = tuple(part.unflatten(0, self._shape) for part in self._trained.splats())
        if self._fixed is not None:
            splats = tuple(torch.cat(pair, 1) for pair in zip(splats, self._fixed))
        # Not packed: picking what is seen, and adding gradients up again, would take more launches than it saves work; and
        # gsplat 1.5.3 cuts packed Gaussians of all frames where the opacities of the first would end.
        rendered, alphas, meta = self._rasterization(*splats, views.viewmats, views.Ks, views.size, views.size, packed=False,
                                                     eps2d=BLUR, render_mode="RGB+D")
        return rendered, alphas, (meta["radii"][:, :, :self._shape[1], 0] > 0).any(1).flatten()


def optimize_static(gaussians: Gaussians, target: Target, width: int, reach_m: float, rasterization: Callable,
                    device: torch.device, settings: OptimizeSettings,
                    report: Report) -> SurfaceGaussians:
    """Optimise the still Gaussians.

    Args:
        gaussians: As placed.
        target: The panorama; weight 0 where something moves.
        width: Width of the panorama in pixels.
        reach_m: How far off the centre views stand, metres.
        rasterization: gsplat's function or one with its signature.
        device: Where.
        settings: How.
        report: Called now and then; there is one frame.

    Returns:
        The Gaussians, in the same order.

    Raises:
        Nothing.
    """
    trained = SurfaceGaussians(gaussians, device=device)
    sampler = ViewSampler(view_size(width), reach_m, settings.seed, device)
    take_steps(Scene(rasterization, trained), trained, [sampler], target, settings, settings.iterations, report)
    return trained


def take_steps(scene: Scene, trained: SurfaceGaussians, samplers: Sequence[ViewSampler], target: Target,
               settings: OptimizeSettings, steps: int, report: Report,
               besides: Callable[[SurfaceGaussians], Tensor] | None = None) -> None:
    """Optimise.

    Args:
        scene: What is rendered.
        trained: Its Gaussians that take gradients.
        samplers: Draws the views of each frame.
        target: What they should show.
        settings: How many views, and how much what counts.
        steps: Steps to take.
        report: Called now and then.
        besides: What to add to the loss; None: nothing.

    Raises:
        Nothing.
    """
    if not steps:
        return
    series = side_by_side([sampler.series(steps, settings.centred_views, settings.off_views) for sampler in samplers])
    device, adam = series.viewmats.device, Adam(trained, steps, settings.pace(steps))
    objective = Objective(target, PixelRays(samplers[0].size, samplers[0].fov_deg, device), settings, device)
    for step in range(steps):
        views, told = series[step], (step + 1) % _REPORT_EVERY == 0 or step + 1 == steps
        rendered, alphas, seen = scene.render(views)
        loss, psnr = objective(rendered, alphas, views.viewmats, told)
        if besides is not None:
            loss = loss + besides(trained)
        loss.backward()
        adam.step(seen)
        if told:
            report(step + 1, steps, psnr.tolist())  # waits for the GPU
