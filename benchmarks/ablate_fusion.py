"""Compare ways of making tiles agree, on held-out procedural panoramas whose true motion is known.

    python -m pano4d.benchmarks.ablate_fusion --out benchmarks/results/fusion.json

Each row is one choice of noise (shared on the sphere, or independent per tile) and of what is fused at each
step (denoised estimates, samples as in MultiDiffusion, arXiv 2302.08113, or nothing). The default of
``AnimateSettings`` is the row this table recommends: of those whose seam and tile borders keep within LIMIT in every
scene, the one whose tiles disagree least.
"""

import argparse
import itertools
import json
import platform
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from pano4d.runtime import quality, tiles
from pano4d.runtime.bundle import Bundle, default_bundle_path
from pano4d.runtime.kernels import compose
from pano4d.runtime.pipeline import Animation, Animator
from pano4d.runtime.settings import FUSIONS, AnimateSettings

FREQUENCIES, NOISE = 4, ("shared", "independent")
HELD_OUT_SEED = 900_000
MOTION_LEVELS, COARSE_HEIGHT = 8.0, 64
LIMIT = 1.25
REACH_DEG = 50.0


def true_panorama(seed: int, settings: AnimateSettings, frames: int, reach_deg: float = REACH_DEG) -> tuple[np.ndarray, np.ndarray]:
    """Render a held-out scene on the whole sphere; a band of it moves.

    Args:
        seed: Decides the scene.
        settings: Give width and height.
        frames: Number of frames.
        reach_deg: Latitude that the band reaches to, north and south.

    Returns:
        The true video, uint8 [T, H, W, 3], and where it moves, bool [H, W].
    """
    import torch

    from pano4d.examples.demo_model.clips import Scene, panorama_directions

    scene = Scene.random(torch.Generator().manual_seed(HELD_OUT_SEED + seed), scale_deg=84.0)

    def render(height: int) -> np.ndarray:
        return _bytes(scene.render(panorama_directions(height), range(frames), np.pi / height).numpy())

    for _ in range(3):  # towards the motion that the model knows best, as its training clips were set
        small = render(COARSE_HEIGHT)
        levels = quality.motion(small, _band(COARSE_HEIGHT, reach_deg)).mean()
        scene.scenes.speed = scene.scenes.speed * float(np.clip(MOTION_LEVELS / max(levels, 0.05), 0.3, 4))
    moving, mask = render(settings.height), _band(settings.height, reach_deg)
    return np.where(mask[..., None], moving, moving[:1]), mask


def _bytes(video: np.ndarray) -> np.ndarray:
    return np.round(np.clip(video, 0, 1) * 255).astype(np.uint8)


def _band(height: int, reach_deg: float) -> np.ndarray:
    """Mask a band across the seam, several tiles wide. bool [H, 2H]."""
    lon = (np.arange(2 * height) + 0.5) / height * 180 - 180
    lat = 90 - (np.arange(height) + 0.5) / height * 180
    return (np.abs(lat)[:, None] < reach_deg) & (np.abs(lon)[None] > 60)


def disagreement(animator: Animator, animation: Animation) -> float:
    """Measure how far tiles differ where they overlap: weighted standard deviation, in grey levels.

    Args:
        animator: Decodes the tiles.
        animation: Its last latents are decoded again.

    Returns:
        Root mean square over frames, channels and all moving pixels seen by two tiles or more.
    """
    size, (height, width) = animator.bundle.tile["px"], animation.mask.shape
    select = animation.mask & (_seen_by(animation.layout, size, height, width) > 1)
    plan = compose.ComposePlan.build(animation.layout, size, height, width, select=select)
    shape = (animator.bundle.tile["frames"], int(select.sum()), 3)
    first, second = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for v, pixels in animator.decode_tiles(animation.latents, animation.moving_tiles):
        centred = pixels - 128.0  # keeps the difference of squares within float32
        compose.accumulate(plan, v, centred, first)
        compose.accumulate(plan, v, centred * centred, second)
    return float(np.sqrt(np.maximum(second - first * first, 0.0).mean()))


def _seen_by(layout: tiles.Layout, size: int, height: int, width: int) -> np.ndarray:
    from pano4d.runtime.sphere import pixel_directions

    directions = pixel_directions(height, width)
    return sum(tiles.project(layout, v, directions, size)[2].astype(int) for v in range(layout.count))


