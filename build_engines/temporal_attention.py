"""Attend over the frames of each pixel: a few tokens, very many times.

A program of the Triton kernel takes one head of one pixel. Its frames, padded to 16, are the rows of a matrix: two matrix
products a program, every value read once, written once, and nothing is transposed in memory. Flash attention pads 14
tokens to 128 rows. Several pixels a program were measured too: up to twice as slow, since most of their products are of
frames of different pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # where there is no GPU the plain form serves
    triton = None

PADDED = 16


def attend_over_frames(qkv: Tensor, heads: int) -> Tensor:
    """Let the frames of each pixel attend to one another.

    Args:
        qkv: Query, key and value side by side. [B, T, P, 3 C].
        heads: Number of heads; C is a multiple of it.

    Returns:
        [B, T, P, C].
    """
    if triton is not None and qkv.is_cuda and qkv.shape[1] <= PADDED:
        return torch.ops.pano4d.attend_over_frames(qkv.contiguous(), heads)
    return attend_over_frames_plain(qkv, heads)


def attend_over_frames_plain(qkv: Tensor, heads: int) -> Tensor:
    """Compute ``attend_over_frames`` with the framework's attention."""
    batch, frames, pixels, _ = qkv.shape
    split = qkv.unflatten(3, (3, heads, -1)).permute(3, 0, 2, 4, 1, 5)  # [3, B, P, H, T, d]
    attended = F.scaled_dot_product_attention(*split.flatten(1, 2).unbind(0))  # [B P, H, T, d]
    return attended.unflatten(0, (batch, pixels)).permute(0, 3, 1, 2, 4).flatten(3)


if triton is not None:

    @triton.jit
    def _attend(qkv, out, frames, pixels, heads, scale, DIM: tl.constexpr, PADDED: tl.constexpr):
        pixel, head, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
        frame, channels = tl.arange(0, PADDED), heads * DIM
        there = (frame < frames)[:, None]
        column = head * DIM + tl.arange(0, DIM)[None, :]
        token = ((batch * frames + frame) * pixels + pixel)[:, None]
        at = token * (3 * channels) + column
        q = tl.load(qkv + at, mask=there, other=0.0)
        k = tl.load(qkv + at + channels, mask=there, other=0.0)
        v = tl.load(qkv + at + 2 * channels, mask=there, other=0.0)
        scores = tl.where((frame < frames)[None, :], tl.dot(q, tl.trans(k)) * scale, -1e30)
        weights = tl.exp(scores - tl.max(scores, axis=1)[:, None])
        result = tl.dot(weights.to(v.dtype), v) / tl.sum(weights, axis=1)[:, None]
        tl.store(out + token * channels + column, result.to(out.dtype.element_ty), mask=there)

    @torch.library.triton_op("pano4d::attend_over_frames", mutates_args={})
    def _attend_over_frames(qkv: Tensor, heads: int) -> Tensor:
        batch, frames, pixels, triple = qkv.shape
        dim = triple // 3 // heads
        out = torch.empty(batch, frames, pixels, triple // 3, dtype=qkv.dtype, device=qkv.device)
        torch.library.wrap_triton(_attend)[(pixels, heads, batch)](qkv, out, frames, pixels, heads, dim**-0.5, dim, PADDED,
                                                                   num_warps=1)
        return out
