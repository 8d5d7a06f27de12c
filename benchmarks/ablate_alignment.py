"""Ask what alignment of depth costs, on scenes whose distances are known.

    python -m pano4d.benchmarks.ablate_alignment --out benchmarks/results/alignment.json

True distances are cut into tiles and spoiled as an estimator's are (``estimator_noise``): smooth errors, soft edges,
grain, and another scale (and shift) in each tile and frame. ``perfect`` is what the same tiles give without the latter.
A kind's free scale (and shift) of the whole scene is fixed by still pixels of the truth. Errors are mean |d - d*| / d*
over the sphere but for pixels beside edges.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pano4d.benchmarks.estimator_noise import EstimatorNoise, distort
from pano4d.benchmarks.scenes import REPORTING, open_scene
from pano4d.lifting.align import NEAR_QUANTILE, Gauge, align, ray_cosines, sphere_quantile
from pano4d.lifting.align_compose import compose
from pano4d.lifting.align_time import read_tile
from pano4d.lifting.estimate import FOV_DEG, tile_size
from pano4d.lifting.least_squares import huber_weights
from pano4d.runtime.sphere import directions_to_pixels, row_solid_angles
from pano4d.runtime.tiles import Layout, icosahedron_faces, tile_directions, tile_masks

KINDS = (("metric", "z"), ("scale-invariant", "z"), ("affine-inverse", "z"), ("affine-inverse", "ray"))
FARTHEST_M = 60.0
"""Distances are cut there, the true and the found: models of disparity do not tell a sky from what is as far."""

EDGE = 0.1
"""Pixels count whose neighbours' distances differ by less than this: beside an edge, either side is right."""


def cut(maps: np.ndarray, layout: Layout, size: int) -> np.ndarray:
    """Look up the nearest pixels of maps [T, H, W] for all tiles. float32 [T, V, s, s]."""
    row, column = nearest_pixels(layout, size, *maps.shape[1:])
    return maps[:, row, column]


