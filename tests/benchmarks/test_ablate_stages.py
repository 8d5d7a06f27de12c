"""The measure of agreement on motion that is known, and the rows of the table."""

import json

import numpy as np
import pytest

from pano4d.benchmarks import ablate_stages as ablation
from pano4d.runtime import image
from pano4d.runtime.backends.fake import FakeBundle
from pano4d.runtime.pipeline import Animator
from pano4d.runtime.settings import AnimateSettings

HEIGHT, WIDTH = 180, 360


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(0)
    small = rng.integers(40, 220, (HEIGHT // 6, WIDTH // 6, 3)).astype(np.uint8)
    return image.resize_panorama(small, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def band():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[60:120] = True
    return mask


def test_velocities_of_a_turning_panorama(picture, band):
    frames = np.stack([np.roll(picture, t, axis=1) for t in range(4)])
    found, centres = ablation.velocities(frames, band)
    assert len(found) == 6 * 36 == len(centres)
    wanted = np.sqrt(1 - centres[:, 2] ** 2)  # a degree a frame, less towards the poles
    assert np.abs(np.median(found[:, 0] / wanted) - 1) < 0.1
    assert np.abs(np.median(found[:, 1])) < 0.05


def test_what_moves_north_has_a_northward_velocity(picture, band):
    found, _ = ablation.velocities(np.stack([np.roll(picture, -t, axis=0) for t in range(4)]), band)
    assert np.abs(np.median(found[:, 1]) - 1) < 0.1


def test_agreement_is_one_where_all_turns_and_falls_where_halves_part(picture, band):
    turned = np.stack([np.roll(picture, t, axis=1) for t in range(4)])
    assert min(ablation.agreement(turned, band)) > 0.95
    parted = turned.copy()
    parted[:, :90] = turned[::-1, :90]
    near, *_, far = ablation.agreement(parted, band)
    assert far < near < 0.9


def test_tile_steps_add_up_over_the_stages():
    settings = AnimateSettings(width=320, height=160, stages="coarse-fine")
    mask = np.zeros((160, 320), bool)
    mask[60:90, 150:180] = True
    result = Animator(FakeBundle(tile_px=32), settings).animate(np.full((160, 320, 3), 90, np.uint8), mask)
    parts = (result, result.coarse)
    assert ablation.tile_steps(result) == sum((p.tiles_total - p.tiles_skipped) * (len(p.sigmas) - 1) for p in parts)


def test_a_scene_is_measured_in_every_way(tmp_path):
    pytest.importorskip("torch")
    bundle, settings = FakeBundle(tile_px=32), AnimateSettings(width=160, height=80, keep_detail=False)
    rows = ablation.measure_scene(bundle, settings, None, 6, [2.0, 4.0], keep=tmp_path)
    assert list(rows) == ["truth", "single", "2", "4"]
    assert rows["single"]["tile_steps"] < rows["4"]["tile_steps"]
    assert {path.name for path in tmp_path.iterdir()} == {"6_truth", "6_coarse", "6_single", "6_2", "6_4"}
    first, *_ = ablation.table({6: rows}, [2.0, 4.0])
    assert (first["stages"], first["fine_sigma"]) == ("single", None)
    assert first["mean"]["motion"] == first["scenes"][0]["motion"]


def test_the_default_is_what_the_results_say(root):
    result = json.loads((root / "benchmarks" / "results" / "stages.json").read_text())
    assert ablation.recommended(result["rows"]) == result["recommended"]
    default = AnimateSettings()
    assert result["recommended"] == {"stages": default.stages, "fine_sigma": default.fine_sigma}


def test_two_stages_are_recommended_where_they_agree_better_and_stay_sharp():
    def row(sigma, sharpness, agreement, seam=1.0):
        return {"fine_sigma": sigma, "mean": {"sharpness": sharpness, "agreement": [agreement] * 4},
                "scenes": [{"seam_ratio": seam, "tile_border_ratio": 1.0}]}

    single = row(None, 0.8, 0.1)
    choose = lambda *rows: tuple(ablation.recommended([single, *rows]).values())  # noqa: E731
    assert choose(row(2, 0.5, 0.9), row(4, 0.75, 0.5), row(8, 0.8, 0.3)) == ("coarse-fine", 4)
    assert choose(row(2, 0.5, 0.9), row(4, 0.75, 0.5, seam=1.3), row(8, 0.8, 0.15)) == ("single", 8)
    assert choose(row(2, 0.5, 0.9), row(4, 0.6, 0.5)) == ("single", 4)
    with pytest.raises(ValueError):
        choose(row(2, 0.5, 0.9, seam=1.3))
