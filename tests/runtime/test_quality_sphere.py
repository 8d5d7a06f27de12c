"""WS-PSNR, WS-SSIM and the poles, on pictures with planted faults."""

import numpy as np
import pytest

from pano4d.runtime import quality_sphere as quality
from pano4d.runtime.sphere import lonlat_to_directions, pixel_lonlat, sample_panorama

HEIGHT, WIDTH = 128, 256
EVERYWHERE = np.ones((HEIGHT, WIDTH), bool)


@pytest.fixture(scope="module")
def reference(sphere_picture):
    return _bytes(sphere_picture)


def _bytes(picture):
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def test_ws_psnr_of_the_same_picture_has_a_ceiling(reference):
    assert quality.ws_psnr(reference[None], reference, EVERYWHERE).tolist() == [quality.NOTHING_DIFFERS_DB]


@pytest.mark.parametrize("step", [1, 4, 16])
def test_ws_psnr_of_a_known_difference(step):
    flat = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    assert quality.ws_psnr(flat[None] + np.uint8(step), flat, EVERYWHERE)[0] == pytest.approx(20 * np.log10(255 / step))


def test_ws_psnr_counts_by_area():
    """A fault above 30 degrees north lies in a third of the rows, and in a quarter of the sphere."""
    flat = np.full((90, 180, 3), 90, np.uint8)
    faulty = flat.copy()
    faulty[:30] += 10
    found = quality.ws_psnr(faulty[None], flat, np.ones((90, 180), bool))[0]
    assert found == pytest.approx(10 * np.log10(255**2 / (100 * 0.25)), abs=0.01)


def test_ws_psnr_of_noise_outside_the_mask(reference):
    """Noise of variance 25 outside, anything inside."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[40:90, 60:200] = True
    noise = np.random.default_rng(0).choice([-5, 5], (HEIGHT, WIDTH, 3))
    frame = _bytes(np.clip(reference.astype(int), 5, 250) + noise)
    clipped = _bytes(np.clip(reference.astype(int), 5, 250))
    frame[mask] = 255 - frame[mask]
    found = quality.ws_psnr(np.stack([frame]), clipped, ~mask)[0]
    assert found == pytest.approx(10 * np.log10(255**2 / 25), abs=1e-6)
    assert quality.ws_psnr(np.stack([frame]), clipped, mask)[0] < 20


def test_ws_ssim_falls_with_blur_noise_and_shift(reference):
    rng = np.random.default_rng(1)
    blurred = _bytes(sum(np.roll(reference.astype(float), k, 1) for k in range(-3, 4)) / 7)
    noisy = _bytes(reference + rng.normal(0, 12, reference.shape))
    moved = np.roll(reference, 3, 1)
    same, *others = quality.ws_ssim(np.stack([reference, blurred, noisy, moved]), reference, EVERYWHERE)
    assert same == pytest.approx(1, abs=1e-12) and max(others) < 0.95


def test_ws_ssim_of_brightness_alone(reference):
    """Of flat pictures only the luminance term is left."""
    flat = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    c1 = (0.01 * 255) ** 2
    wanted = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert quality.ws_ssim(flat[None] + np.uint8(50), flat, EVERYWHERE)[0] == pytest.approx(wanted, rel=1e-9)


def test_ssim_has_no_border_at_the_seam(reference):
    turned = quality.ssim_map(np.roll(reference, 7, 1), np.roll(reference[::-1], 7, 1)[::-1])
    assert turned == pytest.approx(1)
    noisy = _bytes(reference + np.random.default_rng(2).normal(0, 9, reference.shape))
    there = quality.ssim_map(noisy, reference)
    assert quality.ssim_map(np.roll(noisy, 100, 1), np.roll(reference, 100, 1)) == pytest.approx(np.roll(there, 100, 1))


def test_what_lies_inside_the_mask_does_not_change_ws_ssim(reference):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[50:70, :12] = mask[50:70, -9:] = True
    where = quality.whole_windows(~mask)
    frame = reference.copy()
    frame[mask] = 255 - frame[mask]
    assert quality.ws_ssim(frame[None], reference, where)[0] == pytest.approx(1, abs=1e-12)
    assert where.sum() == HEIGHT * WIDTH - 30 * 31


@pytest.mark.parametrize("north", [True, False])
def test_a_swirl_at_a_pole_shows(sphere_picture, reference, north):
    moved = _bytes(np.roll(sphere_picture, 31, 1))
    slight, strong = (_bytes(_swirled(sphere_picture, turn, north)) for turn in (120, 500))
    same, motion, *faults = quality.pole_ratio(np.stack([reference, moved, slight, strong]), reference)
    assert same == 1 and 0.8 < motion < 1.25 and 1.25 < faults[0] < faults[1]


def test_spokes_at_a_pole_show(sphere_picture, reference):
    """Columns that go on to the pole unstretched."""
    pinched = sphere_picture.copy()
    pinched[:10] = pinched[10]
    assert abs(np.log(quality.pole_ratio(_bytes(pinched)[None], reference)[0])) > np.log(2)


def test_flat_pictures_have_no_pole():
    flat = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    assert quality.pole_ratio(flat[None], flat)[0] == 1


def _swirled(picture, turn_deg, north):
    """Turn what lies within 12 degrees of a pole about it, the more the nearer."""
    lon, lat = pixel_lonlat(HEIGHT, WIDTH)
    away = np.pi / 2 - (lat if north else -lat)
    turn = np.radians(turn_deg) * np.clip(1 - away / np.radians(12), 0, 1)
    return sample_panorama(picture, lonlat_to_directions(lon[None] + turn[:, None], lat[:, None]))
