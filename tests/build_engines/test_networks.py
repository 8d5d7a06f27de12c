"""Shapes of a bundle, and the modules that are exported."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pano4d.build_engines.checkpoint import read_checkpoint  # noqa: E402
from pano4d.build_engines.networks import (example_inputs, network_specs, reference_module,  # noqa: E402
                                           tile_shape)
from pano4d.runtime.errors import CheckpointError  # noqa: E402


@pytest.mark.parametrize("kind, channels, batch", [("masked", 9, 2), ("stock", 8, 4)])
def test_guidance_doubles_the_batch_of_the_denoiser(kind, channels, batch, request):
    checkpoint = read_checkpoint(request.getfixturevalue(kind))
    specs = network_specs(checkpoint, tile_shape(checkpoint, 24, 3, 2), tail=True)
    assert [spec.shape for spec in specs["unet"][0]] == [(batch, 3, channels, 12, 12), (batch,), (batch, 1, 8), (batch, 3)]
    assert specs["unet"][1][0].shape == (batch, 3, 4, 12, 12)
    single = batch // 2
    assert [spec.shape for spec in specs["unet_tail"][0]] == [(single, 3, channels, 12, 12), (single,), (single, 1, 8), (single, 3)]
    assert specs["unet_tail"][1][0].shape == (single, 3, 4, 12, 12)
    assert list(specs) == ["image_encoder", "vae_encoder", "unet", "unet_tail", "vae_decoder"], "the first is built first"
    assert specs["vae_encoder"][0][0].shape == (2, 3, 24, 24)
    assert specs["vae_decoder"][1][0].shape == (1, 3, 3, 24, 24), "the decoder takes one tile at a time"


@pytest.mark.parametrize("kind", ["masked", "stock"])
def test_modules_have_the_shapes_that_are_stated(kind, request):
    checkpoint = read_checkpoint(request.getfixturevalue(kind))
    for name, (inputs, outputs) in network_specs(checkpoint, tile_shape(checkpoint, 8, 3, 2), tail=True).items():
        module = reference_module(checkpoint, name)
        with torch.no_grad():
            result = module(*(torch.from_numpy(array) for array in example_inputs(inputs).values()))
        assert tuple(result.shape) == outputs[0].shape, name


def test_the_encoder_gives_the_mode(masked):
    from diffusers import AutoencoderKLTemporalDecoder

    pixels = torch.rand(1, 3, 16, 16)
    vae = AutoencoderKLTemporalDecoder.from_pretrained(masked / "vae")
    with torch.no_grad():
        expected = vae.encode(pixels).latent_dist.mode()
        torch.testing.assert_close(reference_module(read_checkpoint(masked), "vae_encoder")(pixels), expected)


def test_example_inputs_are_the_same_each_time(masked):
    checkpoint = read_checkpoint(masked)
    inputs = network_specs(checkpoint, tile_shape(checkpoint, None, None, 1))["unet"][0]
    first, again, other = example_inputs(inputs), example_inputs(inputs), example_inputs(inputs, seed=1)
    assert all((first[name] == again[name]).all() and first[name].dtype == np.float32 for name in first)
    assert (first["sample"] != other["sample"]).any()


@pytest.mark.parametrize("px, offered", [(18, 16), (2, 4), (1, 4)])
def test_tiles_that_the_networks_cannot_halve_are_refused(masked, px, offered):
    with pytest.raises(CheckpointError, match=f"multiple of 4 px: try --tile-px {offered}"):
        tile_shape(read_checkpoint(masked), px, None, 1)


@pytest.mark.parametrize("frames, batch", [(-1, 1), (2, 0)])
def test_shapes_without_frames_or_tiles_are_refused(masked, frames, batch):
    with pytest.raises(CheckpointError, match="at least 1"):
        tile_shape(read_checkpoint(masked), None, frames, batch)
