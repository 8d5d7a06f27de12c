import numpy as np
import pytest

from pano4d.lifting.least_squares import fit_line, fit_shift, huber_weights, normal_equations


def test_normal_equations_are_those_of_the_full_matrix():
    rng = np.random.default_rng(0)
    columns, values = rng.integers(0, 7, (50000, 3)), rng.standard_normal((50000, 3))
    target, weights, full = rng.standard_normal(50000), rng.random(50000), np.zeros((50000, 7))
    np.add.at(full, (np.arange(50000)[:, None], columns), values)
    matrix, vector = normal_equations(columns, values, target, weights, 7)
    np.testing.assert_allclose(matrix, full.T @ (weights[:, None] * full), rtol=1e-9)
    np.testing.assert_allclose(vector, full.T @ (weights * target), rtol=1e-9, atol=1e-9)


def test_outliers_do_not_count():
    weights = huber_weights(np.array([0.1, -0.1, 0.12, -0.09, 0.3, 50.0]))
    assert weights[0] == 1 and 0 < weights[4] < 1 and weights[5] == 0
    assert (huber_weights(np.zeros(4)) == 1).all() and len(huber_weights(np.zeros(0))) == 0


def test_a_line_through_noise_is_not_too_flat():
    rng = np.random.default_rng(1)
    clean = rng.standard_normal(20000)
    noisy = 1.2 * clean + 0.4 + 0.3 * rng.standard_normal(20000)
    noisy[::10] += 8
    scale, shift = fit_line(noisy, clean, np.ones(20000))
    assert scale == pytest.approx(1 / 1.2, rel=0.01) and shift == pytest.approx(-0.4 / 1.2, abs=0.02)


def test_what_does_not_vary_has_its_scale_left():
    scale, shift = fit_line(np.full(100, 3.0), np.full(100, 2.0), np.ones(100))
    assert scale == pytest.approx(1) and shift == pytest.approx(-1)


def test_shift():
    source = np.r_[np.zeros(90), np.full(10, 99.0)]
    assert fit_shift(source, np.full(100, 2.0), np.ones(100)) == pytest.approx(2)
