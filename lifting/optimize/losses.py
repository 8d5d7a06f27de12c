"""Compare rendered views with what they should show."""

import functools

import torch
from torch import Tensor
from torch.nn import functional

SSIM_SHARE = 0.2
_WINDOW, _SIGMA = 11, 1.5
_BLOCK = 64
_C1, _C2 = 0.01**2, 0.03**2


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Compare structure (Wang et al. 2004): Gaussian window of 11 pixels, zeros beyond the border.

    Args:
        a: Pictures, 0 to 1. float32 [B, C, H, W].
        b: The same.

    Returns:
        SSIM at each pixel. float32 [B, C, H, W].

    Raises:
        Nothing.
    """
    # Two stacks: what is compared with takes no gradient as a rule, and then costs none.
    mean_a, aa, ab = _blurred([a, a * a, a * b])
    mean_b, bb = _blurred([b, b * b])
    var_a, var_b, cov = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    return (2 * mean_a * mean_b + _C1) * (2 * cov + _C2) / ((mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2))


def _blurred(pictures: list[Tensor]) -> Tensor:
    """Blur pictures [B, C, H, W] together, rows and then columns. [n, B, C, H, W]"""
    stack = torch.stack(pictures)
    shape, planes = stack.shape, stack.flatten(0, 2)  # [P, H, W]
    down = _Blur.apply(planes.transpose(0, 1).reshape(shape[-2], -1)).reshape(shape[-2], -1, shape[-1])  # [H, P, W]
    across = _Blur.apply(down.permute(2, 1, 0).reshape(shape[-1], -1)).reshape(shape[-1], -1, shape[-2])  # [W, P, H]
    return across.permute(1, 2, 0).reshape(shape)


class _Blur(torch.autograd.Function):
    """Blur each column of [n, m], as products of a small banded matrix with blocks of rows.

    A convolution of one channel leaves a GPU idle, and computes in TF32 by default, which is too coarse for variances. The
    window is symmetric, and zero beyond the border: so the gradient is blurred by the same matrix.
    """

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        """Blur. float [n, m]"""
        rows, columns = x.shape
        blocks = -(-rows // _BLOCK)
        padded = functional.pad(x, (0, 0, _WINDOW // 2, blocks * _BLOCK - rows + _WINDOW // 2))
        overlapping = padded.as_strided((blocks, _BLOCK + _WINDOW - 1, columns), (_BLOCK * columns, columns, 1))
        band = _band(x.device, x.dtype).expand(blocks, -1, -1)
        return torch.bmm(band, overlapping).reshape(blocks * _BLOCK, columns)[:rows]

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        """Blur the gradient. float [n, m]"""
        return _Blur.apply(gradient)


@functools.cache
def _band(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Give the matrix that blurs a block of rows and those around it. [block, block + window - 1]"""
    kernel = torch.exp(-0.5 * ((torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2) / _SIGMA) ** 2)
    band = torch.zeros(_BLOCK, _BLOCK + _WINDOW - 1, dtype=torch.float64)
    for row in range(_BLOCK):
        band[row, row:row + _WINDOW] = kernel / kernel.sum()
    return band.to(device, dtype)


def photometric(rendered: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Take 0.8 L1 + 0.2 (1 - SSIM), weighted (Kerbl et al. 2023, eq. 7); SSIM of the first view alone.

    Blurring for SSIM costs more than the rest. Views are drawn at random, so the first one stands for all.

    Args:
        rendered: float32 [C, h, w, 3].
        wanted: The same.
        weight: What counts. float32 [C, h, w].

    Returns:
        A number.

    Raises:
        Nothing.
    """
    # Where nothing counts the rendered picture stands in for the wanted one: no border is made there.
    wanted = torch.lerp(rendered.detach(), wanted, (weight > 0).to(wanted.dtype)[..., None])
    difference = (rendered - wanted).abs().mean(-1)
    first = slice(0, 1)
    structure = 1 - ssim(rendered[first].permute(0, 3, 1, 2), wanted[first].permute(0, 3, 1, 2)).mean(1)
    return (1 - SSIM_SHARE) * weighted_mean(difference, weight) + SSIM_SHARE * weighted_mean(structure, weight[first])


def smoothness(distance: Tensor, picture: Tensor, weight: Tensor) -> Tensor:
    """Take the curvature of log distance, less where the picture has edges.

    Args:
        distance: Above 0. float32 [C, h, w].
        picture: float32 [C, h, w, 3].
        weight: What counts. float32 [C, h, w].

    Returns:
        A number.

    Raises:
        Nothing.
    """
    logs, total = distance.log(), distance.new_zeros(())
    for axis in (1, 2):
        n = distance.shape[axis]
        before, here, after = (logs.narrow(axis, k, n - 2) for k in range(3))
        edges = (picture.narrow(axis, 2, n - 2) - picture.narrow(axis, 0, n - 2)).abs().mean(-1)
        total = total + weighted_mean((before - 2 * here + after).abs() * torch.exp(-10 * edges), weight.narrow(axis, 1, n - 2))
    return total


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Average; 0 where nothing counts."""
    return (values * weight).sum() / weight.sum().clamp(min=1.0)
