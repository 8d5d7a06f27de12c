"""Flicker and the loop, on videos with planted faults."""

import numpy as np
import pytest

from pano4d.runtime.quality_time import flicker, loop_ratio


@pytest.fixture(scope="module")
def turning(sphere_picture):
    """Eight frames of a picture that turns evenly, a loop of 32 px a frame. uint8 [8, 128, 256, 3]."""
    return np.stack([_bytes(np.roll(sphere_picture, 32 * t, 1)) for t in range(8)])


@pytest.fixture(scope="module")
def drifting(sphere_picture):
    """Eight frames that drift by a pixel a frame."""
    return np.stack([_bytes(np.roll(sphere_picture, t, 1)) for t in range(8)])


def _bytes(picture):
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("levels", [3, 9])
def test_planted_flicker_is_told_in_grey_levels(drifting, levels):
    faulty = np.clip(drifting, 10, 240)
    faulty[1::2] += np.uint8(levels)
    calm = flicker(np.clip(drifting, 10, 240))
    assert len(calm) == 6 and calm.max() < 0.5
    assert flicker(faulty) == pytest.approx(np.full(6, levels), abs=0.5)


def test_a_fade_is_no_flicker():
    frames = np.full((6, 32, 64, 3), 100, np.uint8) + (7 * np.arange(6, dtype=np.uint8))[:, None, None, None]
    assert flicker(frames).max() == pytest.approx(0, abs=1e-4)


def test_one_bright_frame_shows_where_it_is(drifting):
    faulty = drifting.copy()
    faulty[4] = np.clip(faulty[4].astype(int) + 12, 0, 255)
    assert flicker(faulty).argmax() == 3  # of the frames 1 to 6


def test_flicker_in_the_mask_alone_counts(drifting):
    mask = np.zeros((128, 256), bool)
    mask[40:60, 30:90] = True
    faulty = np.clip(drifting, 10, 240)
    faulty[1::2, mask] += np.uint8(8)
    assert flicker(faulty, mask).min() > 7 and flicker(faulty, ~mask).max() < 0.5
    assert flicker(faulty, np.zeros_like(mask)).tolist() == [0] * 6


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_frames_do_not_flicker(drifting, count):
    assert flicker(drifting[:count]).tolist() == [0]


def test_a_loop_closes(turning):
    assert loop_ratio(turning) == pytest.approx(1, abs=0.02)


def test_a_drift_does_not_close(drifting):
    assert loop_ratio(drifting) > 3


def test_a_jump_inside_the_mask_counts_alone(drifting):
    mask = np.zeros((128, 256), bool)
    mask[60:80] = True
    standing = np.repeat(drifting[:1], 8, axis=0)
    standing[:, mask] = drifting[:, mask]
    assert loop_ratio(standing, mask) > 3 and loop_ratio(standing, ~mask) == 1


def test_a_single_frame_closes(drifting):
    assert loop_ratio(drifting[:1]) == 1
