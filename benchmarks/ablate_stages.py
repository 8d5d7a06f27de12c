"""Compare one stage with two, on held-out procedural panoramas whose true motion is known.

    python -m pano4d.benchmarks.ablate_stages --out benchmarks/results/stages.json

One row animates with tiles of the result's density alone; the others refine a coarse video, each from another noise
level. What is compared, beside the figures of `ablate_fusion`, is how well motion agrees around the sphere: the mean
cosine between the velocities of places that lie a given angle apart. The scenes are the first swirl and the first
drift among the held-out ones: a swirl disagrees with itself from a quarter of the sphere on, a drift hardly anywhere.

No seconds are given: the network's evaluations (tiles times steps) are what the stages change.

The defaults of ``AnimateSettings`` follow `recommended`.
"""

import argparse
import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from pano4d.benchmarks.ablate_fusion import LIMIT, disagreement, sharpness, spectrum, true_panorama
from pano4d.runtime import quality
from pano4d.runtime.bundle import Bundle, default_bundle_path
from pano4d.runtime.pipeline import Animation, Animator
from pano4d.runtime.settings import AnimateSettings

SCENES, REACH_DEG = (0, 6), 35.0
SIGMAS = (1.0, 2.0, 4.0, 8.0)
WINDOW_DEG = 10.0
APART_DEG = ((5, 15), (15, 25), (25, 40), (40, 60))
KEPT, GAIN = 0.9, 0.1


