"""The schedule equals the field's own implementation."""

import numpy as np
import pytest

from pano4d.runtime import schedule
from pano4d.runtime.errors import SettingsError

# diffusers 0.42 with NumPy 2; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SVD = {"sigma_min": 0.002, "sigma_max": 700.0}


@pytest.mark.parametrize("steps", [1, 2, 10, 25])
def test_sigmas_equal_those_of_diffusers(steps):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        timestep_spacing="leading", timestep_type="continuous", use_karras_sigmas=True, **SVD)
    scheduler.set_timesteps(steps)
    sigmas = schedule.karras_sigmas(steps, **SVD)
    np.testing.assert_allclose(sigmas, scheduler.sigmas.numpy(), rtol=1e-5)
    assert schedule.init_noise_sigma(sigmas) == pytest.approx(float(scheduler.init_noise_sigma), rel=1e-6)
    wanted = [schedule.scalings(sigma)[3] for sigma in sigmas[:-1]]
    np.testing.assert_allclose(wanted, scheduler.timesteps.numpy(), rtol=1e-4, atol=1e-6)


def test_a_step_equals_that_of_diffusers():
    diffusers, torch = pytest.importorskip("diffusers"), pytest.importorskip("torch")
    scheduler = diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction", timestep_spacing="leading", timestep_type="continuous", use_karras_sigmas=True,
        **SVD)
    scheduler.set_timesteps(5)
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(2, 3, 4)) * 100, rng.normal(size=(2, 3, 4))
    sigmas = schedule.karras_sigmas(5, **SVD)
    c_skip, c_out, _, _ = schedule.scalings(sigmas[0])
    ours = schedule.euler_step(x, c_skip * x + c_out * v, sigmas[0], sigmas[1])
    theirs = scheduler.step(torch.from_numpy(v), scheduler.timesteps[0], torch.from_numpy(x)).prev_sample.numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def run_solver(solver, denoise, steps, sigma_max=80.0):
    sigmas = schedule.karras_sigmas(steps, 0.01, sigma_max)
    x, previous = np.full(1, 3.0) * sigma_max, np.zeros(1)
    for i, k in enumerate(schedule.extrapolations(sigmas, solver)):
        denoised = denoise(x, sigmas[i])
        target = denoised + k * (denoised - previous)
        x, previous = schedule.euler_step(x, target, sigmas[i], sigmas[i + 1]), denoised
    return x[0]


def test_the_second_order_solver_comes_closer_with_as_many_steps():
    """Data of variance 1 have the estimate x / (sigma^2 + 1), and the flow ends at x_0 / sqrt(sigma_max^2 + 1)."""
    def gaussian(x, sigma):
        return x / (sigma**2 + 1)

    exact = 3 * 80 / np.sqrt(80.0**2 + 1)
    euler, multi = (abs(run_solver(name, gaussian, 12) - exact) for name in ("euler", "dpmpp-2m"))
    assert multi < 0.6 * euler
    assert abs(run_solver("dpmpp-2m", gaussian, 48) - exact) < 0.2 * multi


def test_the_second_order_solver_equals_that_of_diffusers():
    diffusers, torch = pytest.importorskip("diffusers"), pytest.importorskip("torch")
    scheduler = diffusers.EDMDPMSolverMultistepScheduler(
        sigma_min=0.01, sigma_max=80.0, sigma_data=1.0, prediction_type="v_prediction", algorithm_type="dpmsolver++",
        solver_order=2, final_sigmas_type="zero")
    scheduler.set_timesteps(6)
    sigmas = schedule.karras_sigmas(6, 0.01, 80.0)
    x = torch.full((1,), 240.0, dtype=torch.float64)
    for t in scheduler.timesteps:
        sigma = scheduler.sigmas[scheduler.step_index or 0].item()
        clean = x / (sigma**2 + 1)
        c_skip, c_out, _, _ = schedule.scalings(sigma)
        x = scheduler.step((clean - c_skip * x) / c_out, t, x).prev_sample
    np.testing.assert_allclose(run_solver("dpmpp-2m", lambda x, s: x / (s**2 + 1), 6), x.item(), rtol=1e-4)
    np.testing.assert_allclose(scheduler.sigmas.numpy(), sigmas, rtol=1e-5)


def test_a_consistency_model_is_asked_at_levels_of_its_training():
    diffusers = pytest.importorskip("diffusers")
    for steps in (1, 2, 4, 6, 8, 40):
        scheduler = diffusers.CMStochasticIterativeScheduler(num_train_timesteps=40, rho=7.0, **SVD)
        scheduler.set_timesteps(steps)
        sigmas = schedule.consistency_sigmas(steps, **SVD)
        np.testing.assert_allclose(sigmas[:-1], scheduler.sigmas.numpy()[:-1], rtol=1e-5)
        assert len(sigmas) == steps + 1 and sigmas[-1] == 0
    stride = np.arange(4) * 10 / 39
    low, high = 0.002 ** (1 / 7), 700 ** (1 / 7)
    np.testing.assert_allclose(schedule.noise_levels("lcm", 4, {**SVD, "rho": 7.0}),
                               [*(high + stride * (low - high)) ** 7, 0.0], rtol=1e-12)
    assert len(schedule.noise_levels("lcm", 10, {**SVD, "rho": 7.0, "trained_steps": 10})) == 11
    with pytest.raises(SettingsError, match="knows 10 noise levels"):
        schedule.noise_levels("lcm", 11, {**SVD, "rho": 7.0, "trained_steps": 10})
    with pytest.raises(SettingsError, match="0 steps"):
        schedule.consistency_sigmas(0, **SVD)


