"""The whole animation with a stand-in for the model: what holds for any model is asserted here."""

from dataclasses import replace

import numpy as np
import pytest

from pano4d.runtime import backends, schedule
from pano4d.runtime.backends.fake import FakeBundle, FakeEngine
from pano4d.runtime.checkpointing import load_state
from pano4d.runtime.errors import InputError, SettingsError
from pano4d.runtime.pipeline import Animator
from pano4d.runtime.settings import AnimateSettings

SETTINGS = AnimateSettings(width=256, height=128)


@pytest.fixture(scope="module")
def panorama(waves):
    return waves(128)


@pytest.fixture(scope="module")
def mask():
    mask = np.zeros((128, 256), bool)
    mask[40:80, 230:] = True
    mask[40:80, :30] = True  # over the seam
    return mask


def animate(panorama, mask, settings=SETTINGS, bundle=None, **options):
    return Animator(bundle or FakeBundle(), settings).animate(panorama, mask, **options)


def test_freeze_keeps_still_pixels_bit_for_bit_and_moves_the_rest(panorama, mask):
    result = animate(panorama, mask)
    assert result.frames.shape == (4, 128, 256, 3) and result.frames.dtype == np.uint8
    assert (result.frames[:, ~mask] == panorama[~mask]).all()
    assert np.abs(np.diff(result.frames[:, mask].astype(int), axis=0)).mean() > 2


def test_tiles_without_motion_are_skipped(panorama, mask):
    result = animate(panorama, mask)
    assert result.tiles_total == 12
    assert 0 < result.tiles_skipped < 12
    assert result.tiles_skipped == 12 - len(result.moving_tiles)


def test_on_a_cpu_an_engine_for_one_tile_is_left_alone(panorama, mask, monkeypatch):
    loaded, load = [], backends.load_engine
    monkeypatch.setattr(backends, "load_engine", lambda bundle, network, *more: loaded.append(network) or load(
        bundle, network, *more))
    plain, tailed = (animate(panorama, mask, bundle=FakeBundle(batch=7, tail=tail)) for tail in (False, True))
    assert plain.frames.tobytes() == tailed.frames.tobytes() and "unet" in loaded and "unet_tail" not in loaded


def test_a_skipped_tile_changes_nothing_that_moves(panorama, mask):
    everything = animate(panorama, np.ones_like(mask))
    assert everything.tiles_skipped == 0


def test_same_seed_same_bytes_other_seed_other_bytes(panorama, mask):
    first, again = animate(panorama, mask), animate(panorama, mask)
    other = animate(panorama, mask, replace(SETTINGS, seed=1))
    assert (first.frames == again.frames).all()
    assert (first.frames != other.frames).any()


@pytest.mark.parametrize("policy", ["trained", "soft"])
def test_other_mask_policies_take_the_tiles_where_they_were_denoised(panorama, mask, policy):
    result = animate(panorama, mask, replace(SETTINGS, mask_policy=policy))
    assert (result.frames[:, ~mask] != panorama[~mask]).any()
    far = np.zeros_like(mask)
    far[60:64, 126:130] = True  # opposite the mask, seen by skipped tiles only
    assert (result.frames[:, far] == panorama[far]).all()


@pytest.mark.parametrize("fuse", ["denoised", "sample", "none"])
@pytest.mark.parametrize("shared", [True, False])
def test_every_fusion_runs(panorama, mask, fuse, shared):
    result = animate(panorama, mask, replace(SETTINGS, fuse=fuse, shared_noise=shared))
    assert np.isfinite(result.latents).all()


def test_aligned_noise_levels_give_another_video(panorama, mask):
    karras, aligned = (animate(panorama, mask, replace(SETTINGS, levels=levels)) for levels in ("karras", "aligned"))
    assert np.isfinite(aligned.latents).all() and (aligned.latents != karras.latents).any()


