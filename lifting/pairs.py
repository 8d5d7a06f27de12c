"""List every pair of a pixel and a Gaussian over it, by pixel and nearest first, a band of rows at a time.

In a row dy below its centre a Gaussian is stronger than 1/255 between the two solutions of

    a dx^2 + 2 b dx dy + c dy^2 = 2 log(255 o)

so that hardly a pair is listed in vain, however long and slanted the Gaussian is.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pano4d.lifting.projection import FAINTEST, REACH_SIGMAS, Projection

BAND_PAIRS = 1 << 18
"""Pairs worked on at once, about 200 bytes each: few enough for the caches of a CPU."""

LARGEST_ALPHA = 0.999

_TILE_PX = 16
_SLACK_PX = 0.01


class Band(NamedTuple):
    """Some rows of a picture and their P pairs.

    Attributes:
        top: First row.
        bottom: Row after the last.
        pixel: Pixel within the band, ascending. int32 [P].
        index: Gaussian, of one pixel's the nearest first. int32 [P].
    """

    top: int
    bottom: int
    pixel: Tensor
    index: Tensor


def list_pairs(splats: Projection, opacities: Tensor, width: int, height: int) -> Iterator[tuple[Band, Tensor]]:
    """List the pairs that are drawn.

    Args:
        splats: M projected Gaussians, in any order.
        opacities: At the centre. float [M].
        width: Picture width in pixels.
        height: Picture height in pixels.

    Yields:
        Bands from top to bottom, which cover the picture, and the alphas of their pairs. float [P].

    Raises:
        Nothing.
    """
    means2d, conics, depths, radii = splats
    order = torch.sort(depths, stable=True).indices
    center, level = means2d[order].double(), 2.0 * torch.log(opacities[order].double() / FAINTEST)
    conic = conics[order].double()
    # The box reaches to the faintest alpha, but never beyond the tiles that the radius touches.
    reach = radii[order].double()
    size = torch.tensor([width, height], device=center.device)
    low = (torch.floor((center - reach) / _TILE_PX) * _TILE_PX).clamp_min(0.0).long()
    high = torch.minimum((torch.ceil((center + reach) / _TILE_PX) * _TILE_PX).long(), size) - 1
    reach = reach * (level.sqrt() / REACH_SIGMAS).clamp_min(1.0)[:, None]
    first = torch.maximum(torch.ceil(center - reach - 0.5).long(), low)
    last = torch.minimum(torch.floor(center + reach - 0.5).long(), high)
    for top, bottom in _cuts(first, last, height):
        upper, lower = first[:, 1].clamp_min(top), last[:, 1].clamp_max(bottom - 1)
        owner, row = _expand((lower - upper + 1).clamp_min(0), upper)
        left, right = _span(*(values.index_select(0, owner) for values in (center, conic, level)), row)
        left = torch.maximum(left, low[owner, 0])
        right = torch.minimum(right, high[owner, 0])
        line, column = _expand((right - left + 1).clamp_min(0), left)
        pixel = ((row.index_select(0, line) - top) * width + column).to(torch.int32)
        pixel, turn = torch.sort(pixel, stable=True)
        band = Band(top, bottom, pixel, order[owner].to(torch.int32).index_select(0, line.index_select(0, turn)))
        alpha = pair_alphas(band, means2d, conics, opacities, width)[0]
        strong = (alpha >= FAINTEST).nonzero()[:, 0]
        pixel, index = (numbers.index_select(0, strong) for numbers in (band.pixel, band.index))
        yield band._replace(pixel=pixel, index=index), alpha.index_select(0, strong)


def pair_alphas(band: Band, means2d: Tensor, conics: Tensor, opacities: Tensor, width: int) -> tuple[Tensor, ...]:
    """Work out what share of the light each Gaussian stops in its pixel.

    Args:
        band: P pairs.
        means2d: Centres, pixels. float [M, 2].
        conics: See `Projection`. float [M, 3].
        opacities: At the centre. float [M].
        width: Picture width in pixels.

    Returns:
        alpha, exp(-sigma), and the centre as seen from the pixel, dx and dy in pixels. float [P] each.

    Raises:
        Nothing.
    """
    x, y = means2d.index_select(0, band.index).unbind(-1)
    a, b, c = conics.index_select(0, band.index).unbind(-1)
    dx = x - (band.pixel % width + 0.5)
    dy = y - (torch.div(band.pixel, width, rounding_mode="floor") + (band.top + 0.5))
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    # Rounding can make sigma of a very long Gaussian negative; gsplat leaves such pairs out.
    fall = torch.exp(-sigma) * (sigma >= 0)
    return (opacities.index_select(0, band.index) * fall).clamp_max(LARGEST_ALPHA), fall, dx, dy


def _cuts(first: Tensor, last: Tensor, height: int) -> list[tuple[int, int]]:
    """Cut the picture into bands of rows that hold about BAND_PAIRS pairs each, at least one row."""
    span = (last - first + 1).clamp_min(0)
    boxes = (span[:, 0] * (span[:, 1] > 0)).double()
    load = torch.zeros(height + 1, dtype=torch.float64, device=first.device)
    load.index_add_(0, first[:, 1].clamp(0, height), boxes).index_add_(0, (last[:, 1] + 1).clamp(0, height), -boxes)
    cuts, held = [0], 0.0
    for row, pairs in enumerate(load.cumsum(0)[:height].tolist()):
        if held and held + pairs > BAND_PAIRS:
            cuts.append(row)
            held = 0.0
        held += pairs
    return list(zip(cuts, [*cuts[1:], height]))


def _span(center: Tensor, conic: Tensor, level: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and last column of a row in which a Gaussian is stronger than the faintest. int64 [R] each."""
    a, b, c = conic.unbind(-1)
    dy = row + 0.5 - center[:, 1]
    half = (level * a - (a * c - b * b) * dy * dy).clamp_min(0.0).sqrt() / a
    middle = center[:, 0] - b / a * dy - 0.5
    return torch.ceil(middle - half - _SLACK_PX).long(), torch.floor(middle + half + _SLACK_PX).long()


def _expand(counts: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Return whose range it is, and each range start, start + 1, ... of the given length."""
    owner = torch.repeat_interleave(counts)
    begin = counts.cumsum(0) - counts
    return owner, torch.arange(len(owner), device=counts.device) - (begin - starts).index_select(0, owner)
