"""Bring what an estimator says of one tile, frame after frame, to one reference.

An estimator's scale and shift flicker from frame to frame. What does not move tells them: every frame is fitted to the
median over time there, and the median of the fitted frames is the tile's reference. What moves is kept per frame, to be
fitted again once the tile's reference is final (`changes`).
"""

from dataclasses import dataclass

import numpy as np

from pano4d.lifting.least_squares import fit_line, fit_shift

SAMPLES = 6000
"""Still pixels of a tile that its frames are fitted on."""

RING_WEIGHT = 4.0
RING_SHARE = 1 / 16
"""Still pixels within this share of a tile's side of a moving one count `RING_WEIGHT` times."""

_FEWEST = 64
_MOST_CHANGE = 3.0


@dataclass(frozen=True)
class Reading:
    """What an estimator said of one tile, reduced to what alignment needs.

    Numbers are logarithms of distance, or disparities less their median over their spread; see `read_tile`.

    Attributes:
        reference: Median over the fitted frames. float32 [s, s].
        moving: Pixels that may move. bool [s, s].
        values: What was said of them, frame by frame. float32 [T, m].
        samples: Flat places of pixels that frames are fitted on. int64 [n].
        sample_values: What was said of those. float32 [T, n].
        sample_weights: How much each counts. float64 [n].
        affine: Whether frames differ by a scale too, and not by a shift alone.
    """

    reference: np.ndarray
    moving: np.ndarray
    values: np.ndarray
    samples: np.ndarray
    sample_values: np.ndarray
    sample_weights: np.ndarray
    affine: bool


def read_tile(predictions: np.ndarray, moving: np.ndarray, affine: bool, seed: int = 0) -> Reading:
    """Reduce the predictions of one tile.

    Args:
        predictions: Distances above 0, or disparities. float32 [T, s, s].
        moving: Pixels that may move. bool [s, s].
        affine: Whether they are disparities, known up to scale and shift.
        seed: Of the choice of samples.

    Returns:
        The reading. If less than `_FEWEST` pixels are still, all are taken for still: over time, a scene that moves
        everywhere keeps its distance on the whole.

    Raises:
        Nothing.
    """
    values = _normalised(predictions) if affine else np.log(predictions)
    flat = values.reshape(len(values), -1)
    samples, weights = _choose_samples(moving, seed)
    lines = _fit_frames(flat[:, samples], weights, affine)
    if len(values) > 1:
        # In place: the fitted frames are needed for nothing else.
        places = np.flatnonzero(moving)
        kept, picked = flat[:, places].copy(), flat[:, samples].copy()
        flat *= lines[:, :1]
        flat += lines[:, 1:]
        reference = np.median(values, axis=0)
        return Reading(reference, moving, kept, samples, picked, weights, affine)
    return Reading(values[0], moving, np.empty((1, 0), np.float32), samples, flat[:, samples], weights, affine)


def changes(reading: Reading, scale: float, shift: float, least: float) -> np.ndarray:
    """Give how far each frame's moving pixels are from the tile's reference.

    Every frame is fitted to the reference on what is still, mostly around what moves, relative to distance.

    Args:
        reading: The tile's reading of T frames.
        scale: Of the tile's disparity; for logarithms not used.
        shift: Of the tile's disparity.
        least: Disparity at which distance ends.

    Returns:
        Log of distance over the reference's. float32 [T, m].

    Raises:
        Nothing.
    """
    flat = reading.reference.reshape(-1).astype(np.float64)
    wanted, still = flat[reading.moving.reshape(-1)], flat[reading.samples]
    result = np.empty(reading.values.shape, np.float32)
    if reading.affine:
        weights = reading.sample_weights / np.maximum(scale * still + shift, least) ** 2
        weights, wanted_disparity = weights / weights.mean(), _softened(scale * wanted + shift, least)
    for number, (values, samples) in enumerate(zip(reading.values, reading.sample_values.astype(np.float64))):
        if reading.affine:
            a, b = fit_line(samples, still, weights)
            disparity = _softened(scale * (a * values + b) + shift, least)
            result[number] = np.log(wanted_disparity) - np.log(disparity)
        else:
            result[number] = values + fit_shift(samples, still, reading.sample_weights) - wanted
    return np.clip(result, -_MOST_CHANGE, _MOST_CHANGE, out=result)


def _softened(disparity: np.ndarray, least: float) -> np.ndarray:
    """Keep disparities off 0, so that a sky, whose disparity is all noise, does not come and go."""
    return np.maximum(disparity, 0.0) + least


def _normalised(disparity: np.ndarray) -> np.ndarray:
    """Subtract the median and divide by the spread: the same whatever scale and shift a tile came with."""
    middle = np.median(disparity[:: max(1, len(disparity) // 4)])
    centred = (disparity - middle).astype(np.float32)
    spread = float(np.mean(np.abs(centred)))
    return centred / np.float32(max(spread, 1e-6 * abs(float(middle)), 1e-30))


def _choose_samples(moving: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose still pixels, and weigh those around moving ones more: flat places [n], weights [n]."""
    still = np.flatnonzero(~moving)
    if len(still) < _FEWEST:
        still = np.arange(moving.size)
    rng = np.random.default_rng(seed)
    samples = np.sort(rng.choice(still, min(SAMPLES, len(still)), replace=False))
    ring = _grown(moving, max(1, int(RING_SHARE * len(moving)))).reshape(-1)
    return samples, np.where(ring[samples], RING_WEIGHT, 1.0)


def _grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """Add every pixel within a square around a set one."""
    padded = np.pad(mask.astype(np.int32), ((radius + 1, radius), (radius + 1, radius))).cumsum(0).cumsum(1)
    side = 2 * radius + 1
    return padded[side:, side:] - padded[:-side, side:] - padded[side:, :-side] + padded[:-side, :-side] > 0


def _fit_frames(samples: np.ndarray, weights: np.ndarray, affine: bool, rounds: int = 2) -> np.ndarray:
    """Fit frames [T, n] to their own median over time. Scale and shift of each, float32 [T, 2]."""
    samples = samples.astype(np.float64)
    lines = np.tile([1.0, 0.0], (len(samples), 1))
    for _ in range(rounds if len(samples) > 1 else 0):
        median = np.median(samples * lines[:, :1] + lines[:, 1:], axis=0)
        lines = np.array([fit_line(frame, median, weights) if affine else (1.0, fit_shift(frame, median, weights))
                          for frame in samples])
    return lines.astype(np.float32)
