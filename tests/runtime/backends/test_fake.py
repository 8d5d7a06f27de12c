"""The stand-in: its autoencoder undoes itself, its denoiser knows the answer."""

import numpy as np
import pytest

from pano4d.runtime.backends import load_engine
from pano4d.runtime.backends.fake import FakeBundle
from pano4d.runtime.bundle import Bundle


def run(bundle, network, **inputs):
    with load_engine(bundle, network) as engine:
        buffers = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in (*engine.inputs, *engine.outputs)}
        for name, value in inputs.items():
            buffers[name][:] = value
        engine.run(buffers)
        return buffers[engine.outputs[0].name]


def denoised(bundle, x, sigma, latents, mask):
    """What the denoiser's v says of the clean latent."""
    channels = bundle.network("unet").inputs[0].shape[2]
    mask = np.broadcast_to(mask, (1, *x.shape[1:2], 1, *x.shape[3:]))
    parts = [mask][:channels - 8] + [x / np.sqrt(sigma**2 + 1), np.broadcast_to(latents[:, None], x.shape)]
    v = run(bundle, "unet", sample=np.concatenate(parts, axis=2), c_noise=0.25 * np.log(sigma))
    return x / (sigma**2 + 1) - v * sigma / np.sqrt(sigma**2 + 1)


def test_it_is_a_bundle_without_files():
    bundle = FakeBundle(tile_px=32, frames=3)
    assert isinstance(bundle, Bundle)
    assert bundle.sha256 == FakeBundle(tile_px=32, frames=3).sha256 != FakeBundle().sha256
    assert bundle.manifest["model"]["masked"] and not FakeBundle(channels=8).manifest["model"]["masked"]


def test_the_decoder_undoes_the_encoder():
    bundle = FakeBundle(frames=1)
    colour = np.array([0.3, -0.6, 0.9], np.float32)[None, :, None, None]
    latents = run(bundle, "vae_encoder", pixels=colour)
    pixels = run(bundle, "vae_decoder", latents=latents[:, None])
    np.testing.assert_allclose(pixels[0], np.broadcast_to(colour, pixels[0].shape), atol=1e-6)


@pytest.mark.parametrize("sigma", [0.01, 1.0, 80.0])
def test_still_cells_are_the_image_latent(sigma):
    bundle, generator = FakeBundle(), np.random.default_rng(0)
    latents = generator.standard_normal((1, 4, 8, 8)).astype(np.float32)
    x = sigma * generator.standard_normal((1, 4, 4, 8, 8)).astype(np.float32)
    mask = np.zeros((1, 4, 1, 8, 8), np.float32)
    mask[..., 4:] = 1.0
    result = denoised(bundle, x, sigma, latents, mask)
    still = bundle.sampler["scaling_factor"] * latents[:, None]
    np.testing.assert_allclose(result[..., :4], np.broadcast_to(still, x.shape)[..., :4], atol=2e-4 * max(sigma, 1))
    assert np.abs(np.diff(result[..., 4:], axis=1)).mean() > 0.01


def test_another_noise_gives_another_answer():
    bundle, latents = FakeBundle(channels=8), np.zeros((1, 4, 8, 8), np.float32)
    noises = np.random.default_rng(0).standard_normal((2, 1, 4, 4, 8, 8)).astype(np.float32)
    first, second = (denoised(bundle, x, 1.0, latents, 1.0) for x in noises)
    assert (first[:, 1:] != second[:, 1:]).any()
    np.testing.assert_allclose(first[:, 0], 0, atol=1e-6)


@pytest.mark.parametrize("bundle", [FakeBundle(channels=8, batch=3), FakeBundle(max_guidance_scale=3.0, batch=2)],
                         ids=["batch", "guided"])
def test_every_network_runs_at_other_shapes(bundle):
    for name in bundle.manifest["networks"]:
        assert np.isfinite(run(bundle, name)).all()