class _OnceDecoded(Animator):
    """Decode tiles once, for the panorama and for the figures."""

    _decoded: list | None = None

    def decode_tiles(self, x: np.ndarray, indices: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """See ``Animator.decode_tiles``."""
        if self._decoded is None:
            self._decoded = [(v, pixels.copy()) for v, pixels in super().decode_tiles(x, indices)]
        yield from self._decoded


class _Known:
    """Stand in for a coarse animator whose result is known: it does not depend on ``fine_sigma``."""

    def __init__(self, settings: AnimateSettings, animation: Animation) -> None:
        self.settings, self._animation = settings, animation

    def animate(self, *_: object) -> Animation:
        """Return the known result."""
        return self._animation


def velocities(frames: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the mean velocity in square windows by least squares (Lucas and Kanade 1981), all frames together.

    Args:
        frames: uint8 [T, H, W, 3].
        mask: Where the picture moves. bool [H, W].

    Returns:
        Eastward and northward velocity of each window that moves as a whole, degrees a frame, float64 [N, 2]; the
        directions of their centres, float64 [N, 3].
    """
    luma = _smoothed(frames.astype(np.float32).mean(-1))
    middle, change = (luma[1:] + luma[:-1]) / 2, np.diff(luma, axis=0)
    east, down = (np.roll(middle, -1, 2) - np.roll(middle, 1, 2)) / 2, np.gradient(middle, axis=1)
    height, width = mask.shape
    size = round(WINDOW_DEG / 180 * height)
    found, centres = [], []
    for top in range(0, height - size + 1, size):
        for left in range(0, width - size + 1, size):
            window = slice(top, top + size), slice(left, left + size)
            if mask[window].all():
                x, y, d = (values[:, *window].ravel().astype(np.float64) for values in (east, down, change))
                normal = np.array([[x @ x, x @ y], [x @ y, y @ y]])
                damped = normal + (0.01 * np.trace(normal) + 1e-9) * np.eye(2)  # an edge alone gives its own direction
                lat, lon = np.pi * (0.5 - (top + size / 2) / height), 2 * np.pi * (left + size / 2) / width
                found.append(np.linalg.solve(damped, [-(x @ d), -(y @ d)]) * (np.cos(lat), -1))
                centres.append((np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)))
    return np.array(found) * 360 / width, np.array(centres)


def agreement(frames: np.ndarray, mask: np.ndarray) -> list[float]:
    """Say how far places agree on the direction of motion: mean cosine weighted by speed, for each of ``APART_DEG``."""
    found, centres = velocities(frames, mask)
    apart = np.degrees(np.arccos(np.clip(centres @ centres.T, -1, 1)))
    speeds = np.linalg.norm(found, axis=1)
    products, weights = found @ found.T, np.outer(speeds, speeds)
    bins = [(apart >= low) & (apart < high) for low, high in APART_DEG]
    return [float(products[one].sum() / max(weights[one].sum(), 1e-12)) for one in bins]


def _smoothed(luma: np.ndarray) -> np.ndarray:
    """Blur twice with 1 2 1 along both axes, round the seam. float32 [T, H, W]."""
    for _ in range(2):
        luma = (np.roll(luma, 1, 2) + 2 * luma + np.roll(luma, -1, 2)) / 4
        tall = np.pad(luma, ((0, 0), (1, 1), (0, 0)), mode="edge")
        luma = (tall[:, :-2] + 2 * tall[:, 1:-1] + tall[:, 2:]) / 4
    return luma


def tile_steps(animation: Animation) -> int:
    """Count the network's evaluations of a tile at a step, over all stages."""
    own = len(animation.moving_tiles) * (len(animation.sigmas) - 1)
    return own + (tile_steps(animation.coarse) if animation.coarse else 0)


def measure(animator: Animator, animation: Animation, truth: np.ndarray) -> dict:
    """Compare an animation with the true video."""
    frames, mask = animation.frames, animation.mask
    return {"disagreement": disagreement(animator, animation),
            "sharpness": sharpness(frames, mask) / sharpness(truth, mask),
            "spectrum": (spectrum(frames, mask) / spectrum(truth, mask)).tolist(),
            "motion": float(quality.motion(frames, mask).mean() / quality.motion(truth, mask).mean()),
            "agreement": agreement(frames, mask),
            "seam_ratio": float(np.max(quality.seam_ratio(frames, truth[0]))),
            "tile_border_ratio": float(np.max(quality.tile_border_ratio(frames, truth[0], animation.layout, mask=mask))),
            "tile_steps": tile_steps(animation)}


def measure_scene(bundle: Bundle, settings: AnimateSettings, backend: str | None, seed: int, sigmas: list[float],
                  keep: Path | None = None) -> dict:
    """Animate one scene in every way.

    Args:
        bundle: Engine bundle.
        settings: Of all rows.
        backend: Backend name; None for the bundle's own.
        seed: Decides the scene.
        sigmas: Levels to refine the coarse video from.
        keep: Folder for the videos, as PNG of every frame; None keeps none.

    Returns:
        Figures of each row by name, and of the truth.
    """
    from pano4d.examples.demo_model.clips import TYPICAL_LEVELS

    truth, mask = true_panorama(seed, settings, bundle.tile["frames"], REACH_DEG)
    bucket = round(quality.motion(truth, mask).mean() * 127 / TYPICAL_LEVELS)
    settings = replace(settings, motion_bucket_id=int(np.clip(bucket, 1, 255)))
    rows, coarse = {"truth": {"agreement": agreement(truth, mask)}}, None
    for sigma in (None, *sigmas):
        own = settings if sigma is None else replace(settings, stages="coarse-fine", fine_sigma=sigma)
        animator, name = _OnceDecoded(bundle, own, backend), "single" if sigma is None else f"{sigma:g}"
        if coarse:
            animator.coarse = _Known(animator.coarse.settings, coarse)
        animation = animator.animate(truth[0], mask)
        coarse = animation.coarse
        rows[name] = measure(animator, animation, truth)
        print(_line(seed, name, rows[name]), flush=True)
        _write(keep, f"{seed}_{name}", animation.frames)
    _write(keep, f"{seed}_truth", truth), _write(keep, f"{seed}_coarse", coarse.frames)
    return rows


def table(scenes: dict[int, dict], sigmas: list[float]) -> list[dict]:
    """Put the scenes together: a row is one way, its means and the single values."""
    rows = []
    for name in ("single", *(f"{sigma:g}" for sigma in sigmas)):
        single = [scene[name] for scene in scenes.values()]
        mean = {figure: np.mean([one[figure] for one in single], axis=0).tolist() for figure in single[0]}
        rows.append({"stages": "single" if name == "single" else "coarse-fine",
                     "fine_sigma": None if name == "single" else float(name), "mean": mean, "scenes": single})
    return rows


def recommended(rows: list[dict]) -> dict:
    """Choose the defaults.

    The level is the lowest that leaves KEPT of a single stage's sharpness, of those whose seam and tile borders keep
    within the limit of `ablate_fusion` in every scene; if none does, the sharpest. Two stages are worth their work if
    the level is such a one, and motion then agrees better by GAIN, all distances averaged.

    Args:
        rows: As `table` returns them.

    Returns:
        ``stages`` and ``fine_sigma``.

    Raises:
        ValueError: No row of two stages keeps within the limit.
    """
    single, *refined = rows
    within = [row for row in refined if all(max(scene["seam_ratio"], scene["tile_border_ratio"]) <= LIMIT
                                            for scene in row["scenes"])]
    sharp = [row for row in within if row["mean"]["sharpness"] >= KEPT * single["mean"]["sharpness"]]
    best = min(sharp, key=lambda row: row["fine_sigma"], default=None) or max(
        within, key=lambda row: row["mean"]["sharpness"])
    gain = np.mean(best["mean"]["agreement"]) - np.mean(single["mean"]["agreement"])
    return {"stages": "coarse-fine" if sharp and gain >= GAIN else "single", "fine_sigma": best["fine_sigma"]}


def _write(keep: Path | None, name: str, frames: np.ndarray) -> None:
    from pano4d.runtime.image import write_png

    if keep:
        (keep / name).mkdir(parents=True, exist_ok=True)
        for t, frame in enumerate(frames):
            write_png(keep / name / f"frame_{t:04d}.png", frame)


def _line(seed: int, name: str, figures: dict) -> str:
    return (f"scene {seed} {name:8s} disagreement {figures['disagreement']:6.2f}  sharpness {figures['sharpness']:.2f}  "
            f"motion {figures['motion']:.2f}  agreement " + " ".join(f"{a:5.2f}" for a in figures["agreement"])
            + f"  seam {figures['seam_ratio']:.2f}  border {figures['tile_border_ratio']:.2f}  {figures['tile_steps']}")


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--backend", default=None)
    parser.add_argument("--scenes", type=int, nargs="+", default=list(SCENES), help="seeds of the held-out scenes")
    parser.add_argument("--sigmas", type=float, nargs="+", default=list(SIGMAS), help="rows to measure")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--keep", type=Path, default=None, help="folder for the frames")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "stages.json")
    args = parser.parse_args()
    # Without the detail of the input, which would hide what the tiles themselves do.
    settings = AnimateSettings(width=args.width, height=args.width // 2, steps=args.steps, keep_detail=False)
    bundle = Bundle.open(args.bundle or default_bundle_path())
    scenes = {seed: measure_scene(bundle, settings, args.backend, seed, args.sigmas, args.keep) for seed in args.scenes}
    rows = table(scenes, args.sigmas)
    result = {"command": "python -m pano4d.benchmarks.ablate_stages " + " ".join(sys.argv[1:]),
              "machine": platform.machine(), "python": platform.python_version(), "bundle": bundle.sha256,
              "scenes": args.scenes, "steps": Animator(bundle, settings).settings.steps, "apart_deg": APART_DEG,
              "truth": [scene["truth"] for scene in scenes.values()], "rows": rows,
              "recommended": recommended(rows)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
