"""The blocks that keep channels last compute what the blocks of diffusers compute, and move nothing in memory."""

import importlib.util

import pytest

torch = pytest.importorskip("torch")

from diffusers.models.resnet import SpatioTemporalResBlock  # noqa: E402
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel  # noqa: E402
from diffusers.models.upsampling import Upsample2D  # noqa: E402
from torch import nn  # noqa: E402

from pano4d.build_engines import channels_last, temporal_attention, temporal_convolution  # noqa: E402
from pano4d.build_engines.checkpoint import read_checkpoint  # noqa: E402
from pano4d.build_engines.networks import example_inputs, network_specs, reference_module, tile_shape  # noqa: E402

FRAMES = 3


def randomised(module):
    """Draw every parameter, also those that start at 0 or 1 and would hide a mistake."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.eval().requires_grad_(False)


def is_channels_last(x):
    return x.is_contiguous(memory_format=torch.channels_last)


def pictures(*shape):
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(2, 64, 5, 3), (2, 64, 7)])
def test_group_normalisation(shape):
    norm, x = randomised(nn.GroupNorm(32, 64, eps=1e-3)), 5 + torch.randn(shape)
    torch.testing.assert_close(channels_last.PictureNorm(norm)(x), norm(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("switched", [False, True])
@pytest.mark.parametrize("embedded", [16, None])
def test_spatio_temporal_block(monkeypatch, switched, embedded, few):
    monkeypatch.setattr(temporal_convolution, "suits", lambda *_: few)
    block = randomised(SpatioTemporalResBlock(32, 64, embedded, switch_spatial_to_temporal_mix=switched))
    x, temb = pictures(2 * FRAMES, 32, 4, 5), None if embedded is None else torch.randn(2 * FRAMES, embedded)
    still = torch.zeros(2, FRAMES)
    ours = channels_last.keep_channels_last(channels_last.SpatioTemporalBlock(block), FRAMES)(x, temb, still)
    torch.testing.assert_close(ours, block(x, temb, still), rtol=1e-4, atol=1e-4)
    assert is_channels_last(ours)


@pytest.mark.parametrize("heads", [1, 2])
def test_transformer(heads):
    model = randomised(TransformerSpatioTemporalModel(heads, 32, in_channels=32 * heads, num_layers=2, cross_attention_dim=8))
    x, context = pictures(2 * FRAMES, 32 * heads, 4, 5), torch.randn(2, 1, 8).repeat_interleave(FRAMES, dim=0)
    ours = channels_last.Transformer(model, FRAMES)(x, context, torch.zeros(2, FRAMES))[0]
    true = model(x, context, torch.zeros(2, FRAMES), return_dict=False)[0]
    torch.testing.assert_close(ours, true, rtol=1e-3, atol=1e-3 * float(true.abs().max()))
    assert is_channels_last(ours)


@pytest.mark.parametrize("batch", [2, 65])
def test_upsampling(batch):
    upsample, x = randomised(Upsample2D(8, use_conv=True, out_channels=8)), pictures(batch, 8, 4, 5)
    ours = channels_last.Upsample(upsample)(x)
    torch.testing.assert_close(ours, upsample(x), rtol=1e-4, atol=1e-4)
    assert is_channels_last(ours)


@pytest.mark.parametrize("network", ["vae_encoder", "unet", "vae_decoder"])
@pytest.mark.parametrize("batch", [1, 2])
def test_whole_networks(masked, network, batch):
    checkpoint = read_checkpoint(masked)
    specs = network_specs(checkpoint, tile_shape(checkpoint, None, FRAMES, batch))[network][0]
    module = randomised(reference_module(checkpoint, network))
    arguments = [torch.from_numpy(array) for array in example_inputs(specs).values()]
    true = module(*arguments)
    ours = channels_last.keep_channels_last(module, FRAMES)
    left = {type(part) for part in ours.modules()}
    assert not left & {nn.GroupNorm, nn.Conv3d, SpatioTemporalResBlock, TransformerSpatioTemporalModel, Upsample2D} - (
        {nn.Conv3d} if network == "vae_decoder" else set()), "a block of diffusers was not recognised"
    torch.testing.assert_close(ours(*arguments), true, rtol=1e-3, atol=1e-3 * float(true.abs().max()))


@pytest.mark.parametrize("heads, dim", [(1, 8), (3, 16)])
def test_attention_over_frames_attends_within_a_pixel_only(heads, dim):
    qkv = torch.randn(2, 5, 7, 3 * heads * dim)
    ours = temporal_attention.attend_over_frames(qkv, heads)
    q, k, v = (part.unflatten(3, (heads, dim)).double() for part in qkv.chunk(3, dim=3))
    weights = (torch.einsum("bfphd,bgphd->bphfg", q, k) * dim**-0.5).softmax(dim=-1)
    exact = torch.einsum("bphfg,bgphd->bfphd", weights, v).flatten(3)
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("frames, pixels, heads", [(14, 64, 5), (14, 61, 2), (3, 5, 1), (16, 8, 1)])
def test_the_kernel_over_frames_is_as_exact_as_its_precision(frames, pixels, heads):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    qkv = torch.randn(2, frames, pixels, 3 * heads * 64, device="cuda", dtype=torch.float16)
    ours = temporal_attention.attend_over_frames(qkv, heads)
    exact = temporal_attention.attend_over_frames_plain(qkv.double(), heads)
    plain = temporal_attention.attend_over_frames_plain(qkv, heads)
    assert (ours - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-3


def clips(frames, pixels, channels, device, dtype):
    shapes = (2, frames * pixels, channels), (3, channels, channels), (channels,)
    x, weight, bias = (torch.randn(shape, device=device).to(dtype) for shape in shapes)
    return x, weight * (3 * channels) ** -0.5, bias, frames


def test_convolution_over_frames_is_that_of_the_framework():
    x, weight, bias, frames = clips(5, 7, 16, "cpu", torch.float64)
    taken = x.unflatten(1, (frames, -1)).permute(0, 3, 1, 2)
    exact = torch.nn.functional.conv2d(taken, weight.permute(2, 1, 0)[..., None], bias, padding=(1, 0))
    ours = temporal_convolution.convolve_over_frames(x, weight, bias, frames)
    torch.testing.assert_close(ours, exact.permute(0, 2, 3, 1).flatten(1, 2))


@pytest.mark.gpu
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("frames, pixels, channels", [(14, 1024, 128), (3, 130, 128), (1, 7, 16), (5, 128, 64)])
def test_the_convolution_kernel_is_as_exact_as_its_precision(frames, pixels, channels):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    given = clips(frames, pixels, channels, "cuda", torch.float16)
    exact = temporal_convolution.convolve_over_frames_plain(*(part.double() for part in given[:3]), frames)
    plain = temporal_convolution.convolve_over_frames_plain(*given)
    assert (temporal_convolution.convolve_over_frames(*given) - exact).abs().max() <= 2 * (plain - exact).abs().max()
