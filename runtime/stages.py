"""Animate in two stages: wide tiles first, whose motion agrees around the sphere, then tiles of the result's density.

The fine stage starts from the coarse video instead of from noise alone (SDEdit, arXiv 2108.01073), at a level at which
what is large in it survives and what is small is drawn anew::

    x = encode(coarse video) * scaling_factor + fine_sigma * noise
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from pano4d.runtime import image, schedule, tiles
from pano4d.runtime.errors import SettingsError
from pano4d.runtime.settings import AnimateSettings

TILES_AROUND = 4
"""Width of the coarse panorama in tiles: 84 degrees of it are about as wide as a tile, centre and corners averaged."""


def coarse_settings(settings: AnimateSettings, layout: tiles.Layout, tile_px: int) -> AnimateSettings | None:
    """Say how the coarse stage is animated.

    Args:
        settings: Resolved settings of the whole.
        layout: Layout of the fine stage.
        tile_px: Side of a tile.

    Returns:
        Settings of a single stage, never wider than the result; None where there is no coarse stage, because the
        settings ask for none, or because the layout is no denser than the coarse one would be.
    """
    wide = tiles.icosahedron_vertices()
    if settings.stages == "single" or layout.fov_deg >= wide.fov_deg:
        return None
    width = min(TILES_AROUND * tile_px, settings.width)
    # The fine stage draws the fade at the mask's border; drawn twice, it would be slower than asked for; and so with the loop.
    return replace(settings, stages="single", layout="vertices", width=width, height=width // 2, feather_deg=0.0, loop=False)


def coarse_inputs(panorama: np.ndarray, mask: np.ndarray, settings: AnimateSettings) -> tuple[np.ndarray, np.ndarray]:
    """Bring picture and mask to the size of the coarse stage; a pixel moves if any of it does.

    Args:
        panorama: uint8 [H, W, 3].
        mask: True where the picture may move. bool [H, W].
        settings: Those of the coarse stage.

    Returns:
        uint8 [h, w, 3] and bool [h, w].
    """
    size = (settings.height, settings.width)
    return image.resize_panorama(panorama, *size), ~image.resize_whole(~mask, *size)


def sigmas(settings: AnimateSettings, sampler: dict, refines: bool) -> np.ndarray:
    """Give the noise levels of a stage.

    Args:
        settings: Resolved settings.
        sampler: The ``sampler`` block of a bundle's manifest.
        refines: Whether the stage starts from a coarse video, at ``fine_sigma``, with as many steps as keep the
            distances of the whole schedule.

    Returns:
        float64 [steps + 1], as ``schedule.noise_levels`` gives them.

    Raises:
        SettingsError: ``fine_sigma`` is outside the range of the bundle.
    """
    whole = schedule.noise_levels(settings.levels, settings.steps, sampler)
    if not refines:
        return whole
    low, high, first = sampler["sigma_min"], sampler["sigma_max"], settings.fine_sigma
    if not low < first <= high:
        raise SettingsError(f"fine_sigma is {first:g}; with this bundle it must be above {low:g} and at most {high:g}.")
    if settings.levels == "karras":
        rho = sampler["rho"]
        left = (settings.steps - 1) * (first ** (1 / rho) - low ** (1 / rho)) / (high ** (1 / rho) - low ** (1 / rho))
    else:
        left = settings.steps - 1 - float(np.interp(-np.log(first), -np.log(whole[:-1]), np.arange(settings.steps)))
    # Rounding must not add a step to a whole number of them.
    return schedule.noise_levels(settings.levels, 1 + int(np.ceil(left - 1e-9)), {**sampler, "sigma_max": first})


def first_state(unit: np.ndarray, levels: np.ndarray, still: np.ndarray, moving: np.ndarray,
                video: np.ndarray | None) -> np.ndarray:
    """Make the state that denoising starts from.

    Args:
        unit: White noise. float32 [V, T, 4, h, w].
        levels: Noise levels, highest first. float64 [steps + 1].
        still: Scaled latents of the tiles' pictures. float32 [V, 4, h, w].
        moving: Tiles that are denoised. bool [V].
        video: Scaled latents of the coarse video in the moving tiles, float32 [moving, T, 4, h, w]; None for noise
            alone, as strong as noise and picture together.

    Returns:
        float32 [V, T, 4, h, w].
    """
    if video is None:
        return unit * np.float32(schedule.init_noise_sigma(levels))
    x = unit * np.float32(levels[0])
    x[moving] += video
    x[~moving] += still[~moving, None]
    return x


def named(stage: str, tell: Callable[..., Any]) -> Callable[..., Any]:
    """Put a stage's name before the name that a progress function or a timer is given."""
    return lambda name, *more: tell(f"{stage} {name}", *more)