def test_a_step_of_a_consistency_model_equals_that_of_diffusers():
    """The scheduler of diffusers takes the network's output for -v, and keeps its distance from the lowest level."""
    diffusers, torch = pytest.importorskip("diffusers"), pytest.importorskip("torch")
    scheduler = diffusers.CMStochasticIterativeScheduler(num_train_timesteps=40, sigma_min=1e-7, sigma_max=700.0, sigma_data=1.0,
                                                         clip_denoised=False)
    scheduler.set_timesteps(4)
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(2, 3, 4)) * 100, rng.normal(size=(2, 3, 4))
    sigmas = scheduler.sigmas.double().numpy()
    scheduler.scale_model_input(torch.from_numpy(x), scheduler.timesteps[0])
    theirs = scheduler.step(torch.from_numpy(-v), scheduler.timesteps[0], torch.from_numpy(x),
                            generator=torch.Generator().manual_seed(0)).prev_sample.numpy()
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    c_skip, c_out, _, _ = schedule.scalings(sigmas[0])
    landing = schedule.landings(sigmas, "lcm")[0]
    ours = schedule.euler_step(x, c_skip * x + c_out * v, sigmas[0], landing) + sigmas[1] * z
    assert landing == 0
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


def test_other_solvers_land_on_the_next_level():
    sigmas = schedule.karras_sigmas(5, 0.01, 80.0)
    assert all((schedule.landings(sigmas, solver) == sigmas[1:]).all() for solver in ("euler", "dpmpp-2m"))


def test_first_and_last_step_are_first_order():
    weights = schedule.extrapolations(schedule.karras_sigmas(5, 0.01, 80.0), "dpmpp-2m")
    assert weights[0] == 0 and weights[-1] == 0 and (weights[1:-1] > 0.4).all()
    assert not schedule.extrapolations(schedule.karras_sigmas(5, 0.01, 80.0), "euler").any()
    with pytest.raises(SettingsError, match="heun"):
        schedule.extrapolations(schedule.karras_sigmas(5, 0.01, 80.0), "heun")


def test_aligned_levels_are_the_published_ones_and_fit_other_ranges():
    np.testing.assert_allclose(schedule.aligned_sigmas(10, 0.002, 700.0), [*schedule.ALIGNED_SIGMAS[:-1], 0.0])
    other = schedule.aligned_sigmas(7, 0.01, 80.0)
    assert len(other) == 8 and other[0] == pytest.approx(80.0) and other[-1] == 0 and (np.diff(other) < 0).all()
    assert other[-2] > 0.01
    with pytest.raises(SettingsError, match="falling"):
        schedule.aligned_sigmas(10, 80.0, 0.01)


def test_guided_steps_are_those_within_the_interval():
    sigmas = np.array([80.0, 20.0, 5.0, 1.0, 0.0])
    assert schedule.guided_steps(sigmas, None).all()
    assert schedule.guided_steps(sigmas, (1.0, 20.0)).tolist() == [False, True, True, False]
    assert schedule.guided_steps(sigmas, (0.0, 80.0)).all()


def test_reused_steps_follow_one_that_evaluates_both_halves():
    guided = np.array([False, True, True, True, True, False])
    assert schedule.reused_steps(guided, 1).tolist() == [False, False, True, False, True, False]
    assert schedule.reused_steps(guided, 2).tolist() == [False, False, True, True, False, False]
    assert not schedule.reused_steps(guided, 0).any()


@pytest.mark.parametrize("sigma", [0.01, 1.0, 80.0])
def test_scalings_recover_the_clean_signal(sigma):
    clean, noise = np.random.default_rng(0).normal(size=(2, 1000))
    x = clean + sigma * noise
    angle = np.sqrt(sigma**2 + 1)
    v = (noise - sigma * clean) / angle
    c_skip, c_out, c_in, _ = schedule.scalings(sigma)
    np.testing.assert_allclose(c_skip * x + c_out * v, clean, atol=1e-9)
    assert (c_in * x).std() == pytest.approx(1, rel=0.1)


def test_the_last_step_lands_on_the_estimate():
    x, denoised = np.ones(3, np.float32), np.full(3, 2, np.float32)
    assert (schedule.euler_step(x, denoised, 0.5, 0.0) == denoised).all()
    assert schedule.euler_step(x, denoised, 0.5, 0.25).dtype == np.float32


def test_guidance_rises_from_the_first_frame_to_the_last():
    np.testing.assert_allclose(schedule.guidance_scales(3, 1.0, 3.0), [1, 2, 3])
