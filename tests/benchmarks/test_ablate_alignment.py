"""The figures of alignment, on a sphere that a bump moves over."""

import numpy as np
import pytest

pytest.importorskip("pano4d.benchmarks.estimator_noise")

from pano4d.benchmarks.ablate_alignment import KINDS, cut, drift, estimated, measure, scale_drift  # noqa: E402
from pano4d.lifting.align import ray_cosines  # noqa: E402
from pano4d.runtime.sphere import pixel_directions  # noqa: E402
from pano4d.runtime.tiles import icosahedron_faces  # noqa: E402

DIRECTIONS = pixel_directions(48, 96)


def bumps(frames=2):
    still = 3 + np.sin(3 * DIRECTIONS[..., 0]) + DIRECTIONS[..., 1] ** 2
    bump = [np.exp(-20 * (1 - DIRECTIONS @ np.array([np.sin(a), 0, np.cos(a)]))) for a in 0.1 * np.arange(frames)]
    moving = np.max(bump, axis=0) > 0.02
    return np.stack([still - 0.8 * one * moving for one in bump]).astype(np.float32), moving


@pytest.mark.parametrize("kind, geometry", KINDS)
def test_measure_tells_what_the_report_needs(kind, geometry):
    truth, moving = bumps()
    row = measure(truth, moving, kind, geometry, 0)
    assert row["ratio"] < 1.6 and row["static_drift"] == 0 and row["drift"] < 0.05 and row["scale_drift"] < 0.005
    assert row["absrel"] / row["perfect_absrel"] == pytest.approx(row["ratio"])


@pytest.mark.parametrize("kind, geometry", KINDS)
def test_noise_alone_is_what_is_said_but_for_scale_and_shift(kind, geometry):
    layout, truth = icosahedron_faces(80), bumps()[0]
    tiles, cosines = cut(truth, layout, 28), ray_cosines(layout, 28)
    said, noisy = estimated(tiles, cosines, kind, geometry, 0)
    depth = noisy * cosines if geometry == "z" else noisy
    told = 1 / depth if kind == "affine-inverse" else depth
    for frame, v in ((0, 0), (1, 7)):
        line = np.polyfit(told[frame, v].ravel(), said[frame, v].ravel(), 1)
        np.testing.assert_allclose(np.polyval(line, told[frame, v]), said[frame, v], rtol=1e-4)
        assert kind == "affine-inverse" or abs(line[1]) < 1e-3 * said[frame, v].mean()
    assert 0.01 < np.abs(noisy / tiles - 1).mean() < 0.05


def test_drift_is_of_the_median_ratio():
    truth = np.ones((3, 4, 8))
    assert drift([truth[0], 1.01 * truth[0], truth[0]], truth, truth[0] > 0) == pytest.approx(0.01)


def test_scale_drift_sees_a_scale_that_changes_and_no_place_that_is_wrong():
    rng = np.random.default_rng(0)
    truth, place = 3 + rng.random((14, 8, 16)), 1 + 0.1 * rng.random((8, 16))
    everywhere, ramp = np.ones((8, 16), bool), 1 + 0.01 * np.arange(14)[:, None, None] / 13
    assert scale_drift(truth * place, truth, everywhere) == pytest.approx(0, abs=1e-9)
    assert scale_drift(truth * place * ramp, truth, everywhere) == pytest.approx(0.01, rel=1e-6)
    one = np.where(np.arange(14) == 9, 1.02, 1.0)[:, None, None]
    assert scale_drift(truth * place * one, truth, everywhere) == pytest.approx(0.02, rel=1e-6)
