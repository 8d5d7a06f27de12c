"""The figures of merit, on pictures with planted faults."""

import numpy as np
import pytest

from pano4d.runtime import quality, tiles
from pano4d.runtime.sphere import pixel_directions

HEIGHT, WIDTH = 128, 256


def _bytes(picture):
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def test_seam_of_the_input_itself_is_one(sphere_picture):
    reference = _bytes(sphere_picture)
    assert np.array_equal(quality.seam_ratio(np.stack([reference] * 2), reference), [1, 1])


def test_planted_seam_shows(sphere_picture):
    reference = _bytes(sphere_picture)
    ramp = np.linspace(-1, 1, WIDTH)[None, :, None]
    slight, strong = (_bytes(sphere_picture + step * ramp) for step in (4, 12))
    ratios = quality.seam_ratio(np.stack([reference, slight, strong]), reference)
    assert ratios[0] == 1 and 1.25 < ratios[1] < ratios[2]


def test_seam_lost_shows_too(sphere_picture):
    """An input with a seam of its own, closed by the animation, lies below one."""
    ramp = np.linspace(-1, 1, WIDTH)[None, :, None]
    assert quality.seam_ratio(_bytes(sphere_picture)[None], _bytes(sphere_picture + 12 * ramp))[0] < 0.8


def test_motion_makes_no_seam(sphere_picture):
    for shift in (3, 50, 177):
        assert 0.8 < quality.seam_ratio(_bytes(np.roll(sphere_picture, shift, 1))[None], _bytes(sphere_picture))[0] < 1.25


def test_flat_pictures_are_one():
    flat = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    layout = tiles.icosahedron_vertices()
    assert quality.seam_ratio(flat[None], flat)[0] == 1
    assert quality.tile_border_ratio(flat[None], flat, layout)[0] == 1


@pytest.mark.parametrize("layout", [tiles.icosahedron_vertices(), tiles.icosahedron_faces(), tiles.rings()],
                         ids=lambda layout: layout.name)
def test_planted_tile_borders_show(sphere_picture, layout):
    reference = _bytes(sphere_picture)
    patched = sphere_picture + _patchwork(layout, 14)
    moved = np.roll(sphere_picture, 31, 1)
    ratios = quality.tile_border_ratio(np.stack([reference, _bytes(moved), _bytes(patched)]), reference, layout)
    assert ratios[0] == 1 and 0.85 < ratios[1] < 1.2 and ratios[2] > 1.25


def test_borders_are_found_to_the_pixel():
    """A step on the outlines alone, black elsewhere, has no gradient beside the marked pairs."""
    layout = tiles.icosahedron_vertices()
    pairs, _ = quality._border_pairs(layout, HEIGHT, WIDTH, None)
    inside = np.stack([tiles.project(layout, v, pixel_directions(HEIGHT, WIDTH), 256)[2] for v in range(layout.count)])
    inside = inside.astype(bool)
    for axis, (across, beside) in zip((2, 1), pairs):
        split = (inside != np.roll(inside, -1, axis)).any(axis=0)
        if axis == 1:
            split[-1] = False
        split = np.flatnonzero(split)
        missed = np.setdiff1d(split, across)
        assert len(missed) <= 0.03 * len(split) and len(np.setdiff1d(across, split)) <= 0.03 * len(across)
        assert not np.intersect1d(beside, split).size


def test_mask_restricts_the_borders(sphere_picture):
    layout = tiles.icosahedron_vertices()
    reference = _bytes(sphere_picture)
    north = np.zeros((HEIGHT, WIDTH), bool)
    north[:HEIGHT // 2] = True
    patched = _bytes(np.where(north[..., None], sphere_picture + _patchwork(layout, 14), sphere_picture))
    assert quality.tile_border_ratio(patched[None], reference, layout, mask=north)[0] > 1.25
    assert quality.tile_border_ratio(patched[None], reference, layout, mask=~north)[0] == 1
    nothing = np.zeros((HEIGHT, WIDTH), bool)
    assert quality.tile_border_ratio(patched[None], reference, layout, mask=nothing)[0] == 1


def test_static_drift(sphere_picture):
    reference = _bytes(sphere_picture)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[30:60, 40:90] = True
    frames = np.stack([reference] * 3)
    frames[1][mask] = 255 - frames[1][mask]
    frames[2, 0, 0, 1] ^= 8
    assert quality.static_drift(frames, reference, mask).tolist() == [0, 0, 8]
    assert quality.static_drift(frames, reference, np.ones_like(mask)).tolist() == [0, 0, 0]


def test_motion():
    frames = np.zeros((3, 4, 8, 3), np.uint8)
    mask = np.zeros((4, 8), bool)
    mask[:2] = True
    frames[1, :2], frames[2, :2] = 10, 4
    assert quality.motion(frames, mask).tolist() == [10, 6]
    assert quality.motion(frames, ~mask).tolist() == [0, 0]
    assert quality.motion(frames).tolist() == [5, 3]
    assert quality.motion(frames[:1], mask).tolist() == [0]


def _patchwork(layout, levels):
    """Brighten or darken each tile as a whole. float64 [H, W, 1]."""
    rng, directions = np.random.default_rng(1), pixel_directions(HEIGHT, WIDTH)
    total = np.zeros((HEIGHT, WIDTH, 1))
    for v in range(layout.count):
        inside = tiles.project(layout, v, directions, 256)[2]
        total[np.asarray(inside, bool)] += rng.choice([-levels, levels])
    return total
