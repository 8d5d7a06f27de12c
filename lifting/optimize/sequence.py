"""Optimise the Gaussians of a panoramic video: what stays once, then what moves, several frames at a time."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pano4d.lifting.distances import Distances
from pano4d.lifting.gaussians import Gaussians
from pano4d.lifting.layers import Layers
from pano4d.lifting.optimize.moving import MovingOptimizer
from pano4d.lifting.optimize.objective import Target
from pano4d.lifting.optimize.run import optimize_static
from pano4d.lifting.optimize.settings import OptimizeSettings
from pano4d.lifting.optimize.surface_gaussians import SurfaceGaussians
from pano4d.lifting.rasterize import rasterization, rasterizer
from pano4d.lifting.sky import middle_distance, sky_distance
from pano4d.lifting.store import Store
from pano4d.runtime.parallel import each

Report = Callable[[int, int, float], None]
_RING = 1 / 512  # of the width: how far around what moves its frame is compared


class SequenceOptimizer:
    """Optimise a video's Gaussians, in this order: those that stay, then those that move of frame 0, 1, and so on.

    Moving ones are asked for frame by frame; the first frame of a batch has all of the batch optimised.

    Args:
        frames: Panoramas. uint8 [T, H, W, 3].
        mask: What may move. bool [H, W].
        distances: What the Gaussians were placed by.
        layers: The Gaussians as placed.
        settings: How.
        device: "cpu" or "cuda".
        store: Where to keep what is done; None: nowhere.
        report: Called with steps done, all steps of the video, and PSNR from the centre in dB, of a batch on average.

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
        self._held: dict[int, SurfaceGaussians] = {}
        self._done = 0

    @property
    def steps(self) -> int:
        """Steps of the whole video."""
        moving = sum(map(self._settings.steps_of_frame, range(len(self._frames)))) if self._moves else 0
        return self._settings.iterations * (not self._mask.all()) + moving

    def static(self) -> Gaussians:
        """Optimise what stays."""
        placed, steps = self._layers.static, self._settings.iterations
        if self._mask.all():
            return self._begin_moving(placed)
        trained = self._restored({"static": placed}, steps)
        if trained is None:
            target = Target([self._mean()], [self._distances.static], ~self._ring, self._device)
            trained = [optimize_static(placed, target, self._frames.shape[2], self._reach_m, self._draw, self._device,
                                       self._settings, self._reporter(steps, 1))]
            self._keep(["static"], trained)
        return self._begin_moving(trained[0].gaussians())

    def moving(self, frame: int) -> Gaussians:
        """Optimise what moves of the next frame, and of the frames of its batch."""
        if not self._moves:
            return self._layers.moving(frame)
        if frame not in self._held:
            self._optimize_batch(next(batch for batch in self._moving.batches(len(self._frames)) if frame in batch))
        return self._held.pop(frame).gaussians()

    @property
    def _moves(self) -> bool:
        return len(self._layers.moving_directions) > 0

    def _mean(self) -> np.ndarray:
        """Average the frames. float32 [H, W, 3], 0 to 1."""
        mean = np.zeros(self._frames.shape[1:], np.float32)
        for frame in self._frames:
            mean += frame
        mean /= 255.0 * len(self._frames)
        return mean

    def _begin_moving(self, static: Gaussians) -> Gaussians:
        if self._moves:
            self._moving = MovingOptimizer(static, self._layers.moving_directions, self._frames.shape[2], self._reach_m,
                                           self._draw, self._device, self._settings)
        return static

    def _optimize_batch(self, batch: range) -> None:
        """Optimise a batch, or take it over whole; one of which only a part is kept is made again."""
        placed = dict(zip((f"moving_{number:04d}" for number in batch), each(self._layers.moving, batch)))
        steps = self._settings.steps_of_frame(batch[0])
        trained = self._restored(placed, steps)
        if trained is None:
            target = Target([self._frames[number] for number in batch], each(self._distances.frame, batch), self._ring,
                            self._device)
            trained = self._moving.optimize(batch, list(placed.values()), target, self._reporter(steps, len(batch)))
            self._keep(list(placed), trained)
        self._moving.before = trained[-1]
        self._held = dict(zip(batch, trained))

    def _restored(self, placed: dict[str, Gaussians], steps: int) -> list[SurfaceGaussians] | None:
        """Take over what is kept under all of some names."""
        saved = [self._store.load(name) for name in placed] if self._store is not None else [None]
        if any(one is None for one in saved):
            return None
        trained = [SurfaceGaussians(one, device=self._device) for one in placed.values()]
        for one, parts in zip(trained, saved):
            one.restore({part: value for part, value in parts.items() if part != "psnr_db"})
            self.psnr_db.append(float(parts["psnr_db"]))
        self._done += steps * len(placed)
        return trained

    def _keep(self, names: list[str], trained: list[SurfaceGaussians]) -> None:
        if self._store is not None:
            for name, one, psnr in zip(names, trained, self.psnr_db[-len(names):]):
                self._store.save(name, one.learned() | {"psnr_db": np.array(psnr)})

    def _reporter(self, steps: int, frames: int) -> Callable[[int, int, list[float]], None]:
        before, first, self._done = self._done, len(self.psnr_db), self._done + steps * frames
        self.psnr_db += [math.nan] * frames

        def report(done: int, total: int, psnr_db: list[float]) -> None:
            self.psnr_db[first:] = psnr_db
            self._report(before + done * frames, self.steps, sum(psnr_db) / frames)

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
