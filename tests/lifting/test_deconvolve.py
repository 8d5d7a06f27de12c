"""The solver against what it is said to minimise, in NumPy and in torch."""

import numpy as np
import pytest

from pano4d.lifting import deconvolve as module
from pano4d.lifting.deconvolve import blur_matrix, deconvolve, edge_weights

SIDE, BLUR_PX = 40, 1.8


def problem(seed=0):
    """A square before a wall, blurred, with grain; colours that show it; what `deconvolve` takes."""
    rng = np.random.default_rng(seed)
    truth = np.full((1, SIDE, SIDE), 2.0, np.float32)
    truth[:, 12:29, 10:26] = 0.7
    blur = blur_matrix(SIDE, BLUR_PX)
    given = (blur @ truth @ blur.T + 0.005 * rng.normal(size=truth.shape)).astype(np.float32)
    colors = np.where((truth < 1)[..., None], (200, 40, 40), (40, 40, 200)).astype(np.uint8)
    weights = [edge_weights(colors, axis) for axis in (1, 2)]
    bounds = [np.full_like(given, 0.5), np.full_like(given, 2.1)]
    return truth, given, weights, bounds, [blur, blur.T[None].copy()]


def cost(x, given, weights, blurs):
    """What the module's docstring says is minimised, in float64."""
    x, given, down, across = (np.asarray(array, np.float64) for array in (x, given, *blurs))
    error, mu = down @ x @ across - given, module._MU / BLUR_PX
    limit = module._OUTLIER / mu
    inner = np.where(np.abs(error) <= limit, 0.5 * error**2, limit * (np.abs(error) - 0.5 * limit))
    return mu * inner.sum() + sum((np.abs(np.diff(x, axis=axis)) * w).sum() for axis, w in zip((1, 2), weights))


def test_a_blurred_square_is_square_again():
    truth, given, *rest = problem()
    found = deconvolve(np, given, BLUR_PX, *rest)
    assert np.abs(given - truth).max() > 0.5
    assert np.abs(found - truth).max() < 0.05


def test_it_is_a_minimum():
    _, given, weights, bounds, blurs = problem()
    found = deconvolve(np, given, BLUR_PX, weights, bounds, blurs)
    reached, rng = cost(found, given, weights, blurs), np.random.default_rng(1)
    assert reached < cost(given, given, weights, blurs)
    for size in (0.02, 0.1):
        for _ in range(20):
            patch = np.zeros_like(found)
            row, column = rng.integers(0, SIDE - 4, 2)
            patch[:, row:row + 4, column:column + 4] = size * rng.normal()
            other = np.clip(found + patch, *bounds)
            assert cost(other, given, weights, blurs) > reached - 1e-3


def test_bounds_hold():
    _, given, weights, _, blurs = problem()
    low, high = np.full_like(given, 0.9), np.full_like(given, 1.6)
    found = deconvolve(np, given, BLUR_PX, weights, [low, high], blurs)
    assert low.min() <= found.min() and found.max() <= high.max()


def test_maps_do_not_mix():
    first, second = problem(0)[1:], problem(1)[1:]
    together = deconvolve(np, np.concatenate([first[0], second[0]]), BLUR_PX,
                          *([np.concatenate(pair) for pair in zip(first[k], second[k])] for k in (1, 2)),
                          [first[3][0], np.concatenate([first[3][1], second[3][1]])])
    for one, (given, *rest) in zip(together, (first, second)):
        np.testing.assert_allclose(one[None], deconvolve(np, given, BLUR_PX, *rest), atol=1e-5)


def test_torch_finds_what_numpy_finds():
    torch = pytest.importorskip("torch")
    _, given, *rest = problem()
    by_torch = deconvolve(torch, torch.from_numpy(given), BLUR_PX,
                          *([torch.from_numpy(np.ascontiguousarray(array)) for array in part] for part in rest))
    np.testing.assert_allclose(by_torch.numpy(), deconvolve(np, given, BLUR_PX, *rest), atol=1e-4)


def test_a_blur_keeps_what_is_flat_and_spreads_a_point():
    matrix = blur_matrix(60, np.array([1.5, 4.0]))
    np.testing.assert_allclose(matrix.sum(-1), 1.0, atol=1e-6)
    at = np.arange(60)
    for one, sigma in zip(matrix, (1.5, 4.0)):
        spread = np.sqrt((one[30] * (at - 30.0) ** 2).sum())
        assert spread == pytest.approx(sigma, rel=0.03)


def test_steps_along_edges_of_the_picture_are_cheap():
    colors = np.zeros((1, 4, 6, 3), np.uint8)
    colors[:, :, 3:] = 200
    across, down = edge_weights(colors, 2), edge_weights(colors, 1)
    assert across.shape == (1, 4, 5) and down.shape == (1, 3, 6)
    np.testing.assert_allclose(across[0, 0], [1, 1, module._CHEAPEST, 1, 1], atol=1e-6)
    np.testing.assert_array_equal(down, 1)
