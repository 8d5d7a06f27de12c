"""Colour what rays meet: paint, sun, lamp, sky. Nothing depends on where the viewer stands but how fine it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pano4d.benchmarks.scene_hits import SolidTables, first_hits, tables, to_local
from pano4d.benchmarks.scene_noise import octaves
from pano4d.benchmarks.scene_rays import Block
from pano4d.benchmarks.scene_shapes import BALL, LEAF, ROD, World
from pano4d.benchmarks.scene_textures import Spots, paint

SKY_DISTANCE_M = 400.0
"""Radius of the shell around the centre that the sky is painted on, metres."""

_LAMP_REACH_M = 3.0
_OFF_SURFACE_M = 2e-3


@dataclass(frozen=True)
class Stage:
    """Keep a world on a device.

    Attributes:
        world: What it is made of.
        held: Its solids.
        centers: Middles of balls around its solids, float64 [P, 3].
        reaches: Their radii. float64 [P].
        shady: Which solids cast shadows. bool [P].
    """

    world: World
    held: SolidTables
    centers: np.ndarray
    reaches: np.ndarray
    shady: np.ndarray

    @classmethod
    def of(cls, world: World, device: torch.device | str) -> "Stage":
        """Move a world to a device. Raises RuntimeError if that is not there."""
        solids = world.solids()
        return cls(world, tables(solids, device), solids.centers, solids.reaches, solids.kinds != LEAF)

    def trace(self, block: Block, start: np.ndarray, origin: torch.Tensor,
              rays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Find what the rays of a block meet first.

        Args:
            block: A cone that holds the rays.
            start: Their origin. float64 [3].
            origin: The same on the device. float32 [3, 1].
            rays: float32 [3, N].

        Returns:
            Distance, infinite where nothing is met, and number, first solids, then sheets. None: nothing is near.

        Raises:
            RuntimeError: The shapes do not fit.
        """
        chosen = block.meets(start, self.centers, self.reaches)
        sheets = [(i, s) for i, s in enumerate(self.world.sheets)
                  if block.meets(start, s.center[None], np.array([s.reach]))[0]]
        if not chosen.any() and not sheets:
            return None
        best, number = first_hits(self.held, chosen, origin, rays)
        for i, sheet in sheets:
            t = sheet.meet(origin, rays)
            number = torch.where(t < best, len(self.centers) + i, number)
            best = torch.minimum(t, best)
        return best, number


def colors(stage: Stage, paints: dict[str, torch.Tensor], shade: Stage, number: torch.Tensor, points: torch.Tensor,
           rays: torch.Tensor, pixel: torch.Tensor) -> torch.Tensor:
    """Colour points on surfaces.

    Args:
        stage: The world they lie in.
        paints: Tables of its palette.
        shade: The world that casts shadows.
        number: What they lie on, as ``Stage.trace`` counts. int64 [N].
        points: float32 [3, N].
        rays: Directions they are seen along. float32 [3, N].
        pixel: Side of a pixel there if the surface faced it, metres. float32 [N].

    Returns:
        0 to 1. float32 [3, N].

    Raises:
        RuntimeError: The shapes do not fit.
    """
    local, across, normal, which = _surfaces(stage, number, points)
    slant = (normal * rays).sum(0)
    normal = torch.where(slant > 0, -normal, normal)
    footprint = pixel / slant.abs().clamp_min(0.06).sqrt()
    bare = torch.zeros_like(points)
    kinds = stage.world.palette.kinds
    for kind in sorted(set(kinds)):
        member = torch.tensor([k == kind for k in kinds], device=points.device)
        some = member[which].nonzero()[:, 0]
        if len(some):
            own = which[some]
            first, second, line = paints["colors"][own].T.reshape(3, 3, -1)
            spots = Spots(local[:, some], across[:, some], footprint[some], first, second, line, paints["scale"][own],
                          paints["seed"][own])
            bare[:, some] = paint(spots, kind, paints["contrast"][own])
    light = shade.world.light
    lit = bare * _lighting(shade, points, normal)
    hidden = 1 - torch.exp(-points.norm(dim=0) / light.haze_m)
    return (lit + (_column(light.horizon, points) - lit) * hidden).clamp(0, 1)


def sky(stage: Stage, points: torch.Tensor, pixel_angle: float) -> torch.Tensor:
    """Colour points of the shell: a gradient and clouds. float32 [3, N] to colours, float32 [3, N]."""
    light, ways = stage.world.light, points / SKY_DISTANCE_M
    blue = (-ways[1]).clamp(0, 1).sqrt()
    base = _column(light.horizon, ways) + (_column(light.zenith, ways) - _column(light.horizon, ways)) * blue
    full = torch.ones_like(blue)
    seed = torch.full_like(blue, stage.world.palette.seed, dtype=torch.int32)
    # Flattened as seen from below: clouds crowd towards the horizon.
    flat = ways / (0.35 - ways[1]).clamp_min(0.2)
    noise = octaves(flat, full * 0.9, full * pixel_angle * 2, seed, 8, 0.6)
    cloudy = ((noise + light.cover) * 1.4).clamp(0, 1)
    return base + (_column(light.clouds, ways) * (0.92 + 0.1 * noise) - base) * cloudy * 0.85


