"""A workshop: a furnished room with a window; a lamp swings, a ball rolls, curtains stir."""

import math

import numpy as np

from pano4d.benchmarks.scene_noise import draw
from pano4d.benchmarks.scene_shapes import Light, World, roll
from pano4d.benchmarks.scene_sheets import Sheet, waves
from pano4d.benchmarks.scene_textures import Paint, Palette
from pano4d.runtime.sphere import rotation

_FLOOR, _CEILING = 1.3, -1.65

PLASTER = Paint("mottled", (0.88, 0.83, 0.70), (0.80, 0.75, 0.62), 1.6, 0.10)
BRICK = Paint("bricks", (0.62, 0.30, 0.22), (0.45, 0.20, 0.16), 0.24, 0.25, (0.66, 0.63, 0.58))
BOARDS = Paint("planks", (0.62, 0.44, 0.27), (0.48, 0.32, 0.19), 0.16, 0.15)
OAK = Paint("planks", (0.50, 0.33, 0.18), (0.40, 0.25, 0.13), 0.30, 0.2)
TEAL = Paint("mottled", (0.16, 0.42, 0.44), (0.12, 0.33, 0.38), 0.5, 0.2)
RUG = Paint("stripes", (0.55, 0.16, 0.14), (0.80, 0.68, 0.45), 0.22, 0.3, (0.13, 0.14, 0.3))
PAPER = Paint("letters", (0.90, 0.87, 0.78), (0.82, 0.78, 0.68), 0.10, 0.06, (0.12, 0.10, 0.16))
POSTER = Paint("letters", (0.88, 0.80, 0.62), (0.80, 0.62, 0.42), 0.26, 0.08, (0.45, 0.10, 0.12))
IRON = Paint("mottled", (0.22, 0.22, 0.24), (0.30, 0.28, 0.27), 0.2, 0.2)
BRASS = Paint("rings", (0.78, 0.60, 0.24), (0.60, 0.44, 0.16), 0.08, 0.15)
BALL = Paint("rings", (0.85, 0.25, 0.15), (0.93, 0.88, 0.80), 0.14, 0.15)
CURTAIN = Paint("stripes", (0.83, 0.78, 0.62), (0.48, 0.58, 0.45), 0.12, 0.15, (0.6, 0.3, 0.25))
PLANT = Paint("mottled", (0.20, 0.45, 0.16), (0.34, 0.55, 0.20), 0.08, 0.3)
GRASS = Paint("grass", (0.36, 0.44, 0.18), (0.52, 0.50, 0.26), 3.0, 0.3, (0.20, 0.28, 0.10))
HEDGE = Paint("mottled", (0.28, 0.36, 0.12), (0.42, 0.42, 0.16), 0.4, 0.6)
STEM = Paint("bark", (0.34, 0.26, 0.19), (0.22, 0.17, 0.13), 0.2, 0.3)
WHITE = Paint("mottled", (0.86, 0.84, 0.78), (0.75, 0.73, 0.68), 1.0, 0.15)


def workshop(palette: Palette) -> World:
    """Stand in a room of 7.2 x 5.6 m with a window, 1.3 m above its floor."""
    light = Light(sun=(-0.25, -0.62, 0.74), sunlight=0.75, ambient=0.52, lamp=(1.6, -0.3, 0.9), lamplight=0.5, cover=0.1)
    world = World(palette, light)
    world.box((0.5, _FLOOR + 0.1, 0.3), (7.6, 0.2, 6.2), BOARDS, rotation(0, 0))
    world.box((0.5, _CEILING - 0.1, 0.3), (7.6, 0.2, 6.2), PLASTER)
    world.box((-3.1, -0.2, 0.3), (0.2, 3.2, 6.2), PLASTER)
    world.box((4.1, -0.2, 0.3), (0.2, 3.2, 6.2), BRICK)
    world.box((0.5, -0.2, -2.6), (7.2, 3.2, 0.2), PLASTER)
    for center, size in (((-1.9, -0.2, 3.2), (2.4, 3.2, 0.2)), ((2.8, -0.2, 3.2), (2.6, 3.2, 0.2)),
                         ((0.4, 0.85, 3.2), (2.2, 1.1, 0.2)), ((0.4, -1.5, 3.2), (2.2, 0.6, 0.2))):
        world.box(center, size, PLASTER)
    for x in (-0.7, 0.4, 1.5):
        world.box((x, -0.45, 3.2), (0.06, 1.5, 0.08), WHITE)
    world.box((0.4, -0.45, 3.2), (2.2, 0.05, 0.07), WHITE)
    for x in (-2.2, -0.4, 1.4, 3.2):
        world.box((x, _CEILING + 0.09, 0.3), (0.16, 0.18, 5.6), OAK)
    world.box((0.0, 2.0, 14.0), (60.0, 0.2, 20.0), GRASS)
    world.box((2.0, -0.5, 17.0), (16.0, 5.0, 1.0), BRICK)
    world.ball((-4.5, -1.0, 11.0), (2.0, 2.6, 2.0), HEDGE)
    _furnish(world)
    return world


