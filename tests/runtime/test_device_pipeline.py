"""The pipeline on a device against the pipeline on the CPU, with a stand-in for the model.

Without a GPU the kernels' source runs as C++ loops over NumPy memory (`kernels/host_device.py`).
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from pano4d.runtime import backends, device_pipeline, schedule, tiles
from pano4d.runtime.backends.base import Engine
from pano4d.runtime.backends.fake import FakeBundle, FakeEngine
from pano4d.runtime.conditions import Conditions
from pano4d.runtime.errors import DeviceMemoryError, SettingsError
from pano4d.runtime.pipeline import Animator
from pano4d.runtime.settings import AnimateSettings

SETTINGS = AnimateSettings(width=128, height=64)


class EngineOnDevice(Engine):
    """The stand-in, with its buffers in the device's memory."""

    device, loaded, runs = "cuda", set(), Counter()

    def __init__(self, bundle, network, where):
        self.inner, self.where, self.network = FakeEngine(bundle, network), where, network
        self.inputs, self.outputs = self.inner.inputs, self.inner.outputs
        self.loaded.add(self)

    def close(self):
        self.loaded.discard(self)

    def run(self, buffers, stream=None):
        if all(isinstance(array, np.ndarray) for array in buffers.values()):  # the CPU's pipeline, for comparison
            return self.inner.run(buffers)
        values = {name: self.where.download(array) for name, array in buffers.items()}
        self.runs[self.network] += 1
        self.inner.run(values)
        for spec in self.outputs:
            self.where.upload(values[spec.name], buffers[spec.name])


@pytest.fixture
def on_device(device, monkeypatch):
    monkeypatch.setattr(backends, "load_engine", lambda bundle, network, backend: EngineOnDevice(bundle, network, device))
    return device


@pytest.fixture(scope="module")
def panorama():
    rng = np.random.default_rng(0)
    coarse = rng.uniform(30, 220, (9, 16, 3))
    smooth = np.kron(coarse[:8], np.ones((8, 8, 1)))
    return np.round(smooth + rng.normal(size=(64, 128, 3)) * 4).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def mask():
    mask = np.zeros((64, 128), bool)
    mask[16:44, 110:] = True
    mask[20:40, :20] = True
    return mask


BUNDLES = {
    "plain": dict(), "batched": dict(batch=3), "guided": dict(max_guidance_scale=3.0, batch=2), "8-channels": dict(channels=8)}


@pytest.mark.parametrize("kind", BUNDLES)
@pytest.mark.parametrize("solver, fuse", [("euler", "sample"), ("dpmpp-2m", "denoised"), ("dpmpp-2m", "sample"), ("lcm", "sample")])
def test_frames_are_those_of_the_cpu(on_device, panorama, mask, kind, solver, fuse):
    bundle, settings = FakeBundle(**BUNDLES[kind]), replace(SETTINGS, solver=solver, fuse=fuse)
    wanted = Animator(bundle, settings).animate(panorama, mask)
    seen = []
    ours = Animator(bundle, settings, device=on_device).animate(panorama, mask, lambda *told: seen.append(told))
    error = np.abs(ours.frames.astype(int) - wanted.frames)
    assert error.max() <= 1 and (error > 0).mean() < 0.01
    assert (ours.frames[:, ~mask] == panorama[~mask]).all()
    np.testing.assert_allclose(ours.latents[ours.moving_tiles], wanted.latents[wanted.moving_tiles], atol=2e-3)
    assert {stage: done == total for stage, done, total in seen} == {"encode": True, "denoise": True, "decode": True}


GUIDED = dict(batch=2, max_guidance_scale=3.0, steps=5)
LEVELS = schedule.karras_sigmas(5, 0.01, 80.0)


@pytest.mark.parametrize("fuse, reuse", [("denoised", 0), ("sample", 0), ("sample", 1), ("denoised", 2)])
@pytest.mark.parametrize("interval", [(LEVELS[3], LEVELS[1]), (LEVELS[1], 100.0), (0.0, LEVELS[3]), (100.0, 200.0)],
                         ids=["middle", "first", "last", "none"])
