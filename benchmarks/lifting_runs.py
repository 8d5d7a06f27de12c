"""Film a scene whose truth is known, lift it by us and as the original does, and time both."""

import gc
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from pano4d.benchmarks.ablate_alignment import nearest_pixels, noise_of
from pano4d.benchmarks.estimator_noise import distort
from pano4d.benchmarks.measuring import PeakMemory
from pano4d.benchmarks.reference_lifting import ReferenceFrame, ReferenceLifting
from pano4d.benchmarks.scenes import Scene
from pano4d.lifting.align import Gauge, align, ray_cosines
from pano4d.lifting.align_time import Reading, read_tile
from pano4d.lifting.distances import Distances, from_maps
from pano4d.lifting.estimate import FOV_DEG, ramp_reach, tile_size
from pano4d.lifting.formats.ply import read_ply
from pano4d.lifting.gaussians import Gaussians
from pano4d.lifting.job import LiftSettings, lift_frames
from pano4d.lifting.rasterize import rasterizer
from pano4d.lifting.sharpen import sharpen
from pano4d.runtime.tiles import icosahedron_faces, tile_masks

TILES = icosahedron_faces(FOV_DEG)

Judge = Callable[[Collection[int], Sequence[int], Callable[[int], Gaussians]], dict[str, Any]]


@dataclass(frozen=True)
class Video:
    """A scene as it is lifted.

    Attributes:
        frames: uint8 [T, H, W, 3].
        maps: True distances, metres. float32 [T, H, W].
        moving: bool [H, W].
        median_m: Median distance.
    """

    frames: np.ndarray
    maps: np.ndarray
    moving: np.ndarray
    median_m: float


@dataclass(frozen=True)
class Source:
    """Distances, and the seconds that it took to make them."""

    distances: Distances
    seconds: float


def film(scene: Scene, height: int) -> Video:
    """Draw all panoramas of a scene."""
    pictures = scene.panoramas(height)
    return Video(np.stack([picture.rgb.cpu().numpy() for picture in pictures]),
                 np.stack([picture.distance.cpu().numpy() for picture in pictures]),
                 scene.moving(height, pictures=pictures).cpu().numpy(), scene.median_distance)


def readings_of(video: Video, device: torch.device, seed: int = 0) -> list[Reading]:
    """Play an estimator of metric depth over all tiles: what alignment begins with.

    As `estimate_distances` does, a tile in which nothing moves is estimated once, of the first frame.
    """
    size = tile_size(video.moving.shape[1])
    cosines, masks = torch.from_numpy(ray_cosines(TILES, size)).to(device), tile_masks(video.moving, TILES, size, 1) > 0
    row, column = nearest_pixels(TILES, size, *video.moving.shape)
    readings = []
    for v, mask in enumerate(masks):
        maps = video.maps if mask.any() else video.maps[:1]
        truth = torch.from_numpy(maps[:, row[v], column[v]]).to(device)
        said = distort(truth * cosines, 1000 * seed + v, "depth", noise_of("metric")).cpu().numpy()
        readings.append(read_tile(said, mask, False, v))
    return readings


def true_source(video: Video) -> Source:
    """Take the distances that are true."""
    begun = time.monotonic()
    return Source(from_maps(video.maps, video.moving), time.monotonic() - begun)


def aligned_source(video: Video, readings: list[Reading]) -> Source:
    """Align readings; fix the scale that is left open by the truth."""
    begun = time.monotonic()
    found, _ = align(readings, TILES, video.moving, "metric", "z", Gauge())
    scale = np.median((video.maps[0] / found.static)[~video.moving])
    return Source(Distances(found.static * np.float32(scale), found.pixels, found.changes), time.monotonic() - begun)


def sharpened_source(video: Video, source: Source) -> Source:
    """Sharpen aligned distances, as `estimate_distances` does."""
    begun = time.monotonic()
    width = video.frames.shape[2]
    made = sharpen(source.distances, video.frames, ramp_reach(width, tile_size(width)))
    return Source(made, source.seconds + time.monotonic() - begun)


def lift_ours(video: Video, source: Source, settings: LiftSettings, device: torch.device, flickering: Sequence[int],
              judge: Judge) -> dict[str, Any]:
    """Lift all frames into files, timed; and judge what is read of them, of neighbours among ``flickering``."""
    with tempfile.TemporaryDirectory() as folder:
        with _memory(device) as peak:
            begun = time.monotonic()
            told = lift_frames(video.frames, video.moving, Path(folder), depth=source.distances, settings=settings)
            seconds = time.monotonic() - begun
        found = judge(range(len(video.frames)), flickering, lambda t: read_ply(Path(folder) / told["files"][t]))
    return {"seconds": source.seconds + seconds, "align_seconds": source.seconds, "peak_gib": peak.gib, **{
        name: told[name] for name in ("gaussians", "static", "moving", "background", "sky", "iterations")}, **found}


def lift_original(video: Video, source: Source, settings: ReferenceLifting, frames: Sequence[int], device: torch.device,
                  judge: Judge) -> dict[str, Any]:
    """Train some frames as the original does, fewer steps each; tell what all of them would take; and judge them."""
    made, spent, prepared = {}, [], []
    with _memory(device) as peak:
        for number in frames:
            begun = time.monotonic()
            training = ReferenceFrame(video.frames[number], video.moving, source.distances.frame(number), settings,
                                      rasterizer(device), device)
            _wait(device)
            prepared.append(time.monotonic() - begun)
            for step in range(settings.iterations):
                if step == settings.iterations // 10:
                    _wait(device)
                    begun = time.monotonic()
                training.step()
            _wait(device)
            spent.append((time.monotonic() - begun) / (settings.iterations - settings.iterations // 10))
            made[number] = training.gaussians()
            # Else two frames would be held at once, which the original does not do.
            del training
    each = float(np.mean(spent)) * ReferenceLifting().iterations + float(np.mean(prepared))
    return {"seconds": each * len(video.frames), "step_ms": 1e3 * float(np.mean(spent)), "peak_gib": peak.gib,
            "trained_steps": settings.iterations, "trained_frames": list(frames), "gaussians": source.distances.static.size,
            **judge(made, list(frames), made.__getitem__)}


def _memory(device: torch.device) -> AbstractContextManager:
    """Watch the memory of a GPU, emptied before; of a CPU tell 0."""
    gc.collect()
    if device.type != "cuda":
        return nullcontext(SimpleNamespace(gib=0.0))
    torch.cuda.empty_cache()
    return PeakMemory()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
