"""Detail is kept where the picture stands still and left behind where it moves."""

import numpy as np
import pytest

from pano4d.runtime.kernels.detail import keep_detail, masked_mean


def mean_ref(values, select, radius):
    height, width = select.shape
    grid = np.zeros((height, width, values.shape[1]))
    grid[select] = values
    result = []
    for row, column in zip(*np.nonzero(select)):
        rows = range(max(0, row - radius), min(height, row + radius + 1))
        near = [(r, (column + shift) % width) for r in rows for shift in range(-radius, radius + 1)]
        result.append(np.mean([grid[at] for at in near if select[at]], axis=0))
    return np.array(result)


@pytest.mark.parametrize("height, width, radius", [(9, 18, 1), (7, 14, 3), (11, 23, 2)])
def test_masked_mean_equals_its_reference(height, width, radius):
    rng = np.random.default_rng(0)
    select = rng.random((height, width)) < 0.6
    values = rng.normal(size=(int(select.sum()), 2)).astype(np.float32) * 100
    np.testing.assert_allclose(masked_mean(values, select, radius), mean_ref(values, select, radius), atol=1e-3)


def scene():
    rng = np.random.default_rng(1)
    panorama = rng.integers(0, 256, (24, 48, 3), np.uint8)
    select = np.zeros((24, 48), bool)
    select[4:20, 8:40] = True
    blurred = masked_mean(panorama[select].astype(np.float32), select, 2)
    return panorama, select, blurred


def test_the_first_frame_becomes_the_input():
    panorama, select, blurred = scene()
    acc = np.stack([blurred, blurred + 1])
    keep_detail(acc, select, panorama, 4.0)
    np.testing.assert_allclose(acc[0], panorama[select], atol=1e-2)


def test_small_changes_keep_detail_and_are_added_to_it():
    panorama, select, blurred = scene()
    acc = np.stack([blurred, blurred + 1])
    keep_detail(acc, select, panorama, 4.0)
    np.testing.assert_allclose(acc[1], panorama[select] + 1.0, atol=1.0)


def test_where_something_else_is_seen_no_detail_of_the_old_stays():
    panorama, select, blurred = scene()
    other = np.full_like(blurred, 128) + 100 * np.sign(128 - blurred)
    acc = np.stack([blurred, other])
    keep_detail(acc, select, panorama, 4.0)
    detail = panorama[select] - blurred
    left = acc[1] - other
    assert abs(np.corrcoef(left.ravel(), detail.ravel())[0, 1]) < 0.35
    assert np.abs(left).mean() < 0.35 * np.abs(detail).mean()


def test_a_cast_of_the_whole_video_is_removed():
    panorama, select, blurred = scene()
    acc = np.stack([blurred + 30, 255 - blurred + 30])
    keep_detail(acc, select, panorama, 4.0)
    assert abs((acc[1] - (255 - blurred)).mean()) < 6
