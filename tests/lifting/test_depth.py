import numpy as np
import pytest

from pano4d.lifting.depth import checked, open_estimator
from pano4d.lifting.prior import prior_distance
from pano4d.runtime.errors import CheckpointError, SettingsError


def test_the_prior_is_an_estimator_of_whole_panoramas(landscape):
    estimator = open_estimator("prior")
    assert (estimator.name, estimator.kind, estimator.geometry, estimator.panoramic) == ("prior", "metric", "ray", True)
    np.testing.assert_array_equal(estimator(landscape[None], 360.0)[0], prior_distance(landscape))


@pytest.mark.parametrize("spec, options, error, words", [
    ("nowhere", {}, CheckpointError, "no depth model"), ("model.bin", {}, CheckpointError, "safetensors"),
    ("missing.onnx", {}, CheckpointError, "no file"), ("prior", {"kind": "metric"}, SettingsError, "--depth-kind"),
    ("prior", {"kind": "guess"}, SettingsError, "metric, scale-invariant, affine-inverse"),
    ("x.onnx", {"geometry": "plane"}, SettingsError, "--depth-geometry")])
def test_what_cannot_be_opened_is_named(spec, options, error, words):
    with pytest.raises(error, match=words):
        open_estimator(spec, **options)


def test_unusable_answers_are_refused():
    tiles = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(CheckpointError, match="not finite"):
        checked(np.full((2, 4, 4), np.nan), tiles, "m")
    with pytest.raises(CheckpointError, match="one number a pixel"):
        checked(np.ones((2, 4, 5)), tiles, "m")
