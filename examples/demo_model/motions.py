"""Move pictures and matter: each motion colours unit directions at each moment of time.

A motion is a function `(parameters, picture, points, time, pixel_rad) -> rgb`. Points are [B, N, 3] with N
holding every frame's directions, `time` [B, N] is in units of the scene's own speed, rgb is [B, N, 3].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from pano4d.examples.demo_model.noise import Draw, col, fbm, smoothstep
from pano4d.examples.demo_model.pictures import Pictures, look_up, palette

WAVES = 3
LIGHTS = 6
FLOWS = ("drift", "swirl", "cloth", "melt")
KINDS = FLOWS + ("clouds", "water", "smoke", "fire", "lava", "flicker")
WEIGHTS = {
    "drift": 0.16, "swirl": 0.14, "cloth": 0.12, "melt": 0.1, "clouds": 0.14,
    "water": 0.12, "smoke": 0.08, "fire": 0.06, "lava": 0.04, "flicker": 0.04,
}  # fmt: skip


def random_parameters(draw: Draw, kind: str, focus: torch.Tensor, held_out: bool) -> dict[str, torch.Tensor]:
    """Draw every motion's parameters; `held_out` turns fire to colours that training never shows."""
    flow = torch.tensor([float(kind == name) for name in FLOWS], device=draw.device).expand(draw.batch, 4)
    mixed = flow * draw.uniform(0.7, 1.3, 4) + draw.chance(0.2, 4) * draw.uniform(0, 0.4, 4)
    heat = torch.tensor(
        [[0, 0, 0], [0.35, 0.04, 0.01], [0.85, 0.25, 0.03], [1, 0.65, 0.15], [1, 0.95, 0.7]], device=draw.device
    )
    heat = heat.roll(1, dims=-1) if held_out else heat
    side = F.normalize(torch.linalg.cross(draw.unit(), focus, dim=-1) + 1e-4, dim=-1)
    return {
        "lattice": draw.lattice(6),
        "flow": mixed,
        "axis": side,
        "wave": draw.unit(WAVES) * draw.log_uniform(4, 30, WAVES, 1),
        "wave_speed": draw.uniform(0.2, 0.6, WAVES) * (draw.chance(0.5, WAVES) * 2 - 1),
        "wave_size": draw.log_uniform(0.004, 0.02, WAVES),
        "wave_push": side[:, None] + 0.5 * draw.unit(WAVES),
        "shading": draw.uniform(0, 0.3),
        "frequency": draw.log_uniform(2, 9),
        "gain": draw.uniform(0.4, 0.62),
        "turn": draw.uniform(0.04, 0.3),
        "wind": side * draw.log_uniform(0.01, 0.15)[:, None],
        "rise": draw.log_uniform(0.08, 0.4),
        "cover": draw.uniform(-0.7, 0.7),
        "soft": draw.uniform(0.5, 2.0),
        "palette": palette(draw),
        "light": draw.uniform(0.6, 1, 1, 1) - draw.uniform(0, 0.25, 1, 3),
        "squash": draw.uniform(2, 6),
        "heat": (heat * draw.uniform(0.75, 1.1, 1, 3)).clamp(0, 1),
        "lamp": F.normalize(focus[:, None] + 0.4 * draw.normal(LIGHTS, 3), dim=-1),
        "lamp_size": draw.log_uniform(0.1, 0.5, LIGHTS),
        "lamp_colour": 1 - draw.uniform(0, 0.6, LIGHTS, 3),
        "lamp_phase": draw.uniform(0, 20, LIGHTS),
    }


def flow(p, picture: Pictures, points, time, pixel_rad):
    """Carry a picture along: drift, curl, travelling waves of cloth, slow boiling, or some of each."""
    scale, on = picture.scale[:, None, None], p["flow"][:, :, None, None]
    reach = 0.02 * scale * time[..., None]
    moved = points + on[:, 0] * reach * torch.linalg.cross(p["axis"][:, None].expand_as(points), points, dim=-1)
    finest = p["frequency"] / picture.scale * pixel_rad
    where = points * (p["frequency"] / picture.scale)[:, None, None]
    if bool((p["flow"][:, 1] > 0).any()):
        curl = fbm(p["lattice"][:, :3], where * 0.6, 2, p["gain"] * 0.6, finest).movedim(1, 2)
        moved = moved + on[:, 1] * reach * torch.linalg.cross(points, curl, dim=-1)
    if bool((p["flow"][:, 3] > 0).any()):
        boil = fbm(p["lattice"], where, 2, p["gain"] * 0.7, finest, time * 0.25).movedim(1, 2)
        moved = moved + on[:, 3] * 0.035 * scale * boil
    light = 0.0
    for k in range(WAVES):
        angle = (points @ p["wave"][:, k, :, None])[..., 0] / col(picture.scale) - time * p["wave_speed"][:, k, None]
        size = (p["wave_size"][:, k] * p["flow"][:, 2])[:, None]
        moved = moved + (size * angle.sin())[..., None] * scale * p["wave_push"][:, k, None]
        light = light + size / 0.02 * angle.cos()
    rgb = picture.colours(F.normalize(moved, dim=-1), pixel_rad)
    return (rgb * (1 + col(p["shading"]) * light)[..., None]).clamp(0, 1)


