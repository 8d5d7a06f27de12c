"""Coarse and fine: what each stage is given, and what holds of the two together for any model."""

from dataclasses import replace

import numpy as np
import pytest

import pano4d
from pano4d.runtime import image, stages, tiles
from pano4d.runtime.backends import Engines
from pano4d.runtime.backends.fake import FakeBundle
from pano4d.runtime.conditions import condition_tiles, encode_video
from pano4d.runtime.errors import SettingsError
from pano4d.runtime.pipeline import Animator
from pano4d.runtime.settings import AnimateSettings

SETTINGS = AnimateSettings(width=320, height=160, stages="coarse-fine")
SAMPLER = {"sigma_min": 0.002, "sigma_max": 700.0, "rho": 7.0}


class Stop(Exception):
    """Interrupts a run."""


@pytest.fixture(scope="module")
def panorama(waves):
    return waves(160)


@pytest.fixture(scope="module")
def mask():
    mask = np.zeros((160, 320), bool)
    mask[50:100, 285:] = True
    mask[50:100, :35] = True  # over the seam
    return mask


def animate(panorama, mask, settings=SETTINGS, bundle=None, **options):
    return Animator(bundle or FakeBundle(tile_px=32), settings).animate(panorama, mask, **options)


@pytest.mark.parametrize("width, tile_px, wanted", [(4096, 512, 2048), (2304, 512, 2048), (1024, 128, 512)])
def test_the_coarse_stage_is_as_wide_as_its_tiles_allow(width, tile_px, wanted):
    settings = replace(SETTINGS, width=width, height=width // 2)
    coarse = stages.coarse_settings(settings, tiles.layout_for(width, tile_px), tile_px)
    assert (coarse.width, coarse.height) == (wanted, wanted // 2)
    assert tiles.by_name(coarse.layout).name == tiles.layout_for(wanted, tile_px).name == "vertices-84"


def test_the_coarse_stage_is_never_wider_than_the_result():
    settings = replace(SETTINGS, width=128, height=64)
    assert stages.coarse_settings(settings, tiles.rings(40), 64).width == 128


@pytest.mark.parametrize("fov_deg", [84, 100])
def test_tiles_as_wide_as_coarse_ones_need_no_coarse_stage(fov_deg):
    assert stages.coarse_settings(SETTINGS, tiles.rings(fov_deg), 64) is None
    assert stages.coarse_settings(replace(SETTINGS, stages="single"), tiles.rings(40), 64) is None


def test_a_coarse_pixel_moves_if_any_of_it_does():
    mask = np.zeros((160, 320), bool)
    mask[81, 161] = True
    coarse = replace(SETTINGS, width=64, height=32)
    _, small = stages.coarse_inputs(np.zeros((160, 320, 3), np.uint8), mask, coarse)
    assert small.sum() == 1 and small[16, 32]


def test_the_whole_schedule_is_that_of_a_single_stage():
    settings = replace(SETTINGS, steps=25, fine_sigma=700.0)
    whole = stages.sigmas(settings, SAMPLER, refines=False)
    np.testing.assert_allclose(stages.sigmas(settings, SAMPLER, refines=True), whole, rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 10, 25])
@pytest.mark.parametrize("first", [0.01, 1.0, 4.0, 300.0])
def test_fine_steps_are_no_longer_than_those_of_the_whole_schedule(steps, first):
    settings = replace(SETTINGS, steps=steps, fine_sigma=first)
    whole, fine = (stages.sigmas(settings, SAMPLER, refines) for refines in (False, True))
    assert fine[0] == pytest.approx(first) and fine[-1] == 0 and len(fine) <= len(whole)
    if steps > 1:
        longest = np.diff(whole[:-1] ** (1 / 7)).min()
        assert np.diff(fine[:-1] ** (1 / 7)).min(initial=0) >= longest - 1e-9


@pytest.mark.parametrize("first", [0.002, 701.0])
def test_a_level_outside_the_model_is_refused(panorama, first):
    with pytest.raises(SettingsError, match="fine_sigma"):
        stages.sigmas(replace(SETTINGS, steps=5, fine_sigma=first), SAMPLER, refines=True)
    with pytest.raises(SettingsError, match="at most 80"):
        Animator(FakeBundle(tile_px=32), replace(SETTINGS, fine_sigma=90.0))


def test_the_first_state_is_the_video_in_moving_tiles_the_picture_in_others_and_noise_on_both():
    rng = np.random.default_rng(0)
    unit, still = rng.normal(size=(3, 2, 4, 5, 5)).astype(np.float32), rng.normal(size=(3, 4, 5, 5)).astype(np.float32)
    video, moving = rng.normal(size=(2, 2, 4, 5, 5)).astype(np.float32), np.array([True, False, True])
    x = stages.first_state(unit, np.array([3.0, 1.0, 0.0]), still, moving, video)
    np.testing.assert_allclose(x[moving] - 3 * unit[moving], video, atol=1e-5)
    np.testing.assert_allclose(x[1] - 3 * unit[1], np.stack([still[1]] * 2), atol=1e-5)
    alone = stages.first_state(unit, np.array([3.0, 1.0, 0.0]), still, moving, None)
    np.testing.assert_allclose(alone, unit * 10**0.5, rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 5])
