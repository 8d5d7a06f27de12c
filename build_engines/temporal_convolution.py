"""Convolve over the frames of each pixel with few channels: as much data as a GPU can move, and little to compute.

A program of the Triton kernel takes a block of pixels of one frame, all their channels: three matrix products, with the
frame before, the frame itself and the one after. Programs of neighbouring frames of the same pixels run side by side, so
that two of the three come from the cache. cuDNN's convolutions over (frames, pixels) take several times what the
memory lets at 128 channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # where there is no GPU the plain form serves
    triton = None

MOST_CHANNELS = 128
BLOCK, DEPTH, WARPS, STAGES = 128, 64, 8, 3
"""Pixels of a program, channels of a step of its products, warps, and steps on their way."""


def suits(channels: int, out_channels: int) -> bool:
    """Say whether the kernel takes so many channels."""
    return triton is not None and channels == out_channels <= MOST_CHANNELS and channels >= 16 and not channels & channels - 1


def convolve_over_frames(clips: Tensor, weight: Tensor, bias: Tensor, frames: int) -> Tensor:
    """Convolve the frames of each pixel with three taps, zeros beyond the first and the last.

    Args:
        clips: Tokens, frame by frame. [B, T P, C].
        weight: One matrix a tap: for the frame before, the frame itself, the one after. [3, C, C'].
        bias: [C'].
        frames: T.

    Returns:
        [B, T P, C'].
    """
    if clips.is_cuda and suits(*weight.shape[1:]):
        return torch.ops.pano4d.convolve_over_frames(clips.contiguous(), weight, bias, frames)
    return convolve_over_frames_plain(clips, weight, bias, frames)


def convolve_over_frames_plain(clips: Tensor, weight: Tensor, bias: Tensor, frames: int) -> Tensor:
    """Compute ``convolve_over_frames`` with the framework's products."""
    pixels = clips.shape[1] // frames
    before, after = F.pad(clips[:, :-pixels], (0, 0, pixels, 0)), F.pad(clips[:, pixels:], (0, 0, 0, pixels))
    return before @ weight[0] + clips @ weight[1] + after @ weight[2] + bias


if triton is not None:

    @triton.jit
    def _convolve(x, weight, bias, out, frames, pixels, CHANNELS: tl.constexpr, DEPTH: tl.constexpr, BLOCK: tl.constexpr):
        frame, batch = tl.program_id(0), tl.program_id(2).to(tl.int64)
        pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside, channel = pixel < pixels, tl.arange(0, CHANNELS)
        total = tl.zeros((BLOCK, CHANNELS), tl.float32)
        for tap in tl.static_range(3):
            other = frame + tap - 1
            there = (inside & (other >= 0) & (other < frames))[:, None]
            row = ((batch * frames + other) * pixels + pixel)[:, None] * CHANNELS
            for first in tl.static_range(0, CHANNELS, DEPTH):
                depth = first + tl.arange(0, DEPTH)
                values = tl.load(x + row + depth[None, :], mask=there, other=0.0)
                shares = tl.load(weight + (tap * CHANNELS + depth)[:, None] * CHANNELS + channel[None, :])
                total = tl.dot(values, shares, total)
        total += tl.load(bias + channel)[None, :]
        at = ((batch * frames + frame) * pixels + pixel)[:, None] * CHANNELS + channel[None, :]
        tl.store(out + at, total.to(out.dtype.element_ty), mask=inside[:, None])

    @torch.library.triton_op("pano4d::convolve_over_frames", mutates_args={})
    def _convolve_over_frames(clips: Tensor, weight: Tensor, bias: Tensor, frames: int) -> Tensor:
        batch, tokens, channels = clips.shape
        out, pixels = torch.empty_like(clips), tokens // frames
        torch.library.wrap_triton(_convolve)[(frames, triton.cdiv(pixels, BLOCK), batch)](
            clips, weight, bias, out, frames, pixels, channels, min(DEPTH, channels), BLOCK, num_warps=WARPS,
            num_stages=STAGES)
        return out