def nearest_pixels(layout: Layout, size: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Give the row and the column of the panorama's pixel that is nearest to each of all tiles. int64 [V, s, s] both."""
    column, row = directions_to_pixels(tile_directions(layout, size), height, width)
    return np.rint(row).astype(int).clip(0, height - 1), np.rint(column).astype(int) % width


def noise_of(kind: str) -> EstimatorNoise:
    """Give the errors of an estimator of a kind."""
    return EstimatorNoise() if kind == "affine-inverse" else EstimatorNoise(shift_share=0.0)


def estimated(truth: np.ndarray, cosines: np.ndarray, kind: str, geometry: str,
              seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Play an estimator.

    Args:
        truth: Distances of tiles. float32 [T, V, s, s].
        cosines: Of rays and tiles' axes. float32 [s, s].
        kind: As an estimator's.
        geometry: As an estimator's.
        seed: Of all errors.

    Returns:
        What it says, and distances with the noise alone, float32 [T, V, s, s] each.
    """
    affine, factor = kind == "affine-inverse", cosines if geometry == "z" else np.ones_like(cosines)
    noise = noise_of(kind)
    alone = replace(noise, scale_sigma=0.0, shift_share=0.0, jitter_sigma=0.0)
    said, noisy = np.empty_like(truth), np.empty_like(truth)
    for v in range(truth.shape[1]):
        depth, number = torch.from_numpy(truth[:, v] * factor), 1000 * seed + v
        said[:, v] = distort(depth, number, "inverse_depth" if affine else "depth", noise).numpy()
        noisy[:, v] = distort(depth, number, "depth", alone).numpy() / factor
    return said, noisy


def fixed(distance: np.ndarray, truth: np.ndarray, kind: str, where: np.ndarray,
          share: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Give the function that fixes what a kind leaves open, by the truth [H, W] on some pixels."""
    if kind != "affine-inverse":
        scale = np.exp(np.median(np.log(truth / distance)[where]))
        return lambda other: np.minimum(other * scale, FARTHEST_M)
    where = where & flat(truth)
    rows, line = np.stack([truth / distance, truth], axis=-1)[where], np.zeros(2)
    weight = share[where]
    for _ in range(10):
        line = np.linalg.lstsq(rows * np.sqrt(weight)[:, None], np.sqrt(weight), rcond=None)[0]
        weight = share[where] * huber_weights(rows @ line - 1, 0.05)
    scale, shift = line
    return lambda other: 1 / np.maximum(scale / other + shift, 1 / FARTHEST_M)


def error(distance: np.ndarray, truth: np.ndarray, where: np.ndarray, share: np.ndarray) -> float:
    """Average the relative error over chosen pixels away from edges."""
    where = where & flat(truth)
    return float(np.average((np.abs(distance - truth) / truth)[where], weights=share[where]))


def flat(truth: np.ndarray) -> np.ndarray:
    """Find the pixels of a map [H, W] that are not beside an edge. bool [H, W]."""
    log, calm = np.log(truth), np.ones(truth.shape, bool)
    for axis in (0, 1):
        for step in (1, -1):
            calm &= np.abs(log - np.roll(log, step, axis)) < EDGE
    return calm


def measure(truth: np.ndarray, moving: np.ndarray, kind: str, geometry: str, seed: int) -> dict:
    """Align one scene.

    Args:
        truth: Distances. float32 [T, H, W].
        moving: Where something moves. bool [H, W].
        kind: As an estimator's.
        geometry: As an estimator's.
        seed: Of the estimator's errors.

    Returns:
        Errors of still pixels and, over all frames, of moving ones, aligned and perfect, ``ratio`` and ``moving_ratio``;
        ``static_drift`` and ``drift``, the largest over the smallest median ratio to the truth less 1, over frames, of
        still and of moving pixels; ``perfect_drift``, that of moving pixels with the noise alone; ``path_drift``, the same
        of the ratio of aligned to perfect, in which what moves comes past places that are wrong by different amounts; and
        ``scale_drift``, that of the same ratio over each pixel's own median in time: what changes at one and the same
        place; ``seconds``; and alignment's own figures.
    """
    layout, size = icosahedron_faces(FOV_DEG), tile_size(truth.shape[2])
    cosines, share = ray_cosines(layout, size), np.repeat(row_solid_angles(*truth.shape[1:])[:, None], truth.shape[2], 1)
    said, noisy = estimated(cut(truth, layout, size), cosines, kind, geometry, seed)
    masks = tile_masks(moving, layout, size, 1) > 0
    begun = time.monotonic()
    readings = [read_tile(said[:, v].copy(), masks[v], kind == "affine-inverse", v) for v in range(layout.count)]
    near, far = (sphere_quantile(truth[0], quantile) for quantile in (NEAR_QUANTILE, 0.995))
    found, figures = align(readings, layout, moving, kind, geometry, Gauge(near, min(0.9, near / far)))
    seconds = time.monotonic() - begun

    def composed(log_tiles: np.ndarray) -> np.ndarray:
        return np.minimum(compose(log_tiles, [None] * layout.count, layout, moving).static, FARTHEST_M)

    alone = composed(np.log(np.median(noisy, axis=0)))
    frames = [composed(np.log(one)) for one in noisy]
    fix = fixed(found.static, truth[0], kind, ~moving, share)
    ours = [fix(found.frame(number)) for number in range(len(truth))]
    still = error(ours[0], truth[0], ~moving, share), error(alone, truth[0], ~moving, share)
    moved = [np.mean([error(d, t, moving, share) for d, t in zip(maps, truth)]) for maps in (ours, frames)]
    return {"absrel": still[0], "perfect_absrel": still[1], "ratio": still[0] / still[1],
            "moving_absrel": float(moved[0]), "moving_perfect_absrel": float(moved[1]),
            "moving_ratio": float(moved[0] / moved[1]),
            "static_drift": drift(ours, truth[:1].repeat(len(truth), 0), ~moving), "drift": drift(ours, truth, moving),
            "scale_drift": scale_drift(ours, frames, moving), "path_drift": drift(ours, frames, moving),
            "perfect_drift": drift(frames, truth, moving), "seconds": round(seconds, 2), **figures}


def drift(maps: Sequence[np.ndarray], truth: Sequence[np.ndarray], where: np.ndarray) -> float:
    """Tell how much the median ratio of maps to others changes over frames."""
    ratios = [np.median((distance / true)[where]) for distance, true in zip(maps, truth)]
    return float(max(ratios) / min(ratios) - 1)


def scale_drift(maps: Sequence[np.ndarray], truth: Sequence[np.ndarray], where: np.ndarray) -> float:
    """Tell how much the scale of maps changes over frames, whatever a place's own error is."""
    ratios = np.log([(distance / true)[where] for distance, true in zip(maps, truth)])
    frames = np.median(ratios - np.median(ratios, axis=0), axis=1)
    return float(np.expm1(np.ptp(frames)))


def scene_truth(name: str, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Render a scene's distances, cut far off, float32 [T, H, W], and where it moves, bool [H, W]."""
    scene = open_scene(name)
    maps = np.stack([picture.distance.numpy() for picture in scene.panoramas(height, samples=1)])
    return np.minimum(maps, FARTHEST_M), scene.moving(height, samples=1).numpy()


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", nargs="+", default=list(REPORTING))
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "alignment.json")
    args = parser.parse_args()
    rows = []
    for name in args.scenes:
        truth, moving = scene_truth(name, args.height)
        for kind, geometry in KINDS:
            for seed in range(args.seeds):
                row = {"scene": name, "kind": kind, "geometry": geometry, "seed": seed,
                       "moving_share": float(moving.mean()), **measure(truth, moving, kind, geometry, seed)}
                rows.append({key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()})
                print(json.dumps(rows[-1]), flush=True)
        args.out.write_text(json.dumps({
            "command": "python -m pano4d.benchmarks.ablate_alignment " + " ".join(sys.argv[1:]), "height": args.height,
            "machine": platform.machine(), "python": platform.python_version(), "numpy": np.__version__,
            "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
