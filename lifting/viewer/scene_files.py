"""Find the files that the viewer plays: parts of a scene.p4d, or PLY files where there is none."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pano4d.lifting.container import Container
from pano4d.lifting.formats.p4d_manifest import AXES, FORMAT, SCHEMA_VERSION, UNITS
from pano4d.lifting.formats.ply import pack_rows, to_rows
from pano4d.lifting.render_job import near_distance
from pano4d.lifting.render_settings import SCENE_FPS
from pano4d.lifting.scene_files import find_scene, is_container
from pano4d.runtime.errors import InputError

CONTAINER, VIDEO = "scene.p4d", "video.mp4"


@dataclass(frozen=True)
class SceneFiles:
    """What a page needs of a scene.

    Attributes:
        manifest: As in scene.p4d, but parts have no ``bytes`` and no hash, and ``video`` where there is one: ``{"file": name}``.
        names: Every file that the manifest names.
        read: Gives the bytes of one of them.
    """

    manifest: dict[str, Any]
    names: tuple[str, ...]
    read: Callable[[str], bytes]


def open_scene(path: str | Path, video: str | Path | None = None) -> SceneFiles:
    """Open what can be played.

    Args:
        path: Output folder of a run, scene.p4d (folder or file), folder of PLY files, or one file of Gaussians.
        video: Panoramic video to show beside it, H.264 in MP4; None: video.mp4 of the output folder, if there is one.

    Returns:
        The files; none is read yet, but for those outside a scene.p4d, which are split into what stays and what moves.

    Raises:
        InputError: There is no scene, it is damaged or of a later version, or the video does not exist.
    """
    path = Path(path)
    if video is not None and not Path(video).is_file():
        raise InputError(f"The video {video} does not exist; name an MP4 file, or leave it out.")
    beside = (path.parent if path.is_file() or is_container(path) else path) / VIDEO
    shown = Path(video) if video is not None else beside if beside.is_file() else None
    scene = path / CONTAINER if is_container(path / CONTAINER) else path
    manifest, read = _from_container(scene) if is_container(scene) else _from_frames(scene)
    names = tuple(part["file"] for part in (*([manifest["static"]] if manifest["static"] else []), *manifest["moving"]))
    if shown is None:
        return SceneFiles(manifest, names, read)
    manifest = manifest | {"video": {"file": VIDEO}}
    return SceneFiles(manifest, (*names, VIDEO), lambda name: shown.read_bytes() if name == VIDEO else read(name))


def _from_container(path: Path) -> tuple[dict, Callable[[str], bytes]]:
    """Take the parts of a scene.p4d; deltas become SPZ files, which the page can decode each by itself."""
    scene = Container.open(path)
    told = scene.manifest
    entries = {"static.spz": told["static"]} | {f"moving_{i:04d}.spz": entry for i, entry in enumerate(told["moving"])}
    static, *moving = [{"file": name, "gaussians": entry["gaussians"]} for name, entry in entries.items()]
    return told | {"static": static, "moving": moving}, lambda name: scene.spz(entries[name])


def _from_frames(path: Path) -> tuple[dict, Callable[[str], bytes]]:
    """Make a scene of one file for each frame; the rows that all begin with are taken once."""
    frames, fps = find_scene(path)
    first = frames.frame(0)
    fixed = common = to_rows(first)
    for number in range(1, len(frames)):
        common = common[: _same_rows(common, to_rows(frames.frame(number)))]
    count = len(common) if len(frames) > 1 else len(fixed)
    distances = np.linalg.norm(first.means, axis=1)
    moving = [{"file": f"moving_{i:04d}.ply"} for i in range(len(frames) if len(frames) > 1 else 0)]
    manifest = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "fps": fps or SCENE_FPS, "frames": len(frames),
                "axes": AXES, "units": UNITS, "near_m": near_distance(first),
                "median_m": float(np.median(distances)) if len(distances) else 0.0,
                "static": {"file": "static.ply"} if count else None, "moving": moving}

    def read(name: str) -> bytes:
        if name == "static.ply":
            return pack_rows([fixed[:count]])
        return pack_rows([to_rows(frames.frame(int(name[7:11])))[count:]])

    return manifest, read


def _same_rows(a: np.ndarray, b: np.ndarray) -> int:
    """Count the rows with which both begin."""
    if a.shape[1] != b.shape[1]:
        return 0
    length = min(len(a), len(b))
    differs = np.flatnonzero((a[:length] != b[:length]).any(axis=1))
    return int(differs[0]) if len(differs) else length
