"""Find places that two tiles see, for comparing what they say there."""

from dataclasses import dataclass

import numpy as np

from pano4d.runtime.tiles import Layout, project, tile_directions

GRID = 64
"""Places tried in each tile, along each side."""

MOST_PER_PAIR = 2000
"""Places kept where one tile looks into another."""


@dataclass(frozen=True)
class Overlaps:
    """Places that two tiles see: a pixel's centre of the first, anywhere on the second.

    Attributes:
        first: Number of the first tile. int64 [K].
        second: Number of the second. int64 [K].
        x: Continuous columns on the first and the second. float64 [2, K].
        y: Continuous rows on the first and the second. float64 [2, K].
        size: Side of a tile in pixels.
    """

    first: np.ndarray
    second: np.ndarray
    x: np.ndarray
    y: np.ndarray
    size: int

    def sides(self) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]:
        """Give tile numbers, columns and rows of the first tiles, and of the second."""
        return (self.first, self.x[0], self.y[0]), (self.second, self.x[1], self.y[1])


def find_overlaps(layout: Layout, size: int) -> Overlaps:
    """Choose places in the overlaps of a layout, the same ones every time.

    Args:
        layout: Tile layout of V tiles.
        size: Side of a tile in pixels.

    Returns:
        At most `MOST_PER_PAIR` for every ordered pair of tiles.

    Raises:
        Nothing.
    """
    rng, found = np.random.default_rng(0), []
    for first in range(layout.count):
        x, y = _scattered(rng, size)
        single = Layout(layout.name, layout.yaw_deg[first:first + 1], layout.pitch_deg[first:first + 1], layout.fov_deg)
        directions = tile_directions(single, size)[0][y, x]
        for second in range(layout.count):
            if second != first:
                found.append(_seen_by(layout, first, second, x, y, directions, size, rng))
    first, second, *at = (np.concatenate(parts) for parts in zip(*found))
    return Overlaps(first, second, np.stack(at[:2]), np.stack(at[2:]), size)


def _scattered(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pick one pixel in each cell of a grid: columns and rows, int64 [n]."""
    cells = min(GRID, size)
    row, column = np.divmod(np.arange(cells * cells), cells)
    jitter = rng.random((2, cells * cells))
    return tuple(((at + part) * size / cells).astype(np.int64) for at, part in zip((column, row), jitter))


def _seen_by(layout: Layout, first: int, second: int, x: np.ndarray, y: np.ndarray, directions: np.ndarray, size: int,
             rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """List what the second tile sees of the first one's places: numbers, columns of both, rows of both."""
    x2, y2, _ = project(layout, second, directions, size)
    facing = directions @ layout.rotations[second][:, 2] > 1e-6
    within = facing & (x2 >= 0) & (x2 <= size - 1) & (y2 >= 0) & (y2 <= size - 1)
    keep = np.flatnonzero(within)
    if len(keep) > MOST_PER_PAIR:
        keep = rng.choice(keep, MOST_PER_PAIR, replace=False)
    numbers = (np.full(len(keep), number) for number in (first, second))
    return (*numbers, x[keep].astype(np.float64), x2[keep], y[keep].astype(np.float64), y2[keep])


def sample_tiles(tiles: np.ndarray, number: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Look up tiles bilinearly; beyond their border pixels, the border's.

    Args:
        tiles: float [V, s, s].
        number: Which tile. int64 [K], or one int for all.
        x: Continuous columns. float64 [K].
        y: Continuous rows. float64 [K].

    Returns:
        float32 [K].

    Raises:
        Nothing.
    """
    size = tiles.shape[-1]
    x, y = (np.clip(at, 0, size - 1).astype(np.float32) for at in (x, y))
    left, top = (np.minimum(at.astype(np.int32), max(size - 2, 0)) for at in (x, y))
    share_x, share_y = x - left, y - top
    right, below = np.minimum(left + 1, size - 1) - left, (np.minimum(top + 1, size - 1) - top) * size
    flat = tiles.reshape(-1)
    corner = np.asarray(number, np.int64) * (size * size) + top * size + left
    upper = flat[corner] + share_x * (flat[corner + right] - flat[corner])
    lower = flat[corner + below] + share_x * (flat[corner + below + right] - flat[corner + below])
    return (upper + share_y * (lower - upper)).astype(np.float32, copy=False)
