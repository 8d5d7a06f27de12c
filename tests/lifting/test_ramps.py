"""The width of ramps is read off steps that stand alone."""

import numpy as np
import pytest

from pano4d.lifting.deconvolve import blur_matrix
from pano4d.lifting.ramps import find_blur, largest_around, without_specks

HEIGHT = 256


def posts(blur_px, axis):
    """Bands at several distances, some narrow, blurred along an axis."""
    rng, line, place = np.random.default_rng(3), np.full(2 * HEIGHT, np.log(20.0)), 0
    while place < len(line):
        width = int(rng.integers(3, 60))
        line[place:place + width] = np.log(rng.uniform(1.0, 20.0))
        place += width
    line = line[:HEIGHT] if axis == 0 else line
    smooth = blur_matrix(len(line), blur_px) @ line if blur_px else line
    logs = np.broadcast_to(smooth[:, None] if axis == 0 else smooth, (HEIGHT, 2 * HEIGHT))
    return np.exp(logs + 0.005 * rng.normal(size=logs.shape)).astype(np.float32)


@pytest.mark.parametrize("blur_px", [1.2, 2.0, 3.0])
def test_the_blur_down_the_map_is_found(blur_px):
    assert find_blur(posts(blur_px, 0), 10) == pytest.approx(blur_px, rel=0.12)


def test_across_it_is_taken_for_what_it_is_on_the_sphere():
    # The same number of columns everywhere is less and less of the sphere towards the poles.
    assert 0.5 * 2.0 < find_blur(posts(2.0, 1), 10) < 2.0


def test_sharp_steps_have_none():
    assert find_blur(posts(0.0, 0), 10) < 0.5


@pytest.mark.parametrize("shape", [(8, 16), (64, 128)])
def test_where_there_are_no_steps_it_is_nought(shape):
    assert find_blur(np.full(shape, 3.0, np.float32), 10) == 0.0


@pytest.mark.parametrize("reach", [1, 3, 6])
def test_the_largest_around_is_that_of_a_square(reach):
    values = np.random.default_rng(0).random((2, 17, 13)).astype(np.float32)
    found = largest_around(values, reach)
    for b, row, column in np.ndindex(values.shape):
        part = values[b, max(0, row - reach):row + reach + 1, max(0, column - reach):column + reach + 1]
        assert found[b, row, column] == part.max()


def test_specks_go_and_lines_stay():
    values = np.full((1, 30, 40), 2.0, np.float32)
    values[0, 5, 7] = values[0, 20:22, 30:32] = 0.3
    values[0, :, 15] = 0.5
    found = without_specks(values, 2)
    wanted = np.full((1, 30, 40), 2.0, np.float32)
    wanted[0, :, 15] = 0.5
    np.testing.assert_array_equal(found, wanted)


def test_slopes_and_steps_have_no_specks():
    values = np.linspace(0.0, 3.0, 50, dtype=np.float32)[None, None].repeat(30, 1)
    values[:, 12:] += 1.0
    np.testing.assert_array_equal(without_specks(values, 2), values)
