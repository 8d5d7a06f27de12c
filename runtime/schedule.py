"""Give the noise levels, preconditioning, guidance and steps of the sampler.

Noise levels follow Karras et al. (arXiv 2206.00364, eq. 5); the preconditioning turns a v-prediction
(arXiv 2202.00512) for a variance-exploding state ``x = clean + sigma * noise`` into a denoised estimate::

    denoised = c_skip * x + c_out * v,    v = network(c_in * x, c_noise)
"""

import numpy as np

from pano4d.runtime.errors import SettingsError
from pano4d.runtime.settings import SOLVERS, TRAINED_STEPS

ALIGNED_SIGMAS = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> np.ndarray:
    """Give falling noise levels, ending in 0 (arXiv 2206.00364, eq. 5).

    Args:
        steps: Number of denoising steps.
        sigma_min: Last level above 0.
        sigma_max: First level.
        rho: Curvature; larger spends more steps on low noise.

    Returns:
        float64 [steps + 1].

    Raises:
        SettingsError: No step, or levels that do not satisfy 0 < sigma_min <= sigma_max.
    """
    if steps < 1 or not 0 < sigma_min <= sigma_max:
        raise SettingsError(f"{steps} steps from sigma {sigma_max} to {sigma_min} cannot be made; "
                            "steps must be at least 1 and the sigmas positive and falling.")
    ramp = np.linspace(0.0, 1.0, steps)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return np.append((high + ramp * (low - high)) ** rho, 0.0)


def aligned_sigmas(steps: int, sigma_min: float, sigma_max: float) -> np.ndarray:
    """Give the falling noise levels that Align Your Steps found for Stable Video Diffusion, ending in 0.

    The ten published steps go from 700 to 0.002 (arXiv 2404.14507, table 3). For another number of steps, or another
    range, the curve through their logarithms is cut to the range and divided evenly.

    Args:
        steps: Number of denoising steps.
        sigma_min: Level that the last step would end at; it ends at 0 instead.
        sigma_max: First level.

    Returns:
        float64 [steps + 1].

    Raises:
        SettingsError: No step, or levels that do not satisfy 0 < sigma_min < sigma_max.
    """
    if steps < 1 or not 0 < sigma_min < sigma_max:
        raise SettingsError(f"{steps} steps from sigma {sigma_max} to {sigma_min} cannot be made; "
                            "steps must be at least 1 and the sigmas positive and falling.")
    falling, places = -np.log(ALIGNED_SIGMAS), np.arange(len(ALIGNED_SIGMAS))
    first, last = np.interp([-np.log(sigma_max), -np.log(sigma_min)], falling, places)
    levels = np.exp(-np.interp(np.linspace(first, last, steps + 1), places, falling))
    return np.append(levels[:-1], 0.0)


