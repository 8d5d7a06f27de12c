"""Make procedural training clips: scenes on the sphere, seen as tangent views or as panoramas.

Axes are OpenCV's (+x right, +y down, +z forward); longitude 0 is +z and grows to the right; the direction
of a longitude and latitude is (cos lat sin lon, -sin lat, cos lat cos lon); pixel centres lie at halves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pano4d.examples.demo_model import motions
from pano4d.examples.demo_model.masks import random_masks
from pano4d.examples.demo_model.motions import RENDERERS, WEIGHTS
from pano4d.examples.demo_model.noise import Draw
from pano4d.examples.demo_model.pictures import Pictures

NUM_FRAMES = 14
FOV_DEG = (20.0, 90.0)
HELD_OUT_FOV_DEG = (62.0, 68.0)
MOTION_LEVELS = (3.0, 16.0)
TYPICAL_LEVELS = 8.0


@dataclass
class Scenes:
    """Hold a batch of scenes of one kind; each is a function of unit directions and time.

    Args:
        kind: One of `KINDS`.
        picture: The static pictures behind or within the motion.
        parameters: The motion's random parameters, each float32 [B, ...].
        speed: Scene time that passes in a frame. float32 [B].
    """

    kind: str
    picture: Pictures
    parameters: dict[str, torch.Tensor]
    speed: torch.Tensor

    @classmethod
    def random(cls, kind, draw: Draw, scale_rad, focus=None, held_out: bool = False) -> "Scenes":
        """Draw scenes sized for views `scale_rad` wide [B] around unit directions `focus` [B, 3]."""
        picture = Pictures.random(draw, scale_rad, focus)
        around = draw.unit() if focus is None else focus
        parameters = motions.random_parameters(draw, kind, around, held_out)
        return cls(kind, picture, parameters, torch.ones(draw.batch, device=draw.device))

    def render(self, directions: torch.Tensor, frames: torch.Tensor, pixel_rad: torch.Tensor) -> torch.Tensor:
        """Colour directions at moments.

        Args:
            directions: Unit vectors. float32 [B, N, 3].
            frames: Frame numbers, whole or not. float32 [T].
            pixel_rad: Angle of a pixel, in radians. float32 [B].

        Returns:
            rgb in [0, 1]. float32 [B, T, N, 3].
        """
        batch, count, _ = directions.shape
        points = directions[:, None].expand(-1, len(frames), -1, -1).reshape(batch, -1, 3)
        time = (self.speed[:, None] * frames)[..., None].expand(-1, -1, count).reshape(batch, -1)
        rgb = RENDERERS[self.kind](self.parameters, self.picture, points, time, pixel_rad)
        return rgb.reshape(batch, len(frames), count, 3)


class Scene:
    """One scene with known motion over the whole sphere, for benchmarks that need the truth."""

    def __init__(self, scenes: Scenes):
        self.scenes = scenes

    @classmethod
    def random(cls, generator: torch.Generator, kind: str | None = None, scale_deg: float = 60.0) -> "Scene":
        """Draw a scene from a CPU generator; details suit views `scale_deg` wide."""
        pick = torch.multinomial(torch.tensor(list(WEIGHTS.values())), 1, generator=generator).item()
        draw = Draw(generator, 1)
        scale = torch.tensor([math.radians(scale_deg)])
        return cls(Scenes.random(kind or list(WEIGHTS)[pick], draw, scale))

    def render(self, directions: torch.Tensor, frames, pixel_rad: float = 0.004) -> torch.Tensor:
        """Colour directions [..., 3] at frame numbers [T]. Returns rgb float32 [T, ..., 3] in [0, 1]."""
        shape = directions.shape[:-1]
        times = torch.as_tensor(frames, dtype=torch.float32).reshape(-1)
        flat = directions.reshape(1, -1, 3).float()
        rgb = self.scenes.render(flat, times, torch.tensor([pixel_rad]))
        return rgb.reshape(len(times), *shape, 3)


def panorama_directions(height_px: int) -> torch.Tensor:
    """List the unit directions of an equirectangular picture. float32 [H, 2H, 3]."""
    lat = (0.5 - (torch.arange(height_px) + 0.5) / height_px) * math.pi
    lon = ((torch.arange(2 * height_px) + 0.5) / (2 * height_px) - 0.5) * 2 * math.pi
    lat, lon = torch.meshgrid(lat, lon, indexing="ij")
    return torch.stack([lat.cos() * lon.sin(), -lat.sin(), lat.cos() * lon.cos()], -1)


def view_directions(fov_deg, yaw_deg, pitch_deg, size_px: int) -> torch.Tensor:
    """List the unit directions of upright square tangent views.

    Args:
        fov_deg, yaw_deg, pitch_deg: Field of view, longitude and latitude of the centre. float32 [B].
        size_px: Side of a view.

    Returns:
        float32 [B, size_px, size_px, 3].
    """
    axis = (torch.arange(size_px, device=fov_deg.device) + 0.5) / size_px * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    half = torch.deg2rad(fov_deg / 2).tan()[:, None, None]
    local = torch.stack([x * half, y * half, torch.ones_like(x * half)], -1)
    yaw, pitch = torch.deg2rad(yaw_deg), torch.deg2rad(pitch_deg)
    forward = torch.stack([pitch.cos() * yaw.sin(), -pitch.sin(), pitch.cos() * yaw.cos()], -1)
    right = torch.stack([yaw.cos(), torch.zeros_like(yaw), -yaw.sin()], -1)
    down = torch.linalg.cross(forward, right, dim=-1)
    return F.normalize(local @ torch.stack([right, down, forward], 1)[:, None], dim=-1)


def motion_levels(clips: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Measure motion: mean absolute difference of neighbouring frames inside the mask, in grey levels.

    Args:
        clips: float32 [B, T, 3, h, w] in [0, 1].
        masks: float32 [B, 1, h, w].

    Returns:
        float32 [B].
    """
    change = (clips[:, 1:] - clips[:, :-1]).abs().mean(dim=(1, 2)) * 255
    return (change * masks[:, 0]).sum(dim=(1, 2)) / masks[:, 0].sum(dim=(1, 2)).clamp(min=1)


