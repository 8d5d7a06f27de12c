"""Draw static pictures on the sphere: 1/f noise, gradients, horizons, ridges, dead leaves, many palettes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pano4d.examples.demo_model.noise import Draw, col, fbm

SHAPES = 36
RIDGES = 3


def palette(draw: Draw, colours: int = 5) -> torch.Tensor:
    """Draw palettes from grey to saturated, dark to light. float32 [B, colours, 3] in [0, 1]."""
    base = draw.uniform(0, 1, 1, 3)
    spread = draw.log_uniform(0.08, 0.6, 1, 1)
    tones = torch.linspace(-0.5, 0.5, colours, device=draw.device)[None, :, None]
    order = draw.uniform(-1.6, 1.6, 1, 1)
    wander = draw.normal(colours, 3) * spread * draw.uniform(0.2, 1, 1, 1)
    colour = base * 0.6 + 0.2 + tones * order * draw.uniform(0.6, 1, 1, 3) + wander * 0.6
    grey = colour.mean(-1, keepdim=True)
    return (grey + draw.uniform(0.1, 1, 1, 1) * (colour - grey)).clamp(0, 1)


def look_up(colours: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Interpolate palettes.

    Args:
        colours: float32 [B, K, 3].
        x: Position in the palette, 0 to 1. float32 [B, N].

    Returns:
        float32 [B, N, 3].
    """
    place = x.clamp(0, 1) * (colours.shape[1] - 1)
    out = 0.0
    for k in range(colours.shape[1]):
        out = out + (1 - (place - k).abs()).clamp(min=0)[..., None] * colours[:, k, None]
    return out


