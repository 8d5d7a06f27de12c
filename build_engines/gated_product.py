"""Multiply and gate in one pass: hidden * gelu(gate), of which one product gives both.

    hidden, gate = x W^T + b                     what is twice as wide as the result is never written
    gelu(g) = max(g, 0) - |g| Phi(-|g|)          Phi is the normal distribution's, log2 Phi(-z) a polynomial

A program of the Triton kernel takes a block of rows and, of a block of the result's columns, hidden and gate side by side:
column 2 c is the hidden part of result c and 2 c + 1 its gate, so that one product fills one accumulator and the two meet in
the registers of one thread. Weights stay as they are: each row of them is found where it lies. Programs of a few blocks
of rows go through all columns together, so that both operands come from the cache.

The error function takes 40 instructions a value and the polynomial 17, where a product of depth 320 takes as long as 40.
It is off by 4e-7, a hundredth of what the result's float16 tells apart.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # where there is no GPU the plain form serves
    triton = None


class Tile(NamedTuple):
    """What one program computes, and how: rows, columns of the result, depth of a step, warps, steps on their way."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


TILES: dict[int, tuple[tuple[int, Tile], ...]] = {
    320: ((0, Tile(128, 64, 64, 4, 3)),),
    640: ((0, Tile(256, 64, 64, 8, 3)),),
}
"""For each number of channels the least rows from which a tile serves, ascending; fewer rows, or channels that are not here,
are left to the framework. Chosen on an H200: at eight tiles' rows 1.72 ms against 2.27 with 320 channels, 1.47 against 1.63
with 640; with 1280 the framework's product and its gate take 1.24 ms, and no tile less than 1.30."""

GROUP = 8
"""Blocks of rows that go through all columns together."""


def tile_of(rows: int, channels: int, out_channels: int) -> Tile | None:
    """Choose a tile.

    Args:
        rows: Tokens.
        channels: C of a token.
        out_channels: C' of the result.

    Returns:
        The tile; None where the framework's product and gate are to serve.
    """
    if triton is None:
        return None
    tiles = [tile for least, tile in TILES.get(channels, ()) if rows >= least]
    fits = tiles and channels % tiles[-1].depth == 0 and out_channels % tiles[-1].columns == 0
    return tiles[-1] if fits else None


def multiply_and_gate(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute hidden * gelu(gate) of x W^T + b, cut in half.

    Args:
        x: Tokens. [..., C].
        weight: Rows of the hidden part, then those of the gate. [2 C', C].
        bias: [2 C'].

    Returns:
        [..., C'].
    """
    half = x.is_cuda and x.dtype == torch.float16
    if half and tile_of(x.numel() // x.shape[-1], x.shape[-1], weight.shape[0] // 2) is not None:
        made = torch.ops.pano4d.multiply_and_gate(x.reshape(-1, x.shape[-1]).contiguous(), weight, bias)
        return made.reshape(*x.shape[:-1], -1)
    return gate_plain(F.linear(x, weight, bias))


def gate_plain(both: Tensor) -> Tensor:
    """Compute hidden * gelu(gate) with the framework. [..., 2 C'] to [..., C']."""
    hidden, gate = both.chunk(2, dim=-1)
    return hidden * F.gelu(gate)


if triton is not None:

    @triton.jit
    def _gelu(x):
        z = tl.abs(x)
        log = -1.167947971225658e-06 * z + 5.140432040207088e-05  # falls for ever: beyond 5.5 the second term goes to 0
        log = log * z - 0.0008700441103428602
        log = log * z + 0.008332649245858192
        log = log * z - 0.053704436868429184
        log = log * z - 0.458637535572052
        log = log * z - 1.151208519935608
        log = log * z - 0.9999969005584717
        return tl.maximum(x, 0.0) - z * tl.exp2(log)

    @triton.jit
    def _multiply(x, weight, bias, out, rows, columns: tl.constexpr, channels: tl.constexpr, ROWS: tl.constexpr,
                  COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr):
        high, wide = tl.cdiv(rows, ROWS), columns // COLUMNS
        group, within = tl.program_id(0) // (GROUP * wide), tl.program_id(0) % (GROUP * wide)
        height = tl.minimum(high - group * GROUP, GROUP)
        row = (group * GROUP + within % height) * ROWS + tl.arange(0, ROWS)
        first, depth, pair = within // height * COLUMNS, tl.arange(0, DEPTH), tl.arange(0, 2 * COLUMNS)
        both = first + pair // 2 + pair % 2 * columns
        # For rows beyond the last it is read again, and nothing written.
        values = x + tl.minimum(row, rows - 1).to(tl.int64)[:, None] * channels + depth[None, :]
        shares = weight + both[None, :] * channels + depth[:, None]
        total = tl.zeros((ROWS, 2 * COLUMNS), tl.float32)
        for step in range(0, channels, DEPTH):
            total = tl.dot(tl.load(values + step), tl.load(shares + step), total)
        total += tl.load(bias + both)[None, :]
        hidden, gate = tl.split(tl.reshape(total, (ROWS, COLUMNS, 2)))
        at = row.to(tl.int64)[:, None] * columns + first + tl.arange(0, COLUMNS)[None, :]
        tl.store(out + at, (hidden * _gelu(gate)).to(out.dtype.element_ty), mask=(row < rows)[:, None])

    @torch.library.triton_op("pano4d::multiply_and_gate", mutates_args={})
    def _multiply_and_gate(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        (rows, channels), columns = x.shape, weight.shape[0] // 2
        tile, out = tile_of(rows, channels, columns), torch.empty(rows, columns, dtype=x.dtype, device=x.device)
        torch.library.wrap_triton(_multiply)[(triton.cdiv(rows, tile.rows) * (columns // tile.columns),)](
            x, weight, bias, out, rows, columns, channels, tile.rows, tile.columns, tile.depth, GROUP,
            num_warps=tile.warps, num_stages=tile.stages)
        return out