def consistency_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0,
                       trained: int = TRAINED_STEPS) -> np.ndarray:
    """Give every n-th of the falling noise levels that a consistency model was trained on, ending in 0.

    AnimateLCM (arXiv 2402.00769) is distilled on ``trained`` Karras levels and sampled at the first of them and every
    ``trained // steps``-th after it::

        sigma_i = (max^(1/rho) + i n / (trained - 1) (min^(1/rho) - max^(1/rho)))^rho,   n = trained // steps

    Args:
        steps: Number of denoising steps.
        sigma_min: Last level of the training.
        sigma_max: First level.
        rho: Curvature; larger spends more steps on low noise.
        trained: Levels of the training.

    Returns:
        float64 [steps + 1].

    Raises:
        SettingsError: No step, more steps than levels, or levels that do not satisfy 0 < sigma_min <= sigma_max.
    """
    if steps > trained:
        raise SettingsError(f"{steps} steps were asked for, and the model knows {trained} noise levels: take fewer --steps.")
    if steps < 1:
        return karras_sigmas(steps, sigma_min, sigma_max, rho)
    levels = karras_sigmas(trained, sigma_min, sigma_max, rho)
    return np.append(levels[np.arange(steps) * (trained // steps)], 0.0)


def noise_levels(levels: str, steps: int, sampler: dict) -> np.ndarray:
    """Give the falling noise levels that settings ask for, ending in 0.

    Args:
        levels: One of ``settings.LEVELS``.
        steps: Number of denoising steps.
        sampler: The ``sampler`` block of a bundle's manifest.

    Returns:
        float64 [steps + 1].

    Raises:
        SettingsError: No step, or levels that do not fall.
    """
    if levels == "aligned":
        return aligned_sigmas(steps, sampler["sigma_min"], sampler["sigma_max"])
    if levels == "lcm":
        return consistency_sigmas(steps, sampler["sigma_min"], sampler["sigma_max"], sampler["rho"],
                                  sampler.get("trained_steps", TRAINED_STEPS))
    return karras_sigmas(steps, sampler["sigma_min"], sampler["sigma_max"], sampler["rho"])


def scalings(sigma: float) -> tuple[float, float, float, float]:
    """Give the preconditioning of a v-prediction network at one noise level.

    Args:
        sigma: Noise level above 0.

    Returns:
        c_skip, c_out, c_in, c_noise.

    Raises:
        SettingsError: The noise level is not positive.
    """
    if not sigma > 0:
        raise SettingsError(f"a network cannot be evaluated at sigma {sigma}; it must be positive.")
    power = sigma**2 + 1
    return 1 / power, -sigma / power**0.5, 1 / power**0.5, 0.25 * float(np.log(sigma))


def init_noise_sigma(sigmas: np.ndarray) -> float:
    """Give the standard deviation of the first state, clean picture included.

    Args:
        sigmas: Noise levels, highest first. [steps + 1].

    Returns:
        sqrt(sigma_max² + 1).

    Raises:
        IndexError: There is no level.
    """
    return float(np.sqrt(sigmas[0] ** 2 + 1))


def guidance_scales(frames: int, lo: float, hi: float) -> np.ndarray:
    """Let the guidance grow evenly from the first frame to the last.

    Args:
        frames: Number of frames T.
        lo: Scale of the first frame.
        hi: Scale of the last frame.

    Returns:
        float64 [T].

    Raises:
        ValueError: The number of frames is negative.
    """
    return np.linspace(lo, hi, frames)


def guided_steps(sigmas: np.ndarray, interval: tuple[float, float] | None) -> np.ndarray:
    """Say which steps take guidance (arXiv 2404.07724): those from a level in the interval.

    Args:
        sigmas: Falling noise levels, the last one 0. [steps + 1].
        interval: Levels (lo, hi] with guidance; None for all.

    Returns:
        bool [steps].

    Raises:
        ValueError: The interval is not two numbers.
    """
    lo, hi = (0.0, np.inf) if interval is None else interval
    return (sigmas[:-1] > lo) & (sigmas[:-1] <= hi)


def reused_steps(guided: np.ndarray, reuse: int) -> np.ndarray:
    """Say which guided steps take the difference of the guidance halves from a step before.

    Args:
        guided: Steps with guidance, side by side. bool [steps].
        reuse: Steps that do, after each that evaluates both halves.

    Returns:
        bool [steps].

    Raises:
        ZeroDivisionError: ``reuse`` is -1.
    """
    return guided & ((np.cumsum(guided) - 1) % (reuse + 1) > 0)


def extrapolations(sigmas: np.ndarray, solver: str) -> np.ndarray:
    """Say how far each step looks beyond its estimate: it is taken from ``denoised + k (denoised - previous)``.

    For DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2) k = h_i / (2 h_{i-1}) with h_i = log(sigma_i / sigma_{i+1}).
    The first step has no previous estimate and the last lands on its own: both are first order. The others' k is 0.

    Args:
        sigmas: Falling noise levels, the last one 0. [steps + 1].
        solver: One of ``settings.SOLVERS``.

    Returns:
        k of each step. float64 [steps].

    Raises:
        SettingsError: There is no such solver.
    """
    if solver not in SOLVERS:
        raise SettingsError(f"the solver is {solver!r}; it must be one of {', '.join(SOLVERS)}.")
    weights = np.zeros(len(sigmas) - 1)
    if solver == "dpmpp-2m" and len(weights) > 2:
        h = np.log(sigmas[:-2] / sigmas[1:-1])
        weights[1:-1] = h[1:] / (2 * h[:-1])
    return weights


def landings(sigmas: np.ndarray, solver: str) -> np.ndarray:
    """Say down to which level each step goes: the next one, but for a consistency model, whose estimate is the end.

    Multistep consistency sampling (arXiv 2303.01469, algorithm 1) goes to the estimate and puts fresh noise of the next
    level on it: ``x = denoised + sigma_next z``. What is missing between the landing and the next level is that noise.

    Args:
        sigmas: Falling noise levels, the last one 0. [steps + 1].
        solver: One of ``settings.SOLVERS``.

    Returns:
        float64 [steps].

    Raises:
        IndexError: There is no level.
    """
    return np.zeros(len(sigmas) - 1) if solver == "lcm" else sigmas[1:].copy()


def euler_step(x: np.ndarray, denoised: np.ndarray, sigma: float, sigma_next: float) -> np.ndarray:
    """Take one Euler step of the probability flow (arXiv 2206.00364, algorithm 1).

    Args:
        x: State at ``sigma``.
        denoised: Estimate of the clean latent, of the same shape.
        sigma: Noise level of the state, above 0.
        sigma_next: Noise level to reach; 0 gives the estimate itself.

    Returns:
        State at ``sigma_next``, in the dtype of the operands.

    Raises:
        ZeroDivisionError: ``sigma`` is 0.
    """
    ratio = x.dtype.type(float(sigma_next) / float(sigma))
    return denoised + ratio * (x - denoised)
