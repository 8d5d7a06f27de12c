"""A courtyard seen from a balcony; washing flutters, a fountain ripples, a cart passes."""

import math

import numpy as np

from pano4d.benchmarks.scene_noise import draw
from pano4d.benchmarks.scene_shapes import Light, World
from pano4d.benchmarks.scene_sheets import Sheet, waves
from pano4d.benchmarks.scene_textures import Paint, Palette
from pano4d.benchmarks.scene_cloister import COPPER, GLASS, LEAVES, WIRE
from pano4d.benchmarks.scene_gallery import MARBLE
from pano4d.runtime.sphere import rotation

STUCCO = tuple(Paint("mottled", first, second, 2.2, 0.22) for first, second in (
    ((0.84, 0.66, 0.42), (0.76, 0.56, 0.36)), ((0.74, 0.48, 0.40), (0.64, 0.40, 0.34)),
    ((0.62, 0.66, 0.62), (0.52, 0.58, 0.56)), ((0.80, 0.74, 0.62), (0.70, 0.64, 0.54))))
SHUTTER = tuple(Paint("stripes", first, second, 0.07, 0.15, (0.1, 0.14, 0.12)) for first, second in (
    ((0.14, 0.36, 0.28), (0.10, 0.27, 0.22)), ((0.20, 0.30, 0.48), (0.15, 0.24, 0.38)),
    ((0.46, 0.18, 0.14), (0.36, 0.14, 0.12))))
PANE = Paint("mottled", (0.16, 0.20, 0.26), (0.34, 0.40, 0.46), 0.9, 0.1)
FRAME = Paint("mottled", (0.88, 0.86, 0.82), (0.80, 0.78, 0.74), 0.4, 0.1)
COBBLES = Paint("bricks", (0.46, 0.44, 0.43), (0.34, 0.33, 0.34), 0.22, 0.35, (0.20, 0.19, 0.18))
ROOF = Paint("tiles", (0.66, 0.34, 0.24), (0.50, 0.25, 0.18), 0.26, 0.25, (0.28, 0.14, 0.1))
GRANITE = Paint("mottled", (0.60, 0.59, 0.57), (0.50, 0.49, 0.49), 0.12, 0.2)
WATER = Paint("mottled", (0.20, 0.46, 0.50), (0.34, 0.60, 0.60), 0.5, 0.2)
LINEN = (Paint("stripes", (0.90, 0.90, 0.92), (0.40, 0.56, 0.76), 0.24, 0.1, (0.7, 0.2, 0.2)),
         Paint("checks", (0.92, 0.88, 0.80), (0.78, 0.34, 0.34), 0.12, 0.1),
         Paint("rings", (0.90, 0.78, 0.42), (0.84, 0.82, 0.76), 0.3, 0.12))
CAR = Paint("mottled", (0.20, 0.34, 0.56), (0.16, 0.28, 0.48), 1.0, 0.1)
RUBBER = Paint("mottled", (0.10, 0.10, 0.11), (0.16, 0.16, 0.16), 0.2, 0.2)
CART = Paint("letters", (0.86, 0.72, 0.30), (0.78, 0.62, 0.24), 0.3, 0.15, (0.3, 0.08, 0.08))
_GROUND = 6.4


