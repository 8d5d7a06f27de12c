"""Share Gaussians out over the sphere: many where the picture has detail, few where it is smooth.

Cells of one area are merged in pairs, up to `COARSEST` of them, and each cell that remains gets one Gaussian. With the cost
of a cell the squared error of showing its mean colour, weighed as said below, the cells that remain are those of the least

    sum of costs + price * number,

found exactly from the smallest cells upwards, as trees are pruned (Breiman et al. 1984, ch. 3); the price is searched for
that leaves as many cells as are wanted. A Gaussian is no tile: it overlaps its neighbours, so what they show counts too. And
detail of low contrast is seen as well as that of high contrast, so where there is much error it counts by its root.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from pano4d.lifting.cells import FACES, cell_lonlat
from pano4d.runtime.parallel import each
from pano4d.runtime.sphere import lonlat_to_directions, lonlat_to_pixels

FINEST = 4
"""Density of the smallest cells, over the average."""

LEVELS = 4
COARSEST = 1 << LEVELS
"""Smallest cells that a cell may consist of."""

_SIDE = 1 << LEVELS // 2  # Of the largest cells, in smallest ones.
_OVERLAP = 0.1  # Share that each of eight neighbours' errors has in a cell's.
_CONTRAST = 100.0  # Grey levels, squared. Where errors are larger, the contrast counts and not its square.
_KEPT = 0.45  # Share of the cost of two smallest cells merged that remains when they are not.
_HALVED = 1.3  # Half a square is twice as long as wide: its Gaussian, which is round, fits it less.
_STEP = 60.0  # Grey levels that a step from far away to the middle distance is worth.
_FLOOR = 0.01  # Grey levels, squared: keeps cells equal where there is nothing to tell them apart.
_ROUNDS = 18


class Seen(NamedTuple):
    """What Gaussians are shared out by.

    Attributes:
        frame: Panorama. uint8 [H, W, 3].
        nearness: Middle distance over distance. float32 [H, W].
        moving: Where the picture may move: density does not fall below the average there. bool [H, W].
    """

    frame: np.ndarray
    nearness: np.ndarray
    moving: np.ndarray


def share_out(seen: Seen, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose directions for Gaussians.

    Args:
        seen: What there is to show.
        count: How many, N, at least 12.

    Returns:
        Unit directions, float64 [N, 3], and the side of the share of the sphere that each stands for, in radians,
        float64 [N].

    Raises:
        Nothing.
    """
    roots = _roots(count, seen.moving.size)
    even = next(level for level in range(LEVELS + 1) if _cells(roots) >> level <= count)
    faces = each(partial(_face_costs, seen, roots * _SIDE, even), range(FACES))
    costs = [np.stack(level) for level in zip(*faces)]
    leaves = _split_rest(_leaves(_prune(costs, count)), costs, count)
    directions = np.concatenate([_centres(leaf, level, roots * _SIDE) for level, leaf in enumerate(leaves)])
    areas = np.repeat(4.0 * math.pi / _cells(roots) * 2.0 ** np.arange(LEVELS + 1), [len(leaf) for leaf in leaves])
    return directions, np.sqrt(areas)


def _cells(roots: int) -> int:
    return FACES * (roots * _SIDE) ** 2


def _roots(count: int, pixels: int) -> int:
    """Choose how many largest cells a face has along its side: the smallest are no smaller than pixels."""
    wanted, least = (math.sqrt(cells / _cells(1)) for cells in (min(FINEST * count, pixels), count))
    return max(math.floor(wanted), math.ceil(least))


def _face_costs(seen: Seen, side: int, even: int, face: int) -> list[np.ndarray]:
    """Return what one face's merged cells cost, level by level from 1 on: float32 [side/2, side], [side/2, side/2],
    [side/4, side/2] and so on."""
    means, moves = _read(seen, side, face)
    errors, moving = [np.zeros((side, side), np.float32)], []
    for level in range(LEVELS):
        first, second = _pair(means, level)
        change = first - second
        # What two halves of equal area add is that they differ from each other.
        errors.append(sum(_pair(errors[-1], level)) + np.float32(2**level / 2) * np.einsum("cxy,cxy->xy", change, change))
        means, moves = np.float32(0.5) * (first + second), np.logical_or(*_pair(moves, level))
        moving.append(moves)
    weights = np.sqrt(_CONTRAST / (_CONTRAST + _around(errors[-1]) / np.float32(9 * COARSEST)))
    return [_cost(error, weights, level, moves if level > even else None)
            for level, (error, moves) in enumerate(zip(errors[1:], moving), start=1)]


