"""A cloister: pillars, railings, wires, trees; a lantern swings, a crate walks, a banner and a twig wave."""

import math

import numpy as np

from pano4d.benchmarks.scene_noise import draw
from pano4d.benchmarks.scene_shapes import Light, World
from pano4d.benchmarks.scene_sheets import Sheet, waves
from pano4d.benchmarks.scene_textures import Paint, Palette
from pano4d.runtime.sphere import rotation

SANDSTONE = Paint("mottled", (0.80, 0.70, 0.52), (0.66, 0.55, 0.40), 0.7, 0.3)
ASHLAR = Paint("bricks", (0.74, 0.66, 0.52), (0.60, 0.52, 0.40), 0.62, 0.25, (0.42, 0.37, 0.30))
FLAGSTONES = Paint("tiles", (0.60, 0.58, 0.54), (0.46, 0.43, 0.40), 0.55, 0.3, (0.28, 0.26, 0.24))
CEDAR = Paint("planks", (0.62, 0.38, 0.22), (0.48, 0.28, 0.16), 0.24, 0.2)
LAWN = Paint("grass", (0.24, 0.42, 0.14), (0.36, 0.50, 0.18), 2.5, 0.35, (0.14, 0.26, 0.08))
RAIL = Paint("mottled", (0.14, 0.17, 0.16), (0.22, 0.24, 0.22), 0.3, 0.2)
WIRE = Paint("mottled", (0.08, 0.08, 0.09), (0.14, 0.13, 0.12), 0.3, 0.1)
TRUNK = Paint("bark", (0.44, 0.38, 0.30), (0.28, 0.23, 0.18), 0.15, 0.35)
LEAVES = tuple(Paint("mottled", first, second, 0.05, 0.3) for first, second in (
    ((0.52, 0.50, 0.12), (0.66, 0.44, 0.10)), ((0.30, 0.46, 0.14), (0.42, 0.52, 0.16)),
    ((0.70, 0.36, 0.10), (0.60, 0.26, 0.10))))
BANNER = Paint("checks", (0.16, 0.20, 0.50), (0.88, 0.74, 0.26), 0.28, 0.12)
CRATE = Paint("letters", (0.70, 0.56, 0.36), (0.62, 0.47, 0.29), 0.16, 0.2, (0.16, 0.12, 0.10))
GLASS = Paint("mottled", (0.95, 0.85, 0.55), (0.85, 0.70, 0.40), 0.1, 0.1)
COPPER = Paint("rings", (0.62, 0.36, 0.24), (0.30, 0.50, 0.44), 0.09, 0.25)


def cloister(palette: Palette) -> World:
    """Walk between a wall and pillars, 1.9 m above the flagstones; a garden lies 0.7 m lower."""
    world = World(palette, Light(sun=(0.75, -0.6, -0.28), sunlight=0.6, ambient=0.62, zenith=(0.36, 0.52, 0.72),
                                 horizon=(0.86, 0.82, 0.74), clouds=(0.98, 0.93, 0.86), cover=0.25, haze_m=300.0))
    world.box((-0.4, 2.15, 1.0), (5.2, 0.5, 30.0), FLAGSTONES)
    world.box((-2.9, -0.3, 1.0), (0.5, 5.2, 30.0), ASHLAR)
    world.box((-0.4, -2.6, 1.0), (5.6, 0.2, 30.0), CEDAR)
    for i in range(13):
        world.box((-0.4, -2.42, -12.5 + 2.2 * i), (5.0, 0.2, 0.18), CEDAR)
    for z in (-13.8, 15.8):
        world.box((-0.4, -0.3, z), (5.2, 5.2, 0.4), ASHLAR)
    for i in range(12):
        _pillar(world, 1.9, -11.4 + 2.3 * i)
        world.rod((-2.6, 1.9, -12.0 + 2.3 * i), (-2.6, -2.5, -12.0 + 2.3 * i), 0.14, SANDSTONE, 0.11)
    world.box((1.9, -2.3, 1.0), (0.5, 0.4, 28.0), SANDSTONE)
    for z in (-6.0, 2.2, 7.5):
        world.box((-2.62, 0.35, z), (0.1, 3.1, 1.3), CEDAR)
        world.ball((-2.55, 0.5, z + 0.45), 0.06, COPPER)
    for i in range(85):
        z = -11.4 + 0.295 * i
        world.rod((2.0, 1.9, z), (2.0, 0.85, z), 0.012, RAIL)
    world.rod((2.0, 0.85, -11.6), (2.0, 0.85, 13.9), 0.03, RAIL)
    world.box((-2.1, 1.68, 3.8), (0.5, 0.44, 1.8), SANDSTONE)
    _garden(world)
    return world


def _pillar(world: World, x: float, z: float) -> None:
    """Add a pillar with base and capital."""
    world.box((x, 1.78, z), (0.6, 0.24, 0.6), SANDSTONE)
    world.rod((x, 1.7, z), (x, -1.8, z), 0.2, SANDSTONE, 0.16)
    world.rod((x, -1.75, z), (x, -2.02, z), 0.16, SANDSTONE, 0.3)
    world.box((x, -2.06, z), (0.62, 0.1, 0.62), SANDSTONE)


