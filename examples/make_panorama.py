"""Make the sample panorama and its mask: a bonfire on a shore at dusk, mountains behind.

    python examples/make_panorama.py            # 2048x1024, examples/panorama.jpg and its mask
    python examples/make_panorama.py --width 512 --supersample 1 --out /tmp

Everything is a function of the direction, so the picture has neither a seam nor pinched poles.
Land and sea are one height field around the eye, hit column by column; sea and clouds
run through ±180°, so the sample also shows whether an animation keeps the seam closed.
Lengths are in metres, x to the right, z ahead, heights upward; angles in radians unless named _deg.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

SEED = 7
EYE_ABOVE_GROUND = 1.75
SUN_LON_DEG, SUN_LAT_DEG = -88.0, 3.5
LAND_LON_DEG = 54.0
PEAK_LON_DEG, PEAK_DISTANCE, PEAK_HEIGHT = 50.0, 4300.0, 1900.0
FIRE_LON_DEG, FIRE_DISTANCE = -36.0, 6.0
CLEAR_LON_DEG, CLEAR_LAT_DEG, CLEAR_RADIUS_DEG = 50.0, 14.0, 60.0
EXPOSURE = 0.50
XMP = (b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
       b'<rdf:Description xmlns:GPano="http://ns.google.com/photos/1.0/panorama/"'
       b' GPano:ProjectionType="equirectangular"/></rdf:RDF></x:xmpmeta>')


def unit(lon_deg: float, lat_deg: float) -> np.ndarray:
    """Return the direction of a longitude and latitude as (right, up, ahead)."""
    lon, lat = np.radians([lon_deg, lat_deg])
    return np.array([np.cos(lat) * np.sin(lon), np.sin(lat), np.cos(lat) * np.cos(lon)], np.float32)


SUN = unit(SUN_LON_DEG, SUN_LAT_DEG)
_rng = np.random.default_rng(SEED)
_PERMUTATION = _rng.permutation(256).astype(np.int32)
_ANGLES = (_rng.random(256) * 2 * np.pi).astype(np.float32)
_FIRE_X = FIRE_DISTANCE * np.sin(np.radians(FIRE_LON_DEG))
_FIRE_Z = FIRE_DISTANCE * np.cos(np.radians(FIRE_LON_DEG))
_PEAK_X = PEAK_DISTANCE * np.sin(np.radians(PEAK_LON_DEG))
_PEAK_Z = PEAK_DISTANCE * np.cos(np.radians(PEAK_LON_DEG))
_STONES = [(_FIRE_X + 0.8 * np.cos(a), _FIRE_Z + 0.8 * np.sin(a), 0.2) for a in np.arange(11) * 0.571]
_BOULDERS = [(r * np.sin(a), r * np.cos(a), size) for r, a, size in
             zip(_rng.uniform(4, 26, 26), _rng.uniform(-3.1, 3.1, 26), _rng.uniform(0.12, 0.75, 26) ** 1.5)]


def smooth(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """Rise smoothly from 0 at `low` to 1 at `high`."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Blend two colours [3] or [..., 3] by a share [...] in 0..1."""
    return first + (second - first) * np.asarray(share)[..., None]


