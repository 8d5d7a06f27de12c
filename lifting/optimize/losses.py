"""Compare rendered views with what they should show."""

import torch
from torch import Tensor
from torch.nn import functional

SSIM_SHARE = 0.2
_WINDOW, _SIGMA = 11, 1.5
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
    at = torch.arange(_WINDOW, device=a.device, dtype=a.dtype) - _WINDOW // 2
    kernel = torch.exp(-0.5 * (at / _SIGMA) ** 2)
    kernel = kernel / kernel.sum()

    def blur(x: Tensor) -> Tensor:
        flat = x.reshape(-1, 1, *x.shape[-2:])
        across = functional.conv2d(flat, kernel[None, None, None], padding=(0, _WINDOW // 2))
        return functional.conv2d(across, kernel[None, None, :, None], padding=(_WINDOW // 2, 0))

    means = [blur(x) for x in (a, b, a * a, b * b, a * b)]
    mean_a, mean_b, aa, bb, ab = means
    var_a, var_b, cov = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    similar = (2 * mean_a * mean_b + _C1) * (2 * cov + _C2) / ((mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2))
    return similar.reshape(a.shape)


def photometric(rendered: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Take 0.8 L1 + 0.2 (1 - SSIM), weighted (Kerbl et al. 2023, eq. 7); SSIM of the first view alone.

    Blurring for SSIM takes longer than all else in a step. Views are drawn at random, so the first one stands for all.

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
