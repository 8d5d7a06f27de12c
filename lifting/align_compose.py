"""Blend aligned tiles into one panorama of distances, without seams and without blunting edges.

Tiles are averaged as logarithms, weighed as pictures are. Where they disagree, one of them sees an edge elsewhere; an
average would be a surface that neither saw, so what is far from the tile of the highest weight does not count.
"""

from dataclasses import dataclass

import numpy as np

from pano4d.lifting.align_overlaps import sample_tiles
from pano4d.lifting.distances import Distances
from pano4d.runtime.parallel import each
from pano4d.runtime.tiles import Layout, feather_at, seen_pixels

TOLERANCE = 0.1
"""Log of the ratio of distances from which on tiles are no longer averaged, at least; up to half of it they fully are."""

FADE_DEG = 1.5
"""Width, inside the border of what moves, over which changes grow from none."""


@dataclass(frozen=True)
class MovingTile:
    """What changes in one tile.

    Attributes:
        pixels: Flat places of its moving pixels. int64 [m].
        changes: Log of distance over the tile's reference. float32 [T, m].
    """

    pixels: np.ndarray
    changes: np.ndarray


def compose(tiles: np.ndarray, moving_tiles: list[MovingTile | None], layout: Layout, moving: np.ndarray,
            tolerance: float = TOLERANCE) -> Distances:
    """Blend tiles, and what changes in them.

    Args:
        tiles: Log of distance along the ray. float32 [V, s, s].
        moving_tiles: For each tile what changes in it, of the same T frames; None if nothing does.
        layout: Tile layout of V tiles.
        moving: True where the picture may move. bool [H, W].
        tolerance: Log of the ratio of distances from which on tiles are no longer averaged.

    Returns:
        Distances at the panorama's size.

    Raises:
        Nothing.
    """
    places = _places(layout, tiles.shape[-1], moving.shape)
    looked_up = each(lambda v: _look_up(tiles, v, *places[v][1:]), range(layout.count))
    leader = _leading(looked_up, places, moving.size)
    total, weight = np.zeros(moving.size, np.float32), np.zeros(moving.size, np.float32)
    frames = max((len(tile.changes) for tile in moving_tiles if tile), default=0)
    pixels = np.flatnonzero(moving) if frames else np.empty(0, np.int64)
    changes = np.zeros((frames, len(pixels)), np.float32)
    for v, (flat, x, y) in enumerate(places):
        value, share = looked_up[v]
        share = share * _agreement((value - leader[flat]) / np.float32(tolerance))
        total[flat] += share * value
        weight[flat] += share
        if moving_tiles[v] is not None:
            _add_changes(changes, pixels, moving.reshape(-1), moving_tiles[v], (flat, x, y, share), tiles.shape[-1])
    static = np.exp(total / weight).reshape(moving.shape)
    if not frames:
        return Distances(static, pixels, np.empty((0, 0), np.float16))
    faded = fade_in(moving).reshape(-1)[pixels] / weight[pixels]
    return Distances(static, pixels, np.stack([(change * faded).astype(np.float16) for change in changes]))


def fade_in(moving: np.ndarray) -> np.ndarray:
    """Rise smoothly from the border of what moves inwards.

    Args:
        moving: bool [H, W].

    Returns:
        0 outside, 1 from `FADE_DEG` inside on; 1 everywhere if nothing is still. float32 [H, W].

    Raises:
        Nothing.
    """
    steps = max(1, round(FADE_DEG / 180 * len(moving)))
    inside, depth = moving, np.zeros(moving.shape, np.float32)
    for _ in range(steps):
        depth += inside
        inside = _eroded(inside)
    t = depth / steps
    return t * t * (3 - 2 * t)


def _eroded(mask: np.ndarray) -> np.ndarray:
    """Drop set pixels that touch an unset one, around the seam and over the poles."""
    rows = np.concatenate([_across(mask[:1]), mask, _across(mask[-1:])])
    upright = mask & rows[:-2] & rows[2:]
    return upright & np.roll(mask, 1, axis=1) & np.roll(mask, -1, axis=1)


def _across(row: np.ndarray) -> np.ndarray:
    """Give the row that follows beyond a pole."""
    return np.roll(row, row.shape[1] // 2, axis=1)


def _places(layout: Layout, size: int, shape: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Give for each tile the flat pixels it sees, and their columns and rows: 12 bytes each, kept."""
    everywhere = np.ones(shape, bool)

    def places_of(v: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        flat, x, y = seen_pixels(layout, v, size, everywhere)
        return flat.astype(np.int32), x.astype(np.float32), y.astype(np.float32)

    return each(places_of, range(layout.count))


def _look_up(tiles: np.ndarray, v: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give what a tile says at places of its own, and its weights there. float32 [Q] both."""
    return sample_tiles(tiles, v, x, y), feather_at(x, y, tiles.shape[-1])


def _leading(looked_up: list[tuple[np.ndarray, np.ndarray]], places: list[tuple[np.ndarray, ...]], pixels: int) -> np.ndarray:
    """Give every pixel what the tile of the highest weight says. float32 [H W]."""
    best, leader = np.zeros(pixels, np.float32), np.zeros(pixels, np.float32)
    for (value, share), (flat, *_) in zip(looked_up, places):
        wins = share > best[flat]
        best[flat[wins]], leader[flat[wins]] = share[wins], value[wins]
    return leader


def _agreement(difference: np.ndarray) -> np.ndarray:
    """Fall smoothly from 1 at half to 0 at 1."""
    t = np.clip(2.0 - 2.0 * np.abs(difference), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def _add_changes(changes: np.ndarray, pixels: np.ndarray, moving: np.ndarray, tile: MovingTile,
                 seen: tuple[np.ndarray, ...], size: int) -> None:
    """Add one tile's weighted changes to those of the panorama's moving pixels [T, M]."""
    flat, x, y, share = seen
    mine = np.flatnonzero(moving[flat])
    if not len(mine):
        return
    target = np.searchsorted(pixels, flat[mine])
    x, y, share = x[mine], y[mine], share[mine]

    def add(number: int) -> None:
        picture = np.zeros(size * size, np.float32)
        picture[tile.pixels] = tile.changes[number]
        changes[number][target] += share * sample_tiles(picture.reshape(1, size, size), 0, x, y)

    each(add, range(len(changes)))
