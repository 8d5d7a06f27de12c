"""Make the networks of diffusers train fast, and exactly enough, in bfloat16 autocast; on a CPU nothing changes."""

from __future__ import annotations

import types

import torch
import torch.nn.functional as F
from torch import nn


def ready(network: nn.Module, flat_time: bool = True, channels_last: bool = False) -> None:
    """Replace forward methods in place; weights and their names stay.

    The layers that read the signals between their constants stay in float32, since bfloat16 keeps 8 bits; the other
    normalisations give what they were given instead of float32.

    Args:
        network: A denoiser, or a decoder of the autoencoder.
        flat_time: Compute convolutions over time as two-dimensional ones.
        channels_last: Keep the two-dimensional convolutions' weights with channels last.
    """
    for name, module in network.named_modules():
        if name in ("conv_out", "time_conv_out"):
            module.forward = types.MethodType(_wide, module)
        elif isinstance(module, nn.Conv3d):
            module.forward = types.MethodType(_flat if flat_time else type(module).forward, module)
        elif isinstance(module, nn.GroupNorm):
            module.forward = types.MethodType(_wide_norm if name == "conv_norm_out" else _narrow, module)
        if isinstance(module, nn.Conv2d):
            layout = torch.channels_last if channels_last else torch.contiguous_format
            module.weight.data = module.weight.data.contiguous(memory_format=layout)


def _wide(self, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return self._conv_forward(x.float(), self.weight, self.bias)


def _wide_norm(self, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return F.group_norm(x.float(), self.num_groups, self.weight, self.bias, self.eps)


def _narrow(self, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


def _flat(self, x: torch.Tensor) -> torch.Tensor:
    pad = (self.padding[0], 0)
    return F.conv2d(x.flatten(3), self.weight[..., 0], self.bias, padding=pad).unflatten(3, x.shape[3:])
