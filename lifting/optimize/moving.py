"""Optimise the moving Gaussians of a video: those of the first frame, then those of several frames at a time."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pano4d.lifting.gaussians import Gaussians
from pano4d.lifting.optimize.objective import Target
from pano4d.lifting.optimize.run import Report, Scene, take_steps
from pano4d.lifting.optimize.settings import OptimizeSettings
from pano4d.lifting.optimize.sight import in_sight
from pano4d.lifting.optimize.surface_gaussians import SurfaceGaussians
from pano4d.lifting.optimize.views import ViewSampler, view_size

_NARROW_FOV_DEG = 42.0  # of views of what moves, which is small: half the side, a quarter of the pixels
_PANORAMA_PIXEL_BYTES, _VIEW_PIXEL_BYTES = 20, 320  # what a step takes, its gradients included
_GAUSSIAN_BYTES, _SEEN_BYTES = 170, 110  # the latter of each pair of a Gaussian and a view
_GPU_BYTES, _CPU_BYTES = 14 << 30, 2 << 30
_CARRIED = ("slide", "turn", "log_stretch", "logits")


class MovingOptimizer:
    """Optimise the moving Gaussians of one batch of frames after another.

    Args:
        static: Still Gaussians, as they stay.
        towards: Directions of the moving ones. Unit, float [M, 3].
        width: Width of the panorama in pixels.
        reach_m: How far off the centre views stand, metres.
        rasterization: gsplat's function or one with its signature.
        device: Where.
        settings: How.

    Attributes:
        before: What the last frame so far has learned; None before the first.
    """

    def __init__(self, static: Gaussians, towards: np.ndarray, width: int, reach_m: float, rasterization: Callable,
                 device: torch.device, settings: OptimizeSettings) -> None:
        self._towards = torch.from_numpy(np.asarray(towards, np.float32)).to(device)
        with torch.no_grad():
            splats = SurfaceGaussians(static, device=device).splats()
            seen = in_sight(splats[0], splats[2].amax(-1), self._towards, reach_m, _NARROW_FOV_DEG)
            self._still = tuple(part[seen] for part in splats)
        self._width, self._reach_m, self._rasterization = width, reach_m, rasterization
        self._device, self._settings = device, settings
        self.before: SurfaceGaussians | None = None

    def batches(self, count: int) -> list[range]:
        """Share frames 0 to ``count`` - 1 out: the first one alone, the others evenly, as many at once as memory takes."""
        most = max(1, min(self._settings.frames_at_once, self._room_bytes() // self._frame_bytes()))
        parts = math.ceil((count - 1) / most)
        ends = [1 + (count - 1) * part // parts for part in range(parts + 1)] if parts else [1]
        return [range(1), *(range(*pair) for pair in zip(ends, ends[1:]))]

    def optimize(self, frames: range, gaussians: Sequence[Gaussians], target: Target, report: Report) -> list[SurfaceGaussians]:
        """Optimise those of the next frames.

        All begin with what the frame before the first of them has learned, and each is held near the one before it.

        Args:
            frames: Their numbers.
            gaussians: Of each, as placed: the same samples in every frame.
            target: Their panoramas; weight 0 well outside of what moves.
            report: As for `optimize_static`.

        Returns:
            The Gaussians of each, in the same order.

        Raises:
            Nothing.
        """
        trained = SurfaceGaussians(*gaussians, device=self._device)
        if self.before is not None:
            trained.follow(self.before)
        samplers = [self._sampler(number, placed) for number, placed in zip(frames, gaussians)]
        scene = Scene(self._rasterization, trained, len(frames), self._still)
        take_steps(scene, trained, samplers, target, self._settings, self._settings.steps_of_frame(frames[0]), report,
                   self._carry() if self.before is not None else None)
        made = trained.divide(gaussians)
        self.before = made[-1]
        return made

    def _sampler(self, number: int, placed: Gaussians) -> ViewSampler:
        towards = torch.nn.functional.normalize(torch.from_numpy(placed.means), dim=-1)
        size, seed = view_size(self._width, _NARROW_FOV_DEG), self._settings.seed + 1 + number
        return ViewSampler(size, self._reach_m, seed, self._device, towards, _NARROW_FOV_DEG)

    def _carry(self) -> Callable[[SurfaceGaussians], Tensor]:
        """Weigh what all but the colours do otherwise than in the frame before: mean squares, summed over frames."""
        parts = [self.before.parameters[name].detach().reshape(-1) for name in _CARRIED]
        before, count = torch.cat(parts)[None], len(self.before)
        shares = torch.cat([torch.full_like(part, self._settings.carry_weight / len(part)) for part in parts])

        def change(trained: SurfaceGaussians) -> Tensor:
            frames = torch.cat([trained.parameters[name].reshape(len(trained) // count, -1) for name in _CARRIED], 1)
            return (torch.diff(frames, dim=0, prepend=before).square() * shares).sum()

        return change

    def _frame_bytes(self) -> int:
        views = self._settings.centred_views + self._settings.off_views
        drawn = views * _VIEW_PIXEL_BYTES * view_size(self._width, _NARROW_FOV_DEG) ** 2
        count = len(self._still[0]) + len(self._towards)
        return _PANORAMA_PIXEL_BYTES * self._width**2 // 2 + drawn + count * (_GAUSSIAN_BYTES + views * _SEEN_BYTES)

    def _room_bytes(self) -> int:
        if self._device.type != "cuda":
            return _CPU_BYTES
        return min(_GPU_BYTES, torch.cuda.get_device_properties(self._device).total_memory // 2)
