"""Videos that close on themselves."""

from dataclasses import replace

import numpy as np
import pytest

from pano4d.runtime import stages, tiles
from pano4d.runtime.backends.fake import FakeBundle
from pano4d.runtime.loop import close_loop
from pano4d.runtime.pipeline import Animator
from pano4d.runtime.quality import motion
from pano4d.runtime.quality_time import loop_ratio
from pano4d.runtime.settings import AnimateSettings

SETTINGS = AnimateSettings(width=256, height=128)


@pytest.fixture(scope="module")
def wandering(sphere_picture):
    """Fourteen frames that drift by three pixels each and never come back."""
    return np.stack([np.clip(np.roll(sphere_picture, 3 * t, 1), 0, 255).astype(np.uint8) for t in range(14)])


def test_what_wanders_off_comes_back(wandering):
    closed = wandering.copy()
    close_loop(closed)
    assert loop_ratio(wandering) > 1.5 > 1.2 > loop_ratio(closed)
    assert motion(closed).min() > 0.2 * motion(wandering).mean()


@pytest.mark.parametrize("count", [1, 2, 3, 14])
def test_the_first_half_and_the_first_frame_stay(wandering, count):
    closed = wandering[:count].copy()
    close_loop(closed)
    kept = count - count // 2
    assert np.array_equal(closed[:kept], wandering[:kept])


def test_the_fade_is_the_formula(wandering):
    closed = wandering[:5].copy()
    close_loop(closed)
    first, frames = wandering[0].astype(float), wandering.astype(float)
    for frame, share in ((3, 1 / 3), (4, 2 / 3)):
        assert np.abs(closed[frame] - ((1 - share) * frames[frame] + share * first)).max() <= 0.51


def test_a_still_pixel_stays_bit_for_bit():
    frames = np.arange(256, dtype=np.uint8).reshape(1, 8, 32, 1).repeat(14, 0).repeat(3, 3)
    closed = frames.copy()
    close_loop(closed)
    assert np.array_equal(closed, frames)


def test_an_animation_closes_and_keeps_its_first_half(waves):
    panorama, mask = waves(128), np.zeros((128, 256), bool)
    mask[40:80, 230:] = mask[40:80, :30] = True
    plain, closed = (Animator(FakeBundle(), replace(SETTINGS, loop=loop)).animate(panorama, mask) for loop in (False, True))
    assert np.array_equal(closed.frames[:2], plain.frames[:2]) and (closed.frames[2:] != plain.frames[2:]).any()
    assert (closed.frames[:, ~mask] == panorama[~mask]).all() and np.array_equal(closed.latents, plain.latents)
    assert loop_ratio(closed.frames, mask) < loop_ratio(plain.frames, mask)


def test_the_coarse_stage_does_not_close():
    settings = replace(SETTINGS, loop=True, stages="coarse-fine", width=2304, height=1152)
    assert not stages.coarse_settings(settings, tiles.layout_for(2304, 512), 512).loop
