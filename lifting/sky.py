"""Find the sky in a distance map: the far shell on which it ends."""

import math

import numpy as np

from pano4d.runtime.sphere import row_solid_angles

_FLAT = 0.97
_SMALLEST_SHARE = 0.02
_ABOVE = 0.7
_FAR = 2.0
_ROWS = 256


def sky_distance(distance: np.ndarray) -> float:
    """Find the distance that a map gives to all of the sky.

    Sky is a large flat part of the sphere at the greatest distance, well behind the rest and
    mostly above the horizon. Corners of a room are far, but as much below it; a map that is
    flat everywhere has no sky.

    Args:
        distance: Metres along each pixel's ray. float32 [H, W].

    Returns:
        Metres from which on everything is sky; infinite if nothing is.

    Raises:
        Nothing.
    """
    solid = np.broadcast_to(row_solid_angles(*distance.shape)[:, None], distance.shape)
    far = distance >= _FLAT * distance.max()
    share = (solid * far).sum() / (4.0 * math.pi)
    above = (solid * far)[: len(far) // 2].sum() / (4.0 * math.pi)
    if share < _SMALLEST_SHARE or above < _ABOVE * share or far.all():
        return math.inf
    shell = float(np.median(distance[far]))
    return _FLAT * shell if shell > _FAR * middle_distance(distance, ~far) else math.inf


def middle_distance(distance: np.ndarray, where: np.ndarray) -> float:
    """Return the median over solid angle of the distances of some pixels, metres."""
    # A few thousand pixels tell the median of millions.
    thin = max(1, len(distance) // _ROWS)
    solid = np.broadcast_to(row_solid_angles(*distance.shape)[:, None], distance.shape)[::thin, ::thin]
    distance, where = distance[::thin, ::thin], where[::thin, ::thin]
    if not where.any():
        return float(np.median(distance))
    order = np.argsort(distance[where])
    total = np.cumsum(solid[where][order])
    return float(distance[where][order[np.searchsorted(total, 0.5 * total[-1])]])
