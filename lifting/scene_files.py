"""Find the frames of a scene on disk, whatever they are stored as."""

import json
from pathlib import Path
from typing import Protocol

from pano4d.lifting.container import Container
from pano4d.lifting.formats.table import FORMATS, read_gaussians, require_format
from pano4d.lifting.gaussians import Gaussians
from pano4d.runtime.errors import InputError

CONTAINER_SUFFIX = ".p4d"


class SceneFrames(Protocol):
    """What a scene is made of: as many frames as its length."""

    def __len__(self) -> int:
        """Return the number of frames."""

    def frame(self, frame: int) -> Gaussians:
        """Read all Gaussians of a frame, counted from 0."""


class FrameFiles:
    """A file for each frame; a `SceneFrames`.

    Attributes:
        files: The files in order.
    """

    def __init__(self, files: list[Path]) -> None:
        """Keep the names; nothing is read yet."""
        self.files = files

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.files)

    def frame(self, frame: int) -> Gaussians:
        """Read a frame.

        Raises:
            InputError: The file holds no Gaussians.
        """
        return read_gaussians(self.files[frame])


def find_scene(scene: Path) -> tuple[SceneFrames, float | None]:
    """Find the frames of a scene.

    Args:
        scene: Result folder (with splats/ or scene.p4d), .p4d scene, folder of PLY files, or one file of Gaussians.

    Returns:
        The frames in order, and the frames per second that the scene or a result's report names, if there is one.

    Raises:
        InputError: There is nothing, or no Gaussians in it.
    """
    if not scene.exists():
        raise InputError(f"{scene} does not exist; give a run's output folder, a .p4d scene, a folder of PLY files, or a "
                         f"file of Gaussians ({', '.join(FORMATS)}).")
    if is_container(scene):
        return _open_container(scene)
    if scene.is_file():
        require_format(scene)
        return FrameFiles([scene]), None
    folder = scene / "splats" if (scene / "splats").is_dir() else scene
    files = sorted(path for path in folder.glob("*.ply") if not path.name.startswith("."))
    if not files and is_container(scene / "scene.p4d"):
        return _open_container(scene / "scene.p4d")
    if not files:
        raise InputError(f"{folder} holds no PLY file; write some with 'pano4d generate' or 'pano4d lift'.")
    result = folder.parent if folder.name == "splats" else folder
    return FrameFiles(files), _report_fps(result / "report.json")


def closes(scene: Path) -> bool:
    """Say whether a scene closes on itself, as the report beside its files tells.

    Args:
        scene: As for `find_scene`.

    Returns:
        Whether it was made with ``loop``; False without a report.

    Raises:
        Nothing.
    """
    folder = scene if scene.is_dir() and scene.name != "splats" else scene.parent
    folder = folder.parent if folder.name == "splats" else folder
    try:
        return json.loads((folder / "report.json").read_text(encoding="utf-8"))["settings"]["loop"] is True
    except (OSError, ValueError, KeyError, TypeError):
        return False


def is_container(path: Path) -> bool:
    """Tell whether a path is to be read as a .p4d scene.

    Args:
        path: File or folder.

    Returns:
        Whether it exists and is called so.

    Raises:
        Nothing.
    """
    return path.suffix.lower() == CONTAINER_SUFFIX and path.exists()


def _open_container(path: Path) -> tuple[Container, float]:
    container = Container.open(path)
    return container, float(container.manifest["fps"])


def _report_fps(report: Path) -> float | None:
    """Return the frames per second that a report names; None where there is no such report."""
    try:
        fps = json.loads(report.read_text(encoding="utf-8"))["outputs"]["fps"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return float(fps) if isinstance(fps, (int, float)) and fps > 0 else None
