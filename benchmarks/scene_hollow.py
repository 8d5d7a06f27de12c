"""A hollow among hills with firs, a cabin and a mill; a flag flies, a bale rolls, sails turn."""

import math
from dataclasses import replace

import numpy as np
import torch

from pano4d.benchmarks.scene_noise import draw
from pano4d.benchmarks.scene_shapes import Light, World, roll
from pano4d.benchmarks.scene_sheets import Sheet, waves
from pano4d.benchmarks.scene_textures import Paint, Palette
from pano4d.runtime.sphere import rotation

MEADOW = Paint("grass", (0.36, 0.44, 0.18), (0.52, 0.50, 0.26), 6.0, 0.3, (0.20, 0.28, 0.10))
FIR = Paint("mottled", (0.10, 0.22, 0.12), (0.20, 0.33, 0.15), 0.5, 0.6)
BUSH = Paint("mottled", (0.28, 0.36, 0.12), (0.42, 0.42, 0.16), 0.4, 0.6)
BARK = Paint("bark", (0.34, 0.26, 0.19), (0.22, 0.17, 0.13), 0.2, 0.3)
ROCK = Paint("veined", (0.55, 0.53, 0.50), (0.42, 0.41, 0.40), 1.2, 0.4, (0.22, 0.22, 0.20))
LOGS = Paint("planks", (0.46, 0.32, 0.20), (0.33, 0.22, 0.14), 0.28, 0.25)
SLATE = Paint("tiles", (0.32, 0.34, 0.40), (0.24, 0.25, 0.30), 0.3, 0.2)
LIME = Paint("mottled", (0.86, 0.84, 0.78), (0.75, 0.73, 0.68), 1.0, 0.15)
FLAG = Paint("stripes", (0.80, 0.16, 0.16), (0.94, 0.92, 0.86), 0.42, 0.12, (0.12, 0.2, 0.5))
HAY = Paint("rings", (0.80, 0.66, 0.32), (0.66, 0.52, 0.24), 0.35, 0.4)
DOOR = Paint("planks", (0.55, 0.24, 0.18), (0.44, 0.18, 0.14), 0.15, 0.2)
PANE = Paint("mottled", (0.85, 0.80, 0.60), (0.70, 0.66, 0.52), 0.4, 0.1)
_HILLS = waves((70, 20, 2.2, 0.1), (41, 110, 1.5, 0.7), (23, -35, 0.6, 0.3), (11, 75, 0.22, 0.5), (4.6, 140, 0.07, 0.2),
               (2.1, 10, 0.02, 0.9))


def _terrain(palette: Palette) -> Sheet:
    """Raise the hills around the hollow; the viewer is 4.2 m above its bottom."""
    ground = Sheet(np.zeros(3), np.eye(3), (150.0, 150.0), _HILLS, palette.index(MEADOW), foot=12.0, slope=0.62,
                   solid=True)
    below = 4.2 - float(ground.height(torch.zeros(1), torch.zeros(1))[0])
    return replace(ground, center=np.array([0.0, below, 0.0]))


def _on(ground: Sheet, x: float, z: float) -> float:
    """Return the y of the ground."""
    where = torch.tensor([[x], [z]], dtype=torch.float64)
    return float(ground.center[1] + ground.height(where[0], where[1])[0])


