"""Lift scenes whose truth is known: ours, and the original's lifting, in one process on one GPU.

    python -m pano4d.benchmarks.bench_lifting --seconds 420 --pictures docs/pictures

Distances are the true ones, or those of an estimator that is played (`estimator_noise`: metric depth, tile by tile) and
aligned by us, and for ours sharpened; the scale that such an estimator leaves open is fixed by the truth, for both. Ours is
timed whole, from frames in memory and readings of tiles to the last PLY file; alignment, the same work for all runs, is timed
once and counted in each of ours. The original's frames are trainings that do the same work, so steps are timed and
multiplied; the quality of its frames is that after `--baseline-iterations` steps, what happens at some step moved in
proportion. Views are compared with the scene's own, drawn where the camera stands. Results are written after each run, so
that one that is cut short leaves figures, and ``--resume`` goes on with what is missing.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pano4d.benchmarks.lifting_judge import SceneJudge
from pano4d.benchmarks.lifting_quality import OFFSETS
from pano4d.benchmarks.lifting_runs import (Source, Video, aligned_source, film, lift_original, lift_ours, readings_of,
                                            sharpened_source, true_source)
from pano4d.benchmarks.measuring import ROOT, revision
from pano4d.benchmarks.reference_lifting import ReferenceLifting
from pano4d.benchmarks.scenes import REPORTING, open_scene
from pano4d.lifting.cameras import perspective_K
from pano4d.lifting.gaussians import Gaussians
from pano4d.lifting.job import LiftSettings
from pano4d.lifting.optimize.views import view_size
from pano4d.lifting.torch_drawing import TorchRenderer

RUNS = ("ours", "ours_true", "baseline", "baseline_true", "ours_full")
"""With aligned distances or true ones; ``ours_full`` has as many Gaussians as the baseline, one a pixel."""

_LIKE = {"ours_true": "ours", "ours_full": "ours", "baseline_true": "baseline"}


class Clock:
    """Say whether there is time for one more run.

    Args:
        limit: Seconds that all may take; None: as long as it takes.
    """

    def __init__(self, limit: float | None) -> None:
        self._begun, self._limit, self._took = time.monotonic(), limit, {}

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begun

    def fits(self, *works: str) -> bool:
        """Tell whether works fit into the time that is left, by what such works, or else the likes of them, took."""
        needed = sum(self._took.get(work, self._took.get(_LIKE.get(work, work), 0.0)) for work in works)
        return self._limit is None or self.seconds + needed <= self._limit

    def time(self, work: str, step: Callable[[], Any]) -> Any:
        """Do a work, and remember what it took."""
        begun = time.monotonic()
        made = step()
        self._took[work] = time.monotonic() - begun
        return made

    def tell(self, line: str) -> None:
        """Print a line with the time."""
        print(f"[{self.seconds:6.1f} s] {line}", flush=True)


def mean_of(rows: list[dict]) -> dict:
    """Average numbers over scenes, in nested dicts."""
    return {name: mean_of([row[name] for row in rows]) if isinstance(value, dict) else
            round(float(np.mean([row[name] for row in rows])), 5) if isinstance(value, (int, float)) else value
            for name, value in rows[0].items() if all(name in row for row in rows)}


def summary(scenes: list[dict]) -> dict[str, Any]:
    """Average each run over the scenes that it was done for; of ours and the baseline, those that both were done for."""
    both = [row for row in scenes if {"ours", "baseline"} <= row.keys()]
    found: dict[str, Any] = {}
    for run in RUNS:
        rows = [row for row in (both if both and run in ("ours", "baseline") else scenes) if run in row]
        if rows:
            found[run] = mean_of([row[run] for row in rows]) | {"scenes": [row["scene"] for row in rows]}
    if both:
        found["ratio"] = round(found["baseline"]["seconds"] / found["ours"]["seconds"], 1)
    return found


def measure(row: dict, args: argparse.Namespace, clock: Clock, save: Callable[[dict], None]) -> None:
    """Do those runs of a scene that its row has not, as far as there is time; save after each."""
    device, name = torch.device(args.device), row["scene"]
    video, judge = clock.time("scene", lambda: _prepare(name, args, clock, device))
    row["moving_share"] = round(float(video.moving.mean()), 4)

    @cache
    def source(kind: str) -> Source:
        found = (true_source(video) if kind == "true" else sharpened_source(video, source("aligned")) if kind == "sharpened"
                 else aligned_source(video, readings_of(video, device)))
        clock.tell(f"{name}: {kind} distances, {found.seconds:.1f} s")
        return found

    for run in (run for run in args.runs if run not in row):
        if not clock.fits(run):
            clock.tell(f"{name} {run}: no time left for it")
            continue
        judged = partial(judge.judge, run)
        row[run] = clock.time(run, lambda: _run(run, video, source(_distances_of(run)), judged, args, device))
        save(row)
        clock.tell(f"{name} {_line(run, row[run])}")
        if args.pictures and run in ("ours", "baseline") and {"ours", "baseline"} <= row.keys():
            for path in judge.write_pictures(args.pictures, ("ours", "baseline")):
                clock.tell(f"{path}: truth, ours, baseline; {path.stat().st_size / 1000:.0f} kB")
            args.pictures = None  # of the first scene alone


def _draw_once(device: str) -> None:
    """Draw one Gaussian: gsplat compiles itself when it first draws, and no run is to be charged for that."""
    ahead = ([[0, 0, 1]], [[1, 0, 0, 0]], [[0.1, 0.1, 0.1]], [1], [[[0, 0, 0]]])
    renderer = TorchRenderer(device)
    renderer.show(Gaussians(*(np.array(values, np.float32) for values in ahead)))
    renderer.draw(np.eye(4)[None], perspective_K(90.0, 8, 8), 8, 8)


def _distances_of(run: str) -> str:
    """Say which distances a run takes: to sharpen what was estimated is a part of ours."""
    return "true" if run.endswith("_true") else "sharpened" if run.startswith("ours") else "aligned"


def _prepare(name: str, args: argparse.Namespace, clock: Clock, device: torch.device) -> tuple[Video, SceneJudge]:
    """Draw a scene's panoramas and the views that it is judged by."""
    scene = open_scene(name, args.device)
    video = film(scene, args.height)
    clock.tell(f"{name}: panoramas")
    judge = SceneJudge(scene, video, view_size(2 * args.height), device)
    clock.tell(f"{name}: views")
    return video, judge


