"""Ask what fewer denoising steps cost the demo model, on held-out clips whose truth is known.

    OMP_NUM_THREADS=1 python -m pano4d.benchmarks.ablate_steps --out benchmarks/results/steps.json

Each row is one way of stepping; the unabridged ones take 25 steps, as Stable Video Diffusion does. A figure's fault is
how far it is from the truth (`FAULTS`: 0 is none). The cost of a row against an unabridged one is the mean, over the
seeds that both have, of its fault less the other's; negative is better. A row is within the spread if no figure costs
more than the range of the unabridged row's fault over its own seeds. Drift outside the mask is told and not judged: the
default mask policy gives the input back there, bit for bit. How alike single clips are is told by the PSNR
inside the mask against the unabridged run of the same seed.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pano4d.examples.demo_model.evaluate import held_out_clips
from pano4d.examples.demo_model.measures import generate, measure
from pano4d.examples.demo_model.shipped import ShippedNetworks
from pano4d.runtime import schedule
from pano4d.runtime.bundle import Bundle, default_bundle_path


@dataclass(frozen=True)
class Way:
    """Say how a row steps, and for how many seeds.

    Attributes:
        solver: One of ``settings.SOLVERS``.
        steps: Denoising steps.
        levels: Noise levels, one of ``settings.LEVELS``.
        seeds: Seeds 0, 1, ... to run.
    """

    solver: str
    steps: int
    levels: str = "karras"
    seeds: int = 2

    @property
    def name(self) -> str:
        """Name of the row."""
        return f"{self.solver} {self.steps}" + ("" if self.levels == "karras" else f" {self.levels}")

    def sigmas(self, sampler: dict) -> torch.Tensor:
        """Give the noise levels for a bundle's sampler constants. float32 [steps + 1]."""
        return torch.from_numpy(schedule.noise_levels(self.levels, self.steps, sampler)).float()


UNABRIDGED = (Way("euler", 25, seeds=3), Way("dpmpp-2m", 25, seeds=3))
ABRIDGED = (*(Way("dpmpp-2m", steps) for steps in (12, 10, 8, 6)), Way("euler", 10),
            *(Way("dpmpp-2m", steps, "aligned") for steps in (10, 8, 7, 6)))

FAULTS: dict[str, Callable[[dict], float]] = {
    "first_frame_db": lambda f: -f["first_frame_psnr_db"],
    **{f"spectrum_{k + 1}": lambda f, k=k: abs(float(np.log(f["spectrum_ratio_1_to_4"][k]))) for k in range(4)},
    "motion": lambda f: abs(float(np.log(f["motion_levels_generated"] / f["motion_levels_true"]))),
    "motion_correlation": lambda f: -f["motion_correlation"],
}
"""From a row's figures to how far one of them is from the truth; ratios by their logarithm."""


def likeness(made: torch.Tensor, other: torch.Tensor, masks: torch.Tensor) -> float:
    """Measure the PSNR of clips [B, T, 3, s, s] in [0, 1] against others, inside the masks [B, 1, s, s], in dB."""
    error = ((made - other).square().mean(dim=(1, 2)) * masks[:, 0]).sum() / masks.sum()
    return -10 * float(error.clamp(min=1e-10).log10())


def spread(row: dict) -> dict[str, float]:
    """Give the range of each fault over a row's seeds."""
    faults = [{name: fault(run) for name, fault in FAULTS.items()} for run in row["runs"]]
    return {name: max(f[name] for f in faults) - min(f[name] for f in faults) for name in FAULTS}


def compared(row: dict, reference: dict) -> dict:
    """Say what a row costs against an unabridged one.

    Args:
        row: A row with ``runs``, one a seed.
        reference: The unabridged row.

    Returns:
        ``cost`` per figure, the figures ``outside`` the spread, and ``within_spread``.
    """
    pairs = [(run, other) for run in row["runs"] for other in reference["runs"] if run["seed"] == other["seed"]]
    cost = {name: float(np.mean([fault(run) - fault(other) for run, other in pairs])) for name, fault in FAULTS.items()}
    allowed = spread(reference)
    outside = [name for name in FAULTS if cost[name] > allowed[name] + 1e-9]
    return {"cost": {name: round(value, 4) for name, value in cost.items()}, "outside": outside,
            "within_spread": not outside}


