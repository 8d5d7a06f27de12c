"""Layouts cover the sphere; tiles see what they say they see."""

import numpy as np
import pytest

from pano4d.runtime import rings, sphere, tiles
from pano4d.runtime.errors import SettingsError

LAYOUTS = [tiles.icosahedron_vertices(), tiles.icosahedron_faces(), tiles.rings(42.9), tiles.rings(62), tiles.rings(25.5),
           tiles.fewest(50.6)]


def random_directions(count=20_000):
    directions = np.random.default_rng(0).normal(size=(count, 3))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_layouts_cover_the_sphere(layout):
    directions = np.concatenate([random_directions(), [[0, 1, 0], [0, -1, 0], [0, 0, -1]]])
    seen = sum(tiles.project(layout, v, directions, 64)[2].astype(int) for v in range(layout.count))
    assert seen.min() >= 1


def test_counts_are_those_of_the_field():
    assert [layout.count for layout in LAYOUTS[:2]] == [12, 20]
    assert 34 <= tiles.rings(42.9).count <= 42
    assert [tiles.fewest(fov).count for fov in (110, 84, 62, 50.6, 42.9)] == [6, 12, 20, 24, 34]


@pytest.mark.parametrize("width, tile_px, most", [(1024, 256, 12), (2048, 256, 40), (4096, 512, 40), (512, 256, 12),
                                                  (1536, 256, 28), (8192, 512, 160)])
def test_the_chosen_layout_is_about_as_dense_as_the_panorama(width, tile_px, most):
    layout = tiles.layout_for(width, tile_px)
    assert layout.count <= most
    assert layout.focal(tile_px) >= 0.8 * width / (2 * np.pi)


@pytest.mark.parametrize("width, tile_px, auto, fewest", [(4096, 512, 28, 24), (8192, 512, 92, 80), (1024, 256, 12, 12),
                                                          (512, 256, 12, 12)])
def test_the_fewest_tiles_are_no_more_than_the_chosen_ones_and_about_as_dense(width, tile_px, auto, fewest):
    layout = tiles.chosen("fewest", width, tile_px)
    assert (tiles.chosen("auto", width, tile_px).count, layout.count) == (auto, fewest)
    assert layout.focal(tile_px) >= 0.8 * width / (2 * np.pi)


@pytest.mark.parametrize("layout", LAYOUTS[:3], ids=lambda layout: layout.name)
@pytest.mark.parametrize("size", [7, 16])
def test_projecting_a_tile_onto_itself_gives_its_pixels(layout, size):
    directions = tiles.tile_directions(layout, size)
    for v in range(layout.count):
        x, y, inside = tiles.project(layout, v, directions[v], size)
        assert inside.all()
        np.testing.assert_allclose(x, np.arange(size) * np.ones((size, 1)), atol=1e-9)
        np.testing.assert_allclose(y, np.arange(size)[:, None] * np.ones(size), atol=1e-9)


def test_what_is_behind_a_tile_is_not_inside():
    layout = tiles.icosahedron_vertices()
    assert not tiles.project(layout, 0, -tiles.tile_directions(layout, 8)[0], 8)[2].any()


def test_names_round_trip_and_wrong_ones_are_refused():
    for layout in LAYOUTS:
        again = tiles.by_name(layout.name)
        assert again.count == layout.count and again.fov_deg == layout.fov_deg
    for wrong in ("cube", "rings-5", "rings-wide", "faces-200"):
        with pytest.raises(SettingsError):
            tiles.by_name(wrong)