def _lighting(shade: Stage, points: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
    """Return by how much light multiplies a colour. [N]"""
    light = shade.world.light
    sun = np.asarray(light.sun) / np.linalg.norm(light.sun)
    amount = light.ambient * (0.85 - 0.15 * normal[1])
    facing = (normal * _column(sun, points)).sum(0).clamp_min(0)
    if light.sunlight:
        some = (facing > 0).nonzero()[:, 0]
        facing[some] *= ~_shadowed(shade, points[:, some] + _OFF_SURFACE_M * normal[:, some], sun)
        amount = amount + light.sunlight * facing
    if light.lamp is not None:
        way = _column(light.lamp, points) - points
        length = way.norm(dim=0)
        share = (normal * way).sum(0).clamp_min(0) / length / (1 + (length / _LAMP_REACH_M) ** 2)
        amount = amount + light.lamplight * share
    return amount


def _shadowed(shade: Stage, points: torch.Tensor, sun: np.ndarray) -> torch.Tensor:
    """Tell which points the sun does not reach; sheets and leaves let it through. [N]"""
    if not points.shape[1]:
        return torch.zeros(0, dtype=torch.bool, device=points.device)
    low, high = (bound.double().cpu().numpy() for bound in (points.amin(1), points.amax(1)))
    offset = shade.centers - (low + high) / 2
    reach = shade.reaches + np.linalg.norm(high - low) / 2
    ahead = offset @ sun
    aside = np.linalg.norm(offset - ahead[:, None] * sun, axis=-1)
    chosen = shade.shady & (ahead > -reach) & (aside < reach)
    rays = _column(sun, points).expand(3, points.shape[1])
    return first_hits(shade.held, chosen, points, rays)[0] < shade.world.light.shade_m


def _surfaces(stage: Stage, number: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return local place [3, N], place on the face [2, N], normal [3, N] and paint [N] of points."""
    held, count = stage.held, len(stage.centers)
    local, normal, across, which = points.clone(), points.clone(), points[:2].clone(), number.clone()
    if count:
        own = number.clamp_max(count - 1)
        local = to_local(held.rotations[own], points - held.centers[own].T)
        normal, across = _faces(held.kinds[own], local, held.sizes[own].T)
        normal = torch.stack([(held.rotations[own, i].T * normal).sum(0) for i in range(3)])
        which = held.paints[own]
    for i, sheet in enumerate(stage.world.sheets):
        some = (number == count + i).nonzero()[:, 0]
        if len(some):
            local[:, some], normal[:, some] = sheet.place(points[:, some])
            across[:, some] = local[::2, some]
            which[some] = sheet.paint
    return local, across, normal, which


def _faces(kinds: torch.Tensor, local: torch.Tensor, size: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normals in a solid's own axes [3, N] and where points lie on its face [2, N]."""
    x, y, z = local
    # A leaf is flat: its own face is the one across z.
    outward = local.abs() / size.clamp_min(1e-9)
    side = torch.where(kinds == LEAF, torch.full_like(kinds, 2), outward.argmax(0))
    radius, low, half, high = (x * x + z * z).sqrt(), size[0], size[1], size[2]
    grow = (high - low) / (2 * half)
    lid = (half - y.abs()) < ((low + high) / 2 + grow * y - radius).abs()
    side = torch.where(kinds == ROD, torch.ones_like(side), side)
    flat = torch.zeros_like(local).scatter_(0, side[None], torch.where(kinds == LEAF, torch.ones_like(x),
                                                                       local.gather(0, side[None])[0].sign())[None])
    ball = local / size.clamp_min(1e-9) ** 2
    rod = torch.stack([x / radius.clamp_min(1e-9), -grow, z / radius.clamp_min(1e-9)])
    curved = (kinds == BALL) | ((kinds == ROD) & ~lid)
    normal = torch.where(curved, torch.where(kinds == BALL, ball, rod), flat)
    around = torch.atan2(x, z) * torch.where(kinds == BALL, size.amax(0), (low + high) / 2)
    face = torch.stack([torch.where(side == 0, z, x), torch.where(side == 1, z, y)])
    across = torch.where(curved, torch.stack([around, y]), face)
    return normal / normal.norm(dim=0).clamp_min(1e-9), across


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """Return three numbers as a column [3, 1] on the device of a tensor."""
    return torch.tensor([float(v) for v in values], dtype=torch.float32, device=like.device)[:, None]
