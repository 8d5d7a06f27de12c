"""Find the files that the viewer plays: a scene.p4d, or PLY files where there is none."""

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pano4d.lifting.formats.p4d_manifest import AXES, FORMAT, SCHEMA_VERSION, UNITS
from pano4d.lifting.formats.ply import to_rows, write_rows
from pano4d.lifting.render_job import near_distance
from pano4d.lifting.render_settings import SCENE_FPS
from pano4d.lifting.scene_files import find_scene
from pano4d.runtime.errors import InputError

CONTAINER, VIDEO = "scene.p4d", "video.mp4"

_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.(spz|ply)")


@dataclass(frozen=True)
class SceneFiles:
    """What a page needs of a scene.

    Attributes:
        manifest: As in scene.p4d, and ``video`` where there is one: ``{"file": name}``.
        names: Every file that the manifest names.
        read: Gives the bytes of one of them.
    """

    manifest: dict[str, Any]
    names: tuple[str, ...]
    read: Callable[[str], bytes]


def open_scene(path: str | Path, video: str | Path | None = None) -> SceneFiles:
    """Open what can be played.

    Args:
        path: Output folder of a run, scene.p4d (folder or file), folder of PLY files, or one PLY file.
        video: Panoramic video to show beside it, H.264 in MP4; None: video.mp4 of the output folder, if there is one.

    Returns:
        The files; none is read yet, but for PLY files, which are split into what stays and what moves.

    Raises:
        InputError: There is no scene, it is damaged or of a later version, or the video does not exist.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; give a run's output folder, a scene.p4d, or a folder of PLY files.")
    beside = (path if path.is_dir() and not (path / "manifest.json").is_file() else path.parent) / VIDEO
    if video is not None and not Path(video).is_file():
        raise InputError(f"The video {video} does not exist; name an MP4 file, or leave it out.")
    shown = Path(video) if video is not None else beside if beside.is_file() else None
    if path.is_dir() and (path / CONTAINER).exists():
        path = path / CONTAINER
    if path.is_dir() and (path / "manifest.json").is_file():
        manifest, read = _folder(path)
    elif path.is_file() and path.suffix.lower() != ".ply":
        manifest, read = _archive(path)
    else:
        manifest, read = _from_ply(path)
    names = tuple(part["file"] for part in (*([manifest["static"]] if manifest["static"] else []), *manifest["moving"]))
    if shown is None:
        return SceneFiles(manifest, names, read)
    manifest = manifest | {"video": {"file": VIDEO}}
    return SceneFiles(manifest, (*names, VIDEO), lambda name: shown.read_bytes() if name == VIDEO else read(name))


def _folder(path: Path) -> tuple[dict, Callable[[str], bytes]]:
    manifest = _checked(path, (path / "manifest.json").read_bytes())
    return manifest, lambda name: _present(path, name, (path / name).read_bytes if (path / name).is_file() else None)


def _archive(path: Path) -> tuple[dict, Callable[[str], bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
            manifest = _checked(path, archive.read("manifest.json"))
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{path} is no scene.p4d; write one with 'pano4d generate' or 'pano4d lift'.") from error

    def member(name: str) -> bytes:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)

    return manifest, lambda name: _present(path, name, (lambda: member(name)) if name in members else None)


def _present(path: Path, name: str, read: Callable[[], bytes] | None) -> bytes:
    if read is None:
        raise InputError(f"{path} is incomplete: {name} is missing; copy it again, or write it again with 'pano4d lift'.")
    return read()


def _checked(path: Path, text: bytes) -> dict:
    """Parse a manifest and refuse what the page could not play. Names lead nowhere but into the scene."""
    try:
        manifest = json.loads(text)
        version = manifest["schema_version"]
        parts = [*([manifest["static"]] if manifest.get("static") else []), *manifest["moving"]]
        if any(part["file"].endswith(".delta") for part in parts):
            raise InputError(f"{path} stores frames as deltas, which the viewer does not play; write it without --deltas.")
        sound = manifest["format"] == FORMAT and manifest["frames"] >= 1 and manifest["fps"] > 0 and parts
        sound = sound and len(manifest["moving"]) in (0, manifest["frames"])
        sound = sound and all(_SAFE_NAME.fullmatch(part["file"]) for part in parts)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"The manifest of {path} is damaged; write the scene again with 'pano4d lift'.") from error
    if version != SCHEMA_VERSION:
        raise InputError(f"{path} has schema version {version} and this viewer plays {SCHEMA_VERSION}; update pano4d.")
    if not sound:
        raise InputError(f"The manifest of {path} is not that of a scene; write it again with 'pano4d lift'.")
    return {"static": None, **manifest}


def _from_ply(path: Path) -> tuple[dict, Callable[[str], bytes]]:
    """Make a scene of one PLY file for each frame; the rows that all begin with are taken once."""
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
            return _ply_bytes(fixed[:count])
        return _ply_bytes(to_rows(frames.frame(int(name[7:11])))[count:])

    return manifest, read


def _same_rows(a: np.ndarray, b: np.ndarray) -> int:
    """Count the rows with which both begin."""
    if a.shape[1] != b.shape[1]:
        return 0
    length = min(len(a), len(b))
    differs = np.flatnonzero((a[:length] != b[:length]).any(axis=1))
    return int(differs[0]) if len(differs) else length


def _ply_bytes(rows: np.ndarray) -> bytes:
    """Write rows as a PLY file in memory."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.ply"
        write_rows(path, [rows])
        return path.read_bytes()
