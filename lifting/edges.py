"""Keep near and far apart where a distance map steps from one to the other.

All is judged in nearness, one over distance. Along a plane nearness changes evenly with
the direction, however grazing the view; so a change that the pixels on either side do
not continue is a step and no slope. A pixel within a step, at a distance where nothing
is, is put to the side it is closer to, and no sample is mixed from both sides.
"""

from dataclasses import dataclass

import numpy as np

from pano4d.runtime.sphere import directions_to_pixels

STEP = 0.1
"""Smallest step, as a share of the nearer side's nearness: 1 m before 1.11 m."""

_STEEP = 0.01
_FLAT = 0.15
_REACHES = (1, 2, 3, 4, 3, 2)
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Lookup:
    """Where in a panorama samples are read.

    Attributes:
        pixels: Four pixels of each sample, row * W + column. int32 [N, 4].
        weights: Their shares, 0 for the other side of a step; add up to 1. float32 [N, 4].
    """

    pixels: np.ndarray
    weights: np.ndarray

    def read(self, image: np.ndarray) -> np.ndarray:
        """Interpolate a panorama. float32 [N, C] of [H, W, C], [N] of [H, W]."""
        flat = image.reshape(-1, *image.shape[2:])
        weights = self.weights.reshape(*self.weights.shape, *[1] * (flat.ndim - 1))
        return sum(flat[self.pixels[:, k]] * weights[:, k] for k in range(4)).astype(np.float32, copy=False)

    def touches(self, mask: np.ndarray) -> np.ndarray:
        """Tell which samples are read, in part, from pixels of a mask [H, W]. bool [N]."""
        return (mask.reshape(-1)[self.pixels] & (self.weights > 0)).any(1)

    def take(self, select: np.ndarray) -> "Lookup":
        """Return the chosen samples alone."""
        return Lookup(self.pixels[select], self.weights[select])


@dataclass(frozen=True)
class Surface:
    """A distance map with sharp steps.

    Attributes:
        nearness: One over metres. float32 [H, W].
        torn: Whether a step runs through the square of this pixel, the next column and the
            next row. bool [H, W].
        donors: Pixel to take the colour from: on the far side of a step, where the picture is
            mixed with what is near, one further away; else the pixel itself. int32 [H, W].
    """

    nearness: np.ndarray
    torn: np.ndarray
    donors: np.ndarray

    def lookup(self, directions: np.ndarray) -> Lookup:
        """Find what samples are made of: one side of a step only, that of the nearest pixel.

        Args:
            directions: Unit vectors. float [N, 3].

        Returns:
            Pixels and weights.

        Raises:
            Nothing.
        """
        pixels = np.empty((len(directions), 4), np.int32)
        weights = np.empty((len(directions), 4), np.float32)
        for start in range(0, len(directions), _BLOCK):
            block = slice(start, start + _BLOCK)
            pixels[block], weights[block] = _corners(directions[block], *self.nearness.shape)
        split = np.flatnonzero(self.torn.reshape(-1)[pixels[:, 0]])
        values, shares = self.nearness.reshape(-1)[pixels[split]], weights[split]
        near = values > 0.5 * (values.max(1) + values.min(1))[:, None]
        mine = near[np.arange(len(split)), shares.argmax(1)]
        shares *= near == mine[:, None]
        weights[split] = shares / shares.sum(1, keepdims=True)
        return Lookup(pixels, weights)

    def colors(self, lookup: Lookup) -> Lookup:
        """Say where the colours of samples are read."""
        return Lookup(self.donors.reshape(-1)[lookup.pixels], lookup.weights)

    def torn_within(self, radius_px: int) -> np.ndarray:
        """Say which blocks of radius x radius pixels a step runs through. bool [H, W]."""
        if radius_px <= 1:
            return self.torn
        blocks = self.torn
        for axis in (0, 1):
            blocks = np.logical_or.reduceat(blocks, np.arange(0, self.torn.shape[axis], radius_px), axis)
        return blocks.repeat(radius_px, 0).repeat(radius_px, 1)[: self.torn.shape[0], : self.torn.shape[1]]

    def with_rows(self, distance: np.ndarray, rows: slice) -> "Surface":
        """Return this surface with some rows as another distance map [H, W] has them."""
        part = find_surface(distance[rows])
        copies = [self.nearness.copy(), self.torn.copy(), self.donors.copy()]
        first = rows.start * distance.shape[1]
        for copy, new in zip(copies, (part.nearness, part.torn, part.donors + np.int32(first))):
            copy[rows] = new
        return Surface(*copies)


def find_surface(distance: np.ndarray) -> Surface:
    """Sharpen a distance map and find its steps.

    Args:
        distance: Metres along each pixel's ray, above 0. float32 [H, W].

    Returns:
        The surface.

    Raises:
        Nothing.
    """
    nearness = np.float32(1.0) / np.asarray(distance, np.float32)
    for axis in (1, 0):
        pixels = _steep(nearness, axis)
        for reach in _REACHES:
            _snap(nearness, pixels, reach, axis)
    steps = [(_steps(nearness, axis), axis) for axis in (1, 0)]
    torn = np.zeros(nearness.shape, bool)
    for pixels, axis in steps:
        for square in (pixels, shift(pixels, -1, 1 - axis, torn.shape)):
            torn.reshape(-1)[square] = True
    return Surface(nearness, torn, _donors(nearness, steps))


