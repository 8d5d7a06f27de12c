"""Losses are what their formulas say, and see nothing where nothing counts."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pano4d.lifting.optimize.losses import smoothness, ssim, structure  # noqa: E402


def test_ssim_is_the_formula_at_a_pixel():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 21, 23))
    at = np.arange(11) - 5
    window = np.exp(-0.5 * (at[:, None] ** 2 + at**2) / 1.5**2)
    window /= window.sum()
    x, y = a[4:15, 6:17], b[4:15, 6:17]
    mean_x, mean_y = (window * x).sum(), (window * y).sum()
    var_x, var_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
    cov = (window * (x - mean_x) * (y - mean_y)).sum()
    wanted = (2 * mean_x * mean_y + 1e-4) * (2 * cov + 9e-4) / ((mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4))
    made = ssim(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None])
    assert made[0, 0, 9, 11].item() == pytest.approx(wanted, abs=1e-9)


def ssim_by_convolution(a, b):
    at = torch.arange(11, dtype=a.dtype) - 5
    kernel = torch.exp(-0.5 * (at / 1.5) ** 2)
    kernel = (kernel[:, None] * kernel / kernel.sum() ** 2).expand(a.shape[1], 1, -1, -1)
    mean_a, mean_b, aa, bb, ab = (torch.nn.functional.conv2d(x, kernel, padding=5, groups=a.shape[1])
                                  for x in (a, b, a * a, b * b, a * b))
    similar = (2 * mean_a * mean_b + 1e-4) * (2 * (ab - mean_a * mean_b) + 9e-4)
    return similar / ((mean_a**2 + mean_b**2 + 1e-4) * (aa - mean_a**2 + bb - mean_b**2 + 9e-4))


@pytest.mark.parametrize("shape", [(1, 3, 70, 129), (2, 3, 5, 8), (1, 1, 64, 64), (1, 2, 128, 63)])
def test_ssim_and_its_gradients_are_those_of_a_convolution(shape):
    torch.manual_seed(0)
    pictures = [torch.rand(shape, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    made, wanted = (of(*pictures) for of in (ssim, ssim_by_convolution))
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-12)
    weight = torch.rand_like(made)
    for found, true in zip(*(torch.autograd.grad(each, pictures, weight) for each in (made, wanted)), strict=True):
        torch.testing.assert_close(found, true, rtol=0, atol=1e-12)
    single, convolved = (of(*(picture.detach().float() for picture in pictures)) for of in (ssim, ssim_by_convolution))
    assert (single - wanted).abs().max() < 2 * (convolved - wanted).abs().max()


def test_same_pictures_cost_nothing():
    picture = torch.rand(2, 3, 1, 16, 16)
    assert structure(picture, picture, torch.ones(2, 1, 16, 16)).abs().max().item() == pytest.approx(0, abs=1e-6)


def test_what_does_not_count_costs_nothing_and_takes_no_gradient():
    rendered = torch.rand(1, 3, 1, 32, 32, requires_grad=True)
    wanted, weight = rendered.detach().clone(), torch.ones(1, 1, 32, 32)
    wanted[..., 16:], weight[..., 16:] = 5.0, 0.0
    loss = structure(rendered, wanted, weight)
    loss.sum().backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert rendered.grad.abs().max() < 1e-6


def test_planes_in_log_distance_are_smooth_and_kinks_are_not():
    ramp = torch.linspace(0, 1, 12).exp().expand(1, 1, 12, 12)
    flat, ones = torch.zeros(1, 3, 1, 12, 12), torch.ones(1, 1, 12, 12)
    assert smoothness(ramp, flat, ones).item() < 1e-6
    for turned in (False, True):
        step, edge = ramp.clone(), flat.clone()
        step[..., 6:] *= 2
        edge[..., 6:] = 1.0
        if turned:
            step, edge = step.mT, edge.mT
        kinked = smoothness(step, flat, ones)
        assert kinked > 0.05
        assert smoothness(step, edge, ones) < 0.1 * kinked


def test_smoothness_has_the_gradient_that_it_should():
    torch.manual_seed(0)
    distance = (1 + torch.rand(2, 3, 7, 7, dtype=torch.float64)).requires_grad_()
    picture, weight = torch.rand(2, 3, 3, 7, 7, dtype=torch.float64), torch.rand(2, 3, 7, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda d: smoothness(d, picture, weight), distance)


def test_views_in_which_nothing_counts_cost_nothing():
    picture, none = torch.rand(1, 3, 2, 12, 12), torch.zeros(1, 2, 12, 12)
    assert structure(picture, 1 - picture, none).tolist() == [[0, 0]]
    assert smoothness(1 + picture[:, 0], picture, none).tolist() == [0]
