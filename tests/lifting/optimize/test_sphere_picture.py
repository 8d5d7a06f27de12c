"""Panoramas looked up by torch show what NumPy's way shows, over the seam and the poles too."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pano4d.lifting.optimize.sphere_picture import SpherePicture  # noqa: E402
from pano4d.runtime.sphere import pixel_directions, sample_panorama  # noqa: E402


@pytest.mark.parametrize(("height", "width"), [(16, 32), (17, 34)])
def test_agrees_with_numpy_everywhere(height, width):
    rng = np.random.default_rng(0)
    picture = rng.random((height, width, 2)).astype(np.float32)
    directions = np.concatenate([rng.normal(size=(2000, 3)), [[0, 1, 1e-4], [0, -1, -1e-4], [1e-5, 0, -1], [-1e-5, 0.2, -1]]])
    ours = SpherePicture(torch.from_numpy(picture.transpose(2, 0, 1).copy())).at(torch.from_numpy(directions).float())
    assert np.abs(ours.numpy() - sample_panorama(picture, directions)).max() < 1e-4


def test_pixel_centres_give_the_pixels_by_either_mode():
    picture = torch.arange(8 * 16, dtype=torch.float32).reshape(1, 8, 16)
    directions = torch.from_numpy(pixel_directions(8, 16)).float()
    for mode in ("bilinear", "nearest"):
        assert torch.allclose(SpherePicture(picture).at(directions, mode)[..., 0], picture[0], atol=1e-3)


def test_colours_take_gradients_to_directions():
    picture = torch.arange(16.0).repeat(8, 1)[None]
    direction = torch.tensor([[0.1, 0.0, 1.0]], requires_grad=True)
    SpherePicture(picture).at(direction).sum().backward()
    assert direction.grad[0, 0] == pytest.approx(16 / (2 * np.pi) / 1.01, rel=1e-3)
