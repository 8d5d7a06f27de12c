"""Lift scenes whose truth is known: ours, and the original's lifting, in one process on one GPU.

    python -m pano4d.benchmarks.bench_lifting --out benchmarks/results/lifting.json

Distances are the true ones, or those of an estimator that is played (`estimator_noise`: metric depth, tile by tile) and
aligned by us; the scale that such an estimator leaves open is fixed by the truth, for both. Ours is timed whole, from frames
in memory and readings of tiles to the last PLY file. The original's frames are trainings that do the same work, so steps are
timed and multiplied; the quality of its frames is that after `--baseline-iterations` steps, what happens at some step moved in
proportion. Views are compared with the scene's own, drawn where the camera stands.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pano4d.benchmarks.ablate_alignment import cut, estimated
from pano4d.benchmarks.bench_panorama import ROOT, PeakMemory, _revision
from pano4d.benchmarks.lifting_quality import OFFSETS, Renderer, Truth, compare, flicker, judged_views
from pano4d.benchmarks.reference_lifting import ReferenceFrame, ReferenceLifting
from pano4d.benchmarks.scenes import REPORTING, Scene, open_scene
from pano4d.lifting.align import Gauge, align, ray_cosines
from pano4d.lifting.align_time import read_tile
from pano4d.lifting.distances import Distances, from_maps
from pano4d.lifting.formats.ply import read_ply
from pano4d.lifting.gaussians import Gaussians
from pano4d.lifting.job import LiftSettings, lift_frames
from pano4d.lifting.optimize.views import view_size
from pano4d.lifting.rasterize import rasterizer
from pano4d.runtime.tiles import icosahedron_faces, tile_masks

TILES = icosahedron_faces(80)
JUDGED_FRAMES = (0, 7)
RUNS = ("ours", "ours_true", "ours_full", "baseline", "baseline_true")
"""With aligned distances or true ones; ``ours_full`` has as many Gaussians as the baseline, one a pixel."""


@dataclass(frozen=True)
class Video:
    """A scene as it is lifted.

    Attributes:
        frames: uint8 [T, H, W, 3].
        maps: True distances, metres. float32 [T, H, W].
        moving: bool [H, W].
        median_m: Median distance.
    """

    frames: np.ndarray
    maps: np.ndarray
    moving: np.ndarray
    median_m: float


def film(scene: Scene, height: int) -> Video:
    """Draw all panoramas of a scene."""
    pictures = scene.panoramas(height)
    return Video(np.stack([picture.rgb.cpu().numpy() for picture in pictures]),
                 np.stack([picture.distance.cpu().numpy() for picture in pictures]),
                 scene.moving(height, pictures=pictures).cpu().numpy(), scene.median_distance)


def readings_of(video: Video, seed: int = 0) -> list:
    """Play an estimator of metric depth over all tiles: what alignment begins with."""
    size = min(518, 14 * int(np.ceil(0.267 * video.frames.shape[2] / 14)))
    cosines, masks = ray_cosines(TILES, size), tile_masks(video.moving, TILES, size, 1) > 0
    said, _ = estimated(cut(video.maps, TILES, size), cosines, "metric", "z", seed)
    return [read_tile(said[:, v], masks[v], False, v) for v in range(TILES.count)]


def aligned(video: Video, readings: list) -> Distances:
    """Align readings, and fix the scale that is left open."""
    found, _ = align(readings, TILES, video.moving, "metric", "z", Gauge())
    scale = np.median((video.maps[0] / found.static)[~video.moving])
    return Distances(found.static * np.float32(scale), found.pixels, found.changes)


class Judge:
    """Compare lifted frames of one scene with its truth.

    Args:
        scene: The scene.
        video: The same as it is lifted.
        size: Side of the views.
        device: Where.
    """

    def __init__(self, scene: Scene, video: Video, size: int, device: torch.device) -> None:
        self._render, self._views, self._truths = Renderer(rasterizer(device), device), {}, {}
        moving = torch.from_numpy(video.moving)
        for name, share in OFFSETS.items():
            views = self._views[name] = judged_views(size, share * video.median_m, device)
            for frame in JUDGED_FRAMES:
                self._truths[name, frame] = [
                    Truth(scene.view(frame, view.cpu().numpy(), K.cpu().numpy(), size, size).rgb.cpu().numpy(), None)
                    for view, K in zip(views.viewmats, views.Ks)]
        rays = torch.nn.functional.normalize(self._views["center"].rays().cpu(), dim=-1)
        height, width = moving.shape
        row = ((rays[..., 1].asin() / np.pi + 0.5) * height).long().clamp(0, height - 1)
        column = ((torch.atan2(rays[..., 0], rays[..., 2]) / (2 * np.pi) + 0.5) * width).long() % width
        self._still = ~moving[row, column].numpy()

    def __call__(self, frames: dict[int, Gaussians]) -> dict[str, Any]:
        """Judge. ``frames`` by number; flicker is taken of neighbours among them."""
        found: dict[str, Any] = {"psnr_db": {}, "ssim": {}, "holes": {}}
        for name in OFFSETS:
            each = [compare(*self._render(frames[t], self._views[name]), self._truths[name, t]) for t in JUDGED_FRAMES if t in frames]
            for figure in found:
                found[figure][name] = float(np.mean([one[figure] for one in each]))
        numbers = sorted(frames)
        if len(numbers) > 1:
            found["flicker"] = flicker([frames[t] for t in numbers], self._views["center"], self._still, self._render)
        return found


def lift_ours(video: Video, distances: Callable[[], Distances], settings: LiftSettings) -> tuple[dict[int, Gaussians], dict]:
    """Lift all frames into files, timed; and read them."""
    torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder, PeakMemory() as peak:
        begun = time.monotonic()
        depth = distances()
        aligned_at = time.monotonic()
        told = lift_frames(video.frames, video.moving, Path(folder), depth=depth, settings=settings)
        seconds = time.monotonic() - begun
        frames = {t: read_ply(Path(folder) / name) for t, name in enumerate(told["files"])}
    return frames, {"seconds": seconds, "align_seconds": aligned_at - begun, "peak_gib": peak.gib, **{
        name: told[name] for name in ("gaussians", "static", "moving", "background", "sky", "iterations")}}


def lift_original(video: Video, distances: Distances, settings: ReferenceLifting, frames: Sequence[int],
                  device: torch.device) -> tuple[dict[int, Gaussians], dict]:
    """Train some frames as the original does, fewer steps each, and tell what all of them would take."""
    torch.cuda.empty_cache()
    made, spent, prepared = {}, [], []
    with PeakMemory() as peak:
        for number in frames:
            begun = time.monotonic()
            training = ReferenceFrame(video.frames[number], video.moving, distances.frame(number), settings,
                                      rasterizer(device), device)
            torch.cuda.synchronize()
            prepared.append(time.monotonic() - begun)
            for step in range(settings.iterations):
                if step == settings.iterations // 10:
                    torch.cuda.synchronize()
                    begun = time.monotonic()
                training.step()
            torch.cuda.synchronize()
            spent.append((time.monotonic() - begun) / (settings.iterations - settings.iterations // 10))
            made[number] = training.gaussians()
    each = float(np.mean(spent)) * ReferenceLifting().iterations + float(np.mean(prepared))
    return made, {"seconds": each * len(video.frames), "step_ms": 1e3 * float(np.mean(spent)), "peak_gib": peak.gib,
                  "trained_steps": settings.iterations, "trained_frames": list(frames), "gaussians": distances.static.size}


def mean_of(rows: list[dict]) -> dict:
    """Average numbers over scenes, in nested dicts."""
    return {name: mean_of([row[name] for row in rows]) if isinstance(value, dict) else
            round(float(np.mean([row[name] for row in rows])), 5) if isinstance(value, (int, float)) else value
            for name, value in rows[0].items() if all(name in row for row in rows)}


def main() -> None:
    """Parse the command line, measure, write after each scene."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", nargs="+", default=list(REPORTING))
    parser.add_argument("--height", type=int, default=2048)
    parser.add_argument("--gaussians", type=int, default=1_000_000)
    parser.add_argument("--iterations", type=int, default=None)
    parser.add_argument("--baseline-iterations", type=int, default=2_000)
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=RUNS)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "lifting.json")
    args = parser.parse_args()
    device = torch.device(args.device)
    result: dict[str, Any] = {
        "command": "python -m pano4d.benchmarks.bench_lifting " + " ".join(sys.argv[1:]), "revision": _revision(),
        "gpu": torch.cuda.get_device_name() if args.device == "cuda" else None, "torch": torch.__version__,
        "size": f"{2 * args.height}x{args.height}", "scenes": []}
    for name in args.scenes:
        clock = [time.monotonic()]
        scene = open_scene(name, args.device)
        video, size = film(scene, args.height), view_size(2 * args.height)
        clock.append(time.monotonic())
        judge = Judge(scene, video, size, device)
        clock.append(time.monotonic())
        readings = readings_of(video)
        clock.append(time.monotonic())
        del scene
        gc.collect()
        row: dict[str, Any] = {"scene": name, "moving_share": round(float(video.moving.mean()), 4)}
        print(f"{name}: panoramas, views and readings in {' + '.join(f'{b - a:.0f}' for a, b in zip(clock, clock[1:]))} s",
              flush=True)
        sources = {"aligned": lambda: aligned(video, readings), "true": lambda: from_maps(video.maps, video.moving)}
        for run in args.runs:
            distances = sources["true" if run.endswith("_true") else "aligned"]
            if run.startswith("ours"):
                count = video.maps[0].size if run == "ours_full" else args.gaussians
                frames, row[run] = lift_ours(video, distances, LiftSettings(count, args.iterations, args.device))
            else:
                settings = replace(ReferenceLifting().shortened(args.baseline_iterations), view_px=args.height // 2)
                frames, row[run] = lift_original(video, distances(), settings, (0,) if run.endswith("_true") else (0, 1), device)
            row[run] |= judge(frames)
            _show(name, run, row[run])
            frames.clear()
        result["scenes"].append(row)
        result |= mean_of([{key: value for key, value in one.items() if isinstance(value, dict)} for one in result["scenes"]])
        if {"ours", "baseline"} <= result.keys():
            result["ratio"] = round(result["baseline"]["seconds"] / result["ours"]["seconds"], 1)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _show(scene: str, run: str, row: dict) -> None:
    told = " ".join(f"{name} {row['psnr_db'][name]:.2f} dB {row['ssim'][name]:.4f} {100 * row['holes'][name]:.3f} %" for name in OFFSETS)
    print(f"{scene} {run}: {row['seconds']:.1f} s, {row['peak_gib']:.1f} GiB; {told}; flicker {row.get('flicker', float('nan')):.3f}",
          flush=True)


if __name__ == "__main__":
    main()
