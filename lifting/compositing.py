"""Composite projected Gaussians front to back, in torch, with the gradient written out.

Of a pixel's Gaussians, nearest first,

    alpha_i = min(0.999, o_i exp(-sigma_i))      T_i = (1 - alpha_0) ... (1 - alpha_{i-1})      w_i = alpha_i T_i
    picture = sum w_i c_i + T b                  coverage = 1 - T

where the list ends before the one that would let T sink to 1e-4 (Kerbl et al., 2023). With v the gradient of the
picture, v_A that of the coverage and g_i = c_i . v, the gradient of alpha_i is

    T_i g_i - (sum_{j>i} w_j g_j + T (b . v - v_A)) / (1 - alpha_i)

Products along a pixel's pairs are sums of logarithms along one long list, which are taken in float64. Of a picture only
the lists are kept for the gradient, 8 bytes a pair that is seen; the rest is worked out again, a band of rows at a time.
"""

import math

import torch
from torch import Tensor

from pano4d.lifting.pairs import LARGEST_ALPHA, list_pairs, pair_alphas
from pano4d.lifting.projection import Projection

_LEAST_LEFT = 1e-4


def composite(splats: Projection, opacities: Tensor, colors: Tensor, background: Tensor | None, width: int, height: int
              ) -> tuple[Tensor, Tensor]:
    """Draw Gaussians over a background.

    Args:
        splats: M projected Gaussians, in any order.
        opacities: At the centre. float [M].
        colors: Colours, or any features. float [M, D].
        background: float [D]; None: 0.
        width: Picture width in pixels.
        height: Picture height in pixels.

    Returns:
        Picture, float [height, width, D], and coverage, float [height, width, 1]; differentiable by centres, conics,
        opacities, colours and background.

    Raises:
        Nothing.
    """
    background = colors.new_zeros(colors.shape[1]) if background is None else background
    picture, coverage = _Composite.apply(splats.means2d, splats.conics, opacities, colors, background,
                                         splats.depths.detach(), splats.radii, width, height)
    return picture.reshape(height, width, -1), coverage.reshape(height, width, 1)


class _Composite(torch.autograd.Function):
    """The picture [H W, D] and the coverage [H W]."""

    @staticmethod
    def forward(ctx, means2d, conics, opacities, colors, background, depths, radii, width, height):
        picture = colors.new_empty(height * width, colors.shape[1])
        coverage = colors.new_empty(height * width)
        bands = []
        for band, alpha in list_pairs(Projection(means2d, conics, depths, radii), opacities, width, height):
            rows = slice(band.top * width, band.bottom * width)
            weight, left, kept = _weights(band.pixel, alpha, rows.stop - rows.start)
            kept = kept.nonzero()[:, 0]
            pixel, index = band.pixel.index_select(0, kept), band.index.index_select(0, kept)
            lit = weight.index_select(0, kept)[:, None] * colors.index_select(0, index)
            # On a CPU index_add_ is fast for int64 alone; the lists are kept as int32, in half the memory.
            picture[rows] = (left[:, None] * background).index_add_(0, pixel.long(), lit)
            coverage[rows] = 1.0 - left
            if any(ctx.needs_input_grad):
                bands.append(band._replace(pixel=pixel, index=index))
        ctx.save_for_backward(means2d, conics, opacities, colors, background)
        ctx.bands, ctx.width = bands, width
        return picture, coverage

    @staticmethod
    def backward(ctx, v_picture, v_coverage):
        means2d, conics, opacities, colors, background = ctx.saved_tensors
        v_splats = colors.new_zeros(len(colors), 6 + colors.shape[1])
        v_background = torch.zeros_like(background)
        for band in ctx.bands:
            rows = slice(band.top * ctx.width, band.bottom * ctx.width)
            v, v_covered = v_picture[rows], v_coverage[rows]
            alpha, fall, dx, dy = pair_alphas(band, means2d, conics, opacities, ctx.width)
            weight, left, _ = _weights(band.pixel, alpha, len(v))
            v_background += left @ v
            seen = v.index_select(0, band.pixel)
            gain = (colors.index_select(0, band.index) * seen).sum(-1)
            behind = _sums_behind(band.pixel, weight * gain, len(v)) \
                + (left * (v @ background - v_covered)).index_select(0, band.pixel)
            through = 1.0 - alpha
            # Where alpha is held at its limit it depends on nothing.
            free = opacities.index_select(0, band.index) * fall <= LARGEST_ALPHA
            v_alpha = free * (weight * gain / alpha - behind / through)
            v_sigma = -alpha * v_alpha
            a, b, c = conics.index_select(0, band.index).unbind(-1)
            parts = [v_sigma * (a * dx + b * dy), v_sigma * (b * dx + c * dy), 0.5 * v_sigma * dx * dx,
                     v_sigma * dx * dy, 0.5 * v_sigma * dy * dy, fall * v_alpha]
            v_splats.index_add_(0, band.index.long(), torch.cat([torch.stack(parts, -1), weight[:, None] * seen], -1))
        v_means2d, v_conics, v_opacities, v_colors = v_splats.split([2, 3, 1, colors.shape[1]], -1)
        return v_means2d, v_conics, v_opacities[:, 0], v_colors, v_background, None, None, None, None


def _weights(pixel: Tensor, alpha: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights w of all pairs, T of all pixels, and which pairs come before the list's end."""
    log_through = torch.log1p(-alpha.double())
    total = log_through.cumsum(0)
    after = total - _at_first(pixel, total - log_through, count).index_select(0, pixel)
    kept = after > math.log(_LEAST_LEFT)
    weight = alpha * torch.exp(after - log_through).to(alpha.dtype) * kept
    left = torch.zeros(count, dtype=torch.float64, device=alpha.device).index_add_(0, pixel.long(), log_through * kept)
    return weight, left.exp().to(alpha.dtype), kept


def _sums_behind(pixel: Tensor, values: Tensor, count: int) -> Tensor:
    """Return for each pair the sum of the values of its pixel's later pairs. float [P]."""
    total = values.double().flip(0).cumsum(0).flip(0)
    beyond = torch.cat([total, total.new_zeros(1)])
    ends = torch.bincount(pixel, minlength=count).cumsum(0)
    return (beyond[1:] - beyond[ends].index_select(0, pixel)).to(values.dtype)


def _at_first(pixel: Tensor, values: Tensor, count: int) -> Tensor:
    """Return the value of each pixel's first pair, 0 where there is none. [count]."""
    counts = torch.bincount(pixel, minlength=count)
    return torch.cat([values, values.new_zeros(1)])[counts.cumsum(0) - counts]
