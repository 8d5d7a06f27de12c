"""Run an estimator of depth over a panoramic video."""

from collections.abc import Callable, Iterator

import numpy as np

from pano4d.lifting.align import NEAR_QUANTILE, Gauge, align, sphere_quantile
from pano4d.lifting.align_time import Reading, read_tile
from pano4d.lifting.depth import DepthEstimator
from pano4d.lifting.distances import Distances, unchanging
from pano4d.lifting.prior import prior_distance
from pano4d.lifting.sharpen import RAMP_CELLS, sharpen
from pano4d.runtime.errors import CheckpointError
from pano4d.runtime.sphere import sample_panorama
from pano4d.runtime.tiles import Layout, icosahedron_faces, tile_directions, tile_masks

FOV_DEG = 80.0
"""Twenty tiles as wide as depth models are used to; neighbours share about a third."""

LARGEST_TILE_PX = 518
BATCH = 4
_PATCH = 14
_FAR_QUANTILE = 0.98

Progress = Callable[[str, int, int], None]


def estimate_distances(frames: np.ndarray, moving: np.ndarray, estimator: DepthEstimator,
                       progress: Progress | None = None, device: str = "auto") -> tuple[Distances, dict]:
    """Estimate the distances of a video.

    A tile in which nothing moves is estimated once, of the first frame; any other in every frame.

    Args:
        frames: Panoramas. uint8 [T, H, W, 3].
        moving: Non-zero where the picture may move. bool or uint8 [H, W].
        estimator: What tells depth.
        progress: Called as progress("depth", tiles done, tiles in all).
        device: Where to sharpen what was estimated: "auto", "cpu" or "cuda".

    Returns:
        Distances, in metres as far as the estimator tells; and figures: ``estimator``, ``kind``, ``geometry``, and of
        tiles ``tiles``, ``tile_px``, and those of `align`.

    Raises:
        CheckpointError: The estimator says nothing usable.
        SettingsError: No such device, or no GPU that torch can use.
    """
    moving = np.asarray(moving) != 0
    told = {"estimator": estimator.name, "kind": estimator.kind, "geometry": estimator.geometry}
    if estimator.panoramic:
        return unchanging(estimator(frames[:1], 360.0)[0]), told
    layout, size = icosahedron_faces(FOV_DEG), tile_size(frames.shape[2])
    readings = _read_tiles(frames, moving, estimator, layout, size, progress or (lambda *_: None))
    distances, figures = align(readings, layout, moving, estimator.kind, estimator.geometry, _gauge(frames[0]))
    distances = sharpen(distances, frames, ramp_reach(frames.shape[2], size), device)
    return distances, {**told, "tiles": layout.count, "tile_px": size, **figures}


def tile_size(width: int) -> int:
    """Choose the side of tiles about as dense at their centre as a panorama, and no larger than models are used to.

    Args:
        width: Width of the panorama.

    Returns:
        Pixels, a multiple of 14.

    Raises:
        Nothing.
    """
    return min(LARGEST_TILE_PX, _PATCH * int(np.ceil(_dense(width) / _PATCH)))


def ramp_reach(width: int, size: int) -> int:
    """Say how far an estimator's ramps reach from their middle.

    Args:
        width: Width of the panorama.
        size: Side of the tiles that the estimator saw.

    Returns:
        Pixels of the panorama.

    Raises:
        Nothing.
    """
    return max(2, round(RAMP_CELLS * _dense(width) / size))


def _dense(width: int) -> float:
    """Give the side of a tile that is as dense at its centre as a panorama."""
    return 2 * np.tan(np.radians(FOV_DEG) / 2) * width / (2 * np.pi)


def _gauge(panorama: np.ndarray) -> Gauge:
    """Take from the weight-free guess what a model leaves open: how large the scene is, and how far it goes."""
    guess = prior_distance(panorama)
    near, far = (sphere_quantile(guess, quantile) for quantile in (NEAR_QUANTILE, _FAR_QUANTILE))
    return Gauge(near, min(0.9, near / far))


def _read_tiles(frames: np.ndarray, moving: np.ndarray, estimator: DepthEstimator, layout: Layout, size: int,
                tell: Progress) -> list[Reading]:
    """Estimate tile after tile, and keep of each what alignment needs."""
    masks = tile_masks(moving, layout, size, 1) > 0
    # One picture of all frames' channels: where a tile's samples lie is worked out once for all.
    stacked = np.ascontiguousarray(np.moveaxis(frames, 0, 2)).reshape(*moving.shape, -1) if masks.any() else None
    readings = []
    for v, mask in enumerate(masks):
        source = stacked if mask.any() else frames[0]
        tiles = _cut(source, layout, v, size)
        depth = np.concatenate([estimator(part, layout.fov_deg) for part in _batches(tiles)])
        if estimator.kind != "affine-inverse" and not (depth > 0).all():
            depth = _above_zero(depth, estimator)
        readings.append(read_tile(depth, mask, estimator.kind == "affine-inverse", seed=v))
        tell("depth", v + 1, layout.count)
    return readings


def _cut(panorama: np.ndarray, layout: Layout, v: int, size: int) -> np.ndarray:
    """Cut one tile out of frames that lie behind each other. [H, W, 3 T] -> uint8 [T, s, s, 3]."""
    single = Layout(layout.name, layout.yaw_deg[v:v + 1], layout.pitch_deg[v:v + 1], layout.fov_deg)
    fine = max(1, round(panorama.shape[1] / (2 * np.pi) / layout.focal(size)))
    directions, cells = tile_directions(single, size * fine)[0], np.empty((size, size, panorama.shape[2]), np.uint8)
    for row in range(size):
        samples = sample_panorama(panorama, directions[row * fine:(row + 1) * fine])
        cells[row] = np.rint(samples.reshape(fine, size, fine, -1).mean(axis=(0, 2)))
    return np.ascontiguousarray(np.moveaxis(cells.reshape(size, size, -1, 3), 2, 0))


def _batches(tiles: np.ndarray) -> Iterator[np.ndarray]:
    """Split into runs of at most `BATCH`."""
    for start in range(0, len(tiles), BATCH):
        yield tiles[start:start + BATCH]


def _above_zero(depth: np.ndarray, estimator: DepthEstimator) -> np.ndarray:
    """Lift the odd depth of 0; refuse a model that gives little else."""
    positive = depth[depth > 0]
    if len(positive) < 0.5 * depth.size:
        raise CheckpointError(f"The depth model {estimator.name} gave depths of 0 or less to most pixels; it is of "
                              "another kind: say which with --depth-kind.")
    return np.maximum(depth, np.float32(0.01) * np.median(positive))
