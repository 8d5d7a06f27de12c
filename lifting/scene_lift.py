"""Lift frames into an output folder: where distances come from, what is kept for a resumed run, what is written."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pano4d import __version__
from pano4d.lifting import drawing
from pano4d.lifting.container import ContainerWriter
from pano4d.lifting.depth import DepthEstimator, open_estimator
from pano4d.lifting.depth_file import read_depths
from pano4d.lifting.distances import Distances, from_maps
from pano4d.lifting.estimate import estimate_distances
from pano4d.lifting.formats.ply import read_ply
from pano4d.lifting.job import LiftSettings, device_and_steps, lift_frames
from pano4d.lifting.layers import ORDER
from pano4d.lifting.preview import write_preview
from pano4d.runtime import checkpointing
from pano4d.runtime.errors import SettingsError
from pano4d.runtime.files import sha256_of
from pano4d.runtime.outputs import OutputFolder
from pano4d.runtime.pipeline import Progress
from pano4d.runtime.report import StageTimer


class DepthSource:
    """Where distances come from: checked and opened before anything is animated, used afterwards.

    Args:
        path: Map or maps of the user's own, as for `read_depths`; None for none.
        scale: Metres per stored unit of those; None: as for `read_depths`.
        model: What estimates depth instead, as for `open_estimator`; None for nothing.
        kind: What the model tells; None: as it declares.
        geometry: Of what; None: as it declares.
        height: Rows of the panorama.
        width: Columns of the panorama.
        frames: Number of frames.
        device: Where a model runs and its distances are sharpened: "auto", "cpu" or "cuda".

    Raises:
        SettingsError: Options exclude each other, or the device is not there.
        InputError: A map cannot be used.
        CheckpointError: The model cannot be used.
    """

    def __init__(self, path: str | Path | None, scale: float | None, model: str | Path | None, kind: str | None,
                 geometry: str | None, height: int, width: int, frames: int, device: str) -> None:
        if path is not None and model is not None:
            raise SettingsError("Both --depth and --depth-model were given; give maps or a model.")
        if model is None and (kind or geometry):
            raise SettingsError("--depth-kind and --depth-geometry say what a model tells; give --depth-model too.")
        self._maps = None if path is None else read_depths(Path(path), height, width, frames, scale)
        self._estimator: DepthEstimator | None = None if model is None else open_estimator(model, kind, geometry, device)
        # A panoramic one has nothing to sharpen.
        sharpened = self._estimator is not None and not self._estimator.panoramic
        self._device = drawing.choose_device(device) if sharpened else device

    def distances(self, frames: np.ndarray, moving: np.ndarray, timer: StageTimer,
                  progress: Progress | None) -> tuple[np.ndarray | Distances | None, dict]:
        """Give what `lift_frames` takes as its depth, and what to add to the report."""
        if self._estimator is not None:
            with timer("depth"):
                distances, figures = estimate_distances(frames, moving, self._estimator, progress, self._device)
            return distances, {"depth": figures}
        if self._maps is None or len(self._maps) == 1:
            return None if self._maps is None else self._maps[0], {}
        return from_maps(self._maps, np.asarray(moving) != 0), {}


class _LearnedFolder:
    """Keep what has been learned of a video in the folder that outlives an interruption; a `Store`."""

    def __init__(self, folder: Path, frames_sha256: str, mask: np.ndarray, distances: np.ndarray | Distances | None,
                 settings: LiftSettings) -> None:
        told = [mask] + ([distances.static, distances.changes] if isinstance(distances, Distances) else
                                 [] if distances is None else [distances])
        parts = [sha256_of(np.ascontiguousarray(array).data) for array in told]
        self._folder, self._key = folder, repr((frames_sha256, parts, settings, ORDER))

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """Give what an interrupted run of the same inputs and settings saved under a name."""
        return checkpointing.load_state(self._folder / name, self._key).arrays

    def save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Save."""
        checkpointing.save_state(self._folder / name, self._key, 1, arrays)


def lift_into(folder: OutputFolder, frames: np.ndarray, mask: np.ndarray, source: DepthSource, settings: LiftSettings,
              writer: Callable[..., ContainerWriter], timer: StageTimer, progress: Progress | None,
              frames_sha256: str | None = None) -> dict:
    """Write splats/, scene.p4d and preview.jpg.

    Args:
        folder: Where to.
        frames: Panoramas. uint8 [T, H, W, 3].
        mask: Where the picture may move. bool [H, W].
        source: Where distances come from.
        settings: How to lift.
        writer: Opens scene.p4d, given its path, ``generator`` and what does not move.
        timer: What stages are timed by.
        progress: Called with stage, done, total.
        frames_sha256: Digest of the frames, if it is known.

    Returns:
        What all that adds to the report.

    Raises:
        Pano4DError: Distances, a setting or the folder cannot be used.
    """
    splats = folder.path("splats")
    distances, told = source.distances(frames, mask, timer, progress)
    with timer("lift"):
        store = None
        if device_and_steps(settings)[1]:
            digest = frames_sha256 or sha256_of(np.ascontiguousarray(frames).data)
            store = _LearnedFolder(folder.resume_folder, digest, mask, distances, settings)
        lifted = lift_frames(frames, mask, splats, depth=distances, settings=settings, store=store, progress=progress,
                             open_container=functools.partial(writer, folder.path("scene.p4d"),
                                                              generator=f"pano4d {__version__}"))
    names = lifted.pop("files")
    with timer("preview"):
        write_preview(folder.path("preview.jpg"), frames, read_ply(splats / names[0]))
    if told:
        lifted["depth"] = "estimated"
    return {"splats": {"files": len(names), **lifted}, **told}