@pytest.mark.parametrize("bundle", [FakeBundle(channels=8), FakeBundle(max_guidance_scale=3.0), FakeBundle(batch=5),
                                    FakeBundle(batch=3, channels=8, max_guidance_scale=2.0)],
                         ids=["8-channels", "guided", "batch-5", "batch-3-8-channels-guided"])
def test_other_kinds_of_bundle_run(panorama, mask, bundle):
    result = animate(panorama, mask, bundle=bundle)
    assert (result.frames[:, ~mask] == panorama[~mask]).all()


GUIDED = FakeBundle(batch=3, max_guidance_scale=3.0, steps=4)


def test_an_interval_of_all_levels_changes_nothing(panorama, mask):
    plain = animate(panorama, mask, bundle=GUIDED)
    all_levels = animate(panorama, mask, replace(SETTINGS, guidance_interval=(0.0, 100.0)), GUIDED)
    assert (all_levels.latents == plain.latents).all() and (all_levels.frames == plain.frames).all()


def test_an_interval_of_no_level_is_a_scale_of_one(panorama, mask):
    one = animate(panorama, mask, replace(SETTINGS, min_guidance_scale=1.0, max_guidance_scale=1.0), GUIDED)
    never = animate(panorama, mask, replace(SETTINGS, guidance_interval=(100.0, 200.0)), GUIDED)
    np.testing.assert_allclose(never.latents, one.latents, atol=1e-4)
    assert (never.latents != animate(panorama, mask, bundle=GUIDED).latents).any()


