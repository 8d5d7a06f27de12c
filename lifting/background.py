"""Make the layer behind near and behind moving things, on a small panorama.

A viewer who steps aside sees a little of what near things hide, and what moves uncovers it
from time to time. What was seen in some frame is taken from there; the rest continues
the far side of the step. Nothing of it shows from the centre.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pano4d.lifting.edges import STEP, Surface, find_steps, find_surface
from pano4d.lifting.inpaint import diffuse, mean_alike, spread_behind
from pano4d.runtime.parallel import each
from pano4d.runtime.sphere import row_solid_angles, sample_panorama

WORK_WIDTH = 1024
OFFSET = 0.15
"""How far a viewer is taken to step aside, as a share of the middle distance."""

MEAN_REACH = 4
"""What continues a surface has its mean colour around the edge, blocks this far away counted: one block's own would be a
streak."""

PUSH = 1.01
"""The layer lies this much farther than the surface that it continues, so as not to mix with it."""


@dataclass(frozen=True)
class Backdrop:
    """What is behind the surface seen from the centre.

    Attributes:
        surface: What would be seen without the things in front. [h, w].
        colors: Its colours, 0 to 255. float32 [h, w, 3].
        inside: Where it lies behind something. bool [h, w].
        front: Nearness of what it lies behind where that moves, the nearest of all frames; else 0. float32 [h, w].
    """

    surface: Surface
    colors: np.ndarray
    inside: np.ndarray
    front: np.ndarray

    def share(self) -> float:
        """Return the part of the sphere that it covers."""
        return float((self.inside * row_solid_angles(*self.inside.shape)[:, None]).sum() / (4.0 * np.pi))

    def covers(self, surface: Surface, directions: np.ndarray) -> np.ndarray:
        """Tell in which directions it lies behind the surface seen in the first frame, or behind what moves. bool [N]."""
        near = sample_panorama(self.inside[..., None].astype(np.float32), directions)[:, 0] > 0.25
        chosen = np.flatnonzero(near)
        rays = directions[chosen]
        behind = (1.0 + STEP) * self.surface.lookup(rays).read(self.surface.nearness)
        hidden = surface.lookup(rays).read(surface.nearness) > behind
        hidden |= sample_panorama(self.front[..., None], rays)[:, 0] > behind
        near[chosen] = hidden
        return near


def find_backdrop(surfaces: list[Surface], frames: np.ndarray, mask: np.ndarray, offset: float) -> Backdrop:
    """Find what near and moving things hide.

    Args:
        surfaces: Of the first frame, or of each.
        frames: Panoramas. uint8 [T, H, W, 3].
        mask: True where the picture may move. bool [H, W].
        offset: How far a viewer steps aside, metres.

    Returns:
        The layer behind.

    Raises:
        Nothing.
    """
    side = _block_side(*mask.shape)
    back, colors, inside, _ = _far_sides(surfaces[0], frames[0], side)
    front = np.zeros_like(back)
    moves = _blocks(mask, side).any(0)
    if moves.any() and len(surfaces) > 1:
        rows = np.flatnonzero(moves.any(1))
        rows = slice(rows[0], rows[-1] + 1)
        seen = each(lambda pair: _far_sides(*pair, side, rows), zip(surfaces, frames))
        front[moves] = np.stack([s.front[moves[rows]] for s in seen]).max(0)
        back[moves], colors[moves] = _uncovered(np.stack([s.back[moves[rows]] for s in seen]),
                                                np.stack([s.colors[moves[rows]] for s in seen]))
        inside = inside | (front > (1.0 + STEP) * back)
    source = spread_behind(back, find_steps(back), offset)
    spread = source >= 0
    own, nearness = colors, back
    back = np.where(spread, back.reshape(-1)[source], back)
    origins, number = np.unique(source[spread], return_inverse=True)
    colors = colors.copy()
    colors[spread] = mean_alike(own, nearness, origins, MEAN_REACH)[number]
    filled = diffuse(np.concatenate([back[..., None], colors], -1), back, spread)
    back, colors = filled[..., 0], filled[..., 1:]
    if moves.any() and len(surfaces) == 1 and len(frames) > 1:
        colors = _with_uncovered(colors, own, frames, spread & moves, side)
    return Backdrop(find_surface(np.float32(PUSH) / back), colors, inside | spread, front)


def _block_side(height: int, width: int) -> int:
    """Return the largest side of square blocks that leaves a panorama WORK_WIDTH wide or wider."""
    common = np.gcd(height, width)
    return max(k for k in range(1, max(1, width // WORK_WIDTH) + 1) if common % k == 0)


def _blocks(image: np.ndarray, side: int) -> np.ndarray:
    """Split into blocks: the pixels of each come first. [side * side, h, w, ...]."""
    height, width = image.shape[:2]
    split = image.reshape(height // side, side, width // side, side, *image.shape[2:])
    return np.moveaxis(split, (1, 3), (0, 1)).reshape(side * side, height // side, width // side, *image.shape[2:])


class _Sides(NamedTuple):
    back: np.ndarray
    colors: np.ndarray
    torn: np.ndarray
    front: np.ndarray


def _far_sides(surface: Surface, frame: np.ndarray, side: int, rows: slice = slice(None)) -> _Sides:
    """Return nearness [h, w] and colour [h, w, 3] of the far side of each block in some rows of
    blocks, whether it has a near side too, and the greatest nearness."""
    lines = slice(rows.start and rows.start * side, rows.stop and rows.stop * side)
    nearness = _blocks(surface.nearness[lines], side)
    purged = frame.reshape(-1, 3)[surface.donors[lines]]
    low, high = nearness.min(0), nearness.max(0)
    torn = _blocks(surface.torn[lines], side).any(0) & (high > (1.0 + STEP) * low)
    far = (nearness <= 0.5 * (low + high)) | ~torn
    shares = far / far.sum(0, dtype=np.float32)
    colors = sum(c * s[..., None] for c, s in zip(_blocks(purged, side), shares))
    return _Sides((nearness * shares).sum(0), colors, torn, high)


def _uncovered(nearness: np.ndarray, colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the median of the frames in which nothing stands before a block. [M], [M, 3]."""
    free = nearness <= (1.0 + STEP) * nearness.min(0)
    values = np.concatenate([nearness[..., None], colors], -1)
    values = np.sort(np.where(free[..., None], values, np.inf), axis=0)
    middle = (free.sum(0) - 1) // 2
    median = np.take_along_axis(values, middle[None, :, None], 0)[0]
    return median[:, 0], median[:, 1:]


def _with_uncovered(
    colors: np.ndarray, own: np.ndarray, frames: np.ndarray, where: np.ndarray, side: int
) -> np.ndarray:
    """Take the median of the frames where it looks like the background and not like the thing before it."""
    colors, pixels = colors.copy(), np.flatnonzero(where)
    row, column = (i * side + side // 2 for i in np.divmod(pixels, where.shape[1]))
    median = np.sort(frames[:, row, column], axis=0)[len(frames) // 2].astype(np.float32)
    guess, thing = colors.reshape(-1, 3)[pixels], own.reshape(-1, 3)[pixels]
    free = np.linalg.norm(median - guess, axis=1) < 0.5 * np.linalg.norm(thing - guess, axis=1)
    colors.reshape(-1, 3)[pixels[free]] = median[free]
    return colors
