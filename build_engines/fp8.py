"""Compute the transformers' matrix products in fp8: weights rounded once, activations as they come.

Both are e4m3, a floating type: relative precision is the same from 2^-6 to 448, so that no scale has to be calibrated as
long as values keep within. What a layer norm or a gated unit gives does; what does not is clamped. One scale a weight.
Products are summed in float32, the result is float16.
"""

import torch
from torch import Tensor, nn

from pano4d.build_engines.channels_last import Feed, SelfAttention

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max
HEADROOM = 28.0
"""Largest activation that is kept: 448 / 16."""


class Fp8Linear(nn.Module):
    """Multiply by a weight in fp8.

    Args:
        linear: What to compute, for inference only. Features in and out are multiples of 16.
        largest: Largest activation that need not be clamped.
    """

    def __init__(self, linear: nn.Linear, largest: float = HEADROOM) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax().clamp(min=1e-12) / LARGEST
        self.register_buffer("weight", (weight / scale).clamp(-LARGEST, LARGEST).to(E4M3))
        self.register_buffer("weight_scale", scale.reshape(1, 1))
        self.register_buffer("input_scale", torch.full_like(self.weight_scale, largest / LARGEST))
        self.gain, self.bias = LARGEST / largest, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rounded = (x.float() * self.gain).clamp(-LARGEST, LARGEST).to(E4M3)
        made = torch._scaled_mm(rounded.flatten(0, -2), self.weight.t(), scale_a=self.input_scale, scale_b=self.weight_scale,
                                bias=self.bias, out_dtype=x.dtype, use_fast_accum=True)
        return made.unflatten(0, x.shape[:-1])


def use_fp8(module: nn.Module) -> nn.Module:
    """Replace the large matrix products of transformer blocks, in place.

    Args:
        module: A network of which ``keep_channels_last`` has replaced the blocks, on the device that it will run on and in
            its precision.

    Returns:
        The same module.
    """
    for part in module.modules():
        if isinstance(part, Feed):
            part.enter, part.leave = Fp8Linear(part.enter), Fp8Linear(part.leave, LARGEST)
        elif isinstance(part, SelfAttention):
            part.qkv, part.out = Fp8Linear(part.qkv), Fp8Linear(part.out)
    return module
