"""Close the gaps between Gaussians that stay as they are placed.

What lies behind shows between them, and mostly that is black: a picture of them is darker than what they were placed for,
and a mesh lies over whatever is smooth. Where it is smooth nothing is lost by wider footprints. What still shows between
them, brighter colours make up for.
"""

from dataclasses import replace
from functools import cache

import numpy as np

from pano4d.lifting.gaussians import SH_C0, Gaussians
from pano4d.lifting.initialize import OPACITY, SIGMA_PER_SPACING, tangents
from pano4d.lifting.layers import BACKGROUND, Layers
from pano4d.runtime.parallel import each
from pano4d.runtime.sphere import sample_panorama

WIDEST = 1.3
"""Size of a footprint where all is even, over one where it is not."""
SMOOTH = 12.0
"""Grey levels, a spacing away, from which on a footprint stays as it is."""

_BLOCK = 1 << 15


def close_gaps(layers: Layers, frames: np.ndarray) -> Layers:
    """Widen footprints where the picture is smooth, and brighten colours by what shows between.

    Args:
        layers: Of `lay`. Its background is left as it is: it is wider, and has nothing behind.
        frames: Panoramas. uint8 [T, H, W, 3].

    Returns:
        The same Gaussians, closed up; what moves in each frame for itself.

    Raises:
        Nothing.
    """
    seen = layers.kind != BACKGROUND
    still = np.zeros(len(seen))
    still[seen] = smoothness(frames[0], layers.static_directions[seen], _spacing(layers.static)[seen])

    def moving(frame: int) -> Gaussians:
        parts = layers.moving(frame)
        return _closed(parts, smoothness(frames[frame], layers.moving_directions, _spacing(parts)))

    return replace(layers, static=_closed(layers.static, still, seen), moving=moving)


def smoothness(frame: np.ndarray, directions: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Say how little the picture differs a spacing away, in four directions.

    Args:
        frame: Panorama. uint8 [H, W, 3].
        directions: Unit directions. float64 [N, 3].
        spacing: Radians. [N].

    Returns:
        1 where nothing differs, 0 from `SMOOTH` grey levels on. float64 [N].

    Raises:
        Nothing.
    """
    def of_block(begin: int) -> np.ndarray:
        there, away = directions[begin:begin + _BLOCK], spacing[begin:begin + _BLOCK, None]
        here = sample_panorama(frame, there)
        apart = [np.abs(sample_panorama(frame, there + side * away * axis) - here).max(axis=1)
                 for axis in tangents(there) for side in (1, -1)]
        return 1 - np.max(apart, axis=0) / SMOOTH

    parts = each(of_block, range(0, len(directions), _BLOCK))
    return np.maximum(np.concatenate([np.empty(0), *parts]), 0.0)


@cache
def share_between(wider: float = 1.0) -> float:
    """Say how much of what lies behind a surface shows between Gaussians as they are placed.

    Args:
        wider: Size of their footprints over the usual one.

    Returns:
        Mean transmittance of a square lattice of unit spacing, seen from the front.

    Raises:
        Nothing.
    """
    near = np.arange(-4, 5)
    at = (np.arange(32) + 0.5) / 32
    one_way = np.exp(-0.5 * ((at[:, None] - near) / (wider * SIGMA_PER_SPACING)) ** 2)  # [32, 9]
    alphas = OPACITY * one_way[:, None, :, None] * one_way[None, :, None, :]
    return float(np.prod(1.0 - alphas, axis=(2, 3)).mean())


def _spacing(parts: Gaussians) -> np.ndarray:
    """Give the spacing that Gaussians were placed for, radians. [N]."""
    return parts.scales[:, 0] / (SIGMA_PER_SPACING * np.linalg.norm(parts.means, axis=1))


def _closed(parts: Gaussians, smooth: np.ndarray, chosen: np.ndarray | bool = True) -> Gaussians:
    """Widen by smoothness [N], and brighten the chosen ones [N]."""
    wider = 1 + (WIDEST - 1) * smooth
    steps = np.linspace(1, WIDEST, 7)
    between = np.interp(wider, steps, [share_between(step) for step in steps])
    gain = np.where(chosen, 1 / (1 - between), 1.0)[:, None, None]
    scales = parts.scales * np.stack([wider, wider, np.ones_like(wider)], axis=1)
    brighter = gain * parts.sh + (gain - 1) * 0.5 / SH_C0  # a harmonic of 0 is a colour of 0.5
    return replace(parts, scales=scales.astype(np.float32), sh=brighter.astype(np.float32))