def shift(pixels: np.ndarray, count: int, axis: int, shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels some columns (axis 1) or rows (0) on; rows end at the poles. int [N]."""
    height, width = shape
    row, column = np.divmod(pixels, width)
    if axis:
        return row * width + (column + count) % width
    return np.clip(row + count, 0, height - 1) * width + column


def find_steps(nearness: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """List the steps of a nearness map.

    Args:
        nearness: One over metres. float32 [H, W].

    Returns:
        Pixels on the near and on the far side, for steps across and for steps down. int32 [E] each.

    Raises:
        Nothing.
    """
    flat, pairs = nearness.reshape(-1), []
    for axis in (1, 0):
        here = _steps(nearness, axis)
        there = shift(here, 1, axis, nearness.shape)
        swap = flat[there] > flat[here]
        pairs.append((np.where(swap, there, here), np.where(swap, here, there)))
    return pairs


def _steps(nearness: np.ndarray, axis: int) -> np.ndarray:
    """Return the pixels with a step to the next one along an axis. int32 [E]."""
    flat, shape = nearness.reshape(-1), nearness.shape
    pixels = _steep(nearness, axis, both=False)
    before, here, there, after = (flat[shift(pixels, k, axis, shape)] for k in (-1, 0, 1, 2))
    jump = there - here
    odd = unexplained(jump, here - before, after - there)
    return pixels[odd > STEP * np.maximum(here, there)]


def unexplained(jump: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return how far a jump is from being a change between those on either side of it."""
    return np.maximum(jump - np.maximum(before, after), np.minimum(before, after) - jump)


def _steep(nearness: np.ndarray, axis: int, both: bool = True) -> np.ndarray:
    """Return pixels that differ from the next along an axis, and those next ones. int32 [E]."""
    following = np.roll(nearness, -1, axis)
    steep = np.abs(following - nearness) > np.float32(_STEEP) * np.maximum(nearness, following)
    if axis == 0:
        steep[-1] = False
    if both:
        # Within a step both neighbours differ.
        steep &= np.roll(steep, 1, axis)
    return np.flatnonzero(steep).astype(np.int32)


def _snap(nearness: np.ndarray, pixels: np.ndarray, reach: int, axis: int) -> None:
    """Put pixels of a step at most 2 reach - 1 wide to one of its sides, in place."""
    flat, shape = nearness.reshape(-1), nearness.shape
    here, left, right, farther_left, farther_right, last, following = (
        flat[shift(pixels, k, axis, shape)] for k in (0, -reach, reach, -2 * reach, 2 * reach, -1, 1)
    )
    before, after, jump = left - farther_left, farther_right - right, right - left
    step = unexplained(jump, 2 * before, 2 * after) > STEP * np.maximum(left, right)
    size, rise = np.abs(jump), np.sign(jump)
    # Beyond the step both sides must be flat; a side that turns back is a thin thing.
    step &= np.maximum(before * rise, after * rise) < _FLAT * size
    left = np.where(np.abs(before) < _FLAT * size, np.maximum(left + before, 0.5 * left), left)
    right = np.where(np.abs(after) < _FLAT * size, np.maximum(right - after, 0.5 * right), right)
    to_left, to_right = np.abs(here - left), np.abs(here - right)
    step &= (here - left) * (right - here) > 0
    step &= np.minimum(to_left, to_right) > 0.05 * size
    # Thin things at a distance of their own, with a flat side, are no part of a step.
    step &= np.minimum(np.abs(here - last), np.abs(following - here)) > 0.15 * size / reach
    flat[pixels[step]] = np.where(to_left < to_right, left, right)[step]


def _donors(nearness: np.ndarray, steps: list[tuple[np.ndarray, int]]) -> np.ndarray:
    """Return for every pixel the one to take colour from: for the far side of a step, one further away."""
    flat, shape = nearness.reshape(-1), nearness.shape
    edge, away = np.zeros(flat.size, bool), np.zeros((2, flat.size), np.int8)
    for here, axis in steps:
        there = shift(here, 1, axis, shape)
        edge[here] = edge[there] = True
        rises = flat[there] > flat[here]
        away[axis, here[rises]] -= 1
        away[axis, there[~rises]] += 1
    pixels = np.flatnonzero(away.any(0))
    donors = shift(shift(pixels, away[0, pixels], 0, shape), away[1, pixels], 1, shape)
    fit = ~edge[donors] & (np.abs(flat[donors] - flat[pixels]) < STEP * flat[pixels])
    result = np.arange(flat.size, dtype=np.int32)
    result[pixels[fit]] = donors[fit]
    return result.reshape(shape)


def _corners(directions: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the four pixels around directions and their bilinear weights. [N, 4] each."""
    column, row = directions_to_pixels(directions, height, width)
    upper = np.floor(row)
    below = (row - upper).astype(np.float32)
    pixels, weights = [], []
    for row, share in ((upper.astype(np.int32), 1.0 - below), (upper.astype(np.int32) + 1, below)):
        over = (row < 0) | (row >= height)
        row = np.where(row < 0, -1 - row, np.where(row >= height, 2 * height - 1 - row, row))
        turned = column + over * (width / 2)
        left = np.floor(turned)
        right = (turned - left).astype(np.float32)
        left = left.astype(np.int32) % width
        pixels += [row * width + left, row * width + np.where(left + 1 == width, 0, left + 1)]
        weights += [share * (1.0 - right), share * right]
    return np.stack(pixels, -1), np.stack(weights, -1)
