"""Blurred steps are sharp again, at the picture's edges; what is sharp, slanted or at a distance of its own stays."""

import numpy as np
import pytest

from pano4d.lifting.distances import Distances, unchanging
from pano4d.lifting.sharpen import sharpen, sharpen_map
from pano4d.runtime.errors import SettingsError

HEIGHT, WIDTH, REACH = 96, 192, 8
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


def wrong(found, truth, share=0.1):
    """Tell where log distance is off by more than a share of the step's height."""
    return np.abs(np.log(found / truth)) > share * np.log(FAR_M / NEAR_M)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("sigma_px", [1.5, 2.5])
def test_a_blurred_step_is_sharp_again(axis, sigma_px):
    inside, picture = post(32, 64, axis)
    truth = np.where(inside, NEAR_M, FAR_M).astype(np.float32)
    told = blurred(truth, sigma_px, axis)
    # Down the rows the blur is that of the map; across it is as wide only at the equator.
    rows = np.s_[:] if axis == 0 else np.s_[HEIGHT // 2 - 20:HEIGHT // 2 + 20]
    found = sharpen_map(told, picture, sigma_px)[rows]
    assert wrong(told[rows], truth[rows]).mean() > 0.03
    assert wrong(found, truth[rows]).mean() < 0.002


def test_a_thing_thinner_than_the_blur_comes_forward():
    inside, picture = post(60, 63, 1)
    truth = np.where(inside, NEAR_M, FAR_M).astype(np.float32)
    told = blurred(truth, 2.0, 1)
    row = HEIGHT // 2
    assert told[row, 61] > 1.9 * NEAR_M
    found = sharpen_map(told, picture, 2.0)
    assert found[row, 61] < 1.3 * NEAR_M
    assert (np.abs(np.log(found[row] / truth[row])) > 0.3).sum() <= 1


def test_the_blur_is_read_off_the_map():
    inside, picture = post(32, 64, 0)
    truth = np.where(inside, NEAR_M, FAR_M).astype(np.float32)
    found = sharpen(unchanging(blurred(truth, 2.0, 0)), picture[None], REACH).frame(0)
    assert wrong(found, truth).mean() < 0.002


def test_what_is_sharp_stays_as_it_is():
    inside, picture = post(30, 60)
    distance = np.where(inside, NEAR_M, FAR_M).astype(np.float32)
    distance[40:42] = 0.8  # a thin thing before both
    given = unchanging(distance)
    assert sharpen(given, picture[None], REACH) is given


def test_nothing_gets_farther_than_what_is_around():
    inside, picture = post(40, 44)
    told = blurred(np.where(inside, NEAR_M, FAR_M).astype(np.float32), 2.0, 1)
    picture[:] = np.random.default_rng(1).integers(0, 256, picture.shape)
    assert sharpen_map(told, picture, 2.0).max() <= told.max() * 1.00001


def test_planes_stay_as_they_are():
    height = 512
    latitude = np.pi * (0.5 - (np.arange(height) + 0.5) / height)
    floor = 1.6 / np.maximum(np.sin(-latitude), 0.01)
    distance = np.broadcast_to(floor[:, None], (height, WIDTH)).astype(np.float32)
    picture = np.random.default_rng(1).integers(0, 256, (height, WIDTH, 3), np.uint8)
    below = latitude < np.radians(-5)
    np.testing.assert_array_equal(sharpen_map(distance, picture, 2.0)[below], distance[below])


def test_only_what_is_asked_for_changes():
    inside, picture = post(30, 60)
    told = blurred(np.where(inside, NEAR_M, FAR_M).astype(np.float32), 2.0, 1)
    where = np.zeros((HEIGHT, WIDTH), bool)
    where[40:60] = True
    found = sharpen_map(told, picture, 2.0, where)
    np.testing.assert_array_equal(found[~where], told[~where])
    assert (found[where] != told[where]).any()


def test_rows_alone_become_what_they_become_in_the_whole_map():
    inside, picture = post(30, 60)
    told = blurred(np.where(inside, NEAR_M, FAR_M).astype(np.float32), 2.0, 1)
    where = np.zeros((HEIGHT, WIDTH), bool)
    where[48:50] = True
    both = (sharpen_map(told, picture, 2.0, asked)[48:50] for asked in (where, None))
    # Blocks begin elsewhere: at other latitudes the blur across differs a little.
    np.testing.assert_allclose(*map(np.log, both), atol=0.1)


def test_the_seam_is_like_any_other_place():
    inside, picture = post(80, 120)
    told = blurred(np.where(inside, NEAR_M, FAR_M).astype(np.float32), 2.0, 1)
    middle = np.s_[HEIGHT // 2 - 10:HEIGHT // 2 + 10]
    turned = [np.roll(array, WIDTH // 2, 1) for array in (told, picture)]
    found = np.roll(sharpen_map(*turned, 2.0), -WIDTH // 2, 1)
    np.testing.assert_allclose(np.log(found[middle]), np.log(sharpen_map(told, picture, 2.0)[middle]), atol=0.05)


def test_what_moves_is_sharpened_in_every_frame():
    frames, truths, maps = [], [], []
    for top in (30, 36):
        inside, picture = post(top, top + 20, 0)
        frames.append(picture)
        truths.append(np.where(inside, NEAR_M, FAR_M).astype(np.float32))
        maps.append(blurred(truths[-1], 2.0, 0))
    moving = np.zeros((HEIGHT, WIDTH), bool)
    moving[20:66] = True
    pixels = np.flatnonzero(moving)
    changes = np.stack([np.log(one / maps[0]).reshape(-1)[pixels] for one in maps]).astype(np.float16)
    found = sharpen(Distances(maps[0], pixels, changes), np.stack(frames), REACH)
    for number, truth in enumerate(truths):
        assert wrong(found.frame(number), truth).mean() < 0.003 < wrong(maps[number], truth).mean()


def test_it_works_on_the_device_that_was_asked_for(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr("pano4d.lifting.torch_drawing.sees_gpu", lambda: False)
    inside, picture = post(32, 64)
    told = unchanging(blurred(np.where(inside, NEAR_M, FAR_M).astype(np.float32), 2.0, 1))
    with pytest.raises(SettingsError, match="--device cuda needs"):
        sharpen(told, picture[None], REACH, "cuda")
    monkeypatch.setattr("pano4d.lifting.torch_drawing.sees_gpu", lambda: pytest.fail("the CPU was asked for"))
    assert sharpen(told, picture[None], REACH, "cpu") is not told


@pytest.mark.gpu
def test_a_gpu_finds_what_numpy_finds():
    inside, picture = post(32, 64)
    told = blurred(np.where(inside, NEAR_M, FAR_M).astype(np.float32), 2.0, 1)
    by_gpu, by_numpy = (np.log(sharpen_map(told, picture, 2.0, device=device)) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(by_gpu, by_numpy, atol=2e-3)
