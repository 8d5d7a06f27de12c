"""The ablation's measures on videos whose answer is known."""

import json

import numpy as np
import pytest

from pano4d.benchmarks import ablate_fusion as ablation
from pano4d.runtime.backends.fake import FakeBundle
from pano4d.runtime.pipeline import Animator
from pano4d.runtime.settings import AnimateSettings

SETTINGS = AnimateSettings(width=128, height=64)


def test_spectrum_of_a_pure_wave_lies_at_its_frequency():
    wave = 100 + 50 * np.sin(2 * np.pi * 2 * np.arange(14) / 14)
    frames = np.round(wave)[:, None, None, None] * np.ones((14, 4, 8, 3))
    power = ablation.spectrum(frames.astype(np.uint8), np.ones((4, 8), bool))
    assert power.argmax() == 1 and power[1] > 100 * power[[0, 2, 3]].max()


def test_a_blurred_video_is_less_sharp():
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 32, 3)).astype(np.float64)
    blurred = (frames + np.roll(frames, 1, axis=2) + np.roll(frames, 1, axis=1)) / 3
    everywhere = np.ones((16, 32), bool)
    assert ablation.sharpness(blurred, everywhere) < 0.7 * ablation.sharpness(frames, everywhere)


def test_disagreement_is_zero_for_equal_tiles_and_the_deviation_for_others():
    animator = Animator(FakeBundle(), SETTINGS)
    mask = np.ones((64, 128), bool)
    animation = animator.animate(np.full((64, 128, 3), 90, np.uint8), mask)
    latents = animation.latents
    latents[:] = 0.1
    assert ablation.disagreement(animator, animation) == pytest.approx(0, abs=0.1)
    latents += np.arange(12, dtype=np.float32)[:, None, None, None, None] * 0.01
    assert ablation.disagreement(animator, animation) > 0.3


def test_the_default_is_what_the_table_says(root):
    result = json.loads((root / "benchmarks" / "results" / "fusion.json").read_text())
    assert ablation.recommended(result["rows"]) == result["recommended"]
    default = AnimateSettings()
    assert result["recommended"] == {"noise": "shared" if default.shared_noise else "independent", "fuse": default.fuse}


def test_rows_past_the_limit_are_not_recommended():
    def row(noise, disagreement, *seams):
        return {"noise": noise, "fuse": "sample", "mean": {"disagreement": disagreement},
                "scenes": [{"seam_ratio": seam, "tile_border_ratio": 1.0} for seam in seams]}

    assert ablation.recommended([row("shared", 3, 1.2, 1.2), row("independent", 2, 1.1, 1.3)])["noise"] == "shared"
    with pytest.raises(ValueError):
        ablation.recommended([row("shared", 3, 1.3)])


def test_the_true_panorama_moves_inside_its_mask_only():
    pytest.importorskip("torch")
    truth, mask = ablation.true_panorama(0, SETTINGS, 3)
    assert truth.shape == (3, 64, 128, 3)
    assert (truth[:, ~mask] == truth[0, ~mask]).all()
    assert (truth[1:, mask] != truth[0, mask]).any()
