"""Check a result: compute every figure that applies, hold it against its threshold, write report.html."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from pano4d.runtime import quality, quality_sphere, quality_time
from pano4d.runtime.check_figures import Figure, thresholds
from pano4d.runtime.check_material import Material, gather
from pano4d.runtime.check_page import Exhibit, write_page
from pano4d.runtime.check_places import find_place

Progress = Callable[[str, int, int], None]
PAGE = "report.html"


class Holes(Protocol):
    """What a search for holes finds; `lifting.holes.Holes`."""

    frames: np.ndarray
    percent: np.ndarray
    picture: np.ndarray
    view: str


def check(path: str | Path, *, panorama: str | Path | None = None, mask: str | Path | None = None,
          limits: str | Path | None = None, find_holes: Callable[[list[Path], Progress], Holes] | None = None,
          progress: Progress | None = None) -> dict:
    """Check the output folder of a run and write report.html into it.

    Args:
        path: The folder: of generate, animate or lift, or any with frames/, video.mp4 or splats/ in it.
        panorama: The input picture; None to look for the one that report.json names, by name and SHA-256.
        mask: Its mask; None likewise.
        limits: File of thresholds, TOML or JSON; None for the defaults.
        find_holes: Looks for holes in PLY files; None to leave that out.
        progress: Called with stage, done, total.

    Returns:
        ``kind`` "check", ``path``, ``ok``, ``source`` of the frames, ``notes``; ``figures``: a list of ``figure``,
        ``value``, ``frame`` (the worst one), ``at_least``, ``at_most``, ``ok``, ``unit``, ``formula``, ``from`` (where that
        is from) and ``per_frame``; ``not_computed``: a list of ``figure`` and ``why``; ``page``; ``thresholds`` of all.

    Raises:
        InputError: There is nothing to check, or a file cannot be used.
        SettingsError: The file of thresholds holds something else.
        OutputError: The page cannot be written.
    """
    progress = progress or (lambda *_: None)
    material = gather(Path(path), panorama, mask)
    figures = thresholds(limits, material.report, "lossless" in material.missing)
    rows, exhibits, left_out = [], [], []
    for number, figure in enumerate(figures.values()):
        why = _obstacle(figure, material, find_holes)
        if why:
            left_out.append({"figure": figure.name, "why": why})
        else:
            row, exhibit = _measure(figure, material, find_holes, progress)
            rows.append(row)
            exhibits += [exhibit] if exhibit else []
        progress("check", number + 1, len(figures))
    result = {"kind": "check", "path": str(path), "ok": all(row["ok"] for row in rows), "source": material.source,
              "notes": material.notes, "figures": rows, "not_computed": left_out, "page": str(Path(path) / PAGE),
              "thresholds": {name: {"at_least": one.at_least, "at_most": one.at_most} for name, one in figures.items()}}
    write_page(Path(path) / PAGE, result, exhibits, figures, material.report)
    return result


def _obstacle(figure: Figure, material: Material, find_holes: Callable | None) -> str | None:
    """Say why a figure cannot be computed, if so."""
    if figure.name == "hole_percent" and find_holes is None:
        return "nothing was given that looks for holes"
    for need in figure.needs:
        if need in material.missing:
            return material.missing[need]
    if figure.name == "ws_ssim" and not quality_sphere.whole_windows(material.still).any():
        return "nothing outside the mask is as large as a window of 11 pixels"
    if figure.name in ("motion", "motion_max", "loop_ratio") and len(material.frames) < 2:
        return "there is one frame"
    return "there are fewer than three frames" if figure.name == "flicker" and len(material.frames) < 3 else None


def _measure(figure: Figure, material: Material, find_holes: Callable | None, progress: Progress) \
        -> tuple[dict, Exhibit | None]:
    """Compute a figure, and pick the worst frame to show."""
    if figure.name == "hole_percent":
        holes = find_holes(material.splats, progress)
        frames, values = holes.frames, holes.percent
    else:
        frames, values = _MEASURES[figure.name](material)
    worst = _worst(figure, values)
    value, frame = float(values[worst]), int(frames[worst])
    row = {"figure": figure.name, "value": value, "frame": frame, "at_least": figure.at_least, "at_most": figure.at_most,
           "ok": figure.passes(value), "unit": figure.unit, "formula": figure.formula, "from": figure.source,
           "per_frame": dict(zip(map(int, frames), map(float, values)))}
    if figure.name == "hole_percent":
        return row, Exhibit(figure, value, frame, holes.picture, None, f"{holes.view}; holes are magenta")
    if "frames" not in figure.needs:
        return row, None
    place = find_place(figure.name, material, frame)
    # A video that stands still does so everywhere; any other figure without a place has found nothing.
    shown = place is not None or figure.name == "motion"
    return row, Exhibit(figure, value, frame, material.frames[frame], place, f"frame {frame}") if shown else None


def _worst(figure: Figure, values: np.ndarray) -> int:
    if figure.worst == "far":
        return int(np.abs(np.log(np.maximum(values, 1e-6))).argmax())
    return int(values.argmin() if figure.worst == "min" else values.argmax())


def _from(first: int, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number values by the frames they are of."""
    return np.arange(first, first + len(values)), np.asarray(values, np.float64)


def _motion(material: Material) -> tuple[np.ndarray, np.ndarray]:
    return _from(1, quality.motion(material.frames, material.mask))


_MEASURES: dict[str, Callable[[Material], tuple[np.ndarray, np.ndarray]]] = {
    "seam_ratio": lambda m: _from(0, quality.seam_ratio(m.frames, m.reference)),
    "tile_border_ratio": lambda m: _from(0, quality.tile_border_ratio(m.frames, m.reference, m.layout, mask=m.mask)),
    "pole_ratio": lambda m: _from(0, quality_sphere.pole_ratio(m.frames, m.reference)),
    "static_drift": lambda m: _from(0, quality.static_drift(m.frames, m.reference, m.mask)),
    "ws_psnr_db": lambda m: _from(0, quality_sphere.ws_psnr(m.frames, m.reference, m.still)),
    "ws_ssim": lambda m: _from(0, quality_sphere.ws_ssim(m.frames, m.reference, quality_sphere.whole_windows(m.still))),
    "motion": _motion,
    "motion_max": _motion,
    "flicker": lambda m: _from(1, quality_time.flicker(m.frames, m.mask)),
    "loop_ratio": lambda m: _from(len(m.frames) - 1, np.array([quality_time.loop_ratio(m.frames, m.mask)])),
    "splat_bytes_per_frame": lambda m: _from(0, np.array([file.stat().st_size for file in m.splats])),
    "video_bytes_per_frame": lambda m: _from(0, np.array([(m.path / "video.mp4").stat().st_size / len(m.frames)])),
}
