"""Solve linear least squares of many rows that touch few unknowns each, so that outliers do not count."""

import numpy as np

_BLOCK = 1 << 15
_HUBER = 1.345
_CUT = 6.0
"""Residuals beyond so many standard deviations are another surface, not noise, and count nothing."""


_INERTIA = 0.0005
"""Variance of numbers with which a slope is as much what they tell as it is 1."""

_LEAST_SLOPE = 0.1

LEAST_DEVIATION = 0.003
"""Of a ratio: perfect predictions differ by more where they are interpolated, and are no outliers there."""


def normal_equations(columns: np.ndarray, values: np.ndarray, target: np.ndarray, weights: np.ndarray,
                     count: int) -> tuple[np.ndarray, np.ndarray]:
    """Build ``A' W A`` and ``A' W y`` of a matrix A given by its few entries a row.

    Args:
        columns: Unknowns that each row touches. int64 [K, m].
        values: Their factors. float64 [K, m].
        target: Right-hand side y. float64 [K].
        weights: Weight of each row. float64 [K].
        count: Number of unknowns, n.

    Returns:
        Matrix, float64 [n, n], and vector, float64 [n].

    Raises:
        Nothing.
    """
    matrix, vector = np.zeros(count * count), np.zeros(count)
    for start in range(0, len(columns), _BLOCK):
        part = slice(start, start + _BLOCK)
        place, factor = columns[part], values[part]
        weighted = factor * weights[part, None]
        both = place[:, :, None] * count + place[:, None, :]
        matrix += np.bincount(both.ravel(), (weighted[:, :, None] * factor[:, None, :]).ravel(), count * count)
        vector += np.bincount(place.ravel(), (weighted * target[part, None]).ravel(), count)
    return matrix.reshape(count, count), vector


def huber_weights(residuals: np.ndarray, least: float = 1e-9) -> np.ndarray:
    """Weigh residuals by Huber's rule, with their own median as the scale.

    Args:
        residuals: float64 [K].
        least: Smallest standard deviation to assume, in the residuals' unit.

    Returns:
        1 for small residuals, less for larger ones, 0 far out. float64 [K].

    Raises:
        Nothing.
    """
    size = np.abs(residuals)
    deviation = max(1.4826 * float(np.median(size)), least) if len(size) else least
    weights = np.minimum(1.0, _HUBER * deviation / np.maximum(size, least))
    return np.where(size > _CUT * deviation, 0.0, weights)


def fit_line(noisy: np.ndarray, clean: np.ndarray, weights: np.ndarray, rounds: int = 4) -> tuple[float, float]:
    """Find the scale and the shift that bring noisy numbers to clean ones.

    Fitted the other way round, ``noisy = A clean + B``: a line through noisy abscissae would come out too flat. Where
    numbers hardly differ they tell little of A, which then stays near 1.

    Args:
        noisy: Numbers whose spread is about 1. float64 [n].
        clean: What they should be, of such a spread too. float64 [n].
        weights: How much each pair counts, above 0. float64 [n].
        rounds: Times that outliers are weighed anew.

    Returns:
        Scale a and shift b of ``a * noisy + b``; a is above 0.

    Raises:
        Nothing.
    """
    slope, offset, unit = 1.0, float(np.median(noisy - clean)), np.sqrt(weights)
    for _ in range(rounds):
        w = weights * huber_weights((slope * clean + offset - noisy) * unit)
        total = max(w.sum(), 1e-300)
        mean_noisy, mean_clean = (w @ noisy) / total, (w @ clean) / total
        centred = clean - mean_clean
        slope = (w @ (centred * (noisy - mean_noisy)) / total + _INERTIA) / (w @ (centred * centred) / total + _INERTIA)
        slope = max(slope, _LEAST_SLOPE)
        offset = mean_noisy - slope * mean_clean
    return float(1 / slope), float(-offset / slope)


def fit_shift(source: np.ndarray, target: np.ndarray, weights: np.ndarray, rounds: int = 4) -> float:
    """Find the shift that brings one list of numbers to another.

    Args:
        source: float [n].
        target: float [n].
        weights: How much each pair counts, above 0. float [n].
        rounds: Times that outliers are weighed anew.

    Returns:
        b of ``source + b``.

    Raises:
        Nothing.
    """
    difference = np.asarray(target, np.float64) - source
    shift = float(np.median(difference))
    for _ in range(rounds):
        w = weights * huber_weights(difference - shift)
        shift = float((w @ difference) / max(w.sum(), 1e-300))
    return shift
