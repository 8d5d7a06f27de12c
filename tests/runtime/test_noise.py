"""The first state: white in a tile, shared between tiles, drawn from a seed."""

import numpy as np
import pytest

from pano4d.runtime import noise, tiles

LAYOUTS = [tiles.icosahedron_vertices(), tiles.rings(49.6)]


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda layout: layout.name)
def drawn(request):
    return request.param, noise.sphere_noise(request.param, 16, 6, 4, seed=3)


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_unit_variance_in_every_tile_and_at_every_place(drawn):
    _, field = drawn
    assert np.abs(field.std(axis=(1, 2, 3, 4)) - 1).max() < 0.05
    assert abs(field.mean()) < 0.01
    assert abs(field.std() - 1) < 0.01
    assert abs(field[..., 0, 0].std() - 1) < 0.12, "corners, where pixels are smallest"


def test_neighbours_in_a_tile_are_uncorrelated(drawn):
    _, field = drawn
    for a, b in [(field[..., :-1], field[..., 1:]), (field[..., :-1, :], field[..., 1:, :]),
                 (field[..., :-1, :-1], field[..., 1:, 1:]), (field[:, :-1], field[:, 1:]),
                 (field[:, :, :-1], field[:, :, 1:])]:
        assert abs(correlation(a, b)) < 0.02


def test_overlapping_tiles_share_the_field(drawn):
    layout, field = drawn
    alone = noise.sphere_noise(layout, 16, 6, 4, seed=3, shared=False)
    assert shared_correlation(layout, field) > 0.4
    assert abs(shared_correlation(layout, alone)) < 0.05


def shared_correlation(layout, field):
    """Correlate each pixel with the pixel of another tile that it falls on."""
    size = field.shape[-1]
    directions = tiles.tile_directions(layout, size)
    own, other = [], []
    for i in range(layout.count):
        for j in range(layout.count):
            x, y, inside = tiles.project(layout, j, directions[i], size)
            # Only where both centres nearly coincide: elsewhere two pixels hold but some cells in common.
            close = inside & (np.abs(x - np.round(x)) < 0.25) & (np.abs(y - np.round(y)) < 0.25)
            if i != j and close.any():
                own.append(field[i][:, :, close])
                other.append(field[j][:, :, np.round(y[close]).astype(int), np.round(x[close]).astype(int)])
    return correlation(np.concatenate(own, axis=2), np.concatenate(other, axis=2))


def test_the_seed_decides():
    draw = [noise.sphere_noise(LAYOUTS[0], 8, 2, 4, seed) for seed in (1, 1, 2)]
    assert (draw[0] == draw[1]).all() and (draw[0] != draw[2]).any()
    assert abs(correlation(draw[0], draw[2])) < 0.05


def test_every_pixel_holds_cells():
    for layout in LAYOUTS:
        cells = noise.fibonacci_sphere(noise.count_cells(layout, 16))
        for v in range(layout.count):
            _, pixel = noise._pixel_of(layout, v, cells, 16)
            assert np.bincount(pixel, minlength=256).min() >= 3
