"""Run a denoiser on tiles of a panorama as a run would begin, for whoever watches what it computes with."""

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from pano4d.runtime import noise, schedule, stages, tiles
from pano4d.runtime.backends.base import Engine
from pano4d.runtime.conditions import condition_tiles
from pano4d.runtime.pipeline import Denoiser
from pano4d.runtime.settings import AnimateSettings
from pano4d.runtime.sphere import pixel_directions

TILES, LEVELS, SEED = 4, 4, 0
"""Tiles of a panorama and noise levels that are tried, and the seed of all noise."""


class Networks(Protocol):
    """What is used of ``Engines``: ``bundle`` with ``tile`` and ``sampler``, and engines one after another."""

    bundle: Any

    def use(self, network: str) -> AbstractContextManager[Engine]:
        """Open an engine."""


def run_denoiser(engines: Networks, panorama: np.ndarray) -> list[float]:
    """Evaluate the denoiser on a few tiles, from the first noise level of the schedule to its last.

    Tiles are conditioned and noised as by the sampler, with everything in motion. Between the first level and the last a
    state is the picture with noise on it: what the sampler would have there is only known once the engine is built.

    Args:
        engines: Engines for the CPU.
        panorama: uint8 [H, W, 3].

    Returns:
        The levels.

    Raises:
        BackendError: An engine does not load.
    """
    tile, sampler = engines.bundle.tile, engines.bundle.sampler
    settings = AnimateSettings(seed=SEED).resolved(sampler)
    layout = _few(tiles.icosahedron_vertices())
    told = condition_tiles(engines, layout, panorama, np.ones(panorama.shape[:2], bool), settings)
    unit = noise.sphere_noise(layout, tile["latent_px"], tile["frames"], 4, SEED, settings.shared_noise)
    still = told.latents * np.float32(sampler["scaling_factor"])
    video = np.repeat(still[:, None], tile["frames"], axis=1)
    levels = schedule.noise_levels(settings.levels, settings.steps, sampler)
    chosen = np.unique(np.linspace(0, len(levels) - 2, LEVELS).round().astype(int))
    with engines.use("unet") as engine:
        denoise = Denoiser(engine, told)
        for step in chosen:
            x = stages.first_state(unit, levels[step:], still, told.moving, video if step else None)
            denoise(x, float(levels[step]), sampler["max_guidance_scale"] > 1.0)
    return [float(levels[step]) for step in chosen]


def drawn_panorama(height: int = 512) -> np.ndarray:
    """Draw a panorama without a file: sky, sun and clouds over water and a plain with fine grain.

    Args:
        height: Rows.

    Returns:
        uint8 [height, 2 height, 3].
    """
    right, down, ahead = np.moveaxis(pixel_directions(height, 2 * height), -1, 0)
    waves = sum(np.sin(2.0**k * (right * np.cos(k) + ahead * np.sin(k)) + 1.7 * 2.0**k * down) / (k + 1) for k in range(7))
    grain = np.random.default_rng(SEED).random(down.shape) - 0.5
    sun = np.maximum(0.0, 0.9 * right - 0.3 * down + 0.3 * ahead) ** 200
    sky = np.stack([0.35 - 0.3 * down, 0.5 - 0.3 * down, 0.8 + 0.15 * down], -1) + 0.12 * np.maximum(waves, 0)[..., None]
    water = np.stack([0.05 + 0.1 * waves, 0.2 + 0.1 * waves, 0.3 + 0.12 * waves], -1)
    plain = np.array([0.35, 0.3, 0.15]) * (0.8 + 0.3 * waves + 0.6 * grain)[..., None]
    ground = np.where((right + 0.3 * waves > 0)[..., None], water, plain)
    picture = np.where((down < 0.02)[..., None], sky, ground) + sun[..., None]
    return np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def _few(layout: tiles.Layout) -> tiles.Layout:
    """Take tiles from pole to pole."""
    taken = np.linspace(0, layout.count - 1, TILES).round().astype(int)
    return replace(layout, yaw_deg=layout.yaw_deg[taken], pitch_deg=layout.pitch_deg[taken])