def _cost(error: np.ndarray, weights: np.ndarray, level: int, forbidden: np.ndarray | None) -> np.ndarray:
    """Return what cells of a level cost. float32, of the shape of their errors."""
    cost = error + np.float32(_OVERLAP) * (_around(error) - error)
    roots = len(weights)
    cost.reshape(roots, len(cost) // roots, roots, -1)[:] *= weights[:, None, :, None]
    cost += np.float32(_FLOOR * 4**level)
    if forbidden is not None:
        cost[forbidden] = np.inf
    return cost * np.float32(_HALVED) if level % 2 else cost


def _read(seen: Seen, side: int, face: int) -> tuple[np.ndarray, np.ndarray]:
    """Return colours and weighed nearness, float32 [4, side, side], and what moves, bool [side, side], of a face."""
    height, width = seen.moving.shape
    at = (np.arange(side) + 0.5) / side
    column, row = lonlat_to_pixels(*cell_lonlat(face, at[:, None], at), height, width)
    pixels = np.rint(row).astype(np.int32).clip(0, height - 1) * width + np.rint(column).astype(np.int32) % width
    values = np.empty((4, side, side), np.float32)
    values[:3] = np.moveaxis(seen.frame.reshape(-1, 3)[pixels], -1, 0)
    np.multiply(seen.nearness.reshape(-1)[pixels], np.float32(_STEP), out=values[3])
    return values, seen.moving.reshape(-1)[pixels]


def _pair(cells: np.ndarray, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the second of cells that make one of the next level: neighbours along x, then along y."""
    return (cells[..., ::2, :], cells[..., 1::2, :]) if level % 2 == 0 else (cells[..., ::2], cells[..., 1::2])


def _around(cells: np.ndarray) -> np.ndarray:
    """Add up 3 x 3 cells. [x, y]"""
    wide = np.pad(cells, 1, mode="edge")
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    return rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]


def _prune(costs: list[np.ndarray], count: int) -> list[np.ndarray]:
    """Search for the price that leaves at most so many cells, as close as may be. Tells what `_priced` tells, [12, x, y]."""
    faces = list(zip(*costs))
    low, high = _FLOOR * 1e-3, 2.0 * max(float(cost[np.isfinite(cost)].max(initial=0.0)) for cost in costs)
    best = each(partial(_priced, high), faces)
    for _ in range(_ROUNDS):
        price = math.sqrt(low * high)
        found = each(partial(_priced, price), faces)
        if sum(number for number, _ in found) > count:
            low = price
        else:
            high, best = price, found
    return [np.stack(level) for level in zip(*(whole for _, whole in best))]


def _priced(price: float, costs: Sequence[np.ndarray]) -> tuple[int, list[np.ndarray]]:
    """Return how many cells of a face remain at a price, and of the cells of each level whether they are better whole."""
    halves, numbers, better = np.float32(_KEPT) * costs[0] + np.float32(2.0 * (_FLOOR + price)), np.uint8(2), []
    for level, cost in enumerate(costs, start=1):
        whole = cost + np.float32(price)
        better.append(whole < halves)
        least, number = np.minimum(whole, halves), np.where(better[-1], np.uint8(1), numbers)
        if level < LEVELS:
            halves, numbers = (np.add(*_pair(cells, level)) for cells in (least, number))
    return int(number.sum(dtype=np.int64)), better


def _leaves(whole: list[np.ndarray]) -> list[np.ndarray]:
    """List the cells that remain: face, x and y, level by level. int64 [n, 3] each."""
    left, leaves = np.ones(whole[-1].shape, bool), []
    for level in range(LEVELS, 0, -1):
        leaves.append(np.argwhere(left & whole[level - 1]))
        left = np.repeat(left & ~whole[level - 1], 2, axis=2 - level % 2)
    return [np.argwhere(left), *leaves[::-1]]


def _split_rest(leaves: list[np.ndarray], costs: list[np.ndarray], count: int) -> list[np.ndarray]:
    """Halve the worst cells until there are enough."""
    while missing := count - sum(map(len, leaves)):
        worth = np.concatenate([cost[tuple(leaf.T)] for cost, leaf in zip(costs, leaves[1:])])
        # Steps of the golden ratio spread those out that are worth the same.
        worth *= 1.0 + 1e-3 * np.modf(np.arange(len(worth)) * 0.6180339887498949)[0]
        missing = min(missing, len(worth))
        chosen = np.zeros(len(worth), bool)
        chosen[np.argpartition(-worth, missing - 1)[:missing]] = True
        ends = np.cumsum([len(leaf) for leaf in leaves[1:-1]])
        for level, chosen_here in enumerate(np.split(chosen, ends), start=1):
            halves = np.repeat(leaves[level][chosen_here], 2, axis=0)
            axis = 2 - level % 2
            halves[:, axis] = 2 * halves[:, axis] + np.arange(len(halves)) % 2
            leaves[level - 1] = np.concatenate([leaves[level - 1], halves])
            leaves[level] = leaves[level][~chosen_here]
    return leaves


def _centres(cells: np.ndarray, level: int, side: int) -> np.ndarray:
    """Return the directions of cells of a level. float64 [n, 3]."""
    face, x, y = cells.T
    lon, lat = cell_lonlat(face, (x + 0.5) * (1 << (level + 1) // 2) / side, (y + 0.5) * (1 << level // 2) / side)
    return lonlat_to_directions(lon, lat)
