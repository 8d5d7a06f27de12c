import math

import numpy as np
import pytest

from pano4d.lifting.lattice import default_count, lattice_directions, lattice_spacing
from pano4d.runtime.errors import SettingsError


@pytest.mark.parametrize("count", [16, 777, 5000])
def test_directions_are_unit_and_balanced(count):
    d = lattice_directions(count)
    assert d.shape == (count, 3)
    np.testing.assert_allclose(np.linalg.norm(d, axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(d.mean(0), 0.0, atol=2.0 / count)
    # Second moments of the uniform sphere: a third in every direction.
    np.testing.assert_allclose(d.T @ d / count, np.eye(3) / 3.0, atol=2.0 / count)


def test_samples_stand_for_equal_areas():
    count = 20000
    d = lattice_directions(count)
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(40, 3))
    axes = np.concatenate([axes / np.linalg.norm(axes, axis=1, keepdims=True), [[0, 1, 0], [0, -1, 0]]])
    for cap_deg in (8.0, 30.0):
        share = (1.0 - math.cos(math.radians(cap_deg))) / 2.0
        inside = (d @ axes.T > math.cos(math.radians(cap_deg))).mean(0)
        np.testing.assert_allclose(inside, share, rtol=0.06)


def test_every_direction_has_a_sample_near(panorama):
    count = 2000
    d = lattice_directions(count)
    rng = np.random.default_rng(1)
    probe = rng.normal(size=(3000, 3))
    probe = np.concatenate([probe / np.linalg.norm(probe, axis=1, keepdims=True), [[0, 1, 0], [0, -1, 0]]])
    gap = np.arccos(np.clip((probe @ d.T).max(1), -1, 1)).max()
    assert gap < 0.95 * lattice_spacing(count)


def test_defaults_and_refusal():
    assert default_count(512, 1024) == 131072
    assert default_count(4096, 8192) == default_count(2048, 4096) == 1_000_000
    with pytest.raises(SettingsError, match="--gaussians"):
        lattice_directions(3)
