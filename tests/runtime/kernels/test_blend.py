"""blend against its float64 reference, and what must hold for any tiles."""

import numpy as np
import pytest

from pano4d.runtime import tiles
from pano4d.runtime.kernels.blend import BlendPlan, bilinear_taps, blend, fuse
from pano4d.runtime.kernels.blend_ref import bilinear_ref, blend_ref

LAYOUT = tiles.icosahedron_vertices()


def states(size, frames=2, seed=0, layout=LAYOUT):
    rng = np.random.default_rng(seed)
    shape = (layout.count, frames, 4, size, size)
    return [rng.normal(size=shape).astype(np.float32) for _ in range(3)]


@pytest.mark.parametrize("size", [5, 8])
@pytest.mark.parametrize("how", ["denoised", "sample", "none"])
def test_blend_equals_its_reference(size, how):
    x, v, uncond = states(size)
    static = np.arange(LAYOUT.count) % 3 == 0
    latents = np.random.default_rng(1).normal(size=(LAYOUT.count, 4, size, size)).astype(np.float32)
    options = dict(v_uncond=uncond, guidance=np.array([1.0, 3.0], np.float32), static=static, static_latents=latents,
                   fuse=how, previous=10 * uncond, extrapolation=0.6)
    ours = blend(BlendPlan.build(LAYOUT, size), 10 * x, v, 2.0, 0.7, **options)
    exact = blend_ref(LAYOUT, 10 * x, v, 2.0, 0.7, **options)
    for got, wanted in zip(ours, exact, strict=True):
        # float32 throughout: a rounding per term, about 20 terms of magnitude 10.
        assert np.abs(got - wanted).max() <= 2 * 20 * 10 * np.finfo(np.float32).eps
        assert got.dtype == np.float32


@pytest.mark.parametrize("layout", [LAYOUT, tiles.rings(62)], ids=lambda layout: layout.name)
def test_fusing_keeps_what_tiles_agree_on(layout):
    directions = tiles.tile_directions(layout, 16)
    field = np.moveaxis(directions, -1, 1)[:, None].astype(np.float32)  # smooth on the sphere: x, y, z
    fused = fuse(BlendPlan.build(layout, 16), field)
    middle = np.abs(fused - field)[..., 1:-1, 1:-1]
    assert middle.max() < 0.02
    assert np.abs(fused - field).max() < 0.08, "the outermost half pixel is clamped"


def test_fusing_brings_tiles_together():
    x = states(16)[0]
    plan = BlendPlan.build(LAYOUT, 16)
    # A tile-wide offset is what tiles disagree on: it must shrink where they overlap.
    offset = np.ones_like(x) * np.arange(LAYOUT.count, dtype=np.float32)[:, None, None, None, None]
    fused = fuse(plan, offset)
    assert fused.min() >= 0 and fused.max() <= LAYOUT.count - 1
    touched = np.zeros(offset[:, 0, 0].size, bool)
    touched[plan.pixels] = True
    touched = touched.reshape(offset[:, 0, 0].shape)
    assert (fused[:, 0, 0][touched] != offset[:, 0, 0][touched]).mean() > 0.9
    assert (fused[:, 0, 0][~touched] == offset[:, 0, 0][~touched]).all()


def test_weights_are_normalised_and_the_own_pixel_comes_first():
    plan = BlendPlan.build(LAYOUT, 9)
    np.testing.assert_allclose(plan.weights.sum(axis=1), 1, rtol=1e-6)
    assert (plan.indices[:, 0] == plan.pixels).all()
    assert (plan.weights >= 0).all()


def test_the_last_step_of_denoised_fusion_is_the_fused_estimate():
    x, v, _ = states(8)
    plan = BlendPlan.build(LAYOUT, 8)
    done, estimate = blend(plan, x, v, 0.5, 0.0)
    assert (done == estimate).all()
    np.testing.assert_allclose(done, fuse(plan, x / 1.25 - v * 0.5 / np.sqrt(1.25)), atol=1e-5)


def test_inputs_are_not_changed():
    x, v, _ = states(8)
    before = x.copy(), v.copy()
    blend(BlendPlan.build(LAYOUT, 8), x, v, 2.0, 1.0)
    assert (x == before[0]).all() and (v == before[1]).all()


def test_taps_equal_the_reference_at_odd_places():
    rng = np.random.default_rng(2)
    plane = rng.normal(size=(1, 7, 7))
    x, y = rng.uniform(-0.5, 6.5, (2, 200))
    taps, shares = bilinear_taps(x, y, 7)
    ours = (plane.reshape(-1)[taps] * shares).sum(axis=1)
    exact = [bilinear_ref(plane, *at)[0] for at in zip(x, y)]
    np.testing.assert_allclose(ours, exact, atol=1e-12)


def test_a_plan_is_kept_for_equal_layouts():
    assert BlendPlan.build(tiles.rings(62), 8) is BlendPlan.build(tiles.rings(62), 8)
    assert BlendPlan.build(tiles.rings(62), 9) is not BlendPlan.build(tiles.rings(62), 8)