def motion_bucket(levels: torch.Tensor) -> torch.Tensor:
    """Turn measured grey levels into the motion bucket: 127 at 8 levels, in proportion, 1 to 255."""
    return (levels * (127 / TYPICAL_LEVELS)).round().clamp(1, 255)


@torch.no_grad()
def sample_clips(batch: int, seed: int, device="cpu", size_px: int = 256, held_out: bool = False):
    """Make clips: the first frame outside a random mask, the moving scene inside it.

    Args:
        batch: Number of clips B.
        seed: Decides everything about them.
        device: Where to render.
        size_px: Side of a clip.
        held_out: Draw views and colours that training never shows.

    Returns:
        clips float32 [B, 14, 3, s, s] in [0, 1]; masks float32 [B, 1, s, s]; kinds, a list of B names.
    """
    generator = torch.Generator().manual_seed(seed)
    picks = torch.multinomial(torch.tensor(list(WEIGHTS.values())), batch, True, generator=generator)
    clips = torch.empty(batch, NUM_FRAMES, 3, size_px, size_px, device=device)
    masks = torch.empty(batch, 1, size_px, size_px, device=device)
    for kind in picks.unique().tolist():
        rows = (picks == kind).nonzero()[:, 0]
        draw = Draw(generator, len(rows), device)
        made, mask = _clips_of(list(WEIGHTS)[kind], draw, size_px, held_out)
        clips[rows.to(device)], masks[rows.to(device)] = made, mask
    return clips, masks, [list(WEIGHTS)[k] for k in picks.tolist()]


def _clips_of(kind: str, draw: Draw, size_px: int, held_out: bool):
    fov = _draw_fov(draw, held_out)
    views = view_directions(fov, draw.uniform(-180, 180), (draw.normal() * 28).clamp(-88, 88), size_px)
    scale, focus = torch.deg2rad(fov), views[:, size_px // 2, size_px // 2]
    scenes = Scenes.random(kind, draw, scale, focus, held_out)
    masks, target = random_masks(draw, size_px), draw.log_uniform(*MOTION_LEVELS)
    pixel_rad = scale / size_px
    _set_speed(scenes, views, masks, pixel_rad, target)
    frames = torch.arange(NUM_FRAMES, device=draw.device, dtype=torch.float32)
    moving = scenes.render(views.flatten(1, 2), frames, pixel_rad).unflatten(2, (size_px, size_px)).movedim(-1, 2)
    first = moving[:, :1]
    return first + masks[:, None] * (moving - first), masks


def _draw_fov(draw: Draw, held_out: bool) -> torch.Tensor:
    """Draw fields of view in degrees: within the held-out band, or outside it. float32 [B]."""
    low, high = HELD_OUT_FOV_DEG
    if held_out:
        return draw.uniform(low, high)
    fov = draw.uniform(FOV_DEG[0], FOV_DEG[1] - (high - low))
    return torch.where(fov < low, fov, fov + (high - low))


def _set_speed(scenes: Scenes, views, masks, pixel_rad, target) -> None:
    """Scale the scenes' speed so that motion inside the masks comes near `target` grey levels [B]."""
    step = 4
    coarse, small = views[:, ::step, ::step], masks[:, :, ::step, ::step]
    frames = torch.arange(0, NUM_FRAMES, device=views.device, dtype=torch.float32)
    for _ in range(2):
        rgb = scenes.render(coarse.flatten(1, 2), frames, pixel_rad)
        clips = rgb.unflatten(2, coarse.shape[1:3]).movedim(-1, 2)
        levels = motion_levels(clips, small).clamp(min=0.05)
        scenes.speed = (scenes.speed * (target / levels).clamp(0.3, 4)).clamp(0.05, 4)