def _run(run: str, video: Video, source: Source, judge: Callable, args: argparse.Namespace, device: torch.device) -> dict:
    """Do one run."""
    if run.startswith("ours"):
        full = run == "ours_full"
        settings = LiftSettings(video.maps[0].size if full else args.gaussians, args.iterations, args.device)
        # Reading millions of Gaussians for each frame would take longer than lifting them: two frames tell flicker too.
        return lift_ours(video, source, settings, device, range(2 if full else len(video.frames)), judge)
    settings = replace(ReferenceLifting().shortened(args.baseline_iterations), view_px=args.height // 2)
    frames = range(1 if run.endswith("_true") else args.baseline_frames)
    return lift_original(video, source, settings, frames, device, judge)


def _line(run: str, row: dict) -> str:
    told = "; ".join(f"{name} {row['psnr_db'][name]:.2f} dB, SSIM {row['ssim'][name]:.4f}, holes {row['holes'][name]:.3%}"
                     for name in OFFSETS)
    return f"{run}: {row['seconds']:.1f} s, {row['peak_gib']:.1f} GiB; {told}; flicker {row.get('flicker', float('nan')):.3f}"


def main() -> None:
    """Parse the command line, measure, write after each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", nargs="+", default=list(REPORTING))
    parser.add_argument("--height", type=int, default=2048)
    parser.add_argument("--gaussians", type=int, default=1_000_000)
    parser.add_argument("--iterations", type=int, default=None)
    parser.add_argument("--baseline-iterations", type=int, default=2_000)
    parser.add_argument("--baseline-frames", type=int, default=2, help="to train; of two, flicker is told  [default: %(default)s]")
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=RUNS)
    parser.add_argument("--seconds", type=float, help="begin no run that would not end by then, as far as runs before tell")
    parser.add_argument("--resume", action="store_true", help="keep what --out holds, and do the runs that it lacks")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the first scene: truth, ours, baseline")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "lifting.json")
    args = parser.parse_args()
    clock, kept = Clock(args.seconds), json.loads(args.out.read_text()) if args.resume else {}
    result: dict[str, Any] = {
        "commands": [*kept.get("commands", []), "python -m pano4d.benchmarks.bench_lifting " + " ".join(sys.argv[1:])],
        "revision": revision(), "gpu": torch.cuda.get_device_name() if args.device == "cuda" else None,
        "torch": torch.__version__, "size": f"{2 * args.height}x{args.height}"}
    if kept and any(kept[name] != result[name] for name in ("revision", "gpu", "torch", "size")):
        raise SystemExit(f"{args.out} was measured of another revision, GPU, torch or size; leave --resume out.")
    scenes = kept.get("scenes", [])

    def save(row: dict) -> None:
        if not any(row is one for one in scenes):
            scenes.append(row)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result | summary(scenes) | {"scenes": scenes}, indent=2) + "\n", encoding="utf-8")

    _draw_once(args.device)
    for name in args.scenes:
        row = next((one for one in scenes if one["scene"] == name), {"scene": name})
        missing = [run for run in args.runs if run not in row]
        if missing and clock.fits("scene", missing[0]):
            measure(row, args, clock, save)
        elif missing:
            clock.tell(f"{name}: no time left for it")
        gc.collect()


if __name__ == "__main__":
    main()
