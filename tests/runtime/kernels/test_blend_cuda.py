"""blend.cu and prepare.cu against the float64 reference: on the GPU, or as C++ loops."""

import numpy as np
import pytest

from pano4d.runtime import schedule, tiles
from pano4d.runtime.kernels import blend_cuda
from pano4d.runtime.kernels.blend import BlendPlan, blend
from pano4d.runtime.kernels.blend_cuda import StateShape, TileState, blend_tables
from pano4d.runtime.kernels.blend_ref import blend_ref

LAYOUT = tiles.icosahedron_vertices()
MOVING = np.arange(LAYOUT.count) % 4 != 1
SLOTS, FRAMES = int(MOVING.sum()), 3
SIGMAS = (7.0, 2.5, 0.8)


def inputs(size, element, seed=0):
    """What a run of two steps is given; predictions are what an engine of this precision could write."""
    rng = np.random.default_rng(seed)
    state = (LAYOUT.count, FRAMES, 4, size, size)
    given = {"x": 7 * rng.normal(size=state), "still": rng.normal(size=(LAYOUT.count, 4, size, size)),
             "latents": rng.normal(size=(LAYOUT.count, 4, size, size)), "masks": rng.uniform(size=(*state[:2], size, size))}
    given = {name: values.astype(np.float32) for name, values in given.items()}
    given["v"] = rng.normal(size=(2, 2, *state)).astype(element)
    return given


def make_state(device, size, element, batch, channels=9, guided=True, second_order=True, samples=False,
               unguided_steps=False, reuse=False):
    plan = BlendPlan.build(LAYOUT, size)
    ranks = blend_tables(plan, MOVING, size)[1].shape[0]
    shape = StateShape(LAYOUT.count, SLOTS, FRAMES, size, batch, channels, ranks, guided, second_order, samples,
                       element, unguided_steps, reuse)
    return TileState(device, LAYOUT, MOVING, shape, plan), plan


def by_slot(rows, batch, half, halves):
    """Put rows [G, halves * B, ...] in the order of slots."""
    return rows.reshape(-1, halves, batch, *rows.shape[2:])[:, half].reshape(-1, *rows.shape[2:])[:SLOTS]


def write_predictions(device, state, v, guided):
    halves, batch = 2 if guided else 1, state.shape.tiles_per_call(guided)
    rows = np.zeros((state.shape.calls(guided) * batch, halves, *v.shape[2:]), v.dtype)
    for half in range(halves):
        rows[:SLOTS, half] = v[1 - half if guided else 0][MOVING]  # v[0] conditional, v[1] unconditional
    rows = rows.reshape(-1, batch, halves, *v.shape[2:]).swapaxes(1, 2).reshape(-1, *state.v.shape[1:])
    # An engine that runs less often leaves what it wrote before: nothing may read it.
    left = np.full((state.v.shape[0] - len(rows), *state.v.shape[1:]), np.nan, v.dtype)
    device.upload(np.concatenate([rows, left]), state.v)


@pytest.mark.parametrize("size, element, batch", [(5, "float16", 2), (9, "float32", 4), (8, "float16", 1)])
@pytest.mark.parametrize("guided, second_order, fuse", [
    ((True, True), True, "denoised"), ((False, False), False, "denoised"), ((True, True), True, "sample"),
    ((False, False), False, "sample"), ((True, False), True, "sample"), ((False, True), False, "denoised")])
def test_two_steps_equal_the_reference(device, size, element, batch, guided, second_order, fuse):
    given, guidance = inputs(size, element), np.linspace(1, 3, FRAMES) if any(guided) else None
    state, plan = make_state(device, size, element, batch, guided=any(guided), second_order=second_order,
                             samples=fuse == "sample", unguided_steps=len(set(guided)) > 1)
    rest = (given["x"] - given["still"][:, None])[~MOVING] / np.float32(SIGMAS[0])
    c_in = [schedule.scalings(sigma)[2] for sigma in SIGMAS]
    state.begin(given["x"][MOVING], given["masks"][MOVING], given["latents"][MOVING], given["still"], c_in[0], guidance, rest)
    weights, exact, plain = (0.0, 0.55 if second_order else 0.0), given["x"].astype(np.float64), given["x"]
    before, before_plain = None, None
    for i in range(2):
        v, uncond = given["v"][i]
        options = dict(v_uncond=uncond if guided[i] else None, guidance=guidance, static=~MOVING,
                       static_latents=given["still"], extrapolation=weights[i], fuse=fuse)
        exact, before = blend_ref(LAYOUT, exact, v, SIGMAS[i], SIGMAS[i + 1], previous=before, **options)
        options |= {"v_uncond": uncond.astype(np.float32) if guided[i] else None}
        plain, before_plain = blend(plan, plain, v.astype(np.float32), SIGMAS[i], SIGMAS[i + 1], previous=before_plain,
                                    **options)
        write_predictions(device, state, given["v"][i], guided[i])
        c_skip, c_out, _, _ = schedule.scalings(SIGMAS[i])
        state.step(c_skip, c_out, SIGMAS[i], SIGMAS[i + 1], c_in[i + 1], weights[i], guided[i], guided[-1])
    ours = device.download(state.x).reshape(SLOTS, FRAMES, 4, size, size)
    error, allowed = np.abs(ours - exact[MOVING]).max(), np.abs(plain - exact)[MOVING].max()
    assert error <= 2 * allowed, f"{error:.2e} against {allowed:.2e} in float32"
    halves, batch = 2 if guided[-1] else 1, state.shape.tiles_per_call(guided[-1])
    sample = device.download(state.sample_of(guided[-1])).reshape(-1, halves * batch, FRAMES, 9, size, size)
    for half in range(halves):
        rows = by_slot(sample, batch, half, halves)
        noisy = rows[:, :, 1:5]
        assert (rows[:, :, 0] == given["masks"][MOVING].astype(element)).all()
        assert (rows[:, :, 5:] == (half == halves - 1) * given["latents"][MOVING][:, None].astype(element)).all()
        np.testing.assert_allclose(noisy, c_in[2] * exact[MOVING], rtol=2e-3 if element == "float16" else 1e-5, atol=1e-3)