def _garden(world: World) -> None:
    """Lay out the garden: lawn, a far wall, poles with wires, a tree with leaves."""
    world.box((16.0, 2.7, 1.0), (30.0, 0.2, 44.0), LAWN)
    world.box((24.0, 0.4, 1.0), (0.6, 5.0, 40.0), ASHLAR)
    for z in (-19.0, 21.0):
        world.box((13.0, 0.4, z), (22.0, 5.0, 0.6), ASHLAR)
    world.ball((34.0, -1.0, 8.0), (6.0, 7.0, 8.0), LEAVES[1])
    world.ball((33.0, 0.0, -9.0), (5.0, 5.0, 7.0), LEAVES[0])
    for z in (-9.0, -1.0, 7.0, 15.0):
        world.rod((11.0, 2.7, z), (11.0, -3.6, z), 0.07, RAIL, 0.04)
        world.box((11.0, -3.2, z), (1.3, 0.07, 0.07), CEDAR)
    for x in (10.45, 11.0, 11.55):
        points = [(x, -3.25 + 0.7 * (1 - ((i % 6) / 3 - 1) ** 2), -9.0 + 8.0 * i / 6) for i in range(19)]
        world.chain(points, 0.014, WIRE)
    _tree(world, np.array([5.2, 2.65, 3.2]), 9)
    _tree(world, np.array([7.5, 2.65, -6.0]), 31)
    for a, b, c in draw(8, 120).reshape(40, 3):
        world.ball((4.0 + 15.0 * a, 2.45, -14.0 + 30.0 * b), (0.2 + 0.3 * c, 0.25 + 0.2 * c, 0.3), LEAVES[int(3 * c)],
                   rotation(180 * c, 0))


def _tree(world: World, foot: np.ndarray, seed: int) -> None:
    """Grow a tree of tapering branches with single leaves."""
    numbers = iter(draw(seed, 4000))

    def grow(start: np.ndarray, way: np.ndarray, length: float, radius: float, depth: int) -> None:
        end = start + way * length
        world.rod(start, end, radius, TRUNK, radius * 0.65)
        if depth == 0:
            for _ in range(9):
                share, yaw, pitch, tint = (next(numbers) for _ in range(4))
                beside = 0.1 * np.array([math.sin(9 * yaw), pitch - 0.5, yaw - 0.5])
                place = start + way * length * (0.3 + 0.9 * share) + beside
                world.leaf(place, 360 * yaw, 80 * pitch - 20, 0.14, 0.24, LEAVES[int(3 * tint)])
            return
        for turn in range(3):
            lean, yaw = 0.45 + 0.4 * next(numbers), 2 * math.pi * (turn + next(numbers)) / 3
            side = np.array([math.sin(yaw), 0.15, math.cos(yaw)])
            new = way * math.cos(lean) + side * math.sin(lean)
            grow(end, new / np.linalg.norm(new), length * (0.62 + 0.2 * next(numbers)), radius * 0.6, depth - 1)

    grow(foot, np.array([0.05, -1.0, 0.0]), 1.9, 0.15, 3)


def cloister_moves(palette: Palette, time: float) -> World:
    """Swing a lantern, walk a crate on four legs, wave a banner, sway a twig."""
    world = World(palette)
    swing = math.radians(20) * math.sin(2 * math.pi * time * 1.1 + 0.5)
    turn = np.array([[1, 0, 0], [0, math.cos(swing), -math.sin(swing)], [0, math.sin(swing), math.cos(swing)]])
    top = np.array([-0.2, -2.3, 2.6])
    world.rod(top, top + turn @ (0, 1.0, 0), 0.01, WIRE)
    world.rod(top + turn @ (0, 0.9, 0), top + turn @ (0, 1.1, 0), 0.03, COPPER, 0.2)
    world.rod(top + turn @ (0, 1.1, 0), top + turn @ (0, 1.55, 0), 0.15, GLASS)
    world.rod(top + turn @ (0, 1.55, 0), top + turn @ (0, 1.62, 0), 0.2, COPPER, 0.12)
    middle = np.array([-1.0, 0.75 - 0.03 * abs(math.sin(14 * time)), -5.6 + 3.2 * time])
    world.box(middle, (0.9, 0.8, 1.1), CRATE, rotation(6 * math.sin(9 * time), 0))
    for x, z, phase in ((-0.3, -0.4, 0.0), (0.3, -0.4, 0.5), (-0.3, 0.4, 0.5), (0.3, 0.4, 0.0)):
        step = 0.25 * math.sin(2 * math.pi * (2 * time + phase))
        hip = middle + (x, 0.35, z)
        world.rod(hip, (hip[0], 1.88 - max(0.0, step) * 0.3, hip[2] + step), 0.06, RAIL, 0.04)
    axes = np.stack([(0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, -1.0)], axis=-1)
    ripple = waves((1.1, 20, 0.11, 0.2 - 1.3 * time), (0.5, 80, 0.03, 0.7 + 0.8 * time))
    world.sheets.append(Sheet(np.array([1.55, -0.75, -0.1]) + (0.0, 0.0, -1.9), axes, (1.1, 0.55), ripple,
                              palette.index(BANNER), hem=True))
    numbers = draw(55, 100).reshape(25, 4)
    bend = 0.14 * math.sin(2 * math.pi * (time + 0.2))
    twig = [np.array([1.75, -1.9 + 0.34 * i, 1.0 + 0.03 * i * i + bend * i / 2]) for i in range(6)]
    world.chain(twig, 0.012, TRUNK)
    for i, (a, b, c, e) in enumerate(numbers):
        at = twig[1 + i % 5] + 0.28 * np.array([0.5 * (a - 0.5), b - 0.5, c - 0.5])
        world.leaf(at, 360 * a, 50 * b + 200 * bend, 0.10, 0.2, LEAVES[int(3 * e)])
    return world