@pytest.mark.parametrize("size", [5, 32, 256])
def test_feather_is_symmetric_positive_and_highest_in_the_middle(size):
    weight = tiles.feather(size)
    assert weight.shape == (size, size) and weight.min() > 0 and weight.max() <= 1
    np.testing.assert_allclose(weight, weight[::-1, ::-1], rtol=1e-6)
    np.testing.assert_allclose(weight, weight.T, rtol=1e-6)
    assert weight[size // 2, size // 2] == weight.max()


def test_extracted_tiles_show_the_direction_they_look_at():
    layout = tiles.icosahedron_faces()
    field = sphere.pixel_directions(128, 256)
    cut = tiles.extract_tiles(field, layout, 16)
    np.testing.assert_allclose(cut, tiles.tile_directions(layout, 16), atol=5e-3)


def test_extraction_does_not_alias():
    stripes = np.zeros((512, 1024, 1), np.uint8)
    stripes[:, ::2] = 255  # finer than any tile of 32 px can show
    cut = tiles.extract_tiles(stripes, tiles.icosahedron_vertices(), 32)
    middle = cut[3, 8:24, 8:24]
    assert abs(middle.mean() - 127.5) < 4 and middle.std() < 16


def test_tile_masks_are_shares_and_no_moving_pixel_is_lost():
    layout = tiles.icosahedron_vertices()
    assert (tiles.tile_masks(np.ones((64, 128), bool), layout, 64, 8) == 1).all()
    assert (tiles.tile_masks(np.zeros((64, 128), bool), layout, 64, 8) == 0).all()
    rng = np.random.default_rng(3)
    for _ in range(20):
        mask = np.zeros((128, 256), bool)
        row, column = rng.integers(8, 120), rng.integers(256)
        mask[row, column] = True
        shares = tiles.tile_masks(mask, layout, 64, 8)
        direction = sphere.pixel_directions(128, 256)[row, column]
        for v in range(layout.count):
            x, y, inside = tiles.project(layout, v, direction, 64)
            if inside:
                cell = shares[v, min(int(y + 0.5) // 8, 7), min(int(x + 0.5) // 8, 7)]
                assert cell > 0, "a single moving pixel must reach the mask of every tile that sees it"


@pytest.mark.parametrize("fov_deg", [38.0, 90.3, 101.4])
def test_rings_leave_no_hole_between_the_points_they_are_tried_on(fov_deg):
    layout = tiles.rings(fov_deg)
    directions = np.random.default_rng(1).standard_normal((200_000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    assert np.any([tiles.project(layout, v, directions, 8)[2] for v in range(layout.count)], axis=0).all()


@pytest.mark.parametrize("fov_deg", [10.0, 21.7, 38.0, 50.6, 90.3, 101.4, 110.0])
def test_the_fewest_tiles_leave_no_hole_and_overlap_by_their_least_share(fov_deg):
    layout = tiles.fewest(fov_deg)
    directions = random_directions(200_000 if fov_deg > 30 else 20_000)
    reach, half = np.full(len(directions), np.inf), np.radians(fov_deg / 2)
    for turn in layout.rotations:
        x, y, z = (directions @ turn).T
        within = np.maximum(np.abs(x), np.abs(y)) <= z * np.tan(half)
        reach[within] = np.minimum(reach[within], (np.maximum(np.abs(x), np.abs(y)) / z)[within])
    assert np.arctan(reach.max()) <= half * (1 - rings.LEAST_OVERLAP) + 1e-9
    assert layout.count == tiles.by_name(layout.name).count == len(np.unique(layout.rotations[:, :, 2].round(6), axis=0))


@pytest.mark.parametrize("fov_deg", [42.9, 62, 84])
def test_rings_mirror_one_another_and_more_overlap_takes_more_tiles(fov_deg):
    found, wider = rings.fewest_rings(fov_deg), rings.fewest_rings(fov_deg, rings.LEAST_OVERLAP + 0.1)
    assert found == [(-pitch, count) for pitch, count in found[::-1]]
    assert sum(count for _, count in wider) > sum(count for _, count in found)


@pytest.mark.parametrize("row, column", [(0, 495), (1, 179), (511, 517), (200, 0)])
def test_a_single_moving_pixel_moves_every_tile_that_sees_it(row, column):
    mask = np.zeros((512, 1024), bool)
    mask[row, column] = True
    layout = tiles.icosahedron_vertices()
    moving = tiles.tile_masks(mask, layout, 256, 8).any(axis=(1, 2))
    seen = [len(tiles.seen_pixels(layout, v, 256, mask)[0]) > 0 for v in range(layout.count)]
    assert any(seen) and moving[seen].all()


def test_seen_pixels_are_those_that_project_onto_the_tile():
    select = np.random.default_rng(2).random((45, 91)) < 0.5
    directions = sphere.pixel_directions(45, 91)[select]
    for layout in (tiles.icosahedron_vertices(), tiles.rings(62.0)):
        for v in range(layout.count):
            flat, x, y = tiles.seen_pixels(layout, v, 16, select)
            want_x, want_y, inside = tiles.project(layout, v, directions, 16)
            np.testing.assert_array_equal(flat, np.flatnonzero(select)[inside])
            np.testing.assert_allclose([x, y], [want_x[inside], want_y[inside]], atol=1e-9)


def test_layouts_of_the_same_views_are_equal():
    one, same, other = tiles.rings(62), tiles.by_name("rings-62"), tiles.rings(62.5)
    assert one == same and hash(one) == hash(same) and one != other and one != "rings-62"


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_seen_directions_are_those_that_project_onto_the_tile(layout):
    directions = random_directions(5000)
    for v in range(layout.count):
        at, x, y = tiles.seen_directions(layout, v, directions, 16)
        want_x, want_y, inside = tiles.project(layout, v, directions, 16)
        np.testing.assert_array_equal(at, np.flatnonzero(inside))
        np.testing.assert_allclose([x, y], [want_x[inside], want_y[inside]], atol=1e-9)
