"""resize.cu against Pillow and a float64 reference: on the GPU, or as C++ loops."""

import numpy as np
import pytest
from PIL import Image

from pano4d.runtime.kernels.resize_cuda import Resizer, bicubic_taps


def resized(device, picture, out, element="float32"):
    resizer, target = Resizer(device, picture.shape[-1], out, element), device.empty((3, out, out), element)
    resizer(device.upload(picture), target)
    result = device.download(target)
    resizer.free()
    return result


def bicubic_ref(picture, out):
    """Weigh every pixel by its distance, in float64, and normalise."""
    size = picture.shape[-1]
    stretch = max(size / out, 1.0)
    matrix = np.zeros((out, size))
    for i in range(out):
        for k in range(size):
            far = abs(k + 0.5 - (i + 0.5) * size / out) / stretch
            matrix[i, k] = (1.5 * far**3 - 2.5 * far**2 + 1 if far < 1 else
                            -0.5 * (far**3 - 5 * far**2 + 8 * far - 4) if far < 2 else 0.0)
    matrix /= matrix.sum(axis=1, keepdims=True)
    return np.clip(matrix @ picture.astype(np.float64) @ matrix.T, -1, 1)


@pytest.mark.parametrize("size, out", [(31, 13), (40, 9), (11, 24), (17, 17), (64, 224), (3, 7)])
def test_pictures_equal_pillows_and_the_reference(device, size, out):
    picture = np.random.default_rng(0).uniform(-1, 1, (3, size, size)).astype(np.float32)
    ours = resized(device, picture, out)
    pillow = [np.asarray(Image.fromarray(plane).resize((out, out), Image.Resampling.BICUBIC)) for plane in picture]
    np.testing.assert_allclose(ours, np.clip(pillow, -1, 1), atol=2e-7)
    np.testing.assert_allclose(ours, bicubic_ref(picture, out), atol=5e-7)


def test_half_precision_is_the_rounded_value(device):
    picture = np.random.default_rng(1).uniform(-1, 1, (3, 21, 21)).astype(np.float32)
    assert (resized(device, picture, 9, "float16") == resized(device, picture, 9).astype(np.float16)).all()


@pytest.mark.parametrize("size, out", [(512, 224), (64, 224), (5, 2)])
def test_weights_sum_to_one_and_stay_within_the_picture(size, out):
    first, weights = bicubic_taps(size, out)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    beyond = first[:, None] + np.arange(weights.shape[1]) >= size
    assert (first >= 0).all() and (weights[beyond] == 0).all()