def summarised(rows: list[dict]) -> list[dict]:
    """Add to every row its means over the seeds that all rows have, and what it costs against each unabridged row."""
    shared = set.intersection(*({run["seed"] for run in row["runs"]} for row in rows))
    references = [row for row in rows if row["name"] in [way.name for way in UNABRIDGED]]
    made = []
    for row in rows:
        runs = [run for run in row["runs"] if run["seed"] in shared]
        mean = {key: np.round(np.mean([run[key] for run in runs], axis=0), 3).tolist()
                for key in runs[0] if key not in ("seed", "psnr_db_against")}
        against = {other["name"]: compared(row, other) for other in references if other is not row}
        for name, told in against.items():
            alike = [run["psnr_db_against"][name] for run in runs if name in run["psnr_db_against"]]
            told["psnr_db"] = round(float(np.mean(alike)), 2) if alike else None
        spreads = {"spread": {k: round(v, 4) for k, v in spread(row).items()}} if row in references else {}
        made.append(row | {"mean": mean} | spreads | {"against": against})
    return made


def recommended(rows: list[dict]) -> dict:
    """Choose the row to make the default of Stable Video Diffusion, whose schedule is the first unabridged one.

    Args:
        rows: As ``summarised`` gives them.

    Returns:
        The fewest steps within that row's spread, among those whose motion and temporal power are no further from the
        truth than its own.
    """
    original = UNABRIDGED[0].name

    def holds(row: dict) -> bool:
        told = row["against"].get(original)
        moves = [name for name in FAULTS if name.startswith("spectrum") or name == "motion"]
        return bool(told) and told["within_spread"] and all(told["cost"][name] <= 0 for name in moves)

    return min((row for row in rows if holds(row)), key=lambda row: row["steps"])


def run(bundle: Bundle, ways: tuple[Way, ...], clips: torch.Tensor, masks: torch.Tensor, keep: Callable) -> list[dict]:
    """Generate and measure every way with every seed, one seed after another.

    Args:
        bundle: Engine bundle for the CPU.
        ways: Rows; those others are compared with come first.
        clips: Truth. float32 [B, T, 3, s, s] in [0, 1].
        masks: float32 [B, 1, s, s].
        keep: Called with the rows so far after every run.

    Returns:
        The rows.

    Raises:
        BackendError: An engine does not load or run.
    """
    nets = ShippedNetworks(bundle)
    rows = {way.name: {"name": way.name, "solver": way.solver, "steps": way.steps, "levels": way.levels, "runs": []}
            for way in ways}
    for seed in range(max(way.seeds for way in ways)):
        unabridged = {}
        for way in (way for way in ways if seed < way.seeds):
            begun = time.monotonic()
            made = generate(nets, clips, masks, way.sigmas(bundle.sampler), way.solver, seed)
            figures = measure(clips, masks, made) | {"seconds": round(time.monotonic() - begun, 1)}
            alike = {name: round(likeness(made, other, masks), 2) for name, other in unabridged.items()}
            rows[way.name]["runs"].append({"seed": seed, **figures, "psnr_db_against": alike})
            if way in UNABRIDGED:
                unabridged[way.name] = made
            print(way.name, json.dumps(rows[way.name]["runs"][-1]), flush=True)
            keep([row for row in rows.values() if row["runs"]])
    return list(rows.values())


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=default_bundle_path())
    parser.add_argument("--clips", type=int, default=8, help="half of them from ranges that training never showed")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "steps.json")
    args = parser.parse_args()
    bundle = Bundle.open(args.bundle)
    clips, masks, kinds = held_out_clips(args.clips, "cpu", bundle.tile["px"])
    about = {"command": "python -m pano4d.benchmarks.ablate_steps " + " ".join(sys.argv[1:]),
             "machine": platform.machine(), "python": platform.python_version(), "bundle": bundle.sha256,
             "clips": len(clips), "kinds": {kind: kinds.count(kind) for kind in sorted(set(kinds))}}

    def keep(rows: list[dict]) -> None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(about | {"rows": summarised(rows)}, indent=2) + "\n")

    keep(run(bundle, UNABRIDGED + ABRIDGED, clips, masks, keep))


if __name__ == "__main__":
    main()
