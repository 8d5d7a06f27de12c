import numpy as np
import pytest

from pano4d.lifting.edges import find_steps, find_surface
from pano4d.runtime.sphere import pixel_directions, sample_panorama

SIZE = (64, 128)


def _floor(height, width):
    """Level ground 1.6 m below, to the horizon and 60 m; above it a dome of 60 m."""
    down = pixel_directions(height, width)[..., 1]
    return (1.6 / np.maximum(down, 1.6 / 60.0)).astype(np.float32)


def _with_box(distance, rows=slice(20, 40), columns=slice(50, 70), near=2.0):
    result = distance.copy()
    result[rows, columns] = near
    return result


@pytest.mark.parametrize("size", [(64, 128), (256, 512)])
def test_ground_seen_at_a_grazing_angle_has_no_step(size):
    surface = find_surface(_floor(*size))
    assert not surface.torn.any()
    np.testing.assert_array_equal(surface.donors, np.arange(size[0] * size[1]).reshape(size))
    np.testing.assert_allclose(1.0 / surface.nearness, _floor(*size), rtol=1e-6)


@pytest.mark.parametrize("first", [50, 120, -6])
def test_the_outline_of_a_box_is_found_across_the_seam_too(first):
    distance = np.full(SIZE, 5.0, np.float32)
    box = np.zeros(SIZE, bool)
    box[20:40, np.arange(first, first + 20) % SIZE[1]] = True
    distance[box] = 2.0
    (near, far), (near_down, far_down) = find_steps(1.0 / distance)
    assert len(near) == 2 * 20 and len(near_down) == 2 * 20
    assert box.reshape(-1)[np.concatenate([near, near_down])].all()
    assert not box.reshape(-1)[np.concatenate([far, far_down])].any()
    assert find_surface(distance).torn.sum() == 4 * 20


@pytest.mark.parametrize("wide", [1, 2, 3, 5])
def test_pixels_of_a_step_are_put_to_its_closer_side(wide):
    nearness = np.full(SIZE, 0.2, np.float32)
    ramp = np.linspace(0.2, 0.5, wide + 2)
    nearness[10:50, 40:80] = 0.5
    nearness[10:50, 40 - wide : 40] = ramp[1:-1]
    found = find_surface(1.0 / nearness).nearness[20:40]
    np.testing.assert_allclose(np.minimum(np.abs(found - 0.2), np.abs(found - 0.5)), 0.0, atol=1e-6)
    edge = np.flatnonzero(np.diff(found[0]) > 0.1)[0] + 1
    assert 40 - wide <= edge <= 40 and abs(edge - (40 - wide / 2)) <= 0.5


def test_a_thin_pole_keeps_its_distance():
    distance = _with_box(np.full(SIZE, 5.0, np.float32), slice(0, 64), slice(60, 61), 1.5)
    np.testing.assert_allclose(1.0 / find_surface(distance).nearness, distance, rtol=1e-6)


def test_no_sample_mixes_both_sides():
    distance = _with_box(np.full(SIZE, 5.0, np.float32))
    surface = find_surface(distance)
    rng = np.random.default_rng(0)
    rays = rng.normal(size=(40_000, 3))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    lookup = surface.lookup(rays)
    np.testing.assert_allclose(lookup.weights.sum(1), 1.0, atol=1e-6)
    found = 1.0 / lookup.read(surface.nearness)
    mixed = sample_panorama(distance[..., None], rays)[:, 0]
    assert ((mixed > 2.01) & (mixed < 4.99)).sum() > 100
    np.testing.assert_allclose(np.minimum(np.abs(found - 2.0), np.abs(found - 5.0)), 0.0, atol=1e-5)
    whole = (mixed == 2.0) | (mixed == 5.0)
    np.testing.assert_allclose(found[whole], mixed[whole], rtol=1e-5)


def test_elsewhere_a_lookup_is_bilinear(panorama):
    rays = np.random.default_rng(1).normal(size=(3000, 3))
    rays = np.concatenate([rays / np.linalg.norm(rays, axis=1, keepdims=True), [[0, 1, 0], [0, -1, 0], [0, 0, -1]]])
    lookup = find_surface(np.ones(panorama.shape[:2])).lookup(rays)
    np.testing.assert_allclose(lookup.read(panorama), sample_panorama(panorama, rays), atol=1e-3)


def test_the_far_side_takes_no_colour_of_the_near():
    distance = _with_box(np.full(SIZE, 5.0, np.float32))
    near = distance < 3.0
    picture = near.astype(np.float32)
    # As a camera mixes: pixels around the outline hold a little of the box.
    blurred = sum(np.roll(picture, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9.0
    donors = find_surface(distance).donors
    outline = (blurred > 0) & ~near
    assert outline.sum() > 70
    corners = 4
    assert (blurred.reshape(-1)[donors][outline] > 0).sum() <= corners
    np.testing.assert_array_equal(donors[near], np.arange(near.size).reshape(SIZE)[near])


def test_rows_of_another_map_are_put_in():
    far = np.full(SIZE, 5.0, np.float32)
    other = _with_box(far)
    mixed = find_surface(far).with_rows(other, slice(10, 50))
    whole = find_surface(other)
    for name in ("nearness", "torn", "donors"):
        np.testing.assert_array_equal(getattr(mixed, name), getattr(whole, name))
