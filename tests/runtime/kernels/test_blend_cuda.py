"""blend.cu and prepare.cu against the float64 reference: on the GPU, or as C++ loops."""

import numpy as np
import pytest

from pano4d.runtime import schedule, tiles
from pano4d.runtime.kernels import blend_cuda
from pano4d.runtime.kernels.blend import BlendPlan, blend, fuse as fuse_tiles
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
               unguided_steps=False, reuse=False, tail=False):
    plan = BlendPlan.build(LAYOUT, size)
    ranks = blend_tables(plan, MOVING, size)[1].shape[0]
    shape = StateShape(LAYOUT.count, SLOTS, FRAMES, size, batch, channels, ranks, guided, second_order, samples,
                       element, unguided_steps, reuse, tail)
    return TileState(device, LAYOUT, MOVING, shape, plan), plan


def give_in(element, monkeypatch):
    """Let the CPU path round what is fused to what the kernel gives it in."""
    monkeypatch.setattr("pano4d.runtime.kernels.blend._fuse",
                        lambda plan, values: fuse_tiles(plan, values.astype(element).astype(np.float32)))


def calls_of(state, guided, slots=SLOTS):
    """What the engines' calls hold, row by row: slot and half, or None; the calls of a step one after another."""
    shape = state if isinstance(state, StateShape) else state.shape
    batch = shape.batch if guided == shape.guided else 2 * shape.batch
    calls = [list(range(slots))[first:first + batch] for first in range(0, slots, batch)]
    if shape.tail and guided == shape.guided and len(calls[-1]) <= batch / 2:
        calls += [[slot] for slot in calls.pop()]
    else:
        calls[-1] += [None] * (batch - len(calls[-1]))
    return [[None if slot is None else (slot, half) for half in range(2 if guided else 1) for slot in call] for call in calls]


def rows_of(state, guided):
    """Find the rows of the slots, by half."""
    rows = sum(calls_of(state, guided), [])
    return [[rows.index((slot, half)) for slot in range(SLOTS)] for half in range(2 if guided else 1)]


def write_predictions(device, state, v, guided):
    # What an engine wrote for nobody, or left there when it ran more often: nothing may read it.
    rows = np.full((state.v.shape[0], *v.shape[2:]), np.nan, v.dtype)
    for half, of_slots in enumerate(rows_of(state, guided)):
        rows[of_slots] = v[1 - half if guided else 0][MOVING]  # v[0] conditional, v[1] unconditional
    device.upload(rows, state.v)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("tail, guided, unguided_steps", [(False, True, True), (True, True, True), (True, False, False),
                                                          (False, False, False)])
def test_tiles_are_laid_out_in_calls(batch, tail, guided, unguided_steps):
    for slots in range(1, 20):
        shape = StateShape(20, slots, 2, 4, batch, 9, 1, guided, True, unguided_steps=unguided_steps, tail=tail)
        for step in {guided, False}:
            calls, (full, single) = calls_of(shape, step, slots), shape.first_rows(step)
            rows, starts = sum(calls, []), [sum(map(len, calls[:i])) for i in range(len(calls))]
            assert [*full, *single] == starts and shape.rows(step) == len(rows) <= shape.arrays()["v"][0][0]
            assert [rows[at] for at in shape.rows_of_slots(step).ravel()] == [
                (slot, half) for half in range(2 if step else 1) for slot in range(slots)]
            assert shape.arrays()["sample" if step == guided else "unguided_sample"][0][0] == len(rows)
        assert len(shape.first_rows(guided)[1]) == shape.tail_tiles(guided) <= batch // 2


@pytest.mark.parametrize("size, element, batch, tail", [
    (5, "float16", 2, False), (9, "float32", 4, False), (8, "float16", 1, False), (5, "float16", 2, True),
    (7, "float32", 4, True)])
@pytest.mark.parametrize("guided, second_order, fuse", [
    ((True, True), True, "denoised"), ((False, False), False, "denoised"), ((True, True), True, "sample"),
    ((False, False), False, "sample"), ((True, False), True, "sample"), ((False, True), False, "denoised")])
def test_two_steps_equal_the_reference(device, monkeypatch, size, element, batch, tail, guided, second_order, fuse):
    given, guidance = inputs(size, element), np.linspace(1, 3, FRAMES) if any(guided) else None
    give_in(element, monkeypatch)
    state, plan = make_state(device, size, element, batch, guided=any(guided), second_order=second_order,
                             samples=fuse == "sample", unguided_steps=len(set(guided)) > 1, tail=tail)
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
    assert error <= 2 * allowed, f"{error:.2e} against {allowed:.2e}"
    sample = device.download(state.sample_of(guided[-1])).reshape(-1, FRAMES, 9, size, size)
    halves = 2 if guided[-1] else 1
    for half, of_slots in enumerate(rows_of(state, guided[-1])):
        rows = sample[of_slots]
        noisy = rows[:, :, 1:5]
        assert (rows[:, :, 0] == given["masks"][MOVING].astype(element)).all()
        assert (rows[:, :, 5:] == (half == halves - 1) * given["latents"][MOVING][:, None].astype(element)).all()
        np.testing.assert_allclose(noisy, c_in[2] * exact[MOVING], rtol=2e-3 if element == "float16" else 1e-5,
                                   atol=1e-3 + 2 * c_in[2] * allowed)


@pytest.mark.parametrize("channels", [8, 9])
@pytest.mark.parametrize("guided, tail", [(True, False), (False, False), (True, True), (False, True)])
def test_the_first_input_is_mask_noise_and_image(device, channels, guided, tail):
    size, batch, halves = 5, 4 if tail else 2, 2 if guided else 1
    given = inputs(size, "float32")
    state, _ = make_state(device, size, "float32", batch, channels, guided, tail=tail)
    state.begin(given["x"][MOVING], given["masks"][MOVING], given["latents"][MOVING], given["still"], 0.25)
    sample = device.download(state.sample).reshape(-1, FRAMES, channels, size, size)
    for half, of_slots in enumerate(rows_of(state, guided)):
        rows, known = sample[of_slots], half == halves - 1
        if channels == 9:
            assert (rows[:, :, 0] == given["masks"][MOVING]).all()
        assert (rows[:, :, channels - 8:channels - 4] == 0.25 * given["x"][MOVING]).all()
        assert (rows[:, :, channels - 4:] == known * given["latents"][MOVING][:, None]).all()


@pytest.mark.parametrize("size, element, batch", [(5, "float16", 2), (8, "float32", 1)])
@pytest.mark.parametrize("fuse", ["denoised", "sample"])
def test_a_step_with_reused_guidance_equals_the_reference(device, monkeypatch, size, element, batch, fuse):
    given, guidance = inputs(size, element), np.linspace(1, 3, FRAMES)
    give_in(element, monkeypatch)
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
    assert error <= 2 * allowed, f"{error:.2e} against {allowed:.2e}"


@pytest.mark.parametrize("unguided_steps, tail", [(False, False), (True, False), (False, True), (True, True)])
def test_planned_bytes_are_those_taken(device, unguided_steps, tail):
    state, _ = make_state(device, 5, "float16", 4, unguided_steps=unguided_steps, reuse=unguided_steps, tail=tail)
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
