"""compose.cu and detail.cu against the float64 reference and the CPU path: on the GPU, or as C++ loops."""

import numpy as np
import pytest

from pano4d.runtime import tiles
from pano4d.runtime.kernels import compose as cpu
from pano4d.runtime.kernels import compose_cuda
from pano4d.runtime.kernels.compose_cuda import (
    PATCH_COLUMNS, PATCH_ROWS, Composer, PixelMajor, groups_of, pixel_major_shape, tiles_of_patches)
from pano4d.runtime.kernels.compose_ref import compose_ref
from pano4d.runtime.kernels.detail import keep_detail
from pano4d.runtime.sphere import pixel_directions

FRAMES = 3


def decoded(layout, size, element="float32", seed=0):
    """Decoded tiles, some values past the range."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-1.1, 1.1, (layout.count, FRAMES, 3, size, size)).astype(element)


def levels(values):
    return np.clip(values.astype(np.float64) * 127.5 + 127.5, 0, 255)


def laid_out(device, values):
    """Tiles [n, T, 3, s, s] pixel by pixel."""
    target = device.empty(pixel_major_shape(len(values), values.shape[1], values.shape[-1]), values.dtype)
    PixelMajor(device, values.shape[1], values.shape[-1], values.dtype.name)(device.upload(values), target)
    return target


def composed(device, composer, values, panorama, *more):
    """All frames, chunk by chunk. uint8 [T, H, W, 3]."""
    chunks = composer.run(laid_out(device, values), device.upload(panorama), *more)
    return np.concatenate([device.download(chunk) for chunk in chunks])


def on_cpu(layout, values, select, moving):
    """What the CPU path composes: float32 [T, N, 3], and the share of the moving tiles [N]."""
    plan = cpu.ComposePlan.build(layout, values.shape[-1], *select.shape, select=select)
    acc = np.zeros((FRAMES, int(select.sum()), 3), np.float32)
    share = np.zeros((1, acc.shape[1], 3), np.float32)
    for v in np.flatnonzero(moving):
        cpu.accumulate(plan, v, levels(values[v]).astype(np.float32), acc)
        cpu.accumulate(plan, v, np.ones((1, 3, *values.shape[-2:]), np.float32), share)
    return acc / np.maximum(share, 1e-6), share[0, :, 0], plan


@pytest.mark.parametrize("layout", [tiles.icosahedron_vertices(), tiles.rings(62)], ids=lambda one: one.name)
@pytest.mark.parametrize("height, size, element, each, chunk", [(17, 7, "float32", 7, None), (24, 9, "float16", 2, 2),
                                                                (9, 6, "float16", 1, None)])
def test_composition_equals_the_reference(device, monkeypatch, layout, height, size, element, each, chunk):
    monkeypatch.setattr(compose_cuda, "FRAMES_EACH", each)
    values, everywhere = decoded(layout, size, element), np.ones((height, 2 * height), bool)
    moving = np.ones(layout.count, bool)
    exact = compose_ref(layout, levels(values).reshape(layout.count, -1, size, size), height, 2 * height)
    exact = np.moveaxis(exact.reshape(FRAMES, 3, -1), 1, -1)
    plain, _, _ = on_cpu(layout, values, everywhere, moving)
    composer = Composer(device, layout, moving, everywhere, FRAMES, size, FRAMES, element)
    composer.compose_groups(laid_out(device, values))
    held, (groups, count) = device.download(composer._arrays["composed"]), groups_of(FRAMES)
    ours = np.concatenate([group[:, :3 * count].reshape(-1, count, 3) for group in held], axis=1)[:, :FRAMES] / 256
    assert len(held) == groups and (held[:, :, 3 * count:] == 128 * 255).all()
    # The CPU path places pixels in float64, so a float32 projection is allowed for: 1e-6 of a tile, a step a pixel; and
    # half a unit of 1/256 for what 16 bits hold.
    error = np.abs(np.moveaxis(ours, 0, 1) - exact).max()
    assert error <= 2 * np.abs(plain - exact).max() + 1e-6 * size * 255 + 0.5 / 256
    assert (device.download(composer._arrays["alpha"]) == 1).all()
    panorama = np.zeros((height, 2 * height, 3), np.uint8)
    composer = Composer(device, layout, moving, everywhere, FRAMES, size, chunk, element)
    frames = composed(device, composer, values, panorama)
    assert np.abs(frames.reshape(FRAMES, -1, 3) - exact).max() <= 0.51


@pytest.mark.parametrize("frames, size, element", [(1, 5, "float16"), (7, 13, "float32"), (14, 12, "float16"),
                                                   (25, 3, "float16")])
def test_tiles_are_laid_out_pixel_by_pixel(device, frames, size, element):
    values = np.random.default_rng(0).uniform(-1.5, 1.5, (3, frames, 3, size, size)).astype(element)
    groups, each = groups_of(frames)
    wanted = np.zeros((3, groups * each, 3, size, size), element)
    wanted[:, :frames] = np.clip(values, -1, 1)
    wanted = np.moveaxis(wanted.reshape(3, groups, each * 3, size, size), 2, -1)
    ours = device.download(laid_out(device, values))
    assert ours.nbytes <= wanted.nbytes + 7 * 3 * groups * size**2 * ours.itemsize
    np.testing.assert_array_equal(ours[..., :each * 3], wanted)
    assert (ours[..., each * 3:] == 0).all()


@pytest.mark.parametrize("places", [1, 6])
def test_pixels_that_many_tiles_see_are_gathered_too(device, monkeypatch, places):
    load = compose_cuda.compiler.load_kernels
    monkeypatch.setattr(compose_cuda.compiler, "load_kernels",
                        lambda *asked: load(*asked[:3], {**asked[3], "PLACES": str(places)}))
    layout, (height, width), size = tiles.rings(30), (11, 26), 8  # no pixel lies on the very border of a tile
    values, everywhere = decoded(layout, size), np.ones((height, width), bool)
    acc, _, _ = on_cpu(layout, values, everywhere, np.ones(layout.count, bool))
    composer = Composer(device, layout, np.ones(layout.count, bool), everywhere, FRAMES, size, None, "float32")
    frames = composed(device, composer, values, np.zeros((height, width, 3), np.uint8))
    assert np.abs(frames.reshape(FRAMES, -1, 3) - acc).max() <= 0.51


def test_frames_laid_over_the_input_at_once_equal_those_of_the_cpu_path(device):
    layout, (height, width), size = tiles.rings(62), (17, 38), 7  # no pixel lies on the very border of a tile
    rng = np.random.default_rng(1)
    select, moving = rng.random((height, width)) < 0.6, np.arange(layout.count) % 3 > 0
    panorama, values = rng.integers(0, 256, (height, width, 3), np.uint8), decoded(layout, size)
    acc, share, plan = on_cpu(layout, values, select, moving)
    composer = Composer(device, layout, moving, select, FRAMES, size, 2, "float32")
    for alpha in (None, rng.uniform(0, 1, (height, width)).astype(np.float32)):
        weights = np.zeros((height, width), np.float32)
        weights[select] = share if alpha is None else alpha[select]
        wanted = cpu.compose_frames(acc, plan, panorama, weights)
        ours = composed(device, composer, values[moving], panorama, None if alpha is None else device.upload(alpha[select]))
        difference = np.abs(ours.astype(int) - wanted.astype(int))
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
        assert (ours[:, ~select] == panorama[~select]).all()


@pytest.mark.parametrize("chunk, each", [(None, 7), (2, 7), (None, 2), (1, 2)])
def test_detail_and_still_pixels_equal_the_cpu_path(device, monkeypatch, chunk, each):
    monkeypatch.setattr(compose_cuda, "FRAMES_EACH", each)
    layout, (height, width), size, cell_px = tiles.rings(62), (33, 66), 16, 2.6
    rng = np.random.default_rng(3)
    select = np.zeros((height, width), bool)
    select[3:29, 5:50] = True
    select[10:14, 60:] = True
    moving = tiles.tile_masks(select, layout, size, 4).reshape(layout.count, -1).any(axis=1)
    assert 0 < moving.sum() < layout.count
    panorama = rng.integers(0, 256, (height, width, 3), np.uint8)
    base = tiles.extract_tiles(panorama, layout, size) / 127.5 - 1
    values = (np.moveaxis(base, -1, 1)[:, None] + 0.1 * rng.normal(size=(1, FRAMES, 3, 1, 1))).astype(np.float32)
    alpha = cpu.mask_alpha(select, 2.0)
    acc, _, plan = on_cpu(layout, values, select, moving)
    keep_detail(acc, select, panorama, cell_px)
    wanted = cpu.compose_frames(acc, plan, panorama, alpha)
    composer = Composer(device, layout, moving, select, FRAMES, size, chunk, "float32")
    ours = composed(device, composer, values[moving], panorama, device.upload(alpha[select]), cell_px)
    difference = np.abs(ours.astype(int) - wanted.astype(int))
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
    assert (ours[:, ~select] == panorama[~select]).all()


def test_alpha_is_the_share_of_the_decoded_tiles(device):
    layout, size, everywhere = tiles.icosahedron_vertices(), 7, np.ones((16, 32), bool)
    moving = np.arange(layout.count) % 2 == 0
    values = decoded(layout, size)
    _, share, _ = on_cpu(layout, values, everywhere, moving)
    composer = Composer(device, layout, moving, everywhere, FRAMES, size, None, "float32")
    composed(device, composer, values[moving], np.zeros((16, 32, 3), np.uint8))
    np.testing.assert_allclose(device.download(composer._arrays["alpha"]), share, atol=1e-4)


@pytest.mark.parametrize("layout", [tiles.icosahedron_faces(), tiles.rings(30)], ids=lambda one: one.name)
def test_patches_list_every_tile_that_sees_them(layout):
    height, width = 50, 100
    start, listed = tiles_of_patches(layout, height, width)
    directions, across = pixel_directions(height, width), -(-width // PATCH_COLUMNS)
    row, column = np.arange(height)[:, None] // PATCH_ROWS, np.arange(width) // PATCH_COLUMNS
    for v in range(layout.count):
        has = np.array([v in listed[start[b]:start[b + 1]] for b in range(len(start) - 1)])
        inside = tiles.project(layout, v, directions, 64)[2]
        assert has[(row * across + column)[inside]].all()
    assert len(listed) < 0.7 * layout.count * (len(start) - 1)


def test_planned_bytes_are_those_taken(device):
    layout = tiles.icosahedron_vertices()
    composer = Composer(device, layout, np.ones(layout.count, bool), np.ones((8, 16), bool), FRAMES, 5)
    assert sum(array.nbytes for array in composer._arrays.values()) == composer.shape.nbytes
    composer.free()
