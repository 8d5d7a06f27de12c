"""Undo a blur where the picture has edges: deconvolution by weighted total variation.

Of all maps x that look like the given one, f, once they are blurred, take the one with the fewest and smallest steps, those
along the picture's edges being cheap,

    min_x  mu H(G x - f) + sum w |x_i - x_j|      low <= x <= high

with G a Gaussian blur, H the square up to an error that is an outlier and linear beyond, and w small where neighbours i, j
differ in colour (Rudin, Osher, Fatemi 1992), by the primal-dual method (Chambolle, Pock 2011, algorithm 1). It is written in
what NumPy and torch call by the same names, so one text runs on either.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

ITERATIONS = 150
_MU = 75.0  # over the blur in pixels: errors fill areas, steps are lines, so that a finer map needs a smaller weight
_OUTLIER = 0.5  # where the derivative of H stops to grow
_STEP = 1 / 3  # of both the primal and the dual variables: the product is the inverse square of the operators' norm, 9
_COLOR_SIGMA, _CHEAPEST = 8.0, 0.03  # grey levels; weight of a step along the strongest edge


def blur_matrix(length: int, sigma_px: float | np.ndarray) -> np.ndarray:
    """Write a Gaussian blur as a matrix; beyond the ends the last value goes on.

    Args:
        length: Of what is blurred, n.
        sigma_px: Standard deviation, or several of them.

    Returns:
        float32 [..., n, n]

    Raises:
        Nothing.
    """
    at, sigma = np.arange(length), np.asarray(sigma_px)[..., None, None]
    reach = int(np.ceil(3 * sigma.max()))
    beyond = np.arange(-reach, length + reach)
    weights = np.exp(-0.5 * ((beyond[None] - at[:, None]) / sigma) ** 2) * (np.abs(beyond[None] - at[:, None]) <= 3 * sigma + 0.5)
    weights /= weights.sum(-1, keepdims=True)
    inner = weights[..., reach:reach + length]
    inner[..., 0] += weights[..., :reach].sum(-1)
    inner[..., -1] += weights[..., reach + length:].sum(-1)
    return inner.astype(np.float32)


def edge_weights(colors: np.ndarray, axis: int) -> np.ndarray:
    """Say how much a step between neighbours costs.

    Args:
        colors: uint8 [..., 3].
        axis: Along which they are neighbours.

    Returns:
        1 where they are alike, `_CHEAPEST` where they differ most; one fewer along the axis. float32 [...].

    Raises:
        Nothing.
    """
    apart = np.abs(np.diff(colors.astype(np.int16), axis=axis)).mean(-1, dtype=np.float32)
    return np.float32(_CHEAPEST) + np.float32(1 - _CHEAPEST) * np.exp(apart / np.float32(-_COLOR_SIGMA))


def deconvolve(xp: Any, given: Any, blur_px: float, weights: Sequence[Any], bounds: Sequence[Any], blurs: Sequence[Any]) -> Any:
    """Undo a blur in several maps.

    Args:
        xp: The module that the arrays are of: numpy or torch.
        given: Maps, blurred. float32 [B, h, w].
        blur_px: By which standard deviation.
        weights: What steps down and steps across cost. float32 [B, h - 1, w], [B, h, w - 1].
        bounds: Least and largest value of the result. float32 [B, h, w] each.
        blurs: Matrices that blur columns, [h, h], and the transposes of those that blur rows, [B, w, w]. float32.

    Returns:
        float32 [B, h, w].

    Raises:
        Nothing.
    """
    (cost_down, cost_across), (low, high), (down, across) = weights, bounds, blurs
    keep, down_back, across_back = 1 / (1 + _STEP * blur_px / _MU), down.T, xp.swapaxes(across, -1, -2)
    x = ahead = given
    error, rise, run = xp.zeros_like(given), xp.zeros_like(cost_down), xp.zeros_like(cost_across)
    for _ in range(ITERATIONS):
        error = ((error + _STEP * (down @ ahead @ across - given)) * keep).clip(-_OUTLIER, _OUTLIER)
        rise = (rise + _STEP * (ahead[:, 1:] - ahead[:, :-1])).clip(-cost_down, cost_down)
        run = (run + _STEP * (ahead[..., 1:] - ahead[..., :-1])).clip(-cost_across, cost_across)
        slope = down_back @ error @ across_back
        slope[:, 1:] += rise
        slope[:, :-1] -= rise
        slope[..., 1:] += run
        slope[..., :-1] -= run
        new = (x - _STEP * slope).clip(low, high)
        x, ahead = new, 2 * new - x
    return x
