"""Ask what fewer tiles cost, on held-out procedural panoramas whose true motion is known.

    python -m pano4d.benchmarks.ablate_layouts --out benchmarks/results/layouts.json

The rows are the layout that is chosen by default, and the fewest tiles. Figures are those of ``ablate_fusion``, with the
default of everything else, but for the input's detail, which is not brought back. A row is within the spread if no figure is
further from the truth than the default's by more than the default's own differ between seeds.
"""

import argparse
import json
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from pano4d.benchmarks.ablate_fusion import measure, true_panorama
from pano4d.runtime import tiles
from pano4d.runtime.bundle import Bundle, default_bundle_path
from pano4d.runtime.settings import AnimateSettings

LAYOUTS = ("auto", "fewest")
TRUE = {"disagreement": 0.0, "sharpness": 1.0, "motion": 1.0, "seam_ratio": 1.0, "tile_border_ratio": 1.0, "spectrum": 1.0}
"""What a figure is where a video is the truth; of the spectrum's frequencies, the mean."""


def judged(rows: list[dict]) -> list[dict]:
    """Compare the rows with the first.

    Args:
        rows: Rows with ``runs``, of as many seeds and scenes in each.

    Returns:
        The rows, with ``mean``, figure by figure; and ``outside``, the figures that are further from the truth than those
        of the first row by more than the latter differ between seeds, as means over scenes.
    """
    found = []
    for row in rows:
        seeds = sorted({run["seed"] for run in row["runs"]})
        runs = {name: [np.mean([run[name] for run in row["runs"] if run["seed"] == seed]) for seed in seeds] for name in TRUE}
        found.append(runs)
    spread = {name: max(values) - min(values) for name, values in found[0].items()}
    off = [{name: abs(np.mean(values) - TRUE[name]) for name, values in runs.items()} for runs in found]
    return [row | {"mean": {name: float(np.mean(values)) for name, values in runs.items()},
                   "outside": [name for name in TRUE if distance[name] > off[0][name] + spread[name]]}
            for row, runs, distance in zip(rows, found, off)]


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "layouts.json")
    args = parser.parse_args()
    bundle = Bundle.open(default_bundle_path())
    settings = AnimateSettings(width=args.width, height=args.width // 2, keep_detail=False)
    layouts = [tiles.chosen(name, args.width, bundle.tile["px"]) for name in LAYOUTS]
    truths = [true_panorama(scene, settings, bundle.tile["frames"]) for scene in range(args.scenes)]
    rows = [{"layout": layout.name, "asked": name, "tiles": layout.count, "runs": []}
            for name, layout in zip(LAYOUTS, layouts)]
    for seed in range(args.seeds):
        for scene, truth in enumerate(truths):
            for row in rows:
                begun = time.monotonic()
                found = measure(bundle, replace(settings, seed=seed, layout=row["asked"]), None, *truth)
                row["runs"].append({"seed": seed, "scene": scene, **found, "seconds": round(time.monotonic() - begun, 1)})
                print(row["layout"], json.dumps(row["runs"][-1]), flush=True)
            args.out.write_text(json.dumps({
                "command": "python -m pano4d.benchmarks.ablate_layouts " + " ".join(sys.argv[1:]),
                "machine": platform.machine(), "python": platform.python_version(), "bundle": bundle.sha256,
                "rows": judged(rows)}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