def clouds(p, picture: Pictures, points, time, pixel_rad):
    """Drift and billow lit clouds over a graded sky."""
    where, finest = _cells(p, picture, points, time, pixel_rad)
    field = fbm(p["lattice"][:, :4], where, 5, p["gain"], finest, time * col(p["turn"]))
    density = smoothstep(0, 1, (field[:, 0] + col(p["cover"])) * 0.5 * col(p["soft"]) + 0.3)
    height = (0.5 - points[..., 1] * 0.8).clamp(0, 1)
    sky = look_up(p["palette"][:, :3], height)
    tone = (0.72 + 0.18 * field[:, 1])[..., None]
    return (sky + density[..., None] * (p["light"] * tone - sky)).clamp(0, 1)


def water(p, picture: Pictures, points, time, pixel_rad):
    """Ripple a reflecting surface: bands stretched sideways, glints on the crests."""
    squashed = points * torch.stack([torch.ones_like(p["squash"]), p["squash"], torch.ones_like(p["squash"])], -1)[:, None]
    where, finest = _cells(p, picture, squashed, time, pixel_rad)
    field = fbm(p["lattice"][:, :4], where, 4, p["gain"], finest * p["squash"] * 0.6, time * col(p["turn"]) * 2)
    height = 0.5 + 0.4 * points[..., 1] + 0.16 * field[:, 0]
    glint = smoothstep(0.8, 2.2, field[:, 1] + 0.5 * field[:, 0])
    rgb = look_up(p["palette"], height)
    return (rgb + (glint * 0.6)[..., None] * (p["light"] - rgb)).clamp(0, 1)


def smoke(p, picture: Pictures, points, time, pixel_rad):
    """Let veils rise and thin out in front of a picture."""
    density, tone = _rising(p, picture, points, time, pixel_rad, 1.0)
    alpha = 0.85 * smoothstep(0.1, 1.6, density + col(p["cover"]))
    behind = picture.colours(points, pixel_rad)
    front = p["light"] * (0.6 + 0.25 * tone)[..., None]
    return (behind + alpha[..., None] * (front - behind)).clamp(0, 1)


def fire(p, picture: Pictures, points, time, pixel_rad):
    """Let tongues of fire rise, hot where dense, over a darkened picture."""
    density, tone = _rising(p, picture, points, time, pixel_rad, 1.6)
    heat = (0.45 + 0.28 * density + 0.1 * tone + 0.2 * col(p["cover"])).clamp(0, 1)
    behind = picture.colours(points, pixel_rad) * 0.4
    return (behind * (1 - heat[..., None]) + look_up(p["heat"], heat)).clamp(0, 1)


def lava(p, picture: Pictures, points, time, pixel_rad):
    """Let glowing cracks creep and pulse in a dark crust."""
    where, finest = _cells(p, picture, points, time * 0.5, pixel_rad)
    field = fbm(p["lattice"][:, :4], where, 4, p["gain"], finest, time * col(p["turn"]))
    pulse = 0.75 + 0.25 * torch.sin(time * 0.45 + field[:, 1])
    glow = (1 - field[:, 0].abs() * 1.3).clamp(0, 1) ** 2 * pulse
    crust = picture.colours(points, pixel_rad) * 0.35
    return (crust + look_up(p["heat"], glow) * glow[..., None]).clamp(0, 1)


def flicker(p, picture: Pictures, points, time, pixel_rad):
    """Let lamps brighten and dim a picture."""
    glow = 0.45
    for k in range(LIGHTS):
        near = 1 - torch.einsum("bnc,bc->bn", points, p["lamp"][:, k])
        fall = torch.exp(-near / (p["lamp_size"][:, k] * picture.scale)[:, None] ** 2)
        beat = time * 0.35 + p["lamp_phase"][:, k, None]
        level = 0.5 + 0.3 * torch.sin(beat) + 0.2 * torch.sin(2.3 * beat + k)
        glow = glow + (fall * level)[..., None] * p["lamp_colour"][:, k, None]
    return (picture.colours(points, pixel_rad) * glow).clamp(0, 1)


def _cells(p, picture, points, time, pixel_rad):
    """Place points in lattice cells, blown along by the wind. Returns points [B, N, 3] and cells a pixel [B]."""
    frequency = p["frequency"] / picture.scale
    blown = points * frequency[:, None, None] - time[..., None] * (p["wind"] * p["frequency"][:, None])[:, None]
    return blown, frequency * pixel_rad


def _rising(p, picture, points, time, pixel_rad, speed):
    """Rise in tall, bent columns. Returns two fields of about unit deviation, each [B, N]."""
    frequency = p["frequency"] * 0.8 / picture.scale
    finest = frequency * pixel_rad
    where = points * frequency[:, None, None]
    bend = fbm(p["lattice"][:, 4:], where * 0.6, 2, p["gain"], finest, time * 0.2)
    lift = torch.tensor([0.0, 0.55, 0.0], device=points.device)
    tall = where * torch.tensor([1.0, 0.55, 1.0], device=points.device)
    rise = (time * col(p["rise"]) * speed)[..., None] * lift
    where = tall + rise + 0.35 * bend.movedim(1, 2)
    field = fbm(p["lattice"][:, :4], where, 5, p["gain"], finest, time * col(p["turn"]))
    return field[:, 0], field[:, 1]


RENDERERS = {**dict.fromkeys(FLOWS, flow), "clouds": clouds, "water": water, "smoke": smoke}
RENDERERS |= {"fire": fire, "lava": lava, "flicker": flicker}
