"""Ramps of blurred distances end at the picture's edges; what is sharp, slanted or at a distance of its own stays."""

import numpy as np
import pytest

from pano4d.lifting.distances import Distances
from pano4d.lifting.sharpen import sharpen, sharpen_map

HEIGHT, WIDTH, REACH = 48, 96, 8
NEAR_M, FAR_M = 2.0, 12.0


def blurred(distance, sigma_px, axis):
    """Blur the log of distance, as an estimator's grid does."""
    steps = np.arange(-3 * int(np.ceil(sigma_px)), 3 * int(np.ceil(sigma_px)) + 1)
    weights = np.exp(-0.5 * (steps / sigma_px) ** 2)
    logs = sum(w * np.roll(np.log(distance), k, axis) for w, k in zip(weights / weights.sum(), steps))
    return np.exp(logs).astype(np.float32)


def post(begin, end, axis=1):
    """A near band before a far wall, and a picture in which both have colours of their own, with some grain."""
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[:, begin:end] = True
    inside = inside if axis else inside[:, :HEIGHT].T.repeat(2, 1)[:, :WIDTH]
    colors = np.where(inside[..., None], (180, 120, 60), (60, 110, 170))
    grain = np.random.default_rng(0).integers(-12, 13, colors.shape)
    return inside, (colors + grain).astype(np.uint8)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("sigma_px", [1.5, 2.5])
def test_a_ramp_ends_at_the_edge_of_the_picture(axis, sigma_px):
    inside, picture = post(16, 32, axis)
    truth = np.where(inside, NEAR_M, FAR_M).astype(np.float32)
    told = blurred(truth, sigma_px, axis)
    found = sharpen_map(told, picture, REACH)
    wrong, before = (np.abs(np.log(one / truth)) > 0.1 * np.log(FAR_M / NEAR_M) for one in (found, told))
    # A pixel at either edge may be left, in the flat end of a wide ramp.
    assert wrong.mean() <= 2.05 / truth.shape[axis] and before.mean() > 3 * wrong.mean()
    assert not (np.abs(np.log(found / truth)) > 0.25 * np.log(FAR_M / NEAR_M)).any()


def test_a_ramp_in_the_wrong_place_is_brought_to_the_edge():
    inside, picture = post(30, 60)
    truth = np.where(inside, NEAR_M, FAR_M).astype(np.float32)
    found = sharpen_map(np.roll(blurred(truth, 2.0, 1), 2, 1), picture, REACH)
    assert (np.abs(np.log(found / truth)) > 0.2).mean() < 0.01


def test_without_contrast_a_ramp_is_cut_in_its_middle():
    inside, _ = post(30, 60)
    truth = np.where(inside, NEAR_M, FAR_M).astype(np.float32)
    found = sharpen_map(blurred(truth, 2.0, 1), np.full((HEIGHT, WIDTH, 3), 128, np.uint8), REACH)
    assert (np.abs(np.log(found / truth)) > 0.2).mean() < 0.01


def test_what_is_sharp_stays_as_it_is():
    inside, picture = post(30, 60)
    distance = np.where(inside, NEAR_M, FAR_M).astype(np.float32)
    distance[20:22] = 0.8  # a thin thing before both
    np.testing.assert_array_equal(sharpen_map(distance, picture, REACH), distance)


def test_planes_stay_as_they_are():
    height = 512
    latitude = np.pi * (0.5 - (np.arange(height) + 0.5) / height)
    floor = 1.6 / np.maximum(np.sin(-latitude), 0.01)
    distance = np.broadcast_to(floor[:, None], (height, WIDTH)).astype(np.float32)
    picture = np.random.default_rng(1).integers(0, 256, (height, WIDTH, 3), np.uint8)
    below = latitude < np.radians(-5)
    np.testing.assert_array_equal(sharpen_map(distance, picture, 6)[below], distance[below])


def test_a_surface_between_two_steps_stays():
    distance = np.full((HEIGHT, WIDTH), FAR_M, np.float32)
    distance[:, 20:45], distance[:, 45:70] = 5.0, NEAR_M
    _, picture = post(20, 45)
    found = sharpen_map(distance, picture, REACH)
    np.testing.assert_array_equal(found, distance)


def test_only_what_is_asked_for_changes():
    inside, picture = post(30, 60)
    told = blurred(np.where(inside, NEAR_M, FAR_M).astype(np.float32), 2.0, 1)
    where = np.zeros((HEIGHT, WIDTH), bool)
    where[:20] = True
    found = sharpen_map(told, picture, REACH, where)
    np.testing.assert_array_equal(found[20:], told[20:])
    assert (found[:20] != told[:20]).any()


def test_what_moves_is_sharpened_in_every_frame():
    frames, truths, maps = [], [], []
    for left in (30, 36):
        inside, picture = post(left, left + 20)
        frames.append(picture)
        truths.append(np.where(inside, NEAR_M, FAR_M).astype(np.float32))
        maps.append(blurred(truths[-1], 2.0, 1))
    moving = np.zeros((HEIGHT, WIDTH), bool)
    moving[:, 20:66] = True
    pixels = np.flatnonzero(moving)
    changes = np.stack([np.log(one / maps[0]).reshape(-1)[pixels] for one in maps]).astype(np.float16)
    found = sharpen(Distances(maps[0], pixels, changes), np.stack(frames), REACH)
    for number, truth in enumerate(truths):
        assert (np.abs(np.log(found.frame(number) / truth)) > 0.2).mean() < 0.01
        assert (np.abs(np.log(maps[number] / truth)) > 0.2).mean() > 0.05
