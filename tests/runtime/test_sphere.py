"""Conventions of the sphere: axes, pixel centres, seam and poles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pano4d.runtime import sphere

sizes = st.tuples(st.integers(2, 70), st.integers(2, 70)).map(lambda size: (size[0], 2 * size[1]))


def test_axes():
    lon, lat = np.radians([0.0, 90, 0, 0]), np.radians([0.0, 0, 90, -90])
    wanted = [[0, 0, 1], [1, 0, 0], [0, -1, 0], [0, 1, 0]]  # forward, right, up, down
    np.testing.assert_allclose(sphere.lonlat_to_directions(lon, lat), wanted, atol=1e-15)


@given(sizes)
@settings(max_examples=30, deadline=None)
def test_pixels_and_directions_are_inverse(size):
    height, width = size
    directions = sphere.pixel_directions(height, width)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1)
    column, row = sphere.directions_to_pixels(directions, height, width)
    np.testing.assert_allclose(row, np.arange(height)[:, None] * np.ones(width), atol=1e-6)
    np.testing.assert_allclose(column, np.arange(width) * np.ones((height, 1)), atol=1e-6)


@given(st.floats(-180, 180), st.floats(-90, 90))
@settings(max_examples=50, deadline=None)
def test_a_rotation_looks_where_it_says_and_stays_upright(yaw_deg, pitch_deg):
    turned = sphere.rotation(yaw_deg, pitch_deg)
    np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turned) == pytest.approx(1)
    forward = sphere.lonlat_to_directions(np.radians(yaw_deg), np.radians(pitch_deg))
    np.testing.assert_allclose(turned @ [0, 0, 1], forward, atol=1e-12)
    assert (turned @ [1, 0, 0])[1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("height, width", [(5, 10), (64, 128), (33, 70)])
def test_solid_angles_sum_to_the_sphere(height, width):
    assert sphere.row_solid_angles(height, width).sum() * width == pytest.approx(4 * np.pi)


def test_sampling_pixel_centres_gives_the_pixels():
    image = np.random.default_rng(0).integers(0, 256, (9, 18, 3), np.uint8)
    np.testing.assert_allclose(sphere.sample_panorama(image, sphere.pixel_directions(9, 18)), image, atol=1e-3)


def test_sampling_wraps_at_the_seam():
    image = np.zeros((4, 8, 1))
    image[:, 0], image[:, -1] = 100, 50
    seam = sphere.lonlat_to_directions(np.array(np.pi), np.array(0.0))
    assert sphere.sample_panorama(image, seam)[0] == pytest.approx(75)


@pytest.mark.parametrize("lat, row", [(90.0, 0), (-90.0, -1)])
def test_sampling_goes_over_the_poles(lat, row):
    image = np.zeros((4, 8, 1))
    image[row] = np.arange(8)[:, None]
    for column in range(4):
        lon = (column + 0.5) / 8 * 2 * np.pi - np.pi
        at_pole = sphere.lonlat_to_directions(np.array(lon), np.radians(lat * 0.999999))
        assert sphere.sample_panorama(image, at_pole)[0] == pytest.approx(column + 2, abs=1e-3)


def test_sampling_a_smooth_field_is_close_everywhere():
    directions = sphere.pixel_directions(64, 128)
    probe = np.random.default_rng(1).normal(size=(4000, 3))
    probe /= np.linalg.norm(probe, axis=1, keepdims=True)
    np.testing.assert_allclose(sphere.sample_panorama(directions, probe), probe, atol=2e-3)
