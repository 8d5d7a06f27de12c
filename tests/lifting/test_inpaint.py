import numpy as np
import pytest

from pano4d.lifting.edges import find_steps
from pano4d.lifting.inpaint import diffuse, mean_alike, spread_behind

SIZE = (128, 256)
PIXEL = np.pi / 128


def _box(first=100):
    box = np.zeros(SIZE, bool)
    box[40:90, np.arange(first, first + 60) % SIZE[1]] = True
    return box, np.where(box, 0.5, 0.2).astype(np.float32)


@pytest.mark.parametrize("first", [100, 220])
@pytest.mark.parametrize("offset", [0.3, 0.9])
def test_the_band_is_what_a_step_aside_uncovers(first, offset):
    box, nearness = _box(first)
    source = spread_behind(nearness, find_steps(nearness), offset)
    found = source >= 0
    assert not found[~box].any()
    # In the middle row of the box, from the left edge inwards.
    width = found[64, np.arange(first, first + 30) % SIZE[1]].sum() * PIXEL
    assert abs(width - offset * (0.5 - 0.2)) < 1.5 * PIXEL
    assert not box.reshape(-1)[source[found]].any()


def test_nothing_is_uncovered_without_steps_or_offset():
    _, nearness = _box()
    flat = np.full(SIZE, 0.3, np.float32)
    assert (spread_behind(flat, find_steps(flat), 1.0) < 0).all()
    assert (spread_behind(nearness, find_steps(nearness), 0.0) >= 0).sum() <= 2 * (50 + 60)


def test_diffusion_smooths_without_what_is_near():
    box, nearness = _box()
    source = spread_behind(nearness, find_steps(nearness), 0.5)
    inside = source >= 0
    rng = np.random.default_rng(0)
    colors = np.where(box[..., None], 1000.0, rng.uniform(0, 1, (*SIZE, 1))).astype(np.float32)
    carried = np.where(inside[..., None], colors.reshape(-1, 1)[source], colors)
    behind = np.where(inside, nearness.reshape(-1)[source], nearness)
    smooth = diffuse(carried, behind, inside)
    np.testing.assert_array_equal(smooth[~inside], carried[~inside])
    assert 0.0 <= smooth[inside].min() and smooth[inside].max() <= 1.0
    assert smooth[inside].std() < 0.7 * carried[inside].std()


def test_means_are_of_what_lies_on_the_same_surface():
    nearness = np.full((20, 40), 0.1, np.float32)
    nearness[:, :10] = 1.0
    values = np.random.default_rng(0).random((20, 40, 3)).astype(np.float32)
    pixels = np.array([8 * 40 + 11, 8 * 40 + 39])
    found = mean_alike(values, nearness, pixels, 2)
    np.testing.assert_allclose(found[0], values[6:11, 10:14].mean((0, 1)), rtol=1e-5)
    # Across the seam there is the other surface.
    np.testing.assert_allclose(found[1], values[6:11, 37:].mean((0, 1)), rtol=1e-5)