def sharpness(frames: np.ndarray, mask: np.ndarray) -> float:
    """Mean absolute horizontal and vertical gradient in the mask, first frame left out, in grey levels."""
    luma = frames[1:].astype(np.float32).mean(-1)
    inside = mask[:-1, :-1] & mask[1:, :-1] & mask[:-1, 1:]
    across = np.abs(np.diff(luma, axis=2))[:, :-1][:, inside].mean()
    return float(across + np.abs(np.diff(luma, axis=1))[:, :, :-1][:, inside].mean())


def spectrum(frames: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Temporal power in the mask at the first frequencies above zero. float64 [FREQUENCIES]."""
    series = frames[:, mask].astype(np.float32)
    return (np.abs(np.fft.rfft(series, axis=0)[1:FREQUENCIES + 1]) ** 2).mean(axis=(1, 2)).astype(np.float64)


def measure(bundle: Bundle, settings: AnimateSettings, backend: str | None, truth: np.ndarray, mask: np.ndarray) -> dict:
    """Animate the first frame of a true video, with as much motion as it has, and compare."""
    from pano4d.examples.demo_model.clips import TYPICAL_LEVELS

    bucket = round(quality.motion(truth, mask).mean() * 127 / TYPICAL_LEVELS)
    animator = Animator(bundle, replace(settings, motion_bucket_id=int(np.clip(bucket, 1, 255))), backend)
    animation = animator.animate(truth[0], mask)
    frames = animation.frames
    return {"disagreement": disagreement(animator, animation),
            "sharpness": sharpness(frames, mask) / sharpness(truth, mask),
            "spectrum": (spectrum(frames, mask) / spectrum(truth, mask)).tolist(),
            "motion": float(quality.motion(frames, mask).mean() / quality.motion(truth, mask).mean()),
            "seam_ratio": float(np.max(quality.seam_ratio(frames, truth[0]))),
            "tile_border_ratio": float(np.max(quality.tile_border_ratio(frames, truth[0], animation.layout, mask=mask)))}


def run(bundle: Bundle, settings: AnimateSettings, scenes: int, backend: str | None, noise: list[str],
        fusions: list[str]) -> list[dict]:
    """Measure every row on every scene; a row holds the mean and the single values."""
    rows = []
    truths = [true_panorama(seed, settings, bundle.tile["frames"]) for seed in range(scenes)]
    for shared, fuse in itertools.product((kind == "shared" for kind in noise), fusions):
        single = [measure(bundle, replace(settings, shared_noise=shared, fuse=fuse), backend, *truth) for truth in truths]
        mean = {name: np.mean([m[name] for m in single], axis=0).tolist() for name in single[0]}
        rows.append({"noise": "shared" if shared else "independent", "fuse": fuse, "mean": mean, "scenes": single})
        print(_line(rows[-1]), flush=True)
    return rows


def recommended(rows: list[dict]) -> dict:
    """Choose the row that the default should be. Returns ``noise`` and ``fuse``.

    Raises:
        ValueError: No row keeps within the limit.
    """
    within = [row for row in rows if all(max(scene["seam_ratio"], scene["tile_border_ratio"]) <= LIMIT
                                         for scene in row["scenes"])]
    best = min(within, key=lambda row: row["mean"]["disagreement"])
    return {"noise": best["noise"], "fuse": best["fuse"]}


def _line(row: dict) -> str:
    mean = row["mean"]
    return (f"{row['noise']:12s}{row['fuse']:10s} disagreement {mean['disagreement']:6.2f}  sharpness "
            f"{mean['sharpness']:.2f}  motion {mean['motion']:.2f}  spectrum "
            + " ".join(f"{s:.2f}" for s in mean["spectrum"])
            + f"  seam {mean['seam_ratio']:.2f}  border {mean['tile_border_ratio']:.2f}")


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--backend", default=None)
    parser.add_argument("--scenes", type=int, default=2)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--noise", nargs="+", choices=NOISE, default=list(NOISE), help="rows to measure")
    parser.add_argument("--fuse", nargs="+", choices=FUSIONS, default=list(FUSIONS), help="rows to measure")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "fusion.json")
    args = parser.parse_args()
    # Without the detail of the input, which would hide what the tiles themselves do.
    settings = AnimateSettings(width=args.width, height=args.width // 2, steps=args.steps, keep_detail=False)
    bundle = Bundle.open(args.bundle or default_bundle_path())
    rows = run(bundle, settings, args.scenes, args.backend, args.noise, args.fuse)
    result = {"command": "python -m pano4d.benchmarks.ablate_fusion " + " ".join(sys.argv[1:]),
              "machine": platform.machine(), "python": platform.python_version(), "bundle": bundle.sha256,
              "scenes": args.scenes, "steps": Animator(bundle, settings).settings.steps, "rows": rows,
              "recommended": recommended(rows)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
