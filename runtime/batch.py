"""Run one job for every panorama of a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pano4d.runtime.errors import InputError, OutputError
from pano4d.runtime.image import list_panoramas

_DEPTH_SUFFIXES = (".npy", ".png", ".exr")


def run_batch(folder: str | Path, out: str | Path, job: Callable[..., dict], *, mask: str | Path | None = None,
              depth: str | Path | None = None, progress: Callable[[str, int, int], None] | None = None,
              **options: Any) -> dict:
    """Run ``job(panorama, out/<name>, mask=, depth=, progress=, **options)`` for every panorama.

    A panorama that cannot be used does not stop the others; what concerns all of them (the bundle, the
    backend, a setting) does.

    Args:
        folder: Folder of panoramas.
        out: Folder that gets one output folder per panorama, named as the panorama.
        job: What to run.
        mask: One mask for all, or a folder with ``<name>.png`` for each; None: each panorama's own.
        depth: One depth map for all, or a folder with ``<name>.npy``, ``.png`` or ``.exr`` for each, or with a folder
            ``<name>`` of maps of its frames.
        progress: Called with stage, done, total, those of the batch under ``scenes``.
        **options: Passed on as they are.

    Returns:
        ``{"scenes": [report, ...], "failed": [{"panorama", "error"}, ...]}``.

    Raises:
        InputError: The folder holds no picture, or two of the same name.
    """
    panoramas = list_panoramas(folder)
    _require_distinct(panoramas)
    tell = progress or (lambda *_: None)
    reports, failed = [], []
    for done, panorama in enumerate(panoramas):
        tell("scenes", done, len(panoramas))
        try:
            own = {"mask": _own(mask, panorama, (".png",)), "depth": _own(depth, panorama, _DEPTH_SUFFIXES, folders=True)}
            own = {name: path for name, path in own.items() if path is not None}
            reports.append(job(panorama, Path(out) / panorama.stem, progress=progress, **own, **options))
        except (InputError, OutputError) as error:
            failed.append({"panorama": str(panorama), "error": str(error)})
    tell("scenes", len(panoramas), len(panoramas))
    return {"scenes": reports, "failed": failed}


def _require_distinct(panoramas: list[Path]) -> None:
    seen: dict[str, Path] = {}
    for panorama in panoramas:
        if panorama.stem in seen:
            raise InputError(f"{seen[panorama.stem].name} and {panorama.name} would both be written to "
                             f"{panorama.stem}/: rename one of them.")
        seen[panorama.stem] = panorama


def _own(given: str | Path | None, panorama: Path, suffixes: tuple[str, ...], folders: bool = False) -> Path | None:
    """Pick the file that belongs to a panorama from what was given for the batch."""
    if given is None or not Path(given).is_dir():
        return None if given is None else Path(given)
    found = [Path(given) / f"{panorama.stem}{suffix}" for suffix in suffixes]
    for path in found:
        if path.is_file():
            return path
    if folders and (Path(given) / panorama.stem).is_dir():
        return Path(given) / panorama.stem
    raise InputError(f"{given} holds no {' or '.join(path.name for path in found)} for {panorama.name}.")