def courtyard(palette: Palette) -> World:
    """Lean over a balcony 5 m above a courtyard of 17 x 13 m with houses all around."""
    world = World(palette, Light(sun=(0.55, -0.75, 0.2), sunlight=0.68, ambient=0.5, zenith=(0.30, 0.52, 0.80),
                                 horizon=(0.80, 0.86, 0.90), cover=-0.2))
    world.box((2.0, _GROUND + 0.1, 5.0), (30.0, 0.2, 30.0), COBBLES)
    houses = (((2.0, 11.5), 0, 17.0, 11.0), ((10.5, 5.0), 90, 13.0, 13.0), ((2.0, -1.5), 180, 17.0, 12.0),
              ((-6.5, 5.0), 270, 13.0, 9.5))
    for number, ((x, z), yaw, wide, tall) in enumerate(houses):
        _house(world, np.array([x, _GROUND, z]), rotation(yaw, 0), wide, tall, number)
    world.box((0.4, 1.5, -0.5), (4.2, 0.2, 2.6), GRANITE)
    for i in range(27):
        world.rod((-1.6 + 0.155 * i, 1.4, 0.75), (-1.6 + 0.155 * i, 0.45, 0.75), 0.012, WIRE)
    for x in (-1.65, 2.45):
        for i in range(8):
            world.rod((x, 1.4, -0.4 + 0.155 * i), (x, 0.45, -0.4 + 0.155 * i), 0.012, WIRE)
        world.rod((x, 0.45, -0.45), (x, 0.45, 0.8), 0.028, WIRE)
    world.rod((-1.7, 0.45, 0.75), (2.5, 0.45, 0.75), 0.028, WIRE)
    _yard(world)
    return world


