"""Start the denoiser so that what it is given reaches its output past the last normalisation.

Residual branches start at zero. The noisy and the image latents travel from the first convolution through the last
skip connection to the last one, each in a group of three channels (signal, K, -K) that normalisation cannot flatten
(see `autoencoder`). At first the network predicts v = -image latent: what it is shown, standing still. Training moves
everything but the wires, `denoiser_wires`; residual branches may still add to the eight signals.
"""

from __future__ import annotations

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import nn

from pano4d.examples.demo_model.autoencoder import CONSTANT, GROUPS, LIFT
from pano4d.examples.demo_model.wires import Wires

WIDTHS = (96, 96, 128)
NUM_FRAMES, LATENT_PX, EMBED_DIM = 14, 32, 96
NOISY, IMAGE = slice(1, 5), slice(5, 9)


def make_denoiser() -> UNetSpatioTemporalConditionModel:
    """Make the denoiser; its 9 input channels are mask 1, noisy latent 4, image latent 4.

    Attention stands at the middle level only, where tokens are few; the outer level convolves in space and time.

    Returns:
        The network, float32.
    """
    unet = UNetSpatioTemporalConditionModel(
        sample_size=LATENT_PX, in_channels=9, out_channels=4,
        down_block_types=("DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"),
        block_out_channels=WIDTHS, addition_time_embed_dim=64, projection_class_embeddings_input_dim=192,
        layers_per_block=1, cross_attention_dim=EMBED_DIM, num_attention_heads=tuple(w // 32 for w in WIDTHS),
        num_frames=NUM_FRAMES)
    with torch.no_grad():
        for module in unet.modules():
            if type(module).__name__ in ("ResnetBlock2D", "TemporalResnetBlock"):
                module.conv2.weight.mul_(0.1), nn.init.zeros_(module.conv2.bias)
        _carry_inputs(unet)
    return unet


def denoiser_wires(unet: UNetSpatioTemporalConditionModel) -> Wires:
    """List the weights that training must leave: those of the eight signals' path, and what would read a constant."""
    wires, (signal, constants, taken), width = Wires(), _channels(), WIDTHS[0]
    last = unet.up_blocks[-1].resnets
    wires.hold(unet.conv_in, rows=taken)
    wires.hold(unet.down_blocks[0].downsamplers[0].conv, columns=constants)
    wires.hold(_shortcut(last[0]), columns=_shortcut(last[0]).in_channels - width + constants)
    wires.hold(_shortcut(last[-1]), rows=taken, columns=_shortcut(last[-1]).in_channels - width + constants)
    for branch in (last[-1].spatial_res_block, last[-1].temporal_res_block):
        wires.hold(branch.conv2, rows=constants)
    wires.hold(unet.conv_norm_out, rows=taken)
    wires.hold(unet.conv_out, columns=taken)
    return wires


def _channels() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """List the channels of the eight signals, of their constants, and of both."""
    signal = torch.arange(8) * (WIDTHS[0] // GROUPS)
    constants = torch.cat([signal + 1, signal + 2])
    return signal, constants, torch.cat([signal, constants])


def _shortcut(block: nn.Module) -> nn.Conv2d:
    return block.spatial_res_block.conv_shortcut


def _carry_inputs(unet: nn.Module) -> None:
    """Lay the eight signals through conv_in, the last skip connection, and conv_out."""
    signal, constants, taken = _channels()
    _enter(unet.conv_in, signal, taken)
    unet.down_blocks[0].downsamplers[0].conv.weight[:, constants] = 0
    last = unet.up_blocks[-1].resnets
    for block in (last[0], last[-1]):
        shortcut = _shortcut(block)
        skipped = shortcut.in_channels - WIDTHS[0]  # the skip connection comes after the hidden state
        shortcut.weight[:, skipped + constants] = 0
    shortcut.weight[taken] = 0
    shortcut.weight[taken, skipped + taken] = 1
    shortcut.bias[taken] = 0
    for branch in (last[-1].spatial_res_block, last[-1].temporal_res_block):
        branch.conv2.weight[constants] = 0
    _leave(unet.conv_norm_out, unet.conv_out, signal)


def _enter(enter: nn.Conv2d, signal: torch.Tensor, taken: torch.Tensor) -> None:
    """Read the noisy and the image latents into the signals, and set their constants."""
    enter.weight[taken] = 0
    for k, source in enumerate((*range(*NOISY.indices(9)), *range(*IMAGE.indices(9)))):
        enter.weight[signal[k], source, 1, 1] = 1
    enter.bias[signal], enter.bias[signal + 1], enter.bias[signal + 2] = 0, CONSTANT, -CONSTANT


def _leave(norm: nn.GroupNorm, leave: nn.Conv2d, signal: torch.Tensor) -> None:
    """Undo the last normalisation and give minus the image's signals."""
    for offset, level in enumerate((0, CONSTANT, -CONSTANT)):
        norm.weight[signal + offset], norm.bias[signal + offset] = CONSTANT * (2 / 3) ** 0.5, LIFT - level
        leave.weight[:, signal + offset] = 0
    leave.weight.mul_(0.1), nn.init.zeros_(leave.bias)
    for k, image in enumerate(signal[4:]):
        leave.weight[k, image, 1, 1] = -1
        leave.weight[k, image + 1, 1, 1] = leave.weight[k, image + 2, 1, 1] = 0.5