def _furnish(world: World) -> None:
    """Put furniture into the workshop."""
    world.box((0.3, _FLOOR - 0.01, 0.4), (2.6, 0.02, 1.8), RUG, rotation(20, 0))
    world.box((1.6, 0.50, 0.9), (1.5, 0.06, 0.9), OAK, rotation(-12, 0))
    for x, z in ((-0.65, -0.35), (0.65, -0.35), (-0.65, 0.35), (0.65, 0.35)):
        at = rotation(-12, 0) @ np.array([x, 0.0, z])
        world.rod((1.6 + at[0], 0.5, 0.9 + at[2]), (1.6 + at[0], _FLOOR, 0.9 + at[2]), 0.035, OAK, 0.025)
    for i, number in enumerate(draw(3, 6)):
        world.box((1.2 + 0.16 * i, 0.44, 0.75 + 0.35 * number), (0.12, 0.06 + 0.1 * number, 0.2), (PAPER, TEAL)[i % 2],
                  rotation(60 * number, 0))
    world.rod((2.0, 0.47, 1.15), (2.0, 0.2, 1.15), 0.07, BRASS, 0.03)
    for x, z, yaw in ((0.75, 1.75, 15), (2.7, 0.3, 70)):
        world.box((x, 0.85, z), (0.45, 0.05, 0.45), TEAL, rotation(yaw, 0))
        turn = rotation(yaw, 0)
        for dx, dz in ((-0.2, -0.2), (0.2, -0.2), (-0.2, 0.2), (0.2, 0.2)):
            top = turn @ np.array([dx, 0.0, dz]) + (x, 0.85 - 0.55 * (dz > 0), z)
            world.rod(top, (top[0], _FLOOR, top[2]), 0.018, IRON)
        world.box(turn @ np.array([0, 0, 0.2]) + (x, 0.42, z), (0.45, 0.28, 0.03), TEAL, turn)
    for level in range(5):
        world.box((3.85, _FLOOR - 0.05 - 0.5 * level, -0.6), (0.32, 0.04, 2.4), OAK)
        z = -1.75
        for i, number in enumerate(draw(10 + level, 22)):
            if z < 0.5 and level < 4:
                wide, tall = 0.03 + 0.06 * number, 0.22 + 0.2 * draw(40 + level, 22)[i]
                shade = 0.25 + 0.6 * np.array(draw(300 + 22 * level + i, 3))
                cover = Paint("letters", tuple(shade), tuple(0.8 * shade), 0.03, 0.1, tuple((1.3 - shade) % 1))
                world.box((3.85, _FLOOR - 0.07 - 0.5 * level - tall / 2, z + wide / 2), (0.2, tall, wide * 0.95), cover)
                z += wide + (0.12 if number > 0.9 else 0.0)
    world.box((-1.2, 1.05, -2.05), (2.0, 0.35, 0.8), TEAL)
    world.box((-1.2, 0.72, -2.4), (2.0, 0.6, 0.2), TEAL)
    for x in (-0.9, 1.3):
        world.box((-1.2 + x - 0.2, 0.95, -2.05), (0.2, 0.55, 0.85), TEAL)
    world.ball((-1.75, 0.78, -2.1), (0.24, 0.2, 0.1), CURTAIN, rotation(20, 30))
    for x, y, wide, tall in ((0.9, -0.55, 0.9, 1.2), (2.1, -0.4, 0.8, 0.6), (-1.3, -0.6, 1.2, 0.7)):
        world.box((x, y, -2.48), (wide + 0.1, tall + 0.1, 0.05), OAK)
        world.box((x, y, -2.455), (wide, tall, 0.03), POSTER)
    world.box((-2.98, 0.25, 1.2), (0.06, 2.1, 1.0), OAK)
    world.ball((-2.92, 0.3, 0.82), 0.04, BRASS)
    world.rod((-2.5, _FLOOR, 2.6), (-2.5, 0.9, 2.6), 0.16, BRICK, 0.22)
    numbers = draw(77, 240).reshape(60, 4)
    for a, b, c, e in numbers:
        reach = 0.1 + 0.42 * b
        at = (-2.5 + reach * math.sin(6.28 * a), 0.75 - 1.1 * c, 2.6 + 0.8 * reach * math.cos(6.28 * a))
        world.leaf(at, 360 * a, 60 * e - 20, 0.09 + 0.05 * c, 0.26, PLANT)
        if e > 0.6:
            world.rod((-2.5, 0.9, 2.6), at, 0.006, STEM)


def workshop_moves(palette: Palette, time: float) -> World:
    """Swing a lamp, roll a ball over the floor, stir a curtain."""
    world = World(palette)
    turn = roll(24 * math.sin(2 * math.pi * time * 1.3))
    top = np.array([1.6, _CEILING + 0.02, 0.9])
    world.rod(top, top + turn @ (0, 1.0, 0), 0.008, IRON)
    world.rod(top + turn @ (0, 0.95, 0), top + turn @ (0, 1.2, 0), 0.05, BRASS, 0.24)
    world.ball(top + turn @ (0, 1.2, 0), 0.09, PAPER)
    x, radius = -1.8 + 3.0 * time, 0.22
    spin = roll(math.degrees(x / radius))
    world.ball((x, _FLOOR - radius - 0.02, 2.2), radius, BALL, spin @ rotation(30, 40))
    upright = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    for x, phase in ((-0.75, 0.0), (1.55, 0.4)):
        axes = np.stack([upright[0], (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)], axis=-1)
        ripple = waves((0.28, 90, 0.035, phase), (1.4, 15, 0.10, phase - time * 1.5))
        world.sheets.append(Sheet(np.array([x, -0.3, 2.95]), axes, (1.0, 0.33), ripple, palette.index(CURTAIN), hem=True))
    return world
