"""Draw random numbers and evaluate smooth noise at points of space.

Noise is a small periodic lattice of normal values, interpolated with a quintic fade (Perlin, 2002), so
that a field over the sphere is a plain function of 3-D points and has neither seam nor pole.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

CELLS = 16
_TURN = torch.tensor([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
_UNIT_STD = 1.75


class Draw:
    """Draw batched random parameters from one CPU generator, so that they are the same on every device.

    Args:
        generator: Source of randomness, on the CPU.
        batch: Number of scenes B.
        device: Where the tensors go.
    """

    def __init__(self, generator: torch.Generator, batch: int, device: torch.device | str = "cpu"):
        self.generator, self.batch, self.device = generator, batch, device

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """Draw from [low, high). float32 [B, *shape]."""
        values = torch.rand(self.batch, *shape, generator=self.generator)
        return (low + (high - low) * values).to(self.device)

    def log_uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """Draw with a uniform logarithm. float32 [B, *shape]."""
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def normal(self, *shape: int) -> torch.Tensor:
        """Draw standard normal values. float32 [B, *shape]."""
        return torch.randn(self.batch, *shape, generator=self.generator).to(self.device)

    def chance(self, probability: float, *shape: int) -> torch.Tensor:
        """Draw 1 with a probability, else 0. float32 [B, *shape]."""
        return (self.uniform(0, 1, *shape) < probability).float()

    def unit(self, *shape: int) -> torch.Tensor:
        """Draw unit vectors. float32 [B, *shape, 3]."""
        return F.normalize(self.normal(*shape, 3), dim=-1)

    def lattice(self, channels: int) -> torch.Tensor:
        """Draw a periodic lattice. float32 [B, channels, CELLS+1, CELLS+1, CELLS+1]."""
        values = self.normal(channels, CELLS, CELLS, CELLS)
        return F.pad(values, (0, 1, 0, 1, 0, 1), mode="circular")


def noise(lattice: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Interpolate a lattice.

    Args:
        lattice: float32 [B, C, CELLS+1, CELLS+1, CELLS+1].
        points: Positions in lattice cells. float32 [B, N, 3].

    Returns:
        Values of about unit standard deviation. float32 [B, C, N].
    """
    points = torch.remainder(points, CELLS)
    whole = points.floor()
    part = points - whole
    faded = whole + part * part * part * (part * (part * 6 - 15) + 10)
    grid = (faded * (2 / CELLS) - 1)[:, None, None]
    values = F.grid_sample(lattice, grid, padding_mode="border", align_corners=True)
    return values[:, :, 0, 0] * _UNIT_STD


def fbm(
    lattice: torch.Tensor,
    points: torch.Tensor,
    octaves: int,
    gain: torch.Tensor,
    finest: torch.Tensor | None = None,
    phase: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum octaves of noise, of about unit standard deviation together.

    Args:
        lattice: float32 [B, C, ...]; with `phase`, its two halves of channels are morphed into one another.
        points: Positions in cells of the coarsest octave. float32 [B, N, 3].
        octaves: Number of octaves, each twice as fine as the one before.
        gain: Amplitude of an octave over that of the one before. float32 [B].
        finest: Cells of the coarsest octave that one pixel spans; octaves a pixel can't show fade out. [B].
        phase: Angle of the morph, in radians; finer octaves turn faster. float32 [B, N].

    Returns:
        float32 [B, C, N], or [B, C/2, N] with `phase`.
    """
    turn = _TURN.to(points)
    total, power = 0.0, 0.0
    for octave in range(octaves):
        weight = gain**octave
        if finest is not None:
            weight = weight * (1.5 - 3 * finest * 2**octave).clamp(0, 1)
        value = noise(lattice, points * 2**octave + 5.3 * octave)
        if phase is not None:
            first, second = value.chunk(2, dim=1)
            angle = (phase * 1.35**octave)[:, None]
            value = first * angle.cos() + second * angle.sin()
        total = total + value * weight[:, None, None]
        power = power + weight**2
        points = points @ turn
    return total / (power + 1e-6).sqrt()[:, None, None]


def smoothstep(low: torch.Tensor | float, high: torch.Tensor | float, x: torch.Tensor) -> torch.Tensor:
    """Rise smoothly from 0 at `low` to 1 at `high`."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def col(values: torch.Tensor) -> torch.Tensor:
    """Shape per-scene values [B] to meet per-point values [B, N]."""
    return values[:, None]
