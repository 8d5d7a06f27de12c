"""Make one distance map, and its changes over time, of what an estimator says of overlapping tiles.

Frames of a tile are brought to one reference (`align_time`), tiles to one scale and shift (`align_graph`), what bends
them is smoothed out (`align_field`), what moves is tied to what is still around it (`align_time.changes`), and all is
blended (`align_compose`). What is still is the same in every frame by construction, and there is one scale for the
whole video.
"""

from dataclasses import dataclass

import numpy as np

from pano4d.lifting.align_compose import TOLERANCE, MovingTile, compose
from pano4d.lifting.align_field import expand_field, solve_field
from pano4d.lifting.align_graph import solve_lines, solve_scales
from pano4d.lifting.align_overlaps import Overlaps, find_overlaps, sample_tiles
from pano4d.lifting.align_time import Reading, changes
from pano4d.lifting.distances import Distances
from pano4d.runtime.sphere import row_solid_angles
from pano4d.runtime.tiles import Layout

NEAR_QUANTILE = 0.25
"""Share of the sphere that is nearer than the distance called near: mostly ground, where a guess is best."""

NEAR_M = 2.0
FAR_SHARE = 1 / 8
_FARTHEST = 100.0
"""Largest distance over the near one, where a disparity comes close to 0."""

_MOVING_WEIGHT = 0.1


@dataclass(frozen=True)
class Gauge:
    """What predictions alone do not tell.

    Attributes:
        near_m: Distance that a quarter of the sphere is nearer than, for predictions that are not metric.
        far_share: That over the distance of the farthest places, for disparity.
    """

    near_m: float = NEAR_M
    far_share: float = FAR_SHARE


def ray_cosines(layout: Layout, size: int) -> np.ndarray:
    """Give the cosine between each ray of a tile and the tile's axis: depth along the axis over distance.

    Args:
        layout: Tile layout.
        size: Side of a tile in pixels.

    Returns:
        float32 [s, s].

    Raises:
        Nothing.
    """
    axis = (np.arange(size) + 0.5 - size / 2) / layout.focal(size)
    return (1 / np.sqrt(1 + axis[None] ** 2 + axis[:, None] ** 2)).astype(np.float32)


def align(readings: list[Reading], layout: Layout, moving: np.ndarray, kind: str, geometry: str,
          gauge: Gauge = Gauge()) -> tuple[Distances, dict]:
    """Align and blend the readings of all tiles.

    Args:
        readings: One for each tile, of T frames, or of one frame where nothing moves.
        layout: Tile layout of V tiles.
        moving: True where the picture may move. bool [H, W].
        kind: "metric", "scale-invariant" or "affine-inverse".
        geometry: "ray" if predictions are of distance, "z" if they are of depth along a tile's axis.
        gauge: What predictions do not tell.

    Returns:
        Distances at the panorama's size, in metres; and figures: ``residual_raw``, ``residual_aligned`` and
        ``residual``, the median disagreement of overlapping tiles as a ratio less 1, as read, with scales and shifts,
        and with the smooth field; ``tile_scales``, largest over smallest; ``control_points`` along a tile's side.

    Raises:
        Nothing.
    """
    size = len(readings[0].reference)
    cosines = ray_cosines(layout, size) if geometry == "z" else np.ones((size, size), np.float32)
    overlaps = find_overlaps(layout, size)
    weights = _weights(readings, overlaps)
    tiles = np.stack([reading.reference for reading in readings])
    raw = _unaligned(tiles, cosines, kind)
    if kind == "affine-inverse":
        scales, shifts = solve_lines(tiles, cosines, overlaps, weights, gauge.far_share)
        aligned, least = _distances(tiles, scales, shifts, cosines)
    else:
        shifts = solve_scales(raw, overlaps, weights)
        # Metric predictions keep the scale that most tiles have.
        shifts = shifts - np.median(shifts)
        scales, least = np.exp(shifts), 0.0
        aligned = raw + shifts[:, None, None].astype(np.float32)
    control = solve_field(aligned, overlaps, weights)
    smooth = aligned + np.stack([expand_field(values, size) for values in control])
    residuals = [_disagreement(step, overlaps) for step in (raw, aligned, smooth)]
    parts = [_moving_tile(reading, *line, least) for reading, *line in zip(readings, scales, shifts)]
    distances = compose(smooth, parts, layout, moving, max(TOLERANCE, 6 * residuals[-1]))
    if kind != "metric":
        distances = _scaled(distances, gauge.near_m)
    names = ("residual_raw", "residual_aligned", "residual")
    return distances, {
        **{name: round(float(np.expm1(value)), 5) for name, value in zip(names, residuals)},
        "tile_scales": round(float(np.max(scales) / max(np.min(scales), 1e-9)), 4), "control_points": control.shape[1]}


def _unaligned(tiles: np.ndarray, cosines: np.ndarray, kind: str) -> np.ndarray:
    """Take what was read for log distances along rays, as far as it can be. float32 [V, s, s]."""
    if kind != "affine-inverse":
        return tiles - np.log(cosines)
    return -np.log(np.maximum(tiles - tiles.min() + 0.02, 0.02) * cosines)


def _distances(tiles: np.ndarray, scales: np.ndarray, shifts: np.ndarray,
               cosines: np.ndarray) -> tuple[np.ndarray, float]:
    """Turn disparities into log distances along rays, float32 [V, s, s]; tell the disparity at which distance ends."""
    disparity = tiles * scales[:, None, None].astype(np.float32) + shifts[:, None, None].astype(np.float32)
    least = max(float(np.quantile(disparity[:, ::4, ::4], 1 - NEAR_QUANTILE)), 1e-9) / _FARTHEST
    return -np.log(np.maximum(disparity, least) * cosines), least


def _weights(readings: list[Reading], overlaps: Overlaps) -> np.ndarray:
    """Let places that move count little: they still count where nothing else is seen."""
    moving = np.stack([reading.moving for reading in readings]).astype(np.float32)
    shares = [sample_tiles(moving, *side) for side in overlaps.sides()]
    return np.where(np.maximum(*shares) > 0, _MOVING_WEIGHT, 1.0)


def _disagreement(tiles: np.ndarray, overlaps: Overlaps) -> float:
    """Give the median difference of overlapping tiles."""
    first, second = (sample_tiles(tiles, *side) for side in overlaps.sides())
    return float(np.median(np.abs(first - second)))


def _moving_tile(reading: Reading, scale: float, shift: float, least: float) -> MovingTile | None:
    """Take what changes in a tile; None if nothing does."""
    if not reading.values.size:
        return None
    return MovingTile(np.flatnonzero(reading.moving), changes(reading, scale, shift, least))


def _scaled(distances: Distances, near_m: float) -> Distances:
    """Give near places the distance that they should have."""
    factor = np.float32(near_m / sphere_quantile(distances.static, NEAR_QUANTILE))
    return Distances(distances.static * factor, distances.pixels, distances.changes)


def sphere_quantile(distance: np.ndarray, quantile: float) -> float:
    """Find the distance that a share of the sphere is nearer than.

    Args:
        distance: float [H, W].
        quantile: Share, 0 to 1.

    Returns:
        The distance.

    Raises:
        Nothing.
    """
    step = max(1, len(distance) // 512)
    values = distance[::step, ::step]
    share = np.repeat(row_solid_angles(*distance.shape)[::step], values.shape[1])
    order = np.argsort(values, axis=None)
    total = share[order].cumsum()
    return float(values.reshape(-1)[order[np.searchsorted(total, quantile * total[-1])]])
