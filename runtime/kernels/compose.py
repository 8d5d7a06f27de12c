"""Compose decoded tiles onto the panorama by gathering, on the CPU.

    panorama(p) = sum_v w_v(q) tile_v(q) / sum_v w_v(q),   q = where tile v sees pixel p

Tiles come one after another, in a fixed order, so that one decoded tile is held at a time and the result is the same
every time. The obvious form is in ``compose_ref``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pano4d.runtime.kernels.blend import bilinear_taps
from pano4d.runtime.tiles import Layout, feather_at, seen_pixels


@dataclass(frozen=True)
class ComposePlan:
    """What the selected panorama pixels gather from each tile.

    Attributes:
        select: The selected pixels. bool [H, W], P of them true.
        seen: For each tile the selected pixels it contributes to. int64 [Q_v] in 0..P-1.
        taps: Their four tile pixels. int32 [Q_v, 4], flat in [s, s].
        shares: float32 [Q_v, 4]; all shares of a pixel, over all tiles, sum to one.
    """

    select: np.ndarray
    seen: list[np.ndarray]
    taps: list[np.ndarray]
    shares: list[np.ndarray]

    @classmethod
    def build(cls, layout: Layout, size_px: int, height: int, width: int,
              select: np.ndarray | None = None) -> "ComposePlan":
        """Table the gather.

        Args:
            layout: Tile layout of V tiles.
            size_px: Side of a decoded tile.
            height: Rows of the panorama.
            width: Columns of the panorama.
            select: Pixels to compose; None for all. bool [H, W].

        Returns:
            The plan.
        """
        select = np.ones((height, width), bool) if select is None else select
        place = np.cumsum(select.ravel(), dtype=np.int64) - 1
        total = np.zeros(int(select.sum()))
        seen, taps, shares = [], [], []
        for v in range(layout.count):
            flat, x, y = seen_pixels(layout, v, size_px, select)
            held = place[flat]
            tap, share = bilinear_taps(x, y, size_px)
            share *= feather_at(x, y, size_px)[:, None]
            total[held] += share.sum(axis=1)
            seen.append(held), taps.append(tap.astype(np.int32)), shares.append(share.astype(np.float32))
        for held, share in zip(seen, shares):
            share /= total[held, None]
        return cls(select, seen, taps, shares)


def accumulate(plan: ComposePlan, v: int, pixels: np.ndarray, acc: np.ndarray) -> None:
    """Add a tile's part to the panorama; after the last tile the panorama is complete.

    Args:
        plan: The plan.
        v: Tile number.
        pixels: Decoded tile. float32 [T, 3, s, s].
        acc: Sum so far. float32 [T, P, 3], changed in place.
    """
    held, taps, shares = plan.seen[v], plan.taps[v], plan.shares[v]
    for t, frame in enumerate(pixels):
        colours = np.ascontiguousarray(frame.reshape(3, -1).T)  # [s s, 3]
        part = shares[:, :1] * colours[taps[:, 0]]
        for k in range(1, 4):
            part += shares[:, k:k + 1] * colours[taps[:, k]]
        acc[t, held] += part


def compose_frames(acc: np.ndarray, plan: ComposePlan, panorama: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lay composed pixels over the input picture.

    Args:
        acc: Composed pixels in grey levels. float32 [T, P, 3].
        plan: The plan.
        panorama: Input picture. uint8 [H, W, 3].
        alpha: Weight of the composed pixels. float32 [H, W].

    Returns:
        uint8 [T, H, W, 3]; where alpha is 0 or nothing was composed, the input's bytes.
    """
    frames = np.repeat(panorama[None], len(acc), axis=0)
    weight = alpha[plan.select][:, None].astype(np.float32)
    still = panorama[plan.select].astype(np.float32)
    for frame, colours in zip(frames, acc):
        mixed = weight * colours + (1 - weight) * still
        frame[plan.select] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return frames


def mask_alpha(mask: np.ndarray, feather_px: float, whole: np.ndarray | None = None) -> np.ndarray:
    """Fade motion in from the mask's border inwards.

    Args:
        mask: True where the picture may move. bool [H, W].
        feather_px: Width of the fade in pixels, city-block distance, round the seam.
        whole: Pixels all of which may move; the fade keeps its distance from the others too. None for the mask itself.
            bool [H, W].

    Returns:
        float32 [H, W]: 0 outside the mask, 1 deep inside, smooth between.
    """
    reach = int(np.ceil(feather_px))
    inside, alpha = mask if whole is None else mask & whole, mask.astype(np.float32)
    if reach < 1 or inside.all():
        return alpha
    t = np.clip(np.arange(reach + 1, dtype=np.float32) / (reach + 1), 0, 1)
    fade = (t * t * (3 - 2 * t)).astype(np.float32)
    if whole is not None:
        alpha[mask & ~inside] = fade[1]
    for depth, ring in enumerate(_rings(inside, reach), 1):
        alpha.reshape(-1)[ring] = fade[depth]
    return alpha


def _rings(inside: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """List the pixels at city-block distance 1, 2, ... ``count`` from those outside, round the seam.

    Only the pixels of a ring are looked at to find the next one, so the cost is that of the band.

    Args:
        inside: bool [H, W].
        count: Number of rings.

    Yields:
        Flat pixels of a ring, each once. int64 [Q].
    """
    shrunk = inside.copy()
    shrunk[:, 1:] &= inside[:, :-1]
    shrunk[:, 0] &= inside[:, -1]
    shrunk[:, :-1] &= inside[:, 1:]
    shrunk[:, -1] &= inside[:, 0]
    shrunk[1:] &= inside[:-1]
    shrunk[:-1] &= inside[1:]
    ring, left = np.flatnonzero(inside != shrunk), shrunk.reshape(-1)
    for _ in range(count - 1):
        yield ring
        found = []
        for near in _neighbours(ring, inside.shape):
            near = near[left[near]]
            left[near] = False  # at once: another neighbour may find the same pixel
            found.append(near)
        ring = np.concatenate(found)
    yield ring


def _neighbours(flat: np.ndarray, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """Give the pixels above, below, left and right of each, round the seam but not over the poles. int64 [<= Q]."""
    height, width = shape
    column = flat % width
    yield flat[flat >= width] - width
    yield flat[flat < (height - 1) * width] + width
    yield np.where(column == 0, flat + width - 1, flat - 1)
    yield np.where(column == width - 1, flat - width + 1, flat + 1)
