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
        a: Pictures, 0 to 1. float32 [..., H, W].
        b: The same.

    Returns:
        SSIM at each pixel. float32 [..., H, W].

    Raises:
        Nothing.
    """
    return _Ssim.apply(a, b)


class _Ssim(torch.autograd.Function):
    """SSIM with its gradient written out: a third of the launches that its formula takes operator by operator.

    With m_a, m_b, m_aa, m_bb, m_ab the blurred a, b, a^2, b^2, a b,

        S = n1 n2 / (d1 d2)     n1 = 2 m_a m_b + C1           n2 = 2 (m_ab - m_a m_b) + C2
                                d1 = m_a^2 + m_b^2 + C1       d2 = m_aa - m_a^2 + m_bb - m_b^2 + C2

    depends on m_ab by 2 c, on m_aa by -S / d2, and on m_a by 2 (p m_b - q m_a), where c = n1 / (d1 d2),
    p = (n2 - n1) / (d1 d2) and q = S / d1 - S / d2. The window is symmetric, and zero beyond the border: blurring is its own
    adjoint.
    """

    @staticmethod
    def forward(ctx: object, a: Tensor, b: Tensor) -> Tensor:
        """Compare. float [..., H, W]"""
        mean_a, mean_b, *powers = _blurred(torch.stack([a, b, a * a, b * b, a * b]))
        squares, product = (mean_a * mean_a).addcmul_(mean_b, mean_b), mean_a * mean_b
        n1, n2 = 2 * product + _C1, 2 * (powers[2] - product) + _C2
        d1, d2 = squares + _C1, (powers[0] + powers[1]).sub_(squares).add_(_C2)
        inverse = (d1 * d2).reciprocal_()
        c = n1 * inverse
        similar = c * n2
        if any(ctx.needs_input_grad):
            by_square = (similar / d2).neg_()
            ctx.save_for_backward(a, b, mean_a, mean_b, (n2 - n1).mul_(inverse), similar / d1 + by_square, by_square, c)
        return similar

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Give the gradients. float [..., H, W] each"""
        a, b, mean_a, mean_b, p, q, by_square, c = ctx.saved_tensors
        found: list[Tensor | None] = [None, None]
        for which, (one, other, near, far) in enumerate(((a, b, mean_a, mean_b), (b, a, mean_b, mean_a))):
            if ctx.needs_input_grad[which]:
                by_mean = (p * far).addcmul_(q, near, value=-1)
                own, square, product = _blurred(torch.stack([by_mean, by_square, c]).mul_(gradient))
                found[which] = own.addcmul_(one, square).addcmul_(other, product).mul_(2)
        return found[0], found[1]


def _blurred(stack: Tensor) -> Tensor:
    """Blur pictures [..., H, W], rows and then columns."""
    down = _blur(stack.flatten(0, -3).transpose(0, 1))  # [H, P, W]
    return _blur(down.permute(2, 1, 0)).permute(1, 2, 0).reshape(stack.shape)


def _blur(x: Tensor) -> Tensor:
    """Blur [n, ...] along its first axis, as products of a small banded matrix with blocks of rows.

    A convolution of one channel leaves a GPU idle, and computes in TF32 by default, which is too coarse for variances.
    """
    rows, columns = x.shape[0], x[0].numel()
    blocks = -(-rows // _BLOCK)
    padded = functional.pad(x, (0, 0, 0, 0, _WINDOW // 2, blocks * _BLOCK - rows + _WINDOW // 2))
    overlapping = padded.as_strided((blocks, _BLOCK + _WINDOW - 1, columns), (_BLOCK * columns, columns, 1))
    band = _band(x.device, x.dtype).expand(blocks, -1, -1)
    return torch.bmm(band, overlapping).reshape(-1, *x.shape[1:])[:rows]


@functools.cache
def _band(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Give the matrix that blurs a block of rows and those around it. [block, block + window - 1]"""
    kernel = torch.exp(-0.5 * ((torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2) / _SIGMA) ** 2)
    band = torch.zeros(_BLOCK, _BLOCK + _WINDOW - 1, dtype=torch.float64)
    for row in range(_BLOCK):
        band[row, row:row + _WINDOW] = kernel / kernel.sum()
    return band.to(device, dtype)


def structure(rendered: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Take the weighted mean of 1 - SSIM of each view.

    Args:
        rendered: float32 [B, 3, V, h, w].
        wanted: The same; takes no gradient.
        weight: What counts. float32 [B, V, h, w].

    Returns:
        float32 [B, V].

    Raises:
        Nothing.
    """
    # Where nothing counts the rendered picture stands in for the wanted one: no border is made there.
    wanted = torch.where((weight > 0)[:, None], wanted, rendered.detach())
    total = weight.sum((-2, -1))
    alike = (ssim(rendered, wanted) * weight[:, None]).sum((1, -2, -1)) / rendered.shape[1]
    return (total - alike) / total.clamp(min=1.0)


def smoothness(distance: Tensor, picture: Tensor, weight: Tensor) -> Tensor:
    """Take the curvature of log distance across and down, less where the picture has edges.

    Args:
        distance: Above 0, of square views. float32 [B, V, h, h].
        picture: Takes no gradient. float32 [B, 3, V, h, h].
        weight: What counts. float32 [B, V, h, h].

    Returns:
        The sum of the weighted means of both directions. float32 [B].

    Raises:
        Nothing.
    """
    with torch.no_grad():
        picture, weight = _both_ways(picture), _both_ways(weight)[..., 1:-1]
        edges = (picture[..., 2:] - picture[..., :-2]).abs_().sum(2)
        total = weight.sum((-3, -2, -1), keepdim=True).clamp_(min=1.0)
        weight = edges.mul_(-10 / 3).exp_().mul_(weight).div_(total)
    return _Bend.apply(distance.log(), weight)


class _Bend(torch.autograd.Function):
    """Weigh and sum |second differences| of [B, V, h, h] both ways, by weights [2, B, V, h, h - 2]. [B]"""

    @staticmethod
    def forward(ctx: object, values: Tensor, weight: Tensor) -> Tensor:
        """Sum. float [B]"""
        both = _both_ways(values)
        bend = (both[..., 2:] + both[..., :-2]).sub_(both[..., 1:-1], alpha=2)
        signed = bend.sign().mul_(weight)
        ctx.save_for_backward(signed)
        return bend.mul_(signed).sum((0, 2, 3, 4))

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        """Give the gradient. float [B, V, h, h]"""
        pulled = ctx.saved_tensors[0] * gradient[:, None, None, None]
        both = functional.pad(pulled, (0, 2))
        both[..., 2:].add_(pulled)
        both[..., 1:-1].sub_(pulled, alpha=2)
        return both[0] + both[1].transpose(-1, -2), None


def _both_ways(pictures: Tensor) -> Tensor:
    """Stack pictures [..., h, h] and the same with columns for rows."""
    return torch.stack([pictures, pictures.transpose(-1, -2)])
