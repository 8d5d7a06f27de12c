"""The cheaper modules compute what the modules of diffusers compute."""

import copy

import pytest

torch = pytest.importorskip("torch")

from diffusers.models.activations import GEGLU  # noqa: E402
from diffusers.models.resnet import AlphaBlender, SpatioTemporalResBlock, TemporalResnetBlock  # noqa: E402
from torch import nn  # noqa: E402

from pano4d.build_engines.checkpoint import read_checkpoint  # noqa: E402
from pano4d.build_engines.networks import example_inputs, network_specs, reference_module, tile_shape  # noqa: E402
from pano4d.build_engines.shortcuts import SpatioTemporalBlock, simplify  # noqa: E402


def randomised(module):
    """Draw every parameter, also those that start at 0 or 1 and would hide a mistake."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.eval().requires_grad_(False)


def both(module, *arguments, **options):
    cheap = simplify(copy.deepcopy(nn.Sequential(module)))[0]
    assert type(cheap) is not type(module)
    return cheap(*arguments, **options), module(*arguments, **options)


@pytest.mark.parametrize("channels", [32, 96])
@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 4, 3)])
def test_group_normalisation(channels, shape):
    module = randomised(nn.GroupNorm(32, channels, eps=1e-3))
    torch.testing.assert_close(*both(module, torch.randn(2, channels, *shape)), rtol=1e-4, atol=1e-5)


def test_gated_gelu():
    torch.testing.assert_close(*both(randomised(GEGLU(8, 12)), torch.randn(2, 5, 8)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strategy", ["learned", "fixed", "learned_with_images"])
@pytest.mark.parametrize("switched", [False, True])
@pytest.mark.parametrize("embedded", [16, None])
def test_spatio_temporal_block(strategy, switched, embedded):
    module = randomised(SpatioTemporalResBlock(32, 64, embedded, merge_strategy=strategy,
                                               switch_spatial_to_temporal_mix=switched))
    x, temb = torch.randn(2 * 3, 32, 4, 5), None if embedded is None else torch.randn(6, embedded)
    cheap, true = both(module, x, temb, image_only_indicator=torch.zeros(2, 3))
    torch.testing.assert_close(cheap, true, rtol=1e-4, atol=1e-4)


def test_convolution_over_frames():
    module = randomised(nn.Conv3d(3, 5, (3, 1, 1), padding=(1, 0, 0)))
    torch.testing.assert_close(*both(module, torch.randn(2, 3, 4, 6, 5)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("network", ["vae_encoder", "unet", "vae_decoder"])
@pytest.mark.parametrize("batch", [1, 2])
def test_whole_networks(masked, network, batch):
    checkpoint = read_checkpoint(masked)
    specs = network_specs(checkpoint, tile_shape(checkpoint, None, 3, batch))[network][0]
    module = randomised(reference_module(checkpoint, network))
    arguments = [torch.from_numpy(array) for array in example_inputs(specs).values()]
    true = module(*arguments)
    cheap = simplify(module)
    left = {type(part) for part in cheap.modules()} & {GEGLU, nn.GroupNorm, nn.Conv3d, SpatioTemporalResBlock, AlphaBlender,
                                                       TemporalResnetBlock}
    assert left <= {AlphaBlender, TemporalResnetBlock}, "a block of diffusers was not recognised"
    assert network == "vae_encoder" or any(isinstance(part, SpatioTemporalBlock) for part in cheap.modules())
    torch.testing.assert_close(cheap(*arguments), true, rtol=1e-3, atol=1e-3 * float(true.abs().max()))
