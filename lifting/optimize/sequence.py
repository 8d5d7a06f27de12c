"""Optimise the Gaussians of a panoramic video: what stays once, then what moves, frame after frame."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pano4d.lifting.distances import Distances
from pano4d.lifting.gaussians import Gaussians
from pano4d.lifting.layers import Layers
from pano4d.lifting.optimize.objective import Target
from pano4d.lifting.optimize.run import MovingOptimizer, optimize_static
from pano4d.lifting.optimize.settings import OptimizeSettings
from pano4d.lifting.optimize.surface_gaussians import SurfaceGaussians
from pano4d.lifting.rasterize import rasterization, rasterizer
from pano4d.lifting.sky import middle_distance, sky_distance
from pano4d.lifting.store import Store

Report = Callable[[int, int, float], None]
_RING = 1 / 512  # of the width: how far around what moves its frame is compared


class SequenceOptimizer:
    """Optimise a video's Gaussians, in this order: those that stay, then those that move of frame 0, 1, and so on.

    Args:
        frames: Panoramas. uint8 [T, H, W, 3].
        mask: What may move. bool [H, W].
        distances: What the Gaussians were placed by.
        layers: The Gaussians as placed.
        settings: How.
        device: "cpu" or "cuda".
        store: Where to keep what is done; None: nowhere.
        report: Called with steps done, all steps of the video, and PSNR from the centre in dB.

    Attributes:
        rasterizer: "gsplat" or "torch".
        psnr_db: PSNR from the centre of the last step of the still part and of each frame, in that order.

    Raises:
        RuntimeError: The GPU has not enough memory.
    """

    def __init__(self, frames: np.ndarray, mask: np.ndarray, distances: Distances, layers: Layers,
                 settings: OptimizeSettings, device: str, store: Store | None = None,
                 report: Report = lambda done, total, psnr: None) -> None:
        self._frames, self._mask, self._distances, self._layers = frames, np.asarray(mask) != 0, distances, layers
        self._settings, self._device, self._store, self._report = settings, torch.device(device), store, report
        self._draw = rasterizer(device)
        self.rasterizer = "torch" if self._draw is rasterization else "gsplat"
        self.psnr_db: list[float] = []
        sky_m = sky_distance(distances.static)
        self._reach_m = settings.reach * middle_distance(distances.static, distances.static < sky_m)
        self._ring = grow(torch.from_numpy(self._mask), max(1, math.ceil(_RING * frames.shape[2]))).numpy()
        self._moving: MovingOptimizer | None = None
        self._done = 0

    @property
    def steps(self) -> int:
        """Steps of the whole video."""
        moving = sum(map(self._settings.steps_of_frame, range(len(self._frames)))) if len(self._layers.moving_directions) else 0
        return self._settings.iterations * (not self._mask.all()) + moving

    def static(self) -> Gaussians:
        """Optimise what stays."""
        placed, steps = self._layers.static, self._settings.iterations
        if self._mask.all():
            return self._begin_moving(placed)
        mean = np.zeros(self._frames.shape[1:], np.float32)
        for frame in self._frames:
            mean += frame
        mean /= 255.0 * len(self._frames)
        trained = self._restored("static", placed, steps)
        if trained is None:
            target = Target([mean], [self._distances.static], ~self._ring, self._device)
            trained = optimize_static(placed, target, self._frames.shape[2], self._reach_m, self._draw, self._device,
                                      self._settings, self._reporter(steps))
            self._keep("static", trained)
        return self._begin_moving(trained.gaussians())

    def moving(self, frame: int) -> Gaussians:
        """Optimise what moves of the next frame."""
        placed, name, steps = self._layers.moving(frame), f"moving_{frame:04d}", self._settings.steps_of_frame(frame)
        if not len(placed):
            return placed
        trained = self._restored(name, placed, steps)
        if trained is None:
            target = Target([self._frames[frame]], [self._distances.frame(frame)], self._ring, self._device)
            trained = self._moving.optimize(frame, placed, target, self._reporter(steps))
            self._keep(name, trained)
        self._moving.before = trained
        return trained.gaussians()

    def _begin_moving(self, static: Gaussians) -> Gaussians:
        self._moving = MovingOptimizer(static, self._frames.shape[2], self._reach_m, self._draw, self._device, self._settings)
        return static

    def _restored(self, name: str, placed: Gaussians, steps: int) -> SurfaceGaussians | None:
        saved = self._store.load(name) if self._store is not None else None
        if saved is None:
            return None
        trained = SurfaceGaussians(placed, self._device)
        trained.restore({part: value for part, value in saved.items() if part != "psnr_db"})
        self._done += steps
        self.psnr_db.append(float(saved["psnr_db"]))
        return trained

    def _keep(self, name: str, trained: SurfaceGaussians) -> None:
        if self._store is not None:
            self._store.save(name, trained.learned() | {"psnr_db": np.array(self.psnr_db[-1])})

    def _reporter(self, steps: int) -> Report:
        before, self._done = self._done, self._done + steps
        self.psnr_db.append(math.nan)

        def report(done: int, total: int, psnr: float) -> None:
            self.psnr_db[-1] = psnr
            self._report(before + done, self.steps, psnr)

        return report


def grow(mask: Tensor, reach: int) -> Tensor:
    """Add all pixels within so many of a panorama's mask, across the seam.

    Args:
        mask: bool [H, W].
        reach: Pixels.

    Returns:
        bool [H, W].

    Raises:
        Nothing.
    """
    wide = torch.cat([mask[:, -reach:], mask, mask[:, :reach]], 1).float()[None, None]
    across = functional.max_pool2d(wide, (1, 2 * reach + 1), stride=1)
    return functional.max_pool2d(across, (2 * reach + 1, 1), stride=1, padding=(reach, 0))[0, 0] > 0