def noise(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Evaluate two-dimensional gradient noise, about -0.7 to 0.7."""
    xi, yi = np.floor(x), np.floor(y)
    fx, fy = (x - xi).astype(np.float32), (y - yi).astype(np.float32)
    xi, yi = xi.astype(np.int32), yi.astype(np.int32)
    u, v = fx * fx * fx * (fx * (fx * 6 - 15) + 10), fy * fy * fy * (fy * (fy * 6 - 15) + 10)

    def corner(dx, dy):
        angle = _ANGLES[_PERMUTATION[(_PERMUTATION[(xi + dx) & 255] + yi + dy) & 255]]
        return np.cos(angle) * (fx - dx) + np.sin(angle) * (fy - dy)

    low = corner(0, 0) * (1 - u) + corner(1, 0) * u
    return low + (corner(0, 1) * (1 - u) + corner(1, 1) * u - low) * v


def fbm(x, y, octaves: int, footprint=0.0, ridged: bool = False, gain: float = 0.5) -> np.ndarray:
    """Sum octaves of noise, leaving out those finer than a pixel.

    Args:
        x: First coordinate, in the longest wavelength.
        y: Second coordinate.
        octaves: Number of octaves.
        footprint: Size of a pixel in the same unit, scalar or as x.
        ridged: Fold the noise into sharp ridges.
        gain: Amplitude of each octave relative to the one before.
    """
    total, amplitude, scale = np.zeros(np.broadcast(x, y).shape, np.float32), 1.0, 1.0
    for octave in range(octaves):
        value = noise(x * scale + 17.3 * octave, y * scale - 9.1 * octave)
        value = 0.5 - 1.6 * np.abs(value) if ridged else value
        total += amplitude * value * smooth(0.6, 0.25, footprint * scale)
        x, y = 0.8 * x + 0.6 * y, 0.8 * y - 0.6 * x
        amplitude, scale = amplitude * gain, scale * 2.03
    return total


def along_land(x, z) -> tuple[np.ndarray, np.ndarray]:
    """Turn a position to run along and across the axis of the land."""
    lon = np.radians(LAND_LON_DEG)
    return x * np.sin(lon) + z * np.cos(lon), x * np.cos(lon) - z * np.sin(lon)


def shore(x, z, footprint=0.0) -> np.ndarray:
    """Measure roughly how far inland a point lies; negative out at sea."""
    inland, along, r = *along_land(x, z), np.hypot(x, z)
    rough = 140 * np.minimum(1, r / 900) * fbm(x / 500, z / 500, 3, footprint / 500)
    rough += 5 * np.minimum(1, r / 25) * fbm(x / 38, z / 38, 3, footprint / 38)
    return inland + 15 - 0.36 * np.sqrt(along**2 + 60) + rough


def height(x, z, footprint=0.0) -> np.ndarray:
    """Give the height of the land above the sea, negative below it."""
    s = shore(x, z, footprint)
    r = np.hypot(x, z)
    ground = np.where(s > 0, 5 * (1 - np.exp(-np.maximum(s, 0) / 34)), 0.12 * s) + 3.4 * np.exp(-(r / 6.5)**2)
    ground += 0.10 * fbm(x / 2.5, z / 2.5, 4, footprint / 2.5) * smooth(-2, 3, s)
    ground += 30 * fbm(x / 260, z / 260, 5, footprint / 260) * smooth(40, 700, s)
    inland, along = along_land(x, z)
    range_ = smooth(500, 3600, inland - 0.40 * np.abs(along)) * smooth(16000, 6000, r)
    ridges = fbm(x / 2300 + 3.1, z / 2300, 8, footprint / 2300, ridged=True)
    ground += 900 * range_ * np.maximum(ridges + 0.45, 0)
    from_peak = np.hypot(x - _PEAK_X, z - _PEAK_Z)
    cone = np.exp(-from_peak / 1350) - 0.5 * np.exp(-(from_peak / 170)**2)
    ground += PEAK_HEIGHT * cone * smooth(4000, 1300, from_peak) * (0.86 + 0.22 * ridges)
    bend = 1.5 * fbm(x / 1.7, z / 1.7, 3, footprint / 1.7)
    ripples = np.sin(20 * (0.8 * x + 0.6 * z) + 4 * bend) * smooth(0.16, 0.06, footprint)
    ground += 0.007 * ripples * smooth(0.4, 1.5, s) * smooth(60, 20, s)
    for cx, cz, size in _STONES + _BOULDERS:
        ground += 0.8 * size * np.sqrt(np.maximum(0, 1 - ((x - cx)**2 + (z - cz)**2) / size**2))
    return ground.astype(np.float32)


def sky(d: np.ndarray) -> np.ndarray:
    """Give the light of the clear sky in directions [..., 3], linear."""
    up, toward = np.maximum(d[..., 1], 0), d @ SUN
    # Not divided by the horizontal length, which would make a star of colours at the zenith.
    side = 0.5 + 0.5 * (d[..., 0] * SUN[0] + d[..., 2] * SUN[2])
    horizon = mix(np.array([0.40, 0.30, 0.42]), np.array([1.15, 0.50, 0.16]), side**2.2)
    middle = mix(np.array([0.20, 0.22, 0.42]), np.array([0.52, 0.36, 0.40]), side**2)
    colour = mix(mix(np.array([0.035, 0.065, 0.19]), middle, np.exp(-3.0 * up)), horizon, np.exp(-9.0 * up))
    near = np.maximum(toward, 0)
    glow = 0.35 * near**6 * np.exp(-3 * up) + 0.55 * near**40 + 1.6 * near**420
    return colour + glow[..., None] * np.array([1.0, 0.55, 0.20])


def sun_disk(d: np.ndarray) -> np.ndarray:
    """Give the light of the sun itself, slightly larger than life."""
    return (smooth(0.99975, 0.99990, d @ SUN) * 9)[..., None] * np.array([1.0, 0.72, 0.35])


def clearing(d: np.ndarray) -> np.ndarray:
    """Rise from 0 in the part of the sky that stays clear to 1 among the clouds."""
    away = np.degrees(np.arccos(np.clip(d @ unit(CLEAR_LON_DEG, CLEAR_LAT_DEG), -1, 1)))
    return smooth(CLEAR_RADIUS_DEG, CLEAR_RADIUS_DEG + 16, away)


def clouds(d: np.ndarray, octaves: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Give colour and cover of the clouds in directions [..., 3] above the horizon."""
    up = np.maximum(d[..., 1], 0)
    # A flat layer would pile up without end at the horizon; the offset bends it like the Earth.
    depth = 1 / (up + 0.11)
    x, z = d[..., 0] * depth * 1.15, d[..., 2] * depth * 1.15
    pixel = 0.004 * depth**2 * 0.5
    warp_x, warp_z = fbm(x * 0.7 + 5, z * 0.7, 3, pixel), fbm(x * 0.7, z * 0.7 + 9, 3, pixel)
    x, z = x + 0.28 * warp_x, z + 0.28 * warp_z

    def density(px, pz):
        return fbm(px, pz, octaves, pixel, gain=0.55) + 0.25 * noise(px * 0.35 - 3, pz * 0.35 + 7)

    here = density(x, z)
    sunward = density(x + 0.16 * SUN[0], z + 0.16 * SUN[2])
    open_ = clearing(d)
    cover = smooth(-0.10, 0.34, here - 0.55 * (1 - open_)) * open_ * smooth(0.0, 0.10, up)
    lit = np.clip(0.58 + 1.7 * (here - sunward) - 0.45 * np.maximum(here, 0), 0, 1.15)
    warm = 0.25 + 0.75 * (0.5 + 0.5 * d @ SUN)**1.5
    bright = mix(np.array([0.62, 0.38, 0.42]), np.array([1.35, 0.62, 0.26]), warm)
    dark = mix(np.array([0.13, 0.12, 0.22]), np.array([0.36, 0.20, 0.24]), warm)
    return mix(dark, bright, lit), 0.93 * cover


def stars(d: np.ndarray, pixel: float) -> np.ndarray:
    """Give the light of a few hundred stars, each about a pixel and a half wide."""
    rng, light = np.random.default_rng(SEED + 1), np.zeros(d.shape[:-1], np.float32)
    height_px, width_px = light.shape
    for _ in range(500):
        lon, up, power = rng.uniform(-np.pi, np.pi), rng.uniform(0.18, 1.0), rng.uniform(0.2, 1.0)**3
        star = np.array([np.sqrt(1 - up**2) * np.sin(lon), up, np.sqrt(1 - up**2) * np.cos(lon)], np.float32)
        row = int((0.5 - np.arcsin(up) / np.pi) * height_px)
        rows = slice(max(0, row - 4), min(height_px, row + 5))
        # Near the zenith a star spans many columns; the whole row is cheaper than the bookkeeping.
        light[rows] += 0.8 * power * np.exp(-((1 - d[rows] @ star) * 2) / (0.0018**2))
    return light


def march(lon: np.ndarray, lat: np.ndarray, eye: float) -> np.ndarray:
    """Find how far off each direction meets land or sea: inf in the sky.

    Along one column the elevation of the ground, made monotone, tells the first hit of every
    latitude at once.

    Args:
        lon: Longitudes [columns].
        lat: Latitudes [rows], falling.
        eye: Height of the eye above the sea.

    Returns:
        Horizontal distance [rows, columns].
    """
    r = np.geomspace(0.001, 60000, 3800).astype(np.float32)
    distance = np.empty((len(lat), len(lon)), np.float32)
    for column, angle in enumerate(lon):
        ground = np.maximum(height(r * np.sin(angle), r * np.cos(angle), r * 0.004), 0)
        elevation = np.maximum.accumulate(np.arctan2(ground - eye, r))
        hit = np.searchsorted(elevation, lat)
        below = np.clip(hit, 1, len(r) - 1)
        rise = elevation[below] - elevation[below - 1]
        part = np.clip((lat - elevation[below - 1]) / np.maximum(rise, 1e-9), 0, 1)
        distance[:, column] = np.where(hit < len(r), r[below - 1] + part * (r[below] - r[below - 1]), np.inf)
    return distance


def firelight(x, z, normal) -> np.ndarray:
    """Give the light of the bonfire on the ground [..., 3]."""
    dx, dz = _FIRE_X - x, _FIRE_Z - z
    square = dx**2 + dz**2 + 0.8**2
    facing = np.clip((dx * normal[..., 0] + 0.8 * normal[..., 1] + dz * normal[..., 2]) / np.sqrt(square), 0, 1)
    return (4.6 * facing / (0.35 + square))[..., None] * np.array([1.0, 0.42, 0.11])


def land(d, x, z, r, pixel) -> np.ndarray:
    """Shade the ground at hit points."""
    foot = np.hypot(r, 6) * pixel * 1.5
    step = np.maximum(foot, 0.02)
    h = height(x, z, foot)
    slope_x, slope_z = (height(x + step, z, foot) - h) / step, (height(x, z + step, foot) - h) / step
    normal = np.stack([-slope_x, np.ones_like(h), -slope_z], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    s = shore(x, z, foot)
    grain = fbm(x * 3, z * 3, 6, foot * 3, gain=0.62)
    patch = fbm(x / 30, z / 30, 6, foot / 30)
    colour = mix(np.array([0.27, 0.21, 0.17]), np.array([0.48, 0.38, 0.29]), np.clip(0.5 + 0.8 * grain, 0, 1))
    grass = mix(np.array([0.10, 0.11, 0.05]), np.array([0.24, 0.21, 0.10]), np.clip(0.5 + patch + 0.5 * grain, 0, 1))
    colour = mix(colour, grass, smooth(18, 34, s + 14 * patch) * (r > 15))
    rock = mix(np.array([0.20, 0.16, 0.15]), np.array([0.34, 0.28, 0.25]), np.clip(0.5 + patch, 0, 1))
    colour = mix(colour, rock, np.maximum(smooth(0.82, 0.62, normal[..., 1]), smooth(250, 600, h + 200 * patch)))
    snow = smooth(0.42, 0.62, normal[..., 1] + 0.25 * patch) * smooth(620, 900, h + 260 * patch)
    colour = mix(colour, np.array([0.80, 0.82, 0.88]), snow)
    wet = smooth(0.45, 0.05, h + 0.05 * grain) * smooth(60, 20, r)
    colour = colour * (1 - 0.55 * wet)[..., None]
    direct = np.clip(normal @ SUN, 0, 1)[..., None] * np.array([1.75, 0.86, 0.46])
    ambient = (0.62 + 0.38 * normal[..., 1:2]) * np.array([0.42, 0.42, 0.58])
    ambient = ambient + np.clip(0.35 - 0.35 * normal @ -SUN, 0, 1)[..., None] * np.array([0.26, 0.12, 0.07])
    light = colour * (direct + ambient + firelight(x, z, normal))
    ash = smooth(0.85, 0.35, np.hypot(x - _FIRE_X, z - _FIRE_Z))
    light = mix(light, np.array([0.10, 0.03, 0.01]), 0.8 * ash)
    air = sky(np.stack([d[..., 0], np.full_like(r, 0.02), d[..., 2]], axis=-1))
    return mix(light, 0.85 * air, 1 - np.exp(-r / 11000))


def sea(d, x, z, r, pixel, eye) -> np.ndarray:
    """Shade the water at hit points: mirrored sky, sun glitter, foam on the shore."""
    # A pixel near the horizon is much longer than wide; waves are filtered by its length.
    foot = r * pixel * np.clip(r / eye, 1, 40) * 0.6 + 0.003
    slope_x, slope_z = np.zeros_like(r), np.zeros_like(r)
    rng = np.random.default_rng(SEED + 2)
    for wavelength in np.geomspace(0.35, 28, 44):
        angle = np.radians(SUN_LON_DEG + 25) + rng.normal(0, 0.55)
        wave = 2 * np.pi / wavelength
        bend = 0.9 * noise(x / (2.2 * wavelength) + wavelength, z / (2.2 * wavelength))
        phase = wave * (x * np.sin(angle) + z * np.cos(angle)) + rng.uniform(0, 6.28) + 2.4 * bend
        steep = 0.040 * np.cos(phase) * smooth(0.5, 0.12, foot / wavelength)
        slope_x, slope_z = slope_x + steep * np.sin(angle), slope_z + steep * np.cos(angle)
    normal = np.stack([-slope_x, np.ones_like(r), -slope_z], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    facing = np.clip(-(d * normal).sum(-1), 0.02, 1)
    mirrored = d + 2 * facing[..., None] * normal
    mirrored[..., 1] = np.abs(mirrored[..., 1]) + 0.02
    mirrored /= np.linalg.norm(mirrored, axis=-1, keepdims=True)
    cloud, cover = clouds(mirrored, octaves=4)
    glass = mix(sky(mirrored), cloud, 0.8 * cover)
    rough = 0.0025 + 0.010 * smooth(20, 900, r)
    glitter = 1.3 * np.exp((mirrored @ SUN - 1) / rough)
    glass = glass + glitter[..., None] * np.array([1.3, 0.62, 0.22])
    fresnel = 0.03 + 0.97 * (1 - facing)**5
    h = height(x, z, r * 0.004)
    deep = mix(np.array([0.10, 0.13, 0.12]), np.array([0.012, 0.035, 0.055]), smooth(0.0, 1.6, -h))
    water = mix(deep, glass, np.clip(fresnel, 0, 1))
    swash = fbm(x * 1.1, z * 1.1, 5, foot * 1.1, gain=0.6)
    lines = smooth(0.16, 0.0, np.abs(-h - 0.16 + 0.14 * swash))
    lines = lines + 0.7 * smooth(0.12, 0.0, np.abs(-h - 0.62 + 0.3 * swash))
    foam = np.clip(lines * smooth(-0.25, 0.25, swash + 0.12), 0, 1) * smooth(220, 60, r)
    water = mix(water, np.array([0.60, 0.50, 0.50]), 0.8 * foam)
    air = sky(np.stack([d[..., 0], np.full_like(r, 0.015), d[..., 2]], axis=-1))
    return mix(water, air, 0.8 * (1 - np.exp(-r / 7000)))


def smoke(lon_deg, lat_deg) -> np.ndarray:
    """Give the opacity of the plume over the crater."""
    base = np.degrees(np.arctan2(PEAK_HEIGHT * 0.86, PEAK_DISTANCE))
    rise = lat_deg - base
    # It leans over with the wind and widens as it rises.
    across = lon_deg - PEAK_LON_DEG + 0.075 * np.maximum(rise, 0)**1.75
    across = across + (0.35 + 0.13 * np.maximum(rise, 0)) * 2.2 * fbm(lon_deg / 7, rise / 5 + 3, 4)
    width = 0.9 + 0.24 * np.maximum(rise, 0)
    body = np.exp(-(across / width)**2) * smooth(-1.6, 0.6, rise) * smooth(26, 5, rise)
    return np.clip(body * (0.85 + 0.9 * fbm(across / 1.6, rise / 1.9, 5)), 0, 1)


def flame(lon_deg, lat_deg, eye) -> tuple[np.ndarray, np.ndarray]:
    """Give light [..., 3] and halo [...] of the bonfire."""
    ground = height(np.array([_FIRE_X]), np.array([_FIRE_Z]))[0]
    base = np.degrees(np.arctan2(ground - eye, FIRE_DISTANCE))
    # In units of the fire's half width and of its height.
    v = (lat_deg - base + 0.8) / 15.0
    u = (lon_deg - FIRE_LON_DEG) / 4.3
    u = u + 0.55 * v * fbm(u * 1.1 + 3, v * 2.4 - 1, 3) * smooth(0, 0.5, v)
    tongues = fbm(u * 2.1 + 8, v * 1.9 + 2, 4)
    body = 0.75 - (u / (0.95 - 0.45 * np.clip(v, 0, 1)))**2 - 0.95 * np.maximum(v, 0)**1.3
    heat = np.clip((body + 0.8 * tongues * np.clip(0.3 + v, 0, 0.9)) * 1.8, 0, 1)
    heat = heat * smooth(-0.06, 0.06, v) * smooth(1.1, 0.8, v)
    light = np.stack([3.2 * heat**0.8, 1.9 * heat**1.7, 0.75 * heat**3.5], axis=-1)
    halo = np.exp(-((u / 2.6)**2 + ((v - 0.3) / 0.85)**2))
    return light, halo


def render(width: int) -> tuple[np.ndarray, np.ndarray]:
    """Render light and motion.

    Args:
        width: Width in pixels, twice the height.

    Returns:
        Linear light float32 [H, W, 3], and where things move, bool [H, W].
    """
    rows = width // 2
    lon = ((np.arange(width) + 0.5) / width * 2 - 1) * np.pi
    lat = np.pi / 2 - (np.arange(rows) + 0.5) / rows * np.pi
    eye = float(height(np.zeros(1), np.zeros(1))[0]) + EYE_ABOVE_GROUND
    pixel = np.pi / rows
    light, moves = np.empty((rows, width, 3), np.float32), np.empty((rows, width), bool)
    for begin in range(0, width, 256):
        part = slice(begin, begin + 256)
        light[:, part], moves[:, part] = _render_columns(lon[part], lat, eye, pixel)
    return light, moves


def _render_columns(lon, lat, eye, pixel) -> tuple[np.ndarray, np.ndarray]:
    d = np.stack([np.cos(lat)[:, None] * np.sin(lon), np.repeat(np.sin(lat)[:, None], len(lon), 1),
                  np.cos(lat)[:, None] * np.cos(lon)], axis=-1).astype(np.float32)
    lon_deg, lat_deg = np.degrees(lon)[None, :] + 0 * lat[:, None], np.degrees(lat)[:, None] + 0 * lon
    distance = march(lon, lat, eye)
    above = ~np.isfinite(distance)
    light, moves = np.zeros((*above.shape, 3), np.float32), np.zeros(above.shape, bool)
    cloud, cover = clouds(d[above])
    night = (stars(d, pixel) * smooth(0.35, 0.8, d[..., 1] - 0.5 * (d @ SUN)))[above]
    heaven = sky(d[above]) + sun_disk(d[above]) + night[:, None] * np.array([0.9, 0.95, 1.0])
    heaven = mix(heaven, cloud, cover)
    puff = smoke(lon_deg[above], lat_deg[above])
    heaven = mix(heaven, np.array([0.62, 0.40, 0.40]), 0.75 * puff)
    light[above] = heaven
    moves[above] = (clearing(d[above]) > 0.02) | (puff > 0.04)
    x, z = distance * np.sin(lon), distance * np.cos(lon)
    ground = ~above
    wet = ground.copy()
    wet[ground] = height(x[ground], z[ground], distance[ground] * 0.004) <= 0.0
    dry = ground & ~wet
    light[dry] = land(d[dry], x[dry], z[dry], distance[dry], pixel)
    light[wet] = sea(d[wet], x[wet], z[wet], distance[wet], pixel, eye)
    moves |= wet
    fire, halo = flame(lon_deg, lat_deg, eye)
    light += fire + 0.10 * halo[..., None] * np.array([1.0, 0.40, 0.12])
    # Flames need room to lick.
    moves |= (fire[..., 0] > 0.08) | (halo > 0.6)
    return light, moves


def develop(light: np.ndarray) -> np.ndarray:
    """Turn linear light into 8-bit sRGB with soft highlights. uint8 [H, W, 3]."""
    light = np.maximum(light * EXPOSURE, 0)
    film = light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14)
    film = np.clip(film, 0, 1)
    encoded = np.where(film <= 0.0031308, 12.92 * film, 1.055 * film**(1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)


def shrink(values: np.ndarray, factor: int) -> np.ndarray:
    """Average square blocks of pixels."""
    rows, columns = values.shape[0] // factor, values.shape[1] // factor
    return values.reshape(rows, factor, columns, factor, -1).mean(axis=(1, 3))


def main() -> None:
    """Render the picture and its mask and write both."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--width", type=int, default=2048, help="width in pixels")
    options.add_argument("--supersample", type=int, default=2, help="samples per pixel in each direction")
    options.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    chosen = options.parse_args()
    light, moves = render(chosen.width * chosen.supersample)
    picture = develop(shrink(light, chosen.supersample))
    mask = shrink(moves.astype(np.float32), chosen.supersample)[..., 0] >= 0.5
    # Full chroma: halved, its 16-pixel blocks show as a faint seam. The XMP makes viewers open it as a panorama.
    Image.fromarray(picture).save(chosen.out / "panorama.jpg", quality=95, subsampling=0, optimize=True, xmp=XMP)
    Image.fromarray(mask).save(chosen.out / "panorama_mask.png", optimize=True)
    print(f"{chosen.out}: {picture.shape[1]}x{picture.shape[0]}, {mask.mean():.0%} of the pixels may move")


if __name__ == "__main__":
    main()
