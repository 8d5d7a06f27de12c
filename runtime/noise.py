"""Draw the first state: one noise field on the sphere, white in every tile, shared where tiles overlap.

The field lives on fine cells of equal area. A tile pixel is the sum of the cells whose centres it contains over the
square root of their number. Within a tile every cell belongs to one pixel, so pixels are independent with unit
variance; where two tiles overlap, their pixels hold the same cells.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pano4d.runtime.tiles import Layout, seen_directions

CELLS_PER_PIXEL = 6.0
_GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))
_AUGMENTATION, _FIELD, _FILL = 1, 2, 3  # keys of the random streams


def fibonacci_sphere(count: int) -> np.ndarray:
    """Spread points evenly over the sphere. Unit vectors, float64 [count, 3]."""
    i = np.arange(count) + 0.5
    y = 1 - 2 * i / count
    radius, angle = np.sqrt(1 - y * y), i * _GOLDEN_ANGLE
    return np.stack([radius * np.cos(angle), y, radius * np.sin(angle)], axis=-1)


def sphere_noise(layout: Layout, size: int, frames: int, channels: int, seed: int, shared: bool = True) -> np.ndarray:
    """Draw unit noise for every tile.

    Args:
        layout: Tile layout of V tiles.
        size: Side of a tile's latent, s.
        frames: T.
        channels: C.
        seed: Not negative.
        shared: False draws every tile for itself.

    Returns:
        float32 [V, T, C, s, s].
    """
    if not shared:
        return draw_fill(layout, size, frames, channels, seed)
    lists = cell_lists(layout, size)
    # A pixel without a cell keeps its own number: as white as the rest, only not shared.
    noise = (np.empty((layout.count, frames, channels, size, size), np.float32) if lists.full else
             draw_fill(layout, size, frames, channels, seed))
    pixel = [np.repeat(np.arange(size * size), count) for count in lists.counts]
    held = np.split(lists.cells, np.cumsum(lists.counts.sum(axis=1))[:-1])
    for t in range(frames):
        field = draw_field(lists.total, channels, seed, t)
        for v, count in enumerate(lists.counts):
            filled = count > 0
            for c in range(channels):
                total = np.bincount(pixel[v], weights=field[c, held[v]], minlength=size * size)
                noise[v, t, c].reshape(-1)[filled] = total[filled] / np.sqrt(count[filled])
    return noise


def step_seed(seed: int, step: int) -> int:
    """Give the seed of the noise that a step starts from: the run's own for the first, others for those after it.

    Args:
        seed: Seed of the run.
        step: Number of the step, from 0.

    Returns:
        Below 2^64.
    """
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]) if step else seed


def augmentation_stream(seed: int) -> np.random.Generator:
    """Give the stream of the noise that the pictures of moving tiles get, one tile after another."""
    return np.random.Generator(np.random.Philox(key=[seed, _AUGMENTATION]))


def draw_fill(layout: Layout, size: int, frames: int, channels: int, seed: int) -> np.ndarray:
    """Draw a number of its own for every tile pixel. float32 [V, T, C, s, s]."""
    stream = np.random.Generator(np.random.Philox(key=[seed, _FILL]))
    return stream.standard_normal((layout.count, frames, channels, size, size), np.float32)


def draw_field(cells: int, channels: int, seed: int, t: int) -> np.ndarray:
    """Draw a frame's field. Frames have streams of their own, so they may be drawn in any order. float32 [C, cells]."""
    stream = np.random.Generator(np.random.Philox(key=[seed, _FIELD + (t << 8)]))
    return stream.standard_normal((channels, cells), np.float32)


@dataclass(frozen=True)
class CellLists:
    """Which cells of the field each tile pixel contains.

    Attributes:
        total: Cells of the field.
        counts: Number of cells of each pixel. int64 [V, s s].
        cells: The cells, pixel after pixel, ascending within one. int32 [counts.sum()].
    """

    total: int
    counts: np.ndarray
    cells: np.ndarray

    @property
    def full(self) -> bool:
        """Whether every pixel contains a cell."""
        return bool(self.counts.all())


@lru_cache(maxsize=2)
def cell_lists(layout: Layout, size: int) -> CellLists:
    """List the cells of every tile pixel; the last lists are kept, for they are constants of layout and size.

    Args:
        layout: Tile layout of V tiles.
        size: Side of a tile's latent, s.

    Returns:
        The lists, not to be changed.
    """
    cells, counts, lists = fibonacci_sphere(count_cells(layout, size)), [], []
    for v in range(layout.count):
        held, pixel = _pixel_of(layout, v, cells, size)
        counts.append(np.bincount(pixel, minlength=size * size))
        # Of 16 bits numbers are sorted by their digits, several times as fast.
        order = np.argsort(pixel.astype(np.uint16) if size <= 256 else pixel, kind="stable")
        lists.append(held[order].astype(np.int32))
    return CellLists(len(cells), np.stack(counts), np.concatenate(lists))


def count_cells(layout: Layout, size: int) -> int:
    """Count the cells needed for ``CELLS_PER_PIXEL`` in the smallest pixel, that in a tile's corner."""
    corner = 1 + 2 * np.tan(np.radians(layout.fov_deg) / 2) ** 2
    smallest = 1 / (layout.focal(size) ** 2 * corner ** 1.5)
    return int(np.ceil(CELLS_PER_PIXEL * 4 * np.pi / smallest))


def _pixel_of(layout: Layout, v: int, cells: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the cells that a tile holds, and the flat pixel each of them lies in."""
    # Cells are numbered from pole to pole, evenly in height: a tile's lie between the latitudes it spans.
    centre = np.arccos(np.clip(layout.rotations[v, 1, 2], -1, 1))
    heights = np.cos(np.clip([centre - layout.corner, centre + layout.corner], 0, np.pi))
    first, last = (1 - heights) / 2 * len(cells)
    first = max(0, int(first) - 2)
    held, x, y = seen_directions(layout, v, cells[first:int(last) + 2], size)
    column = np.clip(np.round(x), 0, size - 1).astype(np.int64)
    row = np.clip(np.round(y), 0, size - 1).astype(np.int64)
    return held + first, row * size + column
