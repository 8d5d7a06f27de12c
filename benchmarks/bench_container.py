"""Write a lifted scene as a .p4d container and say what that takes and what it keeps.

    python -m pano4d.benchmarks.bench_container --out benchmarks/results/container.json

The scene: examples/panorama.jpg brought to 4096x2048 and lifted to a million Gaussians by the guess of distances; a
band around the horizon, a tenth of the sphere, flows to the right with grain of one grey level. Errors are those of
everything in the first frame and of what moves in the others. ``needless`` is the share of stored colours that change
from a frame to the next though what is lifted changes by less than a grey level: as written, where a code stays while
it is near, and with each frame on its own.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from pano4d.benchmarks.measuring import ROOT
from pano4d.lifting.container import COARSE_ROTATIONS, Container, write_container
from pano4d.lifting.formats.spz_codes import decode, encode
from pano4d.lifting.formats.table import write_gaussians
from pano4d.lifting.gaussians import Gaussians, concatenate, sh_to_colors, take
from pano4d.lifting.layers import lay
from pano4d.lifting.ordering import curve_order
from pano4d.lifting.prior import prior_distance

LIMIT_BYTES = 25_000_000


def main() -> None:
    """Run and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(4096, 2048), metavar=("W", "H"))
    parser.add_argument("--gaussians", type=int, default=1_000_000)
    parser.add_argument("--frames", type=int, default=14)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    static, moving = scene(*args.size, args.gaussians, args.frames)
    figures = {"gaussians": args.gaussians, "static": len(static), "moving": len(moving[0]), "frames": args.frames,
               "size": "{}x{}".format(*args.size), "limit_bytes": LIMIT_BYTES, **measure(static, moving),
               "command": "python -m pano4d.benchmarks.bench_container"}
    print(json.dumps(figures, indent=1))
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def scene(width: int, height: int, count: int, frames: int) -> tuple[Gaussians, list[Gaussians]]:
    """Lift the scene.

    Args:
        width: Of the panorama, in pixels.
        height: Of the panorama, in pixels.
        count: Gaussians in each frame.
        frames: How many, T.

    Returns:
        What stays, and what moves in each frame.

    Raises:
        Nothing.
    """
    with Image.open(ROOT / "examples" / "panorama.jpg") as picture:
        first = np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
    rows = slice(round(height * 0.468), round(height * 0.532))
    mask = np.zeros((height, width), bool)
    mask[rows] = True
    rng, video = np.random.default_rng(0), np.repeat(first[None], frames, 0)
    for t in range(1, frames):
        flow = np.roll(first[rows], t * width // 512, 1).astype(np.int16)
        video[t, rows] = np.clip(flow + rng.integers(-1, 2, flow.shape), 0, 255)
    layers = lay(video, mask, prior_distance(first)[None], count)
    return layers.static, [layers.moving(t) for t in range(frames)]


def measure(static: Gaussians, moving: list[Gaussians]) -> dict:
    """Write and read the scene in each form.

    Args:
        static: What stays.
        moving: What moves in each frame.

    Returns:
        Bytes, seconds, errors.

    Raises:
        AssertionError: A delta does not give back what the ordinary file holds.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, small = Path(folder) / "a.p4d", Path(folder) / "b.p4d"
        start = time.perf_counter()
        size = write_container(path, static, moving, 7.0)
        write_s = time.perf_counter() - start
        with_deltas = write_container(small, static, moving, 7.0, deltas=True)
        plain, delta, start = Container.open(path), Container.open(small), time.perf_counter()
        shown = plain.frame(0)
        read_s = time.perf_counter() - start
        stored = [plain.moving(t) for t in range(len(moving))]
        assert all((delta.moving(t).means == stored[t].means).all() for t in range(len(moving)))
        whole = concatenate([static, moving[0]])
        ply = write_gaussians(Path(folder) / "frame.ply", whole)
        sog = write_gaussians(Path(folder) / "frame.sog", whole)
        bits = int(round(-np.log2(np.diff(np.unique(stored[0].means[:, 1])).min())))
    order = curve_order(moving[0].means)
    truth = [take(one, order) for one in moving]
    alone = [decode(encode(one, bits, coarse=COARSE_ROTATIONS)) for one in truth]
    return {"bytes": size, "bytes_with_deltas": with_deltas, "ply_bytes": ply * len(moving), "sog_frame_bytes": sog,
            "within_limit": size <= LIMIT_BYTES, "write_seconds": round(write_s, 2),
            "read_frame_seconds": round(read_s, 2),
            "position_step_m": 2.0**-bits,
            "errors_frame_0": errors(concatenate([take(static, curve_order(static.means)), truth[0]]), shown),
            "errors_moving": errors(concatenate(truth), concatenate(stored)),
            "needless": round(_needless(truth, stored), 4),
            "needless_each_alone": round(_needless(truth, alone), 4)}


def errors(truth: Gaussians, stored: Gaussians) -> dict:
    """Compare Gaussians one by one; each figure is the median and the largest.

    Args:
        truth: As lifted.
        stored: As read.

    Returns:
        Position seen from the centre in mrad, colour in grey levels, opacity, scale and rotation.

    Raises:
        Nothing.
    """
    far = np.linalg.norm(truth.means.astype(np.float64), axis=1)
    cos = np.abs((truth.quats.astype(np.float64) * stored.quats).sum(1)) / np.linalg.norm(truth.quats, axis=1)
    apart = {
        "position_mrad": 1000.0 * np.linalg.norm(truth.means.astype(np.float64) - stored.means, axis=1) / far,
        "position_m": np.linalg.norm(truth.means.astype(np.float64) - stored.means, axis=1),
        "color_grey_levels": 255.0 * np.abs(sh_to_colors(truth.sh) - sh_to_colors(stored.sh)),
        "opacity": np.abs(truth.opacities - stored.opacities),
        "scale_ratio": np.abs(stored.scales / truth.scales - 1.0),
        "rotation_deg": np.degrees(2.0 * np.arccos(np.clip(cos, 0.0, 1.0))),
    }
    return {name: [round(float(np.median(one)), 6), round(float(one.max()), 6)] for name, one in apart.items()}


def _needless(truth: list[Gaussians], stored: list[Gaussians]) -> float:
    """Give the share of colours that are stored as changing where the lifted one hardly does."""
    still = changed = 0
    for t in range(1, len(truth)):
        near = np.abs(sh_to_colors(truth[t].sh) - sh_to_colors(truth[t - 1].sh)) < 1.0 / 255.0
        still += near.sum()
        changed += (near & (stored[t].sh[:, 0] != stored[t - 1].sh[:, 0])).sum()
    return changed / max(still, 1)


if __name__ == "__main__":
    main()