def hollow(palette: Palette) -> World:
    """Hover among hills with firs, rocks, a fence, a cabin and a mill."""
    world = World(palette, Light(sun=(-0.6, -0.55, -0.4), sunlight=0.65, ambient=0.5, haze_m=260.0, cover=-0.1,
                                 shade_m=8.0))
    ground = _terrain(palette)
    world.sheets.append(ground)
    for a, b, c, e in draw(5, 4 * 90).reshape(90, 4):
        angle, radius = 6.283 * a, 11.0 + 60.0 * b * b
        x, z = radius * math.sin(angle), radius * math.cos(angle)
        y, tall = _on(ground, x, z), 3.5 + 5.0 * c
        if e < 0.62:
            world.rod((x, y + 0.3, z), (x, y - 0.25 * tall, z), 0.06 * tall ** 0.7, BARK)
            for level in range(3):
                low = y - tall * (0.15 + 0.25 * level)
                world.rod((x, low, z), (x, low - 0.42 * tall, z), tall * (0.24 - 0.055 * level), FIR, 0.01)
        elif e < 0.85:
            world.ball((x, y + 0.1, z), (0.5 + c, 0.4 + 0.5 * c, 0.6 + 0.4 * c), ROCK, rotation(300 * c, 20 * a))
        else:
            world.ball((x, y - 0.4, z), (0.9 + c, 0.8 + 0.4 * c, 1.1 + c), BUSH, rotation(300 * c, 0))
    posts = [(7.5 * math.sin(i * 0.28 - 2.2), 7.5 * math.cos(i * 0.28 - 2.2)) for i in range(11)]
    tops = [(x, _on(ground, x, z) - 1.1, z) for x, z in posts]
    for top in tops:
        world.rod((top[0], top[1] + 1.4, top[2]), top, 0.06, BARK)
    for down in (0.15, 0.6):
        world.chain([(x, y + down, z) for x, y, z in tops], 0.035, LOGS)
    _cabin(world, _on(ground, -9.0, 9.0))
    y = _on(ground, 10.0, 11.0)
    world.rod((10.0, y + 0.5, 11.0), (10.0, y - 5.5, 11.0), 1.7, LIME, 1.1)
    world.rod((10.0, y - 5.5, 11.0), (10.0, y - 7.0, 11.0), 1.3, SLATE, 0.02)
    world.rod((5.0, _on(ground, 5.0, -4.0), -4.0), (5.0, -4.3, -4.0), 0.06, LIME, 0.04)
    return world


def _cabin(world: World, y: float) -> None:
    """Build a cabin with a roof of two slopes."""
    turn = rotation(-45, 0)

    def at(x: float, up: float, z: float) -> np.ndarray:
        return turn @ np.array([x, -up, z]) + (-9.0, y, 9.0)

    world.box(at(0, 1.0, 0), (4.4, 3.2, 3.4), LOGS, turn)
    for side in (-1, 1):
        lean = rotation(-45, 0) @ rotation(0, side * 38)
        world.box(at(0, 3.1, side * 1.05), (5.0, 0.14, 2.9), SLATE, lean)
    world.box(at(0.6, 1.0, -1.72), (0.9, 2.0, 0.06), DOOR, turn)
    world.box(at(-1.1, 1.4, -1.72), (0.8, 0.8, 0.06), PANE, turn)
    world.box(at(1.3, 4.0, 0.5), (0.5, 1.6, 0.5), ROCK, turn)


def hollow_moves(palette: Palette, time: float) -> World:
    """Fly a flag, roll a bale of hay, turn a mill's sails."""
    world, ground = World(palette), _terrain(palette)
    axes = np.stack([(0.8, 0.0, 0.6), (-0.6, 0.0, 0.8), (0.0, 1.0, 0.0)], axis=-1)
    ripple = waves((1.5, 8, 0.26, -1.4 * time), (0.7, -25, 0.07, 0.3 - 2.0 * time))
    world.sheets.append(Sheet(np.array([5.0, -3.3, -4.0]) + axes[:, 0] * 1.35, axes, (1.3, 0.85), ripple,
                              palette.index(FLAG), hem=True))
    x, z, radius = -7.0 + 6.0 * time, -8.0 + 2.0 * time, 0.9
    spin = rotation(0, -math.degrees(6.0 * time / radius))
    axle = rotation(-72, 0) @ spin
    middle = np.array([x, _on(ground, x, z) - radius + 0.05, z])
    world.rod(middle - axle[:, 0] * 0.6, middle + axle[:, 0] * 0.6, radius, HAY)
    hub = np.array([10.0, _on(ground, 10.0, 11.0) - 5.2, 11.0]) + np.array([-0.67, 0.0, -0.74]) * 1.6
    toward = rotation(42.0, 0)
    for blade in range(4):
        turn = toward @ roll(360 * (blade / 4 + 0.22 * time))
        world.rod(hub, hub + turn[:, 1] * 3.6, 0.07, BARK)
        world.box(hub + turn @ (0.32, 2.2, 0), (0.6, 2.6, 0.03), LIME, turn)
    world.ball(hub, 0.22, BARK)
    return world
