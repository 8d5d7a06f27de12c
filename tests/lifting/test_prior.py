import numpy as np
import pytest

from pano4d.lifting import prior
from pano4d.lifting.prior import prior_distance


def test_landscape_has_ground_dome_and_tower(landscape):
    distance = prior_distance(landscape)
    assert distance.shape == (128, 256) and distance.dtype == np.float32
    np.testing.assert_allclose(distance[-1], prior.EYE_HEIGHT_M, rtol=0.05)
    np.testing.assert_allclose(distance[:10], prior.DOME_M, rtol=0.05)
    ground = prior.EYE_HEIGHT_M / np.sin(np.radians((96.5 / 128 - 0.5) * 180))
    np.testing.assert_allclose(distance[96, 20:60], ground, rtol=0.05)
    tower, cloud = distance[50, 192], distance[27, 65]
    assert tower < 0.5 * prior.DOME_M
    assert cloud > 0.9 * prior.DOME_M


def test_higher_things_are_nearer(landscape):
    taller = landscape.copy()
    taller[14:70, 184:200] = (90, 80, 80)
    assert prior_distance(taller)[50, 192] < 0.8 * prior_distance(landscape)[50, 192]


def test_it_steps_where_the_sky_ends(landscape):
    large = np.repeat(np.repeat(landscape, 8, axis=0), 8, axis=1)
    distance = prior_distance(large)
    top = distance[34 * 8 - 1:34 * 8 + 1, 8 * 190]
    assert top[0] > 0.9 * prior.DOME_M and top[1] < 0.5 * prior.DOME_M
    horizon = distance[64 * 8 - 4:64 * 8 + 4, :8 * 180]
    assert horizon.max() < 1.1 * horizon.min()


def test_no_seam_and_turning_turns_the_distance(landscape):
    turned = prior_distance(np.roll(landscape, 72, axis=1))
    np.testing.assert_allclose(turned, np.roll(prior_distance(landscape), 72, axis=1), rtol=1e-4)


@pytest.mark.parametrize("size", [(4, 8), (13, 27), (31, 62), (300, 600)])
@pytest.mark.parametrize("value", [0, 255])
def test_any_size_and_empty_pictures(size, value):
    distance = prior_distance(np.full((*size, 3), value, np.uint8))
    assert distance.shape == size
    assert np.isfinite(distance).all() and distance.min() > 1.0 and distance.max() < 70.0


def test_noise_stays_in_range():
    noise = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    distance = prior_distance(noise)
    assert 1.0 < distance.min() and distance.max() < 70.0
