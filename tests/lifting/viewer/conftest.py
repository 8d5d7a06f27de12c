"""A small scene with letters in six directions, written as scene.p4d."""

import gzip
import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pano4d.lifting.gaussians import Gaussians, colors_to_sh, concatenate, sh_to_colors
from pano4d.runtime.sphere import rotation

LETTERS = {"N": (0, 0), "E": (90, 0), "S": (180, 0), "W": (-90, 0), "UP": (0, 90), "DOWN": (0, -90)}
FRAMES = 3


def panel(text: str, yaw_deg: float, pitch_deg: float, distance_m: float = 3.0, cells: int = 40) -> Gaussians:
    """A word on a flat panel that faces the centre and reads upright from there."""
    picture = Image.new("L", (cells, cells))
    font = ImageFont.load_default(36 if len(text) == 1 else 26 if len(text) == 2 else 13)
    ImageDraw.Draw(picture).text((cells / 2, cells / 2), text, 255, font, anchor="mm")
    rows, columns = np.nonzero(np.asarray(picture) > 100)
    flat = np.stack([(columns + 0.5) / cells - 0.5, (rows + 0.5) / cells - 0.5, np.full(len(rows), 1.0)], -1)
    means = distance_m * flat @ np.asarray(rotation(yaw_deg, pitch_deg)).T
    return _blobs(means, np.full((len(rows), 3), 0.95), 0.6 * distance_m / cells, 0.95)


def sky(count: int = 1500, distance_m: float = 6.0) -> Gaussians:
    """A coloured shell, denser than its Gaussians are wide, with a hue for each direction."""
    k = np.arange(count) + 0.5
    lat, lon = np.arcsin(1 - 2 * k / count), k * np.pi * (1 + 5**0.5)
    means = distance_m * np.stack([np.cos(lat) * np.sin(lon), -np.sin(lat), np.cos(lat) * np.cos(lon)], -1)
    return _blobs(means, 0.3 + 0.25 * means / distance_m, 1.4 * distance_m * np.sqrt(4 * np.pi / count) / 2, 0.98)


def _moving(frame: int) -> Gaussians:
    """A red patch below the N that goes to the right, a step each frame."""
    grid = np.stack(np.meshgrid(np.linspace(-0.3, 0.3, 9), np.linspace(-0.3, 0.3, 9)), -1).reshape(-1, 2)
    means = np.column_stack([grid[:, 0] + 0.9 * (frame - 1), grid[:, 1] + 1.2, np.full(len(grid), 2.5)])
    return _blobs(means, np.tile([0.9, 0.15, 0.1], (len(grid), 1)), 0.06, 0.95)


def _blobs(means, colors, scale, opacity) -> Gaussians:
    n = len(means)
    return Gaussians(means.astype(np.float32), np.tile(np.float32([1, 0, 0, 0]), (n, 1)), np.full((n, 3), scale, np.float32),
                     np.full(n, opacity, np.float32), colors_to_sh(colors))


def to_spz(g: Gaussians) -> bytes:
    """Write SPZ version 3 without harmonics; axes as they are."""
    fixed = np.rint(g.means.astype(np.float64) * 4096).astype("<i4")
    positions = fixed[:, :, None].view(np.uint8).reshape(len(g), 3, 4)[:, :, :3]
    alphas = np.rint(g.opacities * 255)
    colors = np.clip(np.rint((sh_to_colors(g.sh) - 0.5) / 0.28209479 * 0.15 * 255 + 127.5), 0, 255)
    scales = np.clip(np.rint((np.log(g.scales) + 10) * 16), 0, 255)
    xyzw = g.quats[:, [1, 2, 3, 0]].astype(np.float64)
    xyzw /= np.linalg.norm(xyzw, axis=1, keepdims=True)
    largest = np.abs(xyzw).argmax(1)
    xyzw *= np.where(xyzw[np.arange(len(g)), largest] < 0, -1, 1)[:, None]
    packed = largest.astype(np.uint32)
    for i in range(4):
        mine = i != largest
        magnitude = np.rint(np.abs(xyzw[:, i]) * np.sqrt(2) * 511).astype(np.uint32)
        coded = (packed << 10) | ((xyzw[:, i] < 0).astype(np.uint32) << 9) | magnitude
        packed = np.where(mine, coded, packed)
    header = struct.pack("<IIIBBBB", 0x5053474E, 3, len(g), 0, 12, 0, 0)
    parts = [positions, *(part.astype(np.uint8) for part in (alphas, colors, scales)), packed.astype("<u4")]
    return gzip.compress(header + b"".join(np.ascontiguousarray(part).tobytes() for part in parts), 6)


def _write_scene(folder: Path, static: Gaussians, frames: list[Gaussians], fps: float = 7.0) -> Path:
    """Write a scene.p4d as a folder."""
    folder.mkdir(parents=True)

    def part(name: str, g: Gaussians) -> dict:
        data = to_spz(g)
        (folder / name).write_bytes(data)
        return {"file": name, "gaussians": len(g), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    manifest = {"format": "p4d", "schema_version": 1, "generator": "pano4d", "fps": fps, "frames": max(len(frames), 1),
                "axes": "x right, y down, z forward", "units": "metre", "up": [0, -1, 0],
                "bounds": {"min": [-6, -6, -6], "max": [6, 6, 6]}, "near_m": 2.4, "median_m": 6.0,
                "static": part("static.spz", static),
                "moving": [part(f"moving_{i:04d}.spz", g) for i, g in enumerate(frames)]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def letters() -> Gaussians:
    """What does not move of the lettered scene."""
    return concatenate([sky(), *(panel(text, *at) for text, at in LETTERS.items())])


@pytest.fixture(scope="session")
def lettered(tmp_path_factory) -> Path:
    """An output folder with scene.p4d: letters all around, and a red patch that moves."""
    out = tmp_path_factory.mktemp("lettered")
    _write_scene(out / "scene.p4d", letters(), [_moving(i) for i in range(FRAMES)])
    return out


@pytest.fixture(scope="session")
def lettered_frames() -> list[Gaussians]:
    """The same scene as one set of Gaussians for each frame."""
    return [concatenate([letters(), _moving(i)]) for i in range(FRAMES)]


@pytest.fixture(scope="session")
def write_scene():
    """Writes a scene.p4d."""
    return _write_scene


@pytest.fixture(scope="session")
def patch():
    """Gives the red patch of a frame."""
    return _moving


@pytest.fixture(scope="session")
def empty() -> Gaussians:
    """No Gaussians at all."""
    return _blobs(np.zeros((0, 3)), np.zeros((0, 3)), 1.0, 1.0)