def _house(world: World, foot: np.ndarray, turn: np.ndarray, wide: float, tall: float, number: int) -> None:
    """Build a front with windows, shutters, a door, gutters and a roof; it faces its own -z."""
    def box(x: float, up: float, out: float, size: tuple[float, float, float], paint: Paint) -> None:
        world.box(foot + turn @ np.array([x, -up, -out]), size, paint, turn)

    box(0, tall / 2, -0.5, (wide + 2.0, tall, 1.0), STUCCO[number])
    box(0, 0.4, 0.05, (wide, 0.8, 0.12), GRANITE)
    box(0, tall + 0.1, 0.1, (wide + 2.0, 0.22, 0.9), FRAME)
    world.box(foot + turn @ np.array([0, -tall - 1.0, 1.6]), (wide + 3.0, 0.2, 4.4), ROOF, turn @ rotation(0, 28))
    shades = SHUTTER[number % 3]
    columns, floors = int(wide // 2.9), int((tall - 0.6) // 3.0)
    numbers = draw(60 + number, 2 * columns * floors)
    for floor in range(floors):
        for column in range(columns):
            x, up = (column - (columns - 1) / 2) * 2.9, 1.9 + 3.0 * floor
            open_, door = numbers[floor * columns + column], floor == 0 and column == number % columns
            if number == 2 and floor == 1 and abs(x) < 3.5:
                continue
            if door:
                box(x, 1.2, 0.03, (1.3, 2.4, 0.1), shades)
                continue
            box(x, up, 0.02, (1.1, 1.5, 0.06), PANE)
            for dx, dy, w, h in ((-0.58, 0, 0.1, 1.6), (0.58, 0, 0.1, 1.6), (0, 0.78, 1.26, 0.1), (0, 0, 0.05, 1.5),
                                 (0, 0.2, 1.1, 0.05)):
                box(x + dx, up + dy, 0.06, (w, h, 0.1), FRAME)
            box(x, up - 0.82, 0.12, (1.4, 0.1, 0.3), GRANITE)
            for side in (-1, 1):
                reach = 0.92 if open_ < 0.75 else 0.3
                box(x + side * reach, up, 0.1, (0.55, 1.5, 0.05), shades)
    pipe = foot + turn @ np.array([wide / 2 - 0.35, 0, -0.15])
    world.rod(pipe, pipe + (0, -tall, 0), 0.07, COPPER)


def _yard(world: World) -> None:
    """Put a fountain, cars, lamps, washing lines and pots into the courtyard."""
    world.rod((3.0, _GROUND, 6.4), (3.0, _GROUND - 0.45, 6.4), 2.0, GRANITE)
    for i in range(24):
        angle = 2 * math.pi * i / 24
        world.box((3.0 + 2.0 * math.sin(angle), _GROUND - 0.35, 6.4 + 2.0 * math.cos(angle)), (0.56, 0.7, 0.3), GRANITE,
                  rotation(math.degrees(angle), 0))
    world.rod((3.0, _GROUND, 6.4), (3.0, _GROUND - 1.7, 6.4), 0.3, MARBLE, 0.16)
    world.rod((3.0, _GROUND - 1.5, 6.4), (3.0, _GROUND - 1.75, 6.4), 0.2, MARBLE, 0.8)
    world.ball((3.0, _GROUND - 2.0, 6.4), 0.28, MARBLE)
    for x, z, yaw in ((-4.6, 3.6, 8.0), (-4.4, 7.6, -5.0)):
        turn = rotation(yaw, 0)
        middle = np.array([x, _GROUND - 0.62, z])
        world.box(middle, (1.7, 0.6, 3.6), CAR, turn)
        world.ball(middle + turn @ np.array([0, -0.3, -0.1]), (0.8, 0.62, 1.35), PANE, turn)
        for dx, dz in ((-0.75, -1.15), (0.75, -1.15), (-0.75, 1.15), (0.75, 1.15)):
            hub = middle + turn @ np.array([dx, 0.3, dz])
            world.rod(hub - turn[:, 0] * 0.12, hub + turn[:, 0] * 0.12, 0.32, RUBBER)
    for x, z in ((-2.4, 9.6), (8.6, 2.2)):
        world.rod((x, _GROUND, z), (x, _GROUND - 3.4, z), 0.08, WIRE, 0.05)
        world.ball((x, _GROUND - 3.55, z), (0.22, 0.28, 0.22), GLASS)
    for start, end in (((-6.4, -0.5, 4.2), (10.4, -0.9, 5.6)), ((-6.4, 1.6, 8.2), (10.4, 1.9, 8.8))):
        straight = np.linspace(start, end, 10)
        sag = 0.35 * (1 - np.linspace(-1, 1, 10) ** 2)
        world.chain(straight + sag[:, None] * (0, 1, 0), 0.012, WIRE)
    for a, b, c in draw(91, 36).reshape(12, 3):
        x, z = (-5.6 + 15.0 * a, 10.9) if b < 0.5 else (9.9, 0.5 + 9.5 * a)
        world.rod((x, _GROUND, z), (x, _GROUND - 0.5, z), 0.22, ROOF, 0.3)
        world.ball((x, _GROUND - 0.8, z), (0.35, 0.4 + 0.2 * c, 0.35), LEAVES[int(3 * c)])


def courtyard_moves(palette: Palette, time: float) -> World:
    """Flutter the washing, ripple the fountain, push a cart."""
    world = World(palette)
    ripple = waves((0.9, 30, 0.045, -1.6 * time), (0.55, 120, 0.03, 0.3 + 1.9 * time),
                   (0.31, 70, 0.012, 0.6 - 2.5 * time))
    level = np.array([3.0, _GROUND - 0.52, 6.4])
    world.sheets.append(Sheet(level, np.eye(3), (1.42, 1.42), ripple, palette.index(WATER)))
    axes = np.stack([(0.0, 1.0, 0.0), (0.08, 0.0, -1.0), (-1.0, 0.0, -0.08)], axis=-1)
    axes /= np.linalg.norm(axes, axis=0)
    for i, (x, y, z, wide, tall) in enumerate(((-3.2, -0.32, 4.47, 0.8, 0.65), (-1.1, -0.24, 4.64, 0.9, 0.9),
                                               (1.2, -0.26, 4.83, 0.6, 0.6), (3.4, -0.33, 5.02, 1.0, 0.85))):
        flutter = waves((1.3, 10 + 8 * i, 0.16, 0.23 * i - 1.2 * time), (0.6, 60, 0.035, 0.4 * i + 1.5 * time))
        world.sheets.append(Sheet(np.array([x, y + tall, z]), axes, (tall, wide), flutter, palette.index(LINEN[i % 3]),
                                  hem=True))
    middle = np.array([-3.2 + 4.6 * time, _GROUND - 0.8, 2.6])
    world.box(middle, (1.7, 0.8, 1.0), CART, rotation(4 * math.sin(12 * time), 0))
    for dx in (-0.55, 0.55):
        for dz in (-0.55, 0.55):
            world.rod(middle + (dx, 0.45, dz - 0.06), middle + (dx, 0.45, dz + 0.06), 0.36, RUBBER)
    return world