@dataclass
class Pictures:
    """Hold a batch of static pictures, each a function of unit directions.

    Args:
        values: Random parameters by name, each float32 [B, ...].
        scale: Angle the details are sized for (a view's field of view), in radians. float32 [B].
    """

    values: dict[str, torch.Tensor]
    scale: torch.Tensor

    @classmethod
    def random(cls, draw: Draw, scale: torch.Tensor, focus: torch.Tensor | None = None) -> "Pictures":
        """Draw pictures whose details suit views `scale` radians wide.

        Args:
            draw: Source of B scenes' parameters.
            scale: Field of view the details are sized for, in radians. float32 [B].
            focus: Unit directions around which shapes gather; None spreads them evenly. float32 [B, 3].
        """
        centre = draw.unit(SHAPES)
        if focus is not None:
            centre = F.normalize(focus[:, None] + centre * 0.7 * scale[:, None, None], dim=-1)
        stretch = torch.diag_embed(draw.log_uniform(0.5, 3, 3)) @ draw.unit(3)
        up = torch.tensor([0.0, -1.0, 0.0], device=draw.device).expand(draw.batch, SHAPES, 3)
        values = {
            "lattice": draw.lattice(3),
            "axes": torch.where(draw.chance(0.4)[:, None, None] > 0, stretch, torch.eye(3, device=draw.device)),
            "frequency": draw.log_uniform(1.5, 10),
            "gain": draw.uniform(0.35, 0.62),
            "contrast": draw.log_uniform(0.12, 0.5),
            "tint": draw.log_uniform(0.01, 0.15),
            "warp": draw.uniform(0, 1.5) * draw.chance(0.4),
            "palette": palette(draw),
            "tilt": draw.normal(3) * 0.35,
            "ridges": draw.chance(0.45)[:, None] * draw.chance(0.8, RIDGES),
            "ridge_height": draw.normal(RIDGES) * 0.25,
            "ridge_rough": draw.log_uniform(0.02, 0.25, RIDGES),
            "ridge_colour": palette(draw, RIDGES),
            "ridge_texture": draw.log_uniform(0.02, 0.25, RIDGES),
            "shapes": (draw.uniform(0, 1, SHAPES) < draw.chance(0.5)[:, None] * draw.uniform(0.1, 0.9)[:, None]).float(),
            "centre": centre,
            "axis": torch.where(draw.chance(0.5)[:, None, None] > 0, up, draw.unit(SHAPES)),
            "size": draw.log_uniform(0.06, 0.7, SHAPES, 2),
            "box": draw.chance(0.5, SHAPES),
            "shape_colour": palette(draw, SHAPES),
            "shape_shade": draw.normal(SHAPES) * 0.15,
            "shape_texture": draw.log_uniform(0.02, 0.3, SHAPES),
            "exposure": draw.log_uniform(0.35, 1.3),
            "gamma": draw.uniform(0.7, 1.5),
        }
        return cls(values, scale)

    def colours(self, points: torch.Tensor, pixel_rad: torch.Tensor) -> torch.Tensor:
        """Evaluate the pictures.

        Args:
            points: Unit directions. float32 [B, N, 3].
            pixel_rad: Angle of one pixel, in radians; nothing finer is drawn. float32 [B].

        Returns:
            rgb in [0, 1]. float32 [B, N, 3].
        """
        v = self.values
        frequency = v["frequency"] / self.scale
        where = (points @ v["axes"]) * frequency[:, None, None]
        finest = frequency * pixel_rad
        if bool(v["warp"].any()):
            bend = fbm(v["lattice"], where * 0.5 + 3.1, 2, v["gain"], finest).movedim(1, 2)
            where = where + bend * v["warp"][:, None, None]
        texture = fbm(v["lattice"], where, 6, v["gain"], finest)
        height = (points * v["tilt"][:, None]).sum(-1) / col(self.scale).clamp(max=1.2)
        rgb = look_up(v["palette"], 0.5 + col(v["contrast"]) * texture[:, 0] + height)
        rgb = rgb + texture.movedim(1, 2) * v["tint"][:, None, None]
        rgb = self._ridges(rgb, points, texture[:, 1], pixel_rad)
        rgb = self._shapes(rgb, points, texture[:, 2], pixel_rad)
        rgb = rgb.clamp(0, 1) ** v["gamma"][:, None, None]
        return (rgb * v["exposure"][:, None, None]).clamp(0, 1)

    def _ridges(self, rgb, points, texture, pixel_rad):
        v = self.values
        if not bool(v["ridges"].any()):
            return rgb
        level = points * torch.tensor([1.0, 0.0, 1.0], device=points.device)
        level = F.normalize(level, dim=-1) * (3 / self.scale)[:, None, None]
        profile = fbm(v["lattice"], level, 5, v["gain"], 3 / self.scale * pixel_rad)
        elevation = -points[..., 1] / col(self.scale)
        width = col(pixel_rad / self.scale)
        for k in range(RIDGES):
            top = v["ridge_height"][:, k, None] - 0.12 * k + v["ridge_rough"][:, k, None] * profile[:, k % 3]
            inside = ((top - elevation) / width + 0.5).clamp(0, 1) * v["ridges"][:, k, None]
            shade = v["ridge_texture"][:, k, None] * texture
            colour = v["ridge_colour"][:, k, None] + shade[..., None]
            rgb = rgb + inside[..., None] * (colour - rgb)
        return rgb

    def _shapes(self, rgb, points, texture, pixel_rad):
        v = self.values
        across = F.normalize(torch.linalg.cross(v["centre"], v["axis"], dim=-1), dim=-1)
        along = torch.linalg.cross(v["centre"], across, dim=-1)
        size = v["size"] * self.scale[:, None, None]
        for k in range(SHAPES):
            if not bool(v["shapes"][:, k].any()):
                continue
            x = torch.einsum("bnc,bc->bn", points, across[:, k] / size[:, k, :1])
            y = torch.einsum("bnc,bc->bn", points, along[:, k] / size[:, k, 1:])
            front = torch.einsum("bnc,bc->bn", points, v["centre"][:, k]) > 0
            box = v["box"][:, k, None]
            radius = box * torch.maximum(x.abs(), y.abs()) + (1 - box) * (x * x + y * y + 1e-9).sqrt()
            soft = col(pixel_rad / size[:, k].amin(-1))
            inside = ((1 - radius) / soft + 0.5).clamp(0, 1) * front * v["shapes"][:, k, None]
            shade = v["shape_shade"][:, k, None] * y + v["shape_texture"][:, k, None] * texture
            colour = v["shape_colour"][:, k, None] + shade[..., None]
            rgb = rgb + inside[..., None] * (colour - rgb)
        return rgb
