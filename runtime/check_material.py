"""Gather what a check works on: the frames of a result, the picture and mask it was made of, its tiles.

Nothing is guessed: a picture is taken if it was given, or if it has the name and the SHA-256 that report.json tells.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pano4d.runtime import image
from pano4d.runtime.errors import InputError
from pano4d.runtime.files import sha256_of
from pano4d.runtime.tiles import Layout, by_name
from pano4d.runtime.video import read_video


@dataclass
class Material:
    """What was found in and for a result folder.

    Attributes:
        path: The folder.
        report: Its report.json; empty if there is none.
        frames: uint8 [T, H, W, 3]; None if there are none.
        source: Where the frames are from: "frames" or "video.mp4"; None.
        reference: The input at their size. uint8 [H, W, 3]; None if it was not found.
        mask: Where the picture may move. bool [H, W]; None if it was not found.
        layout: The tiles; None if they are not known.
        splats: PLY files, one a frame.
        notes: What to know about these.
        missing: Why something that a figure may need is not there, by the name of `check_figures.Figure.needs`.
    """

    path: Path
    report: dict
    frames: np.ndarray | None = None
    source: str | None = None
    reference: np.ndarray | None = None
    mask: np.ndarray | None = None
    layout: Layout | None = None
    splats: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def still(self) -> np.ndarray:
        """Pixels that must not move. bool [H, W]."""
        return ~self.mask


def gather(path: Path, panorama: str | Path | None = None, mask: str | Path | None = None) -> Material:
    """Read what there is.

    Args:
        path: Output folder of a run, or any with frames/, video.mp4 or splats/ in it.
        panorama: The input picture; None to look for the one that the report names, in the folder and beside it.
        mask: Its mask; None likewise.

    Returns:
        What was found, and why the rest was not.

    Raises:
        InputError: There is nothing to check, or a file cannot be read or used.
    """
    found = Material(path, _report(path))
    _read_frames(found)
    found.splats = sorted(file for file in (path / "splats").glob("*.ply") if not file.name.startswith("."))
    if not found.splats:
        found.missing["splats"] = "there is no PLY file in splats/"
    if found.frames is None and not found.splats:
        raise InputError(f"{path} holds neither frames/, video.mp4 nor splats/; give the output folder of a run.")
    if found.frames is not None:
        _read_reference(found, panorama)
        _read_mask(found, mask)
        _read_layout(found)
    return found


def _report(path: Path) -> dict:
    if not path.is_dir():
        raise InputError(f"{path} is no folder; give the output folder of a run.")
    try:
        report = json.loads((path / "report.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path / 'report.json'} cannot be read: {error}; run again with --overwrite.") from error
    if not isinstance(report, dict):
        raise InputError(f"{path / 'report.json'} is no report; run again with --overwrite.")
    return report


def _read_frames(found: Material) -> None:
    if not (found.path / "video.mp4").is_file():
        found.missing["video"] = "there is no video.mp4"
    for name in ("frames", "video.mp4"):
        if (found.path / name).exists():
            found.frames, found.source = read_video(found.path / name), name
            break
    else:
        found.missing["frames"] = "there is neither frames/ nor video.mp4"
        return
    _, height, width, _ = found.frames.shape
    if width != 2 * height:
        raise InputError(f"{found.path / found.source} is {width}x{height}, but a panoramic video is twice as wide as "
                         "high.")
    if found.source == "video.mp4":
        found.missing["lossless"] = "the frames are from video.mp4, which is compressed; ws_psnr_db tells instead"


def _read_reference(found: Material, given: str | Path | None) -> None:
    path = _input(found, "panorama", given)
    if path is None:
        return
    read = image.read_panorama(path, allow_aspect=True)
    found.notes += [*_strangers(found, "panorama", path, read.sha256), *read.notes]
    found.reference = image.resize_panorama(read.pixels, *found.frames.shape[1:3])


def _read_mask(found: Material, given: str | Path | None) -> None:
    size = found.frames.shape[1:3]
    inputs = found.report.get("inputs") or {}
    if given is None and not inputs.get("mask"):
        if not inputs:
            found.notes.append("no --mask was given and no report.json names one: everything counts as moving")
        found.mask = np.ones(size, bool)
        found.missing["still"] = "everything may move: there is no mask"
        return
    path = _input(found, "mask", given)
    if path is None:
        return
    read = image.read_mask(path, size)
    found.notes += _strangers(found, "mask", path, read.sha256)
    found.mask = image.resize_mask(read.moving, *size)
    if found.mask.all():
        found.missing["still"] = "everything may move: the mask is white"


def _input(found: Material, kind: str, given: str | Path | None) -> Path | None:
    """Find an input file, given or by name and SHA-256; or say why there is none."""
    if given is not None:
        return Path(given)
    need, inputs = ("reference" if kind == "panorama" else kind), found.report.get("inputs") or {}
    name, digest = inputs.get(kind), inputs.get(f"{kind}_sha256")
    if not name or not digest:
        found.missing[need] = f"report.json names no {kind}: give --{kind}" if inputs else f"no --{kind} was given"
        return None
    refused = "is not there"
    for where, folder in (("in", found.path), ("beside", found.path.absolute().parent)):
        path = folder / Path(name).name
        if path.is_file():
            if sha256_of(path.read_bytes()) == digest:
                found.notes.append(f"{path.name} was found {where} the folder by name and SHA-256")
                return path
            refused = "is another file (SHA-256)"
    found.missing[need] = f"{name}, which report.json names, {refused} in the folder or beside it: give --{kind}"
    return None


def _strangers(found: Material, kind: str, path: Path, digest: str) -> list[str]:
    """Note that a file which was given is not the run's own."""
    own = (found.report.get("inputs") or {}).get(f"{kind}_sha256")
    return [f"{path.name} is not the {kind} of the run: its SHA-256 is another"] if own and own != digest else []


def _read_layout(found: Material) -> None:
    name = (found.report.get("tiles") or {}).get("layout")
    if name:
        found.layout = by_name(name)
    else:
        found.missing["layout"] = "no report.json names the layout of the tiles"
    for need in ("reference", "mask"):
        if getattr(found, need) is None:
            found.missing.setdefault(need, f"no --{need} was given")