def test_a_video_is_encoded_as_the_picture_of_its_tiles_is(panorama, mask, batch):
    bundle = FakeBundle(tile_px=32, batch=batch)
    animator = Animator(bundle, replace(SETTINGS, noise_aug_strength=0.0))
    told = condition_tiles(Engines(bundle), animator.layout, panorama, mask, animator.settings)
    video = np.stack([panorama, 255 - panorama, panorama])
    latents = encode_video(Engines(bundle), animator.layout, told.moving, video, animator.settings)
    assert latents.shape == (told.moving.sum(), 3, 4, 4, 4)
    np.testing.assert_allclose(latents[:, 0], told.latents[told.moving], atol=0.02)
    np.testing.assert_allclose(latents[:, 1], -told.latents[told.moving], atol=0.02)
    smaller = np.stack([image.resize_panorama(panorama, 80, 160)])
    np.testing.assert_allclose(encode_video(Engines(bundle), animator.layout, told.moving, smaller, animator.settings)[:, 0],
                               told.latents[told.moving], atol=0.03)


def test_both_stages_skip_still_tiles_and_freeze_still_pixels(panorama, mask):
    result = animate(panorama, mask)
    coarse, (_, small) = result.coarse, stages.coarse_inputs(panorama, mask, result.coarse.settings)
    assert (coarse.layout.name, coarse.frames.shape) == ("vertices-84", (4, 64, 128, 3))
    assert 0 < coarse.tiles_skipped < coarse.tiles_total == 12 < result.tiles_total
    assert 0 < result.tiles_skipped < result.tiles_total
    assert (result.frames[:, ~mask] == panorama[~mask]).all()
    assert (coarse.frames[:, ~small] == image.resize_panorama(panorama, 64, 128)[~small]).all()
    assert result.sigmas[0] < coarse.sigmas[0]
    assert np.abs(np.diff(result.frames[:, mask].astype(int), axis=0)).mean() > 2


def test_from_the_highest_level_on_the_fine_stage_is_a_single_one(panorama, mask):
    single = animate(panorama, mask, replace(SETTINGS, stages="single"))
    refined = animate(panorama, mask, replace(SETTINGS, fine_sigma=80.0))
    np.testing.assert_allclose(refined.sigmas, single.sigmas, rtol=1e-12)
    assert (np.abs(refined.frames.astype(int) - single.frames) > 1).mean() < 1e-3


def test_same_seed_same_bytes_other_seed_other_bytes(panorama, mask):
    first, again = animate(panorama, mask), animate(panorama, mask)
    other = animate(panorama, mask, replace(SETTINGS, seed=1))
    assert (first.frames == again.frames).all() and (first.frames != other.frames).any()


def test_nothing_moves(panorama):
    result = animate(panorama, np.zeros((160, 320), bool))
    assert (result.frames == panorama).all() and result.coarse.tiles_skipped == 12


@pytest.mark.parametrize("bundle", [FakeBundle(tile_px=32, channels=8), FakeBundle(tile_px=32, max_guidance_scale=3.0),
                                    FakeBundle(tile_px=32, batch=5)], ids=["8-channels", "guided", "batch-5"])
def test_other_kinds_of_bundle_run(panorama, mask, bundle):
    result = animate(panorama, mask, bundle=bundle)
    assert (result.frames[:, ~mask] == panorama[~mask]).all() and np.isfinite(result.latents).all()


@pytest.mark.parametrize("where", [("coarse denoise", 2), ("fine start", 4), ("fine denoise", 2)])
def test_a_run_goes_on_from_the_state_of_either_stage(panorama, mask, tmp_path, where):
    settings = replace(SETTINGS, steps=5)
    whole, seen = animate(panorama, mask, settings), []

    def stop(stage, done, total):
        if (stage, done) >= where and stage == where[0]:
            raise Stop

    with pytest.raises(Stop):
        animate(panorama, mask, settings, progress=stop, state_folder=tmp_path)
    resumed = animate(panorama, mask, settings, progress=lambda *told: seen.append(told), state_folder=tmp_path)
    assert (resumed.frames == whole.frames).all()
    assert ("coarse denoise", 1, 5) not in seen
    assert (("fine denoise", 1, len(whole.sigmas) - 1) in seen) == (where[0] != "fine denoise")


def test_progress_names_the_stages_and_reaches_every_total(panorama, mask):
    last = {}
    animate(panorama, mask, progress=lambda stage, done, total: last.__setitem__(stage, (done, total)))
    assert list(last) == ["coarse encode", "coarse denoise", "coarse decode", "fine encode", "fine start", "fine denoise",
                          "fine decode"]
    assert all(done == total for done, total in last.values())


def test_a_small_result_is_a_single_stage_with_a_note(panorama, mask):
    small = replace(SETTINGS, width=128, height=64)
    animator = Animator(FakeBundle(tile_px=32), small)
    assert animator.settings.stages == "single" and "One stage" in animator.notes[0]
    picture, moving = image.resize_panorama(panorama, 64, 128), image.resize_mask(mask, 64, 128)
    plain = animate(picture, moving, replace(small, stages="single"))
    assert (animator.animate(picture, moving).frames == plain.frames).all() and plain.coarse is None


@pytest.mark.parametrize("width, wanted, notes", [(320, ["coarse", "fine"], 0), (128, ["single"], 1)])
def test_the_report_says_which_stages_were_run(panorama, mask, fake_bundle, tmp_path, width, wanted, notes):
    image.write_png(tmp_path / "p.png", panorama)
    image.write_png(tmp_path / "p_mask.png", mask * np.uint8(255))
    settings = replace(SETTINGS, width=width, height=width // 2)
    report = pano4d.animate(tmp_path / "p.png", tmp_path / "out", bundle=fake_bundle, settings=settings)
    assert [entry["stage"] for entry in report["sampling"]] == wanted
    assert report["settings"]["stages"] == ("coarse-fine" if len(wanted) == 2 else "single")
    assert len(report["inputs"]["notes"]) == notes
    last = report["sampling"][-1]
    assert {name: last[name] for name in ("layout", "total", "skipped")} == report["tiles"]
    names = [stage["name"] for stage in report["stages"]]
    assert ("fine start" in names) == (len(wanted) == 2) == ("encode" not in names)