def test_frames_with_a_guidance_interval_are_those_of_the_cpu(on_device, panorama, mask, interval, fuse, reuse):
    settings = replace(SETTINGS, solver="dpmpp-2m", guidance_interval=interval, fuse=fuse, guidance_reuse=reuse)
    wanted = Animator(FakeBundle(**GUIDED), settings).animate(panorama, mask)
    ours = Animator(FakeBundle(**GUIDED), settings, device=on_device).animate(panorama, mask)
    np.testing.assert_allclose(ours.latents[ours.moving_tiles], wanted.latents[wanted.moving_tiles], atol=2e-3)
    assert np.abs(ours.frames.astype(int) - wanted.frames).max() <= 1


def test_an_interval_of_all_levels_changes_nothing_on_a_device(on_device, panorama, mask):
    plain, all_levels = (Animator(FakeBundle(**GUIDED), replace(SETTINGS, guidance_interval=interval), device=on_device)
                         .animate(panorama, mask) for interval in (None, (0.0, 100.0)))
    assert (plain.latents == all_levels.latents).all()


def told_of(count, layout, bundle, seed=0):
    """Random conditions of which the last tiles move, and a first state."""
    rng, size = np.random.default_rng(seed), bundle.tile["latent_px"]
    state = (layout.count, bundle.tile["frames"], 4, size, size)

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    told = Conditions(np.arange(layout.count) >= layout.count - count, rng.random((*state[:2], size, size), np.float32),
                      normal(layout.count, 4, size, size), normal(layout.count, 1, 8), np.array([6, 127, 0.02], np.float32))
    return told, 80 * normal(*state)


def denoised(device, bundle, count, **settings):
    """Denoise this many tiles; the last state, and how often each engine ran."""
    layout, settings = tiles.icosahedron_vertices(), replace(SETTINGS, **settings).resolved(bundle.sampler)
    sigmas = schedule.noise_levels(settings.levels, settings.steps, bundle.sampler)
    guided = bundle.sampler["max_guidance_scale"] > 1.0
    what = device_pipeline.Denoising(backends.Engines(bundle), layout, settings, guided, sigmas)
    EngineOnDevice.runs.clear()
    return device_pipeline.denoise(device, what, *told_of(count, layout, bundle)), dict(EngineOnDevice.runs)


