"""What a row costs, on figures whose answer is known."""

import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import torch  # noqa: E402

from pano4d.benchmarks import ablate_steps as ablation  # noqa: E402
from pano4d.build_engines.checkpoint import SVD  # noqa: E402


def figures(seed, db=30.0, spectrum=1.0, motion=8.0):
    return {"seed": seed, "first_frame_psnr_db": db, "spectrum_ratio_1_to_4": [spectrum, 1.0, 1.0, 1.0],
            "static_drift_levels": 1.0, "motion_levels_true": 8.0, "motion_levels_generated": motion,
            "motion_correlation": 0.9, "psnr_db_against": {}}


def row(name, *runs):
    return {"name": name, "runs": list(runs)}


REFERENCE = row("euler 25", figures(0, 30.0), figures(1, 31.0), figures(2, 30.5))


def test_a_cost_within_the_spread_of_seeds_is_none():
    told = ablation.compared(row("dpmpp-2m 8", figures(0, 29.5), figures(1, 30.5)), REFERENCE)
    assert told["cost"]["first_frame_db"] == pytest.approx(0.5) and told["within_spread"] and not told["outside"]


def test_a_cost_past_the_spread_is_named():
    told = ablation.compared(row("dpmpp-2m 8", figures(0, 28.5), figures(1, 29.5)), REFERENCE)
    assert told["outside"] == ["first_frame_db"] and not told["within_spread"]


def test_to_be_nearer_the_truth_costs_nothing():
    told = ablation.compared(row("dpmpp-2m 8", figures(0, 40.0)), REFERENCE)
    assert told["cost"]["first_frame_db"] < 0 and told["within_spread"]


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_too_little_and_too_much_are_alike(ratio):
    told = ablation.compared(row("dpmpp-2m 8", figures(0, spectrum=ratio, motion=8 * ratio)), REFERENCE)
    assert told["cost"]["spectrum_1"] == pytest.approx(0.6931, abs=1e-4) == told["cost"]["motion"]
    assert told["outside"] == ["spectrum_1", "motion"]


def test_likeness_looks_inside_the_masks_only():
    made, masks = torch.zeros(1, 2, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    masks[..., :2] = 1
    other = made.clone()
    other[..., 2:] = 1.0
    assert ablation.likeness(made, other, masks) == pytest.approx(100)
    other[..., :2] = 0.1
    assert ablation.likeness(made, other, masks) == pytest.approx(20, abs=1e-3)


def test_the_default_of_stable_video_diffusion_is_the_recommended_one(root):
    rows = json.loads((root / "benchmarks" / "results" / "steps.json").read_text())["rows"]
    row = ablation.recommended(rows)
    assert {"num_inference_steps": row["steps"], "solver": row["solver"], "levels": row["levels"]}.items() <= SVD.items()


def test_the_summary_is_that_of_the_runs(root):
    rows = json.loads((root / "benchmarks" / "results" / "steps.json").read_text())["rows"]
    assert json.loads(json.dumps(ablation.summarised(rows))) == rows
    assert {row["name"] for row in rows} == {way.name for way in ablation.UNABRIDGED + ablation.ABRIDGED}
