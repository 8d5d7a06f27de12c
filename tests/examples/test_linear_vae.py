"""Check that the autoencoder set to a linear code computes that code."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import pano4d.examples.demo_model as demo  # noqa: E402
from pano4d.examples.demo_model import networks  # noqa: E402
from pano4d.examples.demo_model.linear_vae import LinearCode, interpolate  # noqa: E402


def test_network_is_the_code():
    torch.manual_seed(0)
    linear = LinearCode.read(Path(demo.__file__).parent / "linear_code.json")
    code, offset = torch.tensor(linear.code), torch.tensor(linear.offset)
    vae = networks.build_vae().eval()
    linear.apply(vae)
    pictures = torch.rand(2, 3, 32, 48) * 2 - 1
    means = torch.nn.functional.avg_pool2d(pictures, 8)
    with torch.no_grad():
        latents = vae.encode(pictures).latent_dist.mode()
        decoded = vae.decode(latents, num_frames=2).sample
    wanted = torch.einsum("cr,brhw->bchw", code, means) + offset[:, None, None]
    border = -(torch.linalg.pinv(code) @ offset)
    assert (latents - wanted).abs().max() < 0.05 * wanted.std()
    assert (decoded - interpolate(means, linear.spread, border)).abs().max() < 0.02