@pytest.fixture
def embedded(monkeypatch):
    """Let the stand-in for the denoiser answer to all that it is told."""
    plain = FakeEngine._unet
    monkeypatch.setattr(FakeEngine, "_unet", lambda self, sample, c_noise, embeddings, ids: plain(
        self, sample, c_noise, embeddings, ids) + (embeddings[..., 0] * ids[:, :1])[:, :, None, None, None])


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("batch", [2, 3, 4])
def test_tiles_left_over_run_one_by_one_and_give_the_same_bytes(on_device, embedded, batch, guidance):
    like = dict(tile_px=32, frames=2, batch=batch, max_guidance_scale=guidance, steps=2)
    for count in range(1, 10):
        wanted, whole = denoised(on_device, FakeBundle(**like), count)
        ours, runs = denoised(on_device, FakeBundle(**like, tail=True), count)
        assert ours.tobytes() == wanted.tobytes() and whole == {"unet": 2 * -(-count // batch)}
        full, left = divmod(count, batch)
        expected = {"unet": full + 1} if left > batch / 2 else {"unet": full, "unet_tail": left}
        assert runs == {name: 2 * calls for name, calls in expected.items() if calls}, count
        assert not EngineOnDevice.loaded


@pytest.mark.parametrize("fuse, solver, reuse", [("sample", "dpmpp-2m", 0), ("denoised", "euler", 1)])
@pytest.mark.parametrize("interval", [(LEVELS[3], LEVELS[1]), (LEVELS[1], 100.0), (0.0, LEVELS[3]), (100.0, 200.0)],
                         ids=["middle", "first", "last", "none"])
def test_steps_without_guidance_run_no_tile_alone(on_device, embedded, interval, fuse, solver, reuse):
    like, options = dict(GUIDED, tile_px=32, frames=2, batch=4), dict(fuse=fuse, solver=solver, guidance_reuse=reuse)
    for count in (1, 2, 5, 9):
        wanted, whole = denoised(on_device, FakeBundle(**like), count, guidance_interval=interval, **options)
        ours, runs = denoised(on_device, FakeBundle(**like, tail=True), count, guidance_interval=interval, **options)
        assert ours.tobytes() == wanted.tobytes()
        alone = runs.get("unet_tail", 0)
        assert alone % (count % 4) == 0 and whole["unet"] - runs.get("unet", 0) == alone // (count % 4)


def test_an_engine_for_one_tile_stays_open_in_a_block(on_device, panorama, mask):
    bundle = FakeBundle(batch=7, tail=True, max_guidance_scale=2.0)
    animator = Animator(bundle, SETTINGS, device=on_device)
    once = animator.animate(panorama, mask)
    assert len(once.moving_tiles) == 8 and not EngineOnDevice.loaded
    with animator:
        for _ in range(2):
            assert animator.animate(panorama, mask).frames.tobytes() == once.frames.tobytes()
            assert sorted(engine.network for engine in EngineOnDevice.loaded) == sorted(bundle.manifest["networks"])
    assert not EngineOnDevice.loaded


@pytest.mark.parametrize("policy", ["trained", "soft"])
def test_other_mask_policies(on_device, panorama, mask, policy):
    settings = replace(SETTINGS, mask_policy=policy)
    wanted = Animator(FakeBundle(), settings).animate(panorama, mask).frames
    ours = Animator(FakeBundle(), settings, device=on_device).animate(panorama, mask).frames
    error = np.abs(ours.astype(int) - wanted)
    assert error.max() <= 1 and (error > 0).mean() < 0.01


@pytest.mark.parametrize("kind", ["batched", "guided"])
def test_two_stages(on_device, panorama, mask, kind):
    bundle, settings = FakeBundle(tile_px=16, **BUNDLES[kind]), replace(SETTINGS, stages="coarse-fine")
    wanted = Animator(bundle, settings).animate(panorama, mask)
    ours = Animator(bundle, settings, device=on_device).animate(panorama, mask)
    for one, other in ((ours, wanted), (ours.coarse, wanted.coarse)):
        error = np.abs(one.frames.astype(int) - other.frames)
        assert error.max() <= 1 and (error > 0).mean() < 0.01
    assert (ours.frames[:, ~mask] == panorama[~mask]).all()
    assert not getattr(on_device, "blocks", None)


def test_a_loop_closes_as_on_the_cpu(on_device, panorama, mask):
    settings = replace(SETTINGS, loop=True)
    wanted = Animator(FakeBundle(), settings).animate(panorama, mask)
    ours = Animator(FakeBundle(), settings, device=on_device).animate(panorama, mask)
    plain = Animator(FakeBundle(), SETTINGS, device=on_device).animate(panorama, mask)
    assert np.abs(ours.frames.astype(int) - wanted.frames).max() <= 1
    assert np.array_equal(ours.frames[:2], plain.frames[:2]) and (ours.frames[2:] != plain.frames[2:]).any()


def test_nothing_moves_in_two_stages(on_device, panorama):
    settings = replace(SETTINGS, stages="coarse-fine")
    frames = Animator(FakeBundle(tile_px=16), settings, device=on_device).animate(panorama, np.zeros((64, 128), bool)).frames
    assert (frames == panorama).all()


def test_nothing_moves(on_device, panorama):
    still = np.zeros((64, 128), bool)
    frames = Animator(FakeBundle(), SETTINGS, device=on_device).animate(panorama, still).frames
    assert (frames == panorama).all()


def test_the_same_seed_gives_the_same_bytes(on_device, panorama, mask):
    first, again = (Animator(FakeBundle(), SETTINGS, device=on_device).animate(panorama, mask).frames for _ in range(2))
    other = Animator(FakeBundle(), replace(SETTINGS, seed=1), device=on_device).animate(panorama, mask).frames
    assert (first == again).all() and (first != other).any()


def test_decoded_tiles_come_to_the_host(on_device, panorama, mask):
    animator = Animator(FakeBundle(batch=2), SETTINGS, device=on_device)
    result = animator.animate(panorama, mask)
    ours = {v: pixels.copy() for v, pixels in animator.decode_tiles(result.latents, result.moving_tiles)}
    wanted = {v: pixels.copy() for v, pixels in Animator(FakeBundle(), SETTINGS).decode_tiles(result.latents, result.moving_tiles)}
    assert ours.keys() == wanted.keys()
    for v in wanted:
        np.testing.assert_allclose(ours[v], wanted[v], atol=1e-3)


def test_all_memory_is_given_back(on_device, panorama, mask):
    if not hasattr(on_device, "blocks"):
        pytest.skip("counted on the host only")
    settings = replace(SETTINGS, guidance_interval=(1.0, 100.0), guidance_reuse=1)
    Animator(FakeBundle(max_guidance_scale=2.0), settings, device=on_device).animate(panorama, mask)
    assert not on_device.blocks


def test_wherever_memory_runs_out_all_of_it_is_given_back(on_device, panorama, mask):
    if not hasattr(on_device, "blocks"):
        pytest.skip("counted on the host only")
    animator = Animator(FakeBundle(max_guidance_scale=2.0, batch=7, steps=1, tail=True), SETTINGS, device=on_device)
    on_device.left = 1000
    animator.animate(panorama, mask)
    taken = 1000 - on_device.left
    assert taken > 40
    for count in range(taken):
        on_device.left = count
        with pytest.raises(DeviceMemoryError):
            animator.animate(panorama, mask)
        assert not on_device.blocks, f"after {count} arrays {len(on_device.blocks)} are left"
        assert not EngineOnDevice.loaded, f"after {count} arrays engines are left"


@pytest.mark.parametrize("network", ["image_encoder", "vae_encoder", "unet", "vae_decoder"])
def test_wherever_an_engine_fails_all_memory_is_given_back(on_device, panorama, mask, network, monkeypatch):
    if not hasattr(on_device, "blocks"):
        pytest.skip("counted on the host only")

    def full(*arrays):
        raise DeviceMemoryError

    monkeypatch.setattr(FakeEngine, f"_{network}", full)
    with pytest.raises(DeviceMemoryError):
        Animator(FakeBundle(batch=2), SETTINGS, device=on_device).animate(panorama, mask)
    assert not on_device.blocks and not EngineOnDevice.loaded


def test_frames_composed_in_chunks_are_the_same(on_device, panorama, mask):
    animator = Animator(FakeBundle(frames=9), SETTINGS, device=on_device)
    told = animator.animate(panorama, mask)
    moving = np.zeros(animator.layout.count, bool)
    moving[told.moving_tiles] = True
    frames = []
    for chunk in (None, 2, 6):
        pixels = device_pipeline.decode(on_device, backends.Engines(animator.bundle), told.latents[moving])
        frames.append(device_pipeline.compose(on_device, animator.layout, moving, pixels, 9, panorama, mask, None, 8.0,
                                              chunk))
        on_device.free(pixels)
    assert (frames[0] == frames[1]).all() and (frames[0] == frames[2]).all() and (frames[0] != panorama).any()


def test_tiles_are_always_fused_on_a_device(on_device):
    with pytest.raises(SettingsError, match="bundle for the CPU"):
        Animator(FakeBundle(), replace(SETTINGS, fuse="none"), device=on_device)


def test_in_a_block_engines_stay_open_and_results_the_same(on_device, panorama, mask, monkeypatch):
    loaded, closed, load = [], [], backends.load_engine

    def counted(bundle, network, backend):
        engine = load(bundle, network, backend)
        loaded.append(network)
        engine.close = lambda: closed.append(network)
        return engine

    monkeypatch.setattr(backends, "load_engine", counted)
    once = Animator(FakeBundle(), SETTINGS, device=on_device).animate(panorama, mask)
    assert len(loaded) == len(closed) == 4
    taken = on_device.allocated_bytes
    with Animator(FakeBundle(), SETTINGS, device=on_device) as animator:
        for _ in range(2):
            assert animator.animate(panorama, mask).frames.tobytes() == once.frames.tobytes()
        assert sorted(loaded[4:]) == sorted(loaded[:4]) and len(closed) == 4
    assert sorted(closed[4:]) == sorted(loaded[4:])
    assert on_device.allocated_bytes == taken
