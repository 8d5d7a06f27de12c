"""Spoil true distances as a monocular depth estimator would: scale and shift unknown, large waves, soft edges, flicker.

An estimator sees one tangent tile at a time. What it gets wrong for a tile stays over the frames, but for a little scale
and grain, which are new in each. The same seed gives the same errors on any device.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from pano4d.benchmarks.scene_noise import draw, hash_cells
from pano4d.runtime.errors import SettingsError

KINDS = ("depth", "inverse_depth")
_WAVES = 48


@dataclass(frozen=True)
class EstimatorNoise:
    """Say how wrong an estimator is; the values are those of good ones on unfamiliar pictures.

    Attributes:
        scale_sigma: Spread of the logarithm of a tile's scale.
        shift_share: Spread of a tile's shift, as a share of the median of what is estimated.
        wave_sigma: Spread of the smooth error, as a share of the distance.
        wave_length_share: Distance over which that stays alike, as a share of the tile's side.
        blur_px: Standard deviation of the blur, which shows at edges, pixels.
        jitter_sigma: Spread of the logarithm of a frame's scale.
        pixel_sigma: Spread of a pixel's own error, as a share of the distance.
    """

    scale_sigma: float = 0.2
    shift_share: float = 0.1
    wave_sigma: float = 0.03
    wave_length_share: float = 0.25
    blur_px: float = 2.0
    jitter_sigma: float = 0.02
    pixel_sigma: float = 0.01


def distort(distance_tile: torch.Tensor, seed: int, kind: str, noise: EstimatorNoise = EstimatorNoise(),
            first_frame: int = 0) -> torch.Tensor:
    """Estimate the distances of a tile, badly.

    Args:
        distance_tile: True distances of one tile, above 0; leading axes are its frames. [..., h, w]
        seed: Which tile of which run.
        kind: "depth": the estimate is an affine function of distance; "inverse_depth": one of its inverse.
        noise: How wrong it is.
        first_frame: Number of the first frame, if they come one by one.

    Returns:
        Distance or inverse distance, up to an unknown scale and shift; it may fall below 0. float32 [..., h, w].

    Raises:
        SettingsError: The kind is unknown.
    """
    if kind not in KINDS:
        raise SettingsError(f"There is no estimator of kind {kind!r}; give one of {', '.join(KINDS)}.")
    height, width = distance_tile.shape[-2:]
    frames = distance_tile.float().reshape(-1, height, width)
    scale, shift = _normals(seed, 2)
    wave = noise.wave_sigma * smooth_field(height, width, noise.wave_length_share, seed).to(frames.device)
    logs = _blurred(frames.log(), noise.blur_px) + wave
    for number, log in enumerate(logs, first_frame):
        own = seed * 9973 + number * 101
        log += noise.jitter_sigma * float(_normals(own + 7, 1)[0]) + noise.pixel_sigma * _grain(log, own)
    estimate = (logs if kind == "depth" else -logs).exp()
    offset = noise.shift_share * float(shift) * estimate.median()
    return (math.exp(noise.scale_sigma * float(scale)) * (estimate + offset)).reshape(distance_tile.shape)


def smooth_field(height: int, width: int, length_share: float, seed: int) -> torch.Tensor:
    """Draw a smooth random field of mean 0 and spread 1: a sum of waves (random Fourier features).

    Args:
        height: Rows.
        width: Columns.
        length_share: Where its correlation has fallen to exp(-1/2), as a share of the width.
        seed: Which one.

    Returns:
        float32 [h, w].

    Raises:
        ZeroDivisionError: The length or the width is 0.
    """
    along_x, along_y = _normals(seed + 500_009, 2 * _WAVES).reshape(2, _WAVES, 1, 1) / (length_share * width)
    phase = 2 * np.pi * draw(seed + 900_001, _WAVES)[:, None, None]
    x, y = np.arange(width)[None], np.arange(height)[:, None]
    field = sum(np.cos(kx * x + ky * y + p) for kx, ky, p in zip(along_x, along_y, phase, strict=True))
    return torch.from_numpy(math.sqrt(2 / _WAVES) * field).float()


def _normals(seed: int, count: int) -> np.ndarray:
    """Return normally distributed numbers, after Box and Muller. float64 [count]."""
    first, second = draw(seed, 2 * count).reshape(2, count)
    return np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * np.pi * second)


def _grain(like: torch.Tensor, seed: int) -> torch.Tensor:
    """Return a normally distributed number for each pixel [h, w]."""
    rows, columns = (torch.arange(n, dtype=torch.int32, device=like.device) for n in like.shape)
    keys = torch.tensor([2 * seed, 2 * seed + 1], device=like.device).remainder(2**31).int()
    first, second = (hash_cells(columns[None], rows[:, None], key) for key in keys)
    return (-2 * (1 - first * 0.99999).log()).sqrt() * (2 * math.pi * second).cos()


def _blurred(frames: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """Blur frames [T, h, w] with a Gaussian; beyond the border the last pixel goes on."""
    reach = math.ceil(3 * sigma_px)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=frames.device) / max(sigma_px, 1e-6)) ** 2)
    taps = taps / taps.sum()
    for axis in (1, 2):
        last = frames.shape[axis] - 1
        index = torch.arange(last + 1, device=frames.device)
        frames = sum(tap * frames.index_select(axis, (index + step).clamp(0, last))
                     for step, tap in zip(range(-reach, reach + 1), taps, strict=True))
    return frames
