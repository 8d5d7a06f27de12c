"""A gallery of balls, boxes and cones on a leaning floor; a ball rolls, another swings, boxes turn and slide."""

import math

import numpy as np

from pano4d.benchmarks.scene_noise import draw
from pano4d.benchmarks.scene_shapes import Light, World
from pano4d.benchmarks.scene_textures import Paint, Palette
from pano4d.runtime.sphere import rotation

MARBLE = Paint("veined", (0.90, 0.88, 0.86), (0.80, 0.80, 0.82), 0.9, 0.15, (0.35, 0.36, 0.42))
ONYX = Paint("veined", (0.12, 0.13, 0.16), (0.20, 0.19, 0.22), 0.7, 0.25, (0.75, 0.62, 0.35))
CORAL = Paint("mottled", (0.88, 0.42, 0.34), (0.78, 0.30, 0.28), 0.6, 0.25)
MINT = Paint("rings", (0.52, 0.78, 0.66), (0.86, 0.88, 0.80), 0.34, 0.2)
VIOLET = Paint("stripes", (0.44, 0.32, 0.60), (0.70, 0.62, 0.80), 0.26, 0.2, (0.92, 0.86, 0.5))
BOARD = Paint("checks", (0.16, 0.18, 0.22), (0.84, 0.82, 0.76), 0.9, 0.2)
SIGN = Paint("letters", (0.86, 0.88, 0.90), (0.74, 0.78, 0.84), 0.55, 0.15, (0.10, 0.18, 0.36))
CONCRETE = Paint("bricks", (0.58, 0.59, 0.60), (0.50, 0.50, 0.52), 2.4, 0.35, (0.34, 0.34, 0.35))
_SHAPES = (MARBLE, ONYX, CORAL, MINT, VIOLET, SIGN, CONCRETE)


def gallery(palette: Palette) -> World:
    """Hover 3.4 m over a floor that leans by 8 degrees, among balls, boxes and cones."""
    world = World(palette, Light(sun=(-0.35, -0.85, 0.3), sunlight=0.62, ambient=0.52, zenith=(0.55, 0.45, 0.62),
                                 horizon=(0.95, 0.78, 0.66), clouds=(0.98, 0.90, 0.84), cover=0.45))
    lean = rotation(25, 8)
    down = lean @ np.array([0.0, 1.0, 0.0])
    world.box(down * 3.6, (44.0, 0.4, 44.0), BOARD, lean)
    for yaw, paint in ((0, CONCRETE), (90, SIGN), (180, CONCRETE), (270, MARBLE)):
        turn = lean @ rotation(yaw, 0)
        world.box(turn @ (0.0, -1.2, 22.0), (44.0, 9.6, 0.6), paint, turn)
    for i, (a, b, c, e, f) in enumerate(draw(21, 60 * 5).reshape(60, 5)):
        angle, radius = 2 * math.pi * (i * 0.618 + 0.08 * a), 3.4 + 15.0 * (i / 60) ** 0.8 + b
        size, paint = 0.5 + 1.3 * c * (0.5 + radius / 20), _SHAPES[int(7 * e)]
        spot = lean @ (radius * math.sin(angle), 3.4, radius * math.cos(angle))
        if f < 0.4:
            world.ball(spot - down * size, size, paint, rotation(300 * a, 40 * b))
        elif f < 0.75:
            tall = size * (1.2 + 1.8 * b)
            world.box(spot - down * tall / 2, (1.3 * size, tall, size * 1.6), paint, lean @ rotation(360 * a, 0))
            if a > 0.35:
                world.ball(spot - down * (tall + size * 0.45), size * 0.45, _SHAPES[int(7 * a)], rotation(90 * b, 50))
        else:
            world.rod(spot, spot - down * size * 2.4, size * 0.7, paint, 0.12 * size if a < 0.6 else 0.5 * size)
    for yaw in (20, 140, 250):
        turn = lean @ rotation(yaw, 0)
        world.box(turn @ (0.0, -4.6, 7.0), (0.4, 0.4, 9.0), CORAL, turn)
        world.rod(turn @ (0.0, 3.4, 11.2), turn @ (0.0, -4.6, 11.2), 0.22, CONCRETE)
    return world


def gallery_moves(palette: Palette, time: float) -> World:
    """Roll a ball down the floor, swing another, spin a box in the air, slide a slab."""
    world, lean = World(palette), rotation(25, 8)
    radius, z = 0.8, -4.2 + 6.5 * time
    roll = rotation(0, -math.degrees(z / radius))
    world.ball(lean @ (-2.9, 3.4 - radius, z), radius, MINT, lean @ roll @ rotation(40, 60))
    swing = 0.55 * math.sin(2 * math.pi * time + 0.4)
    top = lean @ (0.0, -4.4, 5.2)
    end = top + np.array([4.4 * math.sin(swing), 4.4 * math.cos(swing), 0.0])
    world.rod(top, end, 0.02, ONYX)
    world.ball(end, 0.62, VIOLET, rotation(math.degrees(swing), 30))
    world.box((4.4, -1.4, -1.2), (1.2, 1.2, 1.2), SIGN, rotation(150 * time, 35) @ rotation(30, 40 * time))
    spot = lean @ (1.0 + 2.5 * math.sin(2 * math.pi * time), 3.4 - 0.9, -4.6)
    world.box(spot, (1.0, 1.8, 0.4), CORAL, lean @ rotation(15, 0))
    return world