def test_steps_outside_the_interval_call_the_engine_half_as_often(panorama, mask, monkeypatch):
    calls = []
    run = FakeEngine.run

    def counted(engine, buffers, stream=None):
        calls.append(engine.outputs[0].name)
        run(engine, buffers, stream)

    monkeypatch.setattr(FakeEngine, "run", counted)
    moving = len(animate(panorama, mask, bundle=GUIDED).moving_tiles)
    assert calls.count("v") == 4 * -(-moving // 3)
    calls.clear()
    levels = schedule.karras_sigmas(4, 0.01, 80.0)
    animate(panorama, mask, replace(SETTINGS, guidance_interval=(levels[2], levels[0])), GUIDED)
    assert calls.count("v") == 2 * -(-moving // 3) + 2 * -(-moving // 6)


def test_reused_guidance_is_that_of_the_step_before(panorama, mask):
    plain = animate(panorama, mask, bundle=GUIDED)
    reused = animate(panorama, mask, replace(SETTINGS, guidance_reuse=1), GUIDED)
    one = animate(panorama, mask, replace(SETTINGS, min_guidance_scale=1.0, max_guidance_scale=1.0), GUIDED)
    far, near = (np.abs(one.latents - plain.latents).max(), np.abs(reused.latents - plain.latents).max())
    assert 0 < near < far


def test_a_run_with_reused_guidance_goes_on_from_its_state(panorama, mask, tmp_path):
    settings = replace(SETTINGS, guidance_reuse=2)
    whole = animate(panorama, mask, settings, GUIDED)

    def stop_after_two(stage, done, total):
        if (stage, done) == ("denoise", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        animate(panorama, mask, settings, GUIDED, progress=stop_after_two, state_folder=tmp_path)
    resumed = animate(panorama, mask, settings, GUIDED, state_folder=tmp_path)
    assert (resumed.frames == whole.frames).all()


def test_batches_do_not_change_the_result(panorama, mask):
    one, five = animate(panorama, mask), animate(panorama, mask, bundle=FakeBundle(batch=5))
    assert np.abs(one.frames.astype(int) - five.frames).max() <= 1


@pytest.mark.parametrize("solver", ["euler", "dpmpp-2m", "lcm"])
def test_a_run_goes_on_from_its_state(panorama, mask, tmp_path, solver):
    settings = replace(SETTINGS, solver=solver, steps=4)
    whole = animate(panorama, mask, settings)

    class Stop(Exception):
        pass

    def stop_after_two(stage, done, total):
        if stage == "denoise" and done == 2:
            raise Stop

    with pytest.raises(Stop):
        animate(panorama, mask, settings, progress=stop_after_two, state_folder=tmp_path)
    seen = []
    resumed = animate(panorama, mask, settings, progress=lambda *told: seen.append(told), state_folder=tmp_path)
    assert ("denoise", 2, 4) in seen and ("denoise", 1, 4) not in seen
    assert (resumed.frames == whole.frames).all()


def test_the_state_of_another_run_is_not_used(panorama, mask, tmp_path):
    animate(panorama, mask, state_folder=tmp_path)
    seen = []
    animate(panorama, mask, replace(SETTINGS, seed=7), progress=lambda *told: seen.append(told), state_folder=tmp_path)
    assert ("denoise", 0, 3) in seen
    assert load_state(tmp_path, "something else").arrays is None


def test_progress_reaches_every_total(panorama, mask):
    last = {}
    animate(panorama, mask, progress=lambda stage, done, total: last.__setitem__(stage, (done, total)))
    assert set(last) == {"encode", "denoise", "decode"}
    assert all(done == total for done, total in last.values())


def test_wrong_shapes_are_refused(panorama, mask):
    with pytest.raises(InputError, match="resize"):
        animate(panorama[:64], mask)
    with pytest.raises(InputError, match="mask"):
        animate(panorama, mask[:, :100])


@pytest.mark.parametrize("wrong", [{"width": 100, "height": 60}, {"steps": 0}, {"mask_policy": "hard"},
                                   {"fuse": "median"}, {"solver": "heun"}, {"solver": "lcm", "guidance_reuse": 1}, {"fps": 0}, {"seed": -1},
                                   {"motion_bucket_id": 1000}, {"guidance_interval": (5.0, 1.0)},
                                   {"guidance_interval": (1.0, float("nan"))}, {"guidance_interval": (1.0,)},
                                   {"guidance_reuse": -1}, {"levels": "even"}])
def test_wrong_settings_are_refused_in_one_sentence(wrong):
    with pytest.raises(SettingsError) as caught:
        AnimateSettings(**wrong)
    assert "\n" not in str(caught.value)


def test_guidance_needs_a_bundle_built_with_it():
    with pytest.raises(SettingsError, match="guidance"):
        Animator(FakeBundle(), replace(SETTINGS, max_guidance_scale=3.0))
    with pytest.raises(SettingsError, match="interval"):
        Animator(FakeBundle(), replace(SETTINGS, guidance_interval=(1.0, 50.0)))


def test_a_consistency_model_gets_fresh_noise_of_the_next_level_at_each_step(panorama, mask, monkeypatch):
    """Of a network whose estimate is nothing, each state is the noise alone, shared where tiles overlap."""
    from pano4d.runtime import noise, pipeline, schedule

    states = []

    def nothing(denoiser, x, sigma, guided):
        states.append(x.copy())
        return x * np.float32(-schedule.scalings(sigma)[0] / schedule.scalings(sigma)[1]), None

    monkeypatch.setattr(pipeline.Denoiser, "__call__", nothing)
    animator = Animator(FakeBundle(), replace(SETTINGS, solver="lcm", levels="lcm", steps=3))
    moving = animator.animate(panorama, mask).moving_tiles
    tile = FakeBundle().tile
    assert len(states) == 3
    for i, x in enumerate(states[1:], 1):
        z = noise.sphere_noise(animator.layout, tile["latent_px"], tile["frames"], 4, noise.step_seed(SETTINGS.seed, i))
        inside = np.abs(x - animator.sigmas[i] * z)[moving]
        still = np.abs(x - animator.sigmas[i] * z)[np.setdiff1d(np.arange(animator.layout.count), moving)]
        # Still tiles keep their latent, which reaches their neighbours where they overlap.
        assert np.median(inside) < 1e-3 * animator.sigmas[i] and still.max() < 10
    assert len({noise.step_seed(0, i) for i in range(5)}) == 5 and noise.step_seed(7, 0) == 7
