"""What the denoiser is told, from a device against the CPU, with a stand-in for the model."""

from dataclasses import replace

import numpy as np
import pytest

from pano4d.runtime import backends, tiles
from pano4d.runtime.backends import Engines
from pano4d.runtime.backends.base import Engine
from pano4d.runtime.backends.fake import FakeBundle, FakeEngine
from pano4d.runtime.conditions import condition_tiles
from pano4d.runtime.device import DeviceArray, Scope
from pano4d.runtime.errors import BackendError
from pano4d.runtime.kernels.masks_cuda import tile_masks
from pano4d.runtime.kernels.noise_cuda import sphere_noise
from pano4d.runtime.kernels.resize_cuda import Resizer
from pano4d.runtime.settings import AnimateSettings

LAYOUT = tiles.icosahedron_vertices()


class EngineOnDevice(Engine):
    """The stand-in, with its buffers in the device's memory."""

    device = "cuda"

    def __init__(self, bundle, network, where):
        self.inner, self.where = FakeEngine(bundle, network), where
        self.inputs, self.outputs = self.inner.inputs, self.inner.outputs

    def run(self, buffers, stream=None):
        values = {name: self.where.download(array) for name, array in buffers.items()}
        self.inner.run(values)
        for spec in self.outputs:
            self.where.upload(values[spec.name], buffers[spec.name])


@pytest.fixture(params=[1, 5])
def told(request, device, monkeypatch):
    """Conditions from the CPU and from the device, and what was reported."""
    bundle = FakeBundle(batch=request.param)
    settings = replace(AnimateSettings(width=128, height=64), noise_aug_strength=0.3, seed=4).resolved(bundle.sampler)
    panorama = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    mask = np.zeros((64, 128), bool)
    mask[20:40, 100:], mask[25:44, :30], mask[0, 7] = True, True, True

    def made(on):
        seen = []
        made = condition_tiles(Engines(bundle), LAYOUT, panorama, mask, settings, lambda *done: seen.append(done), on)
        return made, seen

    wanted = made(None)
    monkeypatch.setattr(backends, "load_engine", lambda bundle, network, backend: EngineOnDevice(bundle, network, device))
    return wanted, made(device)


def test_conditions_are_those_of_the_cpu(told):
    (wanted, _), (ours, _) = told
    assert (ours.moving == wanted.moving).all() and not ours.moving.all() and ours.moving.sum() > 2
    np.testing.assert_array_equal(ours.masks, wanted.masks)
    np.testing.assert_allclose(ours.latents, wanted.latents, atol=1e-3)
    np.testing.assert_allclose(ours.embeddings, wanted.embeddings, atol=2e-3)
    np.testing.assert_array_equal(ours.time_ids, wanted.time_ids)
    for name in ("masks", "latents", "embeddings", "time_ids"):
        one, other = getattr(ours, name), getattr(wanted, name)
        assert one.dtype == other.dtype == np.float32 and one.shape == other.shape


def test_progress_is_that_of_the_cpu(told):
    (_, wanted), (_, ours) = told
    assert ours == wanted


def test_nothing_moves(device, monkeypatch):
    bundle = FakeBundle()
    settings = AnimateSettings(width=128, height=64).resolved(bundle.sampler)
    monkeypatch.setattr(backends, "load_engine", lambda bundle, network, backend: EngineOnDevice(bundle, network, device))
    told = condition_tiles(Engines(bundle), LAYOUT, np.full((64, 128, 3), 90, np.uint8), np.zeros((64, 128), bool), settings,
                           device=device)
    assert not told.moving.any() and not told.embeddings.any() and not told.masks.any() and np.isfinite(told.latents).all()


@pytest.mark.parametrize("work", [
    lambda device, mask: [tile_masks(device, mask, LAYOUT, 32, 8)], lambda device, mask: [sphere_noise(device, LAYOUT, 8, 2, 4, 1)],
    lambda device, mask: Resizer(device, 16, 8)._arrays], ids=["masks", "noise", "resize"])
def test_wherever_memory_runs_out_all_of_it_is_given_back(device, monkeypatch, work):
    if not hasattr(device, "blocks"):
        pytest.skip("counted on the host only")
    mask, take, left = device.upload(np.ones((20, 40), bool)), device.empty, [100]

    def empty(shape, dtype) -> DeviceArray:
        left[0] -= 1
        if left[0] < 0:
            raise BackendError("no memory")
        return take(shape, dtype)

    monkeypatch.setattr(device, "empty", empty)
    with Scope(device) as scope:
        for array in work(device, mask):
            scope.hold(array)
    taken = 100 - left[0]
    assert taken >= 3
    for count in range(taken):
        left[0] = count
        with pytest.raises(BackendError, match="no memory"):
            work(device, mask)
        assert list(device.blocks) == [mask.pointer]
