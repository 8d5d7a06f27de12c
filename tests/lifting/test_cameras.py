import numpy as np
import pytest

from pano4d.lifting.cameras import perspective_K, viewmat
from pano4d.runtime.errors import SettingsError


def test_centre_and_border_of_the_view():
    K = perspective_K(90.0, 200, 100)
    np.testing.assert_allclose(K @ [0, 0, 1], [100, 50, 1])
    np.testing.assert_allclose(K @ [1, 0, 1], [200, 50, 1])


def test_view_turns_the_right_way():
    np.testing.assert_allclose(viewmat(90.0, 0.0)[:3, :3] @ [1, 0, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(viewmat(0.0, 90.0)[:3, :3] @ [0, -1, 0], [0, 0, 1], atol=1e-12)
    # Something above the horizon stays in the upper half: y is down.
    assert (viewmat(30.0, 0.0)[:3, :3] @ [0, -1, 0])[1] == pytest.approx(-1.0)


def test_position_maps_to_origin():
    where = np.array([0.3, -0.2, 1.5])
    np.testing.assert_allclose(viewmat(50.0, -20.0, where) @ [*where, 1.0], [0, 0, 0, 1], atol=1e-12)


@pytest.mark.parametrize("fov_deg", [0.0, 180.0, -5.0])
def test_impossible_field_of_view(fov_deg):
    with pytest.raises(SettingsError, match="field of view"):
        perspective_K(fov_deg, 10, 10)
