"""Bring the steps of estimated distances to where the picture has its edges.

Estimators of depth see a picture at a fraction of its resolution: a step from near to far comes out as a ramp some pixels
wide, and a thing thinner than that as a low rise. Seen from off the centre, ramps are veils between things. How wide ramps
are is read off the map itself, off steps that stand alone; that blur is then undone near steps (`deconvolve`). Pixels that
this hardly changes stay as they are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pano4d.lifting.deconvolve import blur_matrix, deconvolve, edge_weights
from pano4d.lifting.distances import Distances
from pano4d.lifting.drawing import choose_device
from pano4d.lifting.ramps import find_blur, largest_around, near_steps, without_specks
from pano4d.runtime.parallel import each
from pano4d.runtime.sphere import pixel_lonlat

RAMP_CELLS = 6
"""How far a ramp reaches from its middle, at most, in pixels of what the estimator sees."""

LEAST_BLUR_PX = 0.7
"""Standard deviation of a blur that is worth undoing."""

_WIDEST = 3.0  # of the blur across, near the poles, over that down
_NEARER = 0.8  # of the range of log distance around: how much nearer a thin thing may be than it was said to be
_CHANGED, _RIM_PX = 0.05, 2  # of log distance: what counts as changed, and how far around it all is taken
_INNER_PX, _LEAST_HALO_PX = 112, 16  # of a block; what is around it, at least
_ON_CPU, _ON_GPU = 4, 64  # blocks at a time


def sharpen(distances: Distances, frames: np.ndarray, reach_px: int, device: str = "auto") -> Distances:
    """Sharpen the distances of a video, on a GPU with torch, else with NumPy.

    Args:
        distances: Of all frames.
        frames: Panoramas. uint8 [T, H, W, 3].
        reach_px: How far a ramp may reach from its middle.
        device: "auto", "cpu" or "cuda".

    Returns:
        The same, but for pixels at steps; itself where its steps are sharp.

    Raises:
        SettingsError: No such device, or no GPU that torch can use.
    """
    blur_px = find_blur(distances.static, reach_px)
    if blur_px < LEAST_BLUR_PX:
        return distances
    static = sharpen_map(distances.static, frames[0], blur_px, device=device)
    if not distances.changing:
        return replace(distances, static=static)
    moving = np.zeros(static.shape, bool)
    moving.reshape(-1)[distances.pixels] = True
    still = static.reshape(-1)[distances.pixels]

    def change(number: int) -> np.ndarray:
        sharp = sharpen_map(distances.frame(number), frames[number], blur_px, moving, device)
        return np.log(sharp.reshape(-1)[distances.pixels] / still).astype(distances.changes.dtype)

    return Distances(static, distances.pixels, np.stack(each(change, range(len(distances.changes)))))


def sharpen_map(distance: np.ndarray, picture: np.ndarray, blur_px: float, where: np.ndarray | None = None,
                device: str = "auto") -> np.ndarray:
    """Sharpen one map.

    Args:
        distance: Along each pixel's ray, metres, above 0. float32 [H, W].
        picture: Panorama. uint8 [H, W, 3].
        blur_px: Standard deviation of its blur down the map.
        where: Pixels that may change; None: all. bool [H, W].
        device: As for `sharpen`.

    Returns:
        float32 [H, W].

    Raises:
        SettingsError: As `sharpen` does.
    """
    result, parallel, (reach, halo) = distance.copy(), each if where is None else map, _surroundings(blur_px)
    where = np.ones(distance.shape, bool) if where is None else where
    rows = np.flatnonzero(where.any(1))
    if not len(rows):
        return result
    # Of few rows, those around are enough.
    part = slice(max(0, rows[0] - 2 * reach - halo), rows[-1] + 1 + 2 * reach + halo)
    _, lat = pixel_lonlat(*distance.shape)
    on_gpu = choose_device(device) == "cuda"
    band = _Band(np.log(distance[part]), picture[part], lat[part], blur_px, on_gpu)
    blocks = list(_blocks(near_steps(np.float32(1) / distance[part], reach) & where[part]))
    size = _ON_GPU if on_gpu else _ON_CPU
    batches = [blocks[start:start + size] for start in range(0, len(blocks), size)]
    for batch, made in zip(batches, parallel(band.sharpen, batches)):
        for (row, column), values in zip(batch, made):
            here = np.s_[row:row + _INNER_PX, column:column + _INNER_PX]
            old, fits = result[part][here], where[part][here]
            values = values[:old.shape[0], :old.shape[1]]
            np.copyto(old, np.exp(values), where=fits & ~np.isnan(values))
    return result


@dataclass(frozen=True)
class _Band:
    """Rows of a map.

    Attributes:
        logs: Of distance. float32 [h, W].
        picture: uint8 [h, W, 3].
        lat: float64 [h].
        blur_px: Standard deviation of the blur down the map.
        on_gpu: Where to undo it: on a GPU, else with NumPy.
    """

    logs: np.ndarray
    picture: np.ndarray
    lat: np.ndarray
    blur_px: float
    on_gpu: bool

    def sharpen(self, blocks: Sequence[tuple[int, int]]) -> np.ndarray:
        """Undo the blur in blocks that begin in some rows and columns. Logs, NaN where nothing changes. float32 [B, n, n]"""
        reach, halo = _surroundings(self.blur_px)
        around = np.arange(-halo, _INNER_PX + halo)
        rows, columns = (np.array(begin)[:, None] + around for begin in zip(*blocks))
        rows, columns = np.clip(rows, 0, len(self.logs) - 1), columns % self.logs.shape[1]
        here = rows[:, :, None], columns[:, None]
        wider = 1 / np.maximum(np.cos(self.lat[rows].mean(1)), 1 / _WIDEST)
        blurs = [blur_matrix(len(around), self.blur_px), blur_matrix(len(around), self.blur_px * wider).swapaxes(1, 2)]
        colors = self.picture[here]
        given, weights = self.logs[here], [edge_weights(colors, axis) for axis in (1, 2)]
        low, high = -largest_around(-given, reach), largest_around(given, reach)
        bounds = [low - np.float32(_NEARER) * (high - low), high]
        found = without_specks(self._deconvolve(given, weights, bounds, blurs), max(1, round(self.blur_px)))
        changed = largest_around(np.abs(found - given), _RIM_PX) > _CHANGED
        return np.where(changed, found, np.float32(np.nan))[:, halo:-halo, halo:-halo]

    def _deconvolve(self, given: np.ndarray, *lists: list[np.ndarray]) -> np.ndarray:
        if not self.on_gpu:
            return deconvolve(np, given, self.blur_px, *lists)
        from pano4d.lifting.torch_deconvolve import deconvolve_on_gpu

        return deconvolve_on_gpu(given, self.blur_px, *lists)


def _surroundings(blur_px: float) -> tuple[int, int]:
    """Say how many pixels around a pixel its blur reaches, and how many around a block are worked on with it."""
    reach = int(np.ceil(3 * blur_px))
    return reach, max(_LEAST_HALO_PX, 2 * reach)


def _blocks(wanted: np.ndarray) -> Iterator[tuple[int, int]]:
    """List where the blocks begin that hold any pixel that is wanted."""
    height, width = wanted.shape
    for row in range(0, height, _INNER_PX):
        for column in range(0, width, _INNER_PX):
            if wanted[row:row + _INNER_PX, column:column + _INNER_PX].any():
                yield row, column
