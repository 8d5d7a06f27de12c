"""Start the autoencoder from an exact linear one, so that training only has to sharpen it.

The encoder averages cells of 4x4 pixels: luminance, two colour differences, and the difference of a cell's upper and
lower half. The decoder interpolates them. Residual branches start at zero, and normalisation is made transparent:

    a group of three channels holds (signal, K, -K); its mean is a third of the signal's, its deviation K sqrt(2/3), so
    the normalised signal minus the mean of the other two, scaled back, is the signal again, brightness and all.

With one or two channels a group, normalisation removes every picture's own brightness and colour, and a small
network never learns to get them past it: that is why the outermost levels have 96 channels. (Pairs (x, -x) far below
the square root of the normalisation's epsilon pass 64 channels too and save a third of the decoder's time, but leave
values of 1e-4 to float16, and residual branches may not touch them: sharpening is what the branches are for.)

The encoder stays as it is. Training moves the decoder, all but its wires: see `decoder_wires`.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor, nn

from pano4d.examples.demo_model.wires import Wires

CHANNELS = (96, 64, 96)
GROUPS = 32
CONSTANT, LIFT = 40.0, 12.0
LOG_VARIANCE = -8.0
# Rows: luminance, blue-yellow, red-green of RGB in [-1, 1], scaled to about unit deviation over natural colours.
COLOURS = torch.tensor([[0.50, 0.90, 0.25], [-1.60, -1.60, 3.20], [3.40, -2.80, -0.60]])
DETAIL = 8.0
SIGNALS = 4


def make_autoencoder() -> AutoencoderKLTemporalDecoder:
    """Make the autoencoder with linear weights: 4 pixels a cell and axis, 4 latent channels.

    Returns:
        The network, float32.
    """
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=list(CHANNELS), down_block_types=["DownEncoderBlock2D"] * len(CHANNELS), layers_per_block=1,
        latent_channels=4, sample_size=128, scaling_factor=1.0)
    with torch.no_grad():
        for module in vae.modules():
            _silence_branch(module)
            _pass_shortcut(module)
        _fill_encoder(vae)
        _fill_decoder(vae.decoder)
    return vae


def encode_cells(clips: Tensor) -> Tensor:
    """Compute what the linear encoder gives, from a picture with 2 pixels per cell and axis instead of 4.

    Args:
        clips: float32 [..., 3, 2h, 2w] in [0, 1].

    Returns:
        Latents. float32 [..., 4, h, w].
    """
    *lead, _, height, width = clips.shape
    cells = (clips * 2 - 1).reshape(*lead, 3, height // 2, 2, width // 2, 2).mean(-1)  # [..., 3, h, 2, w]
    colours = torch.einsum("oc,...chw->...ohw", COLOURS.to(clips), cells.mean(-2))
    luma = torch.einsum("c,...chrw->...hrw", COLOURS[0].to(clips), cells)
    detail = DETAIL * (luma[..., 0, :] - luma[..., 1, :]) / 2
    return torch.cat([colours, detail[..., None, :, :]], dim=-3)


def decoder_wires(vae: AutoencoderKLTemporalDecoder) -> Wires:
    """List the decoder's weights that training must leave: what makes, keeps and reads the constants.

    A constant is 40 times the size of a signal; a step of the optimiser on every weight that reads it would throw
    the picture's brightness about, and one that moves it would cost it its exactness in bfloat16.
    """
    decoder, wires = vae.decoder, Wires()
    wires.hold(decoder.conv_in, rows=_constants(decoder.conv_in.out_channels))
    for module in decoder.modules():
        kind = type(module).__name__
        if kind in ("ResnetBlock2D", "TemporalResnetBlock"):
            wires.hold(module.conv2, rows=_constants(module.conv2.out_channels))
        if kind == "Attention":
            wires.hold(module.to_out[0], rows=_constants(module.to_out[0].out_features))
        path = module.conv if kind == "Upsample2D" else getattr(module, "conv_shortcut", None)
        if isinstance(path, nn.Conv2d):
            wires.hold(path, rows=_constants(path.out_channels), columns=_constants(path.in_channels))
    taken = torch.cat([_signal(CHANNELS[0]), _constants(CHANNELS[0])])
    wires.hold(decoder.conv_norm_out, rows=taken)
    wires.hold(decoder.conv_out, columns=taken)
    return wires


def _constants(channels: int) -> Tensor:
    """List the channels of the signals' groups that hold K or -K."""
    return torch.cat([_signal(channels) + offset for offset in range(1, channels // GROUPS)])


def _signal(channels: int) -> Tensor:
    """List the channel of each signal: the first of its group."""
    return torch.arange(SIGNALS) * (channels // GROUPS)


def _silence_branch(module: nn.Module) -> None:
    """Zero the last layer of a residual branch: the block starts as the identity."""
    kind = type(module).__name__
    last = module.conv2 if kind in ("ResnetBlock2D", "TemporalResnetBlock") else None
    last = module.to_out[0] if kind == "Attention" else last
    if last is not None:
        nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)


def _pass_shortcut(module: nn.Module) -> None:
    """Carry signals and constants through a residual block that changes the number of channels."""
    conv = getattr(module, "conv_shortcut", None)
    if isinstance(conv, nn.Conv2d):
        source, target = _signal(conv.in_channels), _signal(conv.out_channels)
        nn.init.zeros_(conv.bias)
        conv.weight[:, _constants(conv.in_channels)] = 0  # the constants go nowhere else
        conv.weight[target] = 0
        conv.weight[target, source] = 1
        _set_constants(conv, target)


def _set_constants(conv: nn.Conv2d, signal: Tensor) -> None:
    """Make the other channels of the signals' groups K, and -K where there is a third."""
    for offset, value in ((1, CONSTANT), (2, -CONSTANT)):
        if offset < conv.out_channels // GROUPS:
            conv.weight[signal + offset], conv.bias[signal + offset] = 0, value


def _enter(conv: nn.Conv2d, rows: Tensor) -> None:
    """Read signals from the input, one row of weights [SIGNALS, inputs] each."""
    signal = _signal(conv.out_channels)
    nn.init.zeros_(conv.bias)
    conv.weight[signal] = 0
    conv.weight[signal, :, 1, 1] = rows
    _set_constants(conv, signal)


def _filter(conv: nn.Conv2d, kernels: Tensor) -> None:
    """Filter each signal by its kernel [SIGNALS, 3, 3] between two levels."""
    signal = _signal(conv.out_channels)
    nn.init.zeros_(conv.bias)
    conv.weight[:, signal] = 0
    conv.weight[:, _constants(conv.in_channels)] = 0
    conv.weight[signal] = 0
    conv.weight[signal, signal] = kernels
    _set_constants(conv, signal)


def _leave(norm: nn.GroupNorm, conv: nn.Conv2d, rows: Tensor) -> None:
    """Undo the last normalisation and read the output from the signals, rows [outputs, SIGNALS]."""
    signal, scale = _signal(conv.in_channels), CONSTANT * (2 / 3) ** 0.5
    norm.bias.zero_(), norm.weight.fill_(1)
    for offset in range(3):
        # Every channel comes to lie about the lift, past the bend of SiLU and no further: rounding grows with values.
        norm.weight[signal + offset], norm.bias[signal + offset] = scale, LIFT - (0, CONSTANT, -CONSTANT)[offset]
    nn.init.zeros_(conv.weight)
    conv.weight[:, signal, 1, 1] = rows
    for offset in (1, 2):
        conv.weight[:, signal + offset, 1, 1] = -rows / 2
    conv.bias.zero_()


def _fill_encoder(vae: nn.Module) -> None:
    encoder = vae.encoder
    _enter(encoder.conv_in, torch.cat([COLOURS, COLOURS[:1]]))  # the second luminance becomes the detail
    pair = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]) / 4
    split = DETAIL * pair * torch.tensor([[1.0], [-1.0], [0.0]])
    downs = [block.downsamplers[0].conv for block in encoder.down_blocks[:-1]]
    for level, conv in enumerate(downs):
        _filter(conv, torch.stack([pair, pair, pair, split if level == len(downs) - 1 else pair]))
    _leave(encoder.conv_norm_out, encoder.conv_out, torch.eye(8, SIGNALS))
    nn.init.zeros_(vae.quant_conv.weight), nn.init.zeros_(vae.quant_conv.bias)
    vae.quant_conv.weight[:4, :4, 0, 0] = torch.eye(4)
    vae.quant_conv.bias[4:] = LOG_VARIANCE


def _fill_decoder(decoder: nn.Module) -> None:
    _enter(decoder.conv_in, torch.eye(4))
    smooth = torch.tensor([0.25, 0.5, 0.25])  # after doubling by repetition: bilinear about cell centres
    for block in decoder.up_blocks[:-1]:
        _filter(block.upsamplers[0].conv, torch.outer(smooth, smooth).repeat(SIGNALS, 1, 1))
    _leave(decoder.conv_norm_out, decoder.conv_out, torch.cat([torch.linalg.inv(COLOURS), torch.zeros(3, 1)], dim=1))
    nn.init.zeros_(decoder.time_conv_out.weight), nn.init.zeros_(decoder.time_conv_out.bias)
    decoder.time_conv_out.weight[:, :, 1, 0, 0] = torch.eye(3)
