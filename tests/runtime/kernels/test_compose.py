"""compose against its float64 reference; the frozen and the faded part of the panorama."""

import numpy as np
import pytest

from pano4d.runtime import sphere, tiles
from pano4d.runtime.kernels.compose import ComposePlan, accumulate, compose_frames, mask_alpha
from pano4d.runtime.kernels.compose_ref import compose_ref

LAYOUT = tiles.icosahedron_vertices()


def composed(layout, pixels, height, width, select=None):
    plan = ComposePlan.build(layout, pixels.shape[-1], height, width, select)
    acc = np.zeros((pixels.shape[1], int(plan.select.sum()), 3), np.float32)
    for v in range(layout.count):
        accumulate(plan, v, pixels[v], acc)
    return plan, acc


@pytest.mark.parametrize("height, width, size", [(18, 36, 9), (15, 30, 16)])
def test_compose_equals_its_reference(height, width, size):
    pixels = np.random.default_rng(0).uniform(0, 255, (LAYOUT.count, 1, 3, size, size)).astype(np.float32)
    _, acc = composed(LAYOUT, pixels, height, width)
    exact = compose_ref(LAYOUT, pixels[:, 0], height, width)
    ours = acc[0].T.reshape(3, height, width)
    assert np.abs(ours - exact).max() <= 2 * 16 * 255 * np.finfo(np.float32).eps


@pytest.mark.parametrize("layout", [LAYOUT, tiles.rings(62)], ids=lambda layout: layout.name)
def test_a_picture_cut_into_tiles_comes_back_at_the_seam_and_the_poles_too(layout):
    field = (sphere.pixel_directions(64, 128) * 100 + 128).astype(np.float32)
    cut = np.moveaxis(tiles.extract_tiles(field, layout, 64), -1, 1)[:, None]
    _, acc = composed(layout, np.ascontiguousarray(cut), 64, 128)
    error = np.abs(acc[0].reshape(64, 128, 3) - field)
    assert error[2:-2, 2:-2].max() < 0.5
    assert error[:, [0, 1, -2, -1]].max() < 0.5, "seam"
    assert error[[0, 1, -2, -1]].max() < 1.0, "poles"


def test_a_selection_gives_the_same_pixels():
    pixels = np.random.default_rng(1).uniform(0, 255, (LAYOUT.count, 2, 3, 16, 16)).astype(np.float32)
    select = np.random.default_rng(2).random((20, 40)) < 0.3
    _, whole = composed(LAYOUT, pixels, 20, 40)
    _, part = composed(LAYOUT, pixels, 20, 40, select)
    np.testing.assert_array_equal(part, whole[:, select.ravel()])


def test_alpha_zero_keeps_the_bytes():
    panorama = np.random.default_rng(3).integers(0, 256, (16, 32, 3), np.uint8)
    pixels = np.full((LAYOUT.count, 2, 3, 16, 16), 77, np.float32)
    plan, acc = composed(LAYOUT, pixels, 16, 32)
    alpha = np.zeros((16, 32), np.float32)
    alpha[4:8] = 1
    frames = compose_frames(acc, plan, panorama, alpha)
    assert (frames[:, alpha == 0] == panorama[alpha == 0]).all()
    assert (frames[:, alpha == 1] == 77).all()


def test_the_fade_lies_inside_the_mask_and_goes_round_the_seam():
    mask = np.zeros((20, 40), bool)
    mask[5:15, 32:] = mask[5:15, :8] = True
    alpha = mask_alpha(mask, 3.0)
    assert (alpha[~mask] == 0).all()
    assert (alpha[mask] > 0).all()
    assert alpha[10, 0] == alpha[10, -1] == 1, "no border at the seam"
    assert (np.diff(alpha[10, 32:]) >= 0).all() and alpha[10, 32] < 0.3
    assert (mask_alpha(np.ones((8, 16), bool), 3.0) == 1).all()
    assert (mask_alpha(mask, 0.0) == mask).all()


def test_motion_keeps_its_distance_from_pixels_that_move_in_part():
    mask, whole = np.ones((8, 32), bool), np.ones((8, 32), bool)
    whole[:, 0] = False  # a still line thinner than a pixel, on the seam
    alpha = mask_alpha(mask, 3.0, whole)
    assert (alpha[:, 0] > 0).all() and (alpha[:, 0] < 0.2).all()
    assert (alpha[:, 1] <= alpha[:, 2]).all() and (alpha[:, 1] == alpha[:, -1]).all()
    assert (alpha[:, 8:24] == 1).all()


def alpha_ref(mask, reach, whole):
    """Look at every pixel for the nearest one outside, by city-block distance round the seam."""
    height, width = mask.shape
    outside = np.argwhere(~(mask & whole))
    alpha = np.zeros(mask.shape)
    for row, column in np.argwhere(mask):
        across = np.abs(outside[:, 1] - column)
        nearest = (np.abs(outside[:, 0] - row) + np.minimum(across, width - across)).min(initial=reach + 1)
        t = min(max(nearest, 1), reach + 1) / (reach + 1)
        alpha[row, column] = t * t * (3 - 2 * t)
    return alpha


@pytest.mark.parametrize("height, width", [(9, 18), (7, 23), (1, 5), (6, 1)])
@pytest.mark.parametrize("density", [0.3, 0.95, 1.0])
@pytest.mark.parametrize("feather_px", [0.4, 1.0, 2.5, 30.0])
def test_the_fade_equals_its_reference(height, width, density, feather_px):
    rng = np.random.default_rng(4)
    mask, whole = rng.random((height, width)) < density, rng.random((height, width)) < 0.95
    for part in (whole, np.ones_like(mask)):
        exact = alpha_ref(mask, int(np.ceil(feather_px)), part)
        np.testing.assert_allclose(mask_alpha(mask, feather_px, part), exact, atol=1e-6)
    np.testing.assert_array_equal(mask_alpha(mask, feather_px), mask_alpha(mask, feather_px, np.ones_like(mask)))