@pytest.mark.parametrize("channels", [8, 9])
@pytest.mark.parametrize("guided", [True, False])
def test_the_first_input_is_mask_noise_and_image(device, channels, guided):
    size, batch, halves = 5, 2, 2 if guided else 1
    given = inputs(size, "float32")
    state, _ = make_state(device, size, "float32", batch, channels, guided)
    state.begin(given["x"][MOVING], given["masks"][MOVING], given["latents"][MOVING], given["still"], 0.25)
    sample = device.download(state.sample).reshape(state.shape.groups, halves * batch, FRAMES, channels, size, size)
    for half in range(halves):
        rows, known = by_slot(sample, batch, half, halves), half == halves - 1
        if channels == 9:
            assert (rows[:, :, 0] == given["masks"][MOVING]).all()
        assert (rows[:, :, channels - 8:channels - 4] == 0.25 * given["x"][MOVING]).all()
        assert (rows[:, :, channels - 4:] == known * given["latents"][MOVING][:, None]).all()


@pytest.mark.parametrize("size, element, batch", [(5, "float16", 2), (8, "float32", 1)])
@pytest.mark.parametrize("fuse", ["denoised", "sample"])
def test_a_step_with_reused_guidance_equals_the_reference(device, size, element, batch, fuse):
    given, guidance = inputs(size, element), np.linspace(1, 3, FRAMES)
    state, plan = make_state(device, size, element, batch, second_order=False, samples=fuse == "sample",
                             unguided_steps=True, reuse=True)
    rest = (given["x"] - given["still"][:, None])[~MOVING] / np.float32(SIGMAS[0])
    state.begin(given["x"][MOVING], given["masks"][MOVING], given["latents"][MOVING], given["still"], 1.0, guidance, rest)
    difference = (given["v"][0, 0] - given["v"][0, 1]).astype(np.float64)  # rounded as the element is
    v = given["v"][:, 0].astype(np.float64)
    unconditional = (given["v"][0, 1].astype(np.float64), v[1] - difference)
    exact, plain = given["x"].astype(np.float64), given["x"]
    for i, uncond in enumerate(unconditional):
        options = dict(guidance=guidance, static=~MOVING, static_latents=given["still"], fuse=fuse)
        exact, _ = blend_ref(LAYOUT, exact, v[i], SIGMAS[i], SIGMAS[i + 1], v_uncond=uncond, **options)
        plain, _ = blend(plan, plain, v[i].astype(np.float32), SIGMAS[i], SIGMAS[i + 1],
                         v_uncond=uncond.astype(np.float32), **options)
        write_predictions(device, state, given["v"][i], guided=i == 0)
        c_skip, c_out, _, _ = schedule.scalings(SIGMAS[i])
        state.step(c_skip, c_out, SIGMAS[i], SIGMAS[i + 1], 1.0, guided=i == 0, next_guided=False, reused=i == 1)
    ours = device.download(state.x).reshape(SLOTS, FRAMES, 4, size, size)
    error, allowed = np.abs(ours - exact[MOVING]).max(), np.abs(plain - exact)[MOVING].max()
    assert error <= 2 * allowed, f"{error:.2e} against {allowed:.2e} in float32"


@pytest.mark.parametrize("unguided_steps", [False, True])
def test_planned_bytes_are_those_taken(device, unguided_steps):
    state, _ = make_state(device, 5, "float16", 2, unguided_steps=unguided_steps, reuse=unguided_steps)
    assert sum(array.nbytes for array in state._arrays.values()) == state.shape.nbytes
    state.free()


def test_tables_say_what_the_plan_says():
    size = 7
    plan = BlendPlan.build(LAYOUT, size)
    own, taps, shares = blend_tables(plan, np.ones(LAYOUT.count, bool), size)
    values = np.random.default_rng(0).normal(size=own.size + size + 2)[:own.size]
    gathered = own.reshape(-1) * values
    padded = np.append(values, np.zeros(size + 2))  # a share of zero may lie on a tap past the end
    for rank in range(len(taps)):
        at = taps[rank].reshape(-1)
        four = np.stack([padded[np.maximum(at, 0) + step] for step in (0, 1, size, size + 1)], axis=-1)
        gathered += (shares[rank].reshape(-1, 4) * four).sum(axis=1) * (at >= 0)
    wanted = values.copy()
    wanted[plan.pixels] = (plan.weights * values[plan.indices]).sum(axis=1)
    np.testing.assert_allclose(gathered, wanted, atol=1e-6)
