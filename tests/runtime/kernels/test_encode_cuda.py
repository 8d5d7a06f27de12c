"""encode_tiles.cu against its float64 reference and the CPU path: on the GPU, or as C++ loops."""

import numpy as np
import pytest

from pano4d.runtime import tiles
from pano4d.runtime.kernels.encode_cuda import encode_tiles
from pano4d.runtime.kernels.encode_tiles_ref import encode_tiles_ref


@pytest.mark.parametrize("layout", [tiles.icosahedron_vertices(), tiles.icosahedron_faces(97.8)], ids=lambda one: one.name)
@pytest.mark.parametrize("height, size, samples", [(31, 7, 2), (48, 9, 3)])
def test_tiles_equal_the_reference(device, layout, height, size, samples):
    panorama = np.random.default_rng(0).integers(0, 256, (height, 2 * height, 3), np.uint8)
    exact = encode_tiles_ref(panorama, layout, size, samples)
    allowed = np.abs(encode_tiles_ref(panorama, layout, size, samples, np.float32) - exact).max()
    ours = device.download(encode_tiles(device, device.upload(panorama), layout, size, samples))
    assert np.abs(ours - exact).max() <= 2 * allowed
    cpu = np.moveaxis(tiles.extract_tiles(panorama, layout, size, samples) / 127.5 - 1, -1, 1)
    np.testing.assert_allclose(ours, cpu, atol=1e-3)


def test_half_precision_is_the_rounded_value(device):
    panorama = np.random.default_rng(1).integers(0, 256, (16, 32, 3), np.uint8)
    layout = tiles.icosahedron_vertices()
    whole, half = (device.download(encode_tiles(device, device.upload(panorama), layout, 5, 2, element))
                   for element in ("float32", "float16"))
    assert (whole.astype(np.float16) == half).all()
