"""masks.cu against the CPU path: on the GPU, or as C++ loops."""

import numpy as np
import pytest

from pano4d.runtime import tiles
from pano4d.runtime.kernels.masks_cuda import tile_masks

LAYOUTS = [tiles.icosahedron_vertices(), tiles.icosahedron_faces(97.8), tiles.rings(49.6), tiles.rings(110)]


def shares_of(device, mask, *asked):
    return device.download(tile_masks(device, device.upload(mask), *asked))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda one: one.name)
@pytest.mark.parametrize("height, width", [(64, 128), (45, 91), (130, 62)])
@pytest.mark.parametrize("size_px, factor", [(32, 8), (42, 7), (20, 4)])
@pytest.mark.parametrize("density", [0.002, 0.5, 0.99])
def test_shares_are_those_of_the_cpu(device, layout, height, width, size_px, factor, density):
    mask = np.random.default_rng(0).random((height, width)) < density
    wanted, ours = tiles.tile_masks(mask, layout, size_px, factor), shares_of(device, mask, layout, size_px, factor)
    np.testing.assert_allclose(ours, wanted, atol=1e-6)
    # Nearer than this to a pixel's centre, which neighbour a sample meets is a matter of rounding.
    sure = (wanted == 0) | (wanted > 1e-9)
    np.testing.assert_array_equal((ours > 0)[sure], (wanted > 0)[sure])
    assert sure.mean() > 0.99


@pytest.mark.parametrize("layout", LAYOUTS[:3], ids=lambda one: one.name)
@pytest.mark.parametrize("row, column", [(0, 495), (1, 179), (511, 517), (200, 0), (300, 1023)])
def test_a_single_pixel_at_a_pole_or_the_seam(device, layout, row, column):
    mask = np.zeros((512, 1024), bool)
    mask[row, column] = True
    wanted, ours = tiles.tile_masks(mask, layout, 64, 8), shares_of(device, mask, layout, 64, 8)
    np.testing.assert_allclose(ours, wanted, atol=1e-6)
    np.testing.assert_array_equal(ours > 0, wanted > 0)
    assert (ours > 0).any()


def test_all_and_nothing(device):
    for value in (True, False):
        assert (shares_of(device, np.full((30, 60), value), LAYOUTS[0], 42, 7) == value).all()
