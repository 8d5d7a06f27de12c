"""Measure the default run: time, memory, and the figures that must hold, on the example and on given panoramas.

    python -m pano4d.benchmarks.bench_demo --panorama PANORAMA.jpg --mask MASK.png

Every case is a process of its own, as a user would start it, so that load time and peak memory are whole.
The first case is run twice with its seed and once with another.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from pano4d.benchmarks.measuring import ROOT
from pano4d.runtime import image

EXAMPLE = (ROOT / "examples" / "panorama.jpg", ROOT / "examples" / "panorama_mask.png")


def generate(panorama: Path, mask: Path | None, size: str, out: Path, seed: int = 0) -> dict:
    """Run ``pano4d generate`` in a process of its own.

    Args:
        panorama: Input picture.
        mask: Its mask, or None.
        size: WxH of the result.
        out: Output folder.
        seed: Seed of the noise.

    Returns:
        The run's report, with ``wall_seconds`` and ``peak_mib`` of the whole process.

    Raises:
        RuntimeError: The command failed.
    """
    command = [sys.executable, str(ROOT / "cli.py"), "generate", str(panorama), "--out", str(out), "--size", size,
               "--seed", str(seed), "--json"] + (["--mask", str(mask)] if mask else [])
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as output, subprocess.Popen(command, stdout=output) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}")
    report = json.loads(text)
    # Timing a stage resets the process's high-water mark, so its end alone does not know the peak.
    peak_mib = max(usage.ru_maxrss / 1024, *(stage["peak_mib"] for stage in report["stages"]))
    return report | {"wall_seconds": time.perf_counter() - begin, "peak_mib": peak_mib}


def frames_digest(out: Path) -> str:
    """Hash the bytes of all files in ``frames/``."""
    digest = hashlib.sha256()
    for path in sorted((out / "frames").iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def frozen_difference(panorama: Path, mask: Path | None, out: Path) -> int:
    """Find the largest difference between the frames and the resized input where the mask is zero."""
    source = image.read_panorama(panorama).pixels
    frames = np.stack([np.asarray(Image.open(path)) for path in sorted((out / "frames").iterdir())])
    height, width = frames.shape[1:3]
    if mask is None:
        return 0
    still = ~image.resize_mask(image.read_mask(mask, source.shape).moving, height, width)
    wanted = image.resize_panorama(source, height, width)[still].astype(int)
    return int(np.abs(frames[:, still].astype(int) - wanted).max())


def measure(name: str, panorama: Path, mask: Path | None, size: str, folder: Path) -> dict:
    """Run one case and pick its figures."""
    out = folder / name
    report = generate(panorama, mask, size, out)
    row = {"name": name, "size": size, "seconds": round(report["wall_seconds"], 1),
           "peak_gib": round(report["peak_mib"] / 1024, 2), "tiles": report["tiles"], "quality": report["quality"],
           "stages": report["stages"], "frozen_difference": frozen_difference(panorama, mask, out)}
    print(json.dumps(row), flush=True)
    return row


def repeatability(folder: Path, panorama: Path, mask: Path | None, size: str, name: str) -> dict:
    """Say whether the same seed gives the same bytes, and another seed other ones."""
    generate(panorama, mask, size, folder / "again")
    generate(panorama, mask, size, folder / "other", seed=1)
    first, again, other = (frames_digest(folder / run) for run in (name, "again", "other"))
    return {"same_seed_same_bytes": first == again, "other_seed_other_bytes": first != other}


def main() -> None:
    """Parse the command line, measure, write ``results/demo.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--panorama", type=Path, help="a panorama of your own, measured at both sizes")
    parser.add_argument("--mask", type=Path)
    parser.add_argument("--keep", type=Path, help="keep the outputs in this folder")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "demo.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [measure("example", *EXAMPLE, "1024x512", folder)]
        if args.panorama:
            for size in ("1024x512", "2048x1024"):
                rows.append(measure(f"{args.panorama.parent.name}-{size}", args.panorama, args.mask, size, folder))
        repeat = repeatability(folder, *EXAMPLE, "1024x512", "example")
    result = {"command": "python -m pano4d.benchmarks.bench_demo --panorama ... --mask ...",
              "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                          "python": platform.python_version()}, "cases": rows, "repeat": repeat}
    args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
