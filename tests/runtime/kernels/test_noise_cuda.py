"""noise.cu against the CPU path: on the GPU, or as C++ loops."""

import numpy as np
import pytest

from pano4d.runtime import noise, tiles
from pano4d.runtime.kernels.noise_cuda import sphere_noise

LAYOUTS = [tiles.icosahedron_vertices(), tiles.icosahedron_faces(97.8), tiles.rings(62)]


def drawn(device, *asked):
    array = sphere_noise(device, *asked)
    try:
        return device.download(array)
    finally:
        device.free(array)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda one: one.name)
@pytest.mark.parametrize("size, frames, channels", [(7, 3, 4), (16, 1, 5), (13, 2, 1)])
def test_noise_is_that_of_the_cpu(device, layout, size, frames, channels):
    wanted = noise.sphere_noise(layout, size, frames, channels, seed=3)
    assert (drawn(device, layout, size, frames, channels, 3) == wanted).all()


def test_noise_equals_the_sum_over_cells(device):
    layout, size = LAYOUTS[0], 9
    ours, field = drawn(device, layout, size, 1, 2, 5), noise.draw_field(noise.count_cells(layout, size), 2, 5, 0)
    cells = noise.fibonacci_sphere(field.shape[1])
    for v in range(layout.count):
        x, y, inside = tiles.project(layout, v, cells, size)
        for row, column in ((0, 0), (4, 4), (8, 3)):
            held = inside & (np.round(x).clip(0, 8) == column) & (np.round(y).clip(0, 8) == row)
            exact = field[:, held].astype(np.float64).sum(axis=1) / np.sqrt(held.sum())
            np.testing.assert_allclose(ours[v, 0, :, row, column], exact, rtol=1e-6, atol=1e-6)


def test_tiles_drawn_for_themselves(device):
    wanted = noise.sphere_noise(LAYOUTS[0], 8, 2, 4, 1, shared=False)
    assert (drawn(device, LAYOUTS[0], 8, 2, 4, 1, False) == wanted).all()


def test_a_pixel_without_a_cell_keeps_its_own_number(device, monkeypatch):
    for module in ("noise", "kernels.noise_cuda"):
        monkeypatch.setattr(f"pano4d.runtime.{module}.count_cells", lambda layout, size: 200)
    noise.cell_lists.cache_clear()
    wanted = noise.sphere_noise(LAYOUTS[0], 8, 2, 4, 1)
    alone = noise.sphere_noise(LAYOUTS[0], 8, 2, 4, 1, shared=False)
    try:
        assert (drawn(device, LAYOUTS[0], 8, 2, 4, 1) == wanted).all()
        assert 0.1 < (wanted == alone).mean() < 0.9
    finally:
        noise.cell_lists.cache_clear()


def test_all_memory_but_the_noise_is_given_back(device):
    if not hasattr(device, "blocks"):
        pytest.skip("counted on the host only")
    array = sphere_noise(device, LAYOUTS[0], 8, 2, 4, 1)
    assert list(device.blocks) == [array.pointer]
