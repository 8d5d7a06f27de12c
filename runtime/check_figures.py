"""List the figures of a check: what each means, its formula, and its thresholds, which a file can set."""

import json
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from pano4d.runtime.errors import InputError, SettingsError

BOUNDS = ("at_least", "at_most")
COMPRESSED_SEAM = 2.5
"""A codec does not know that the picture goes on beyond its edges: H.264 alone makes 1.9 of the sample's 1.2."""


@dataclass(frozen=True)
class Figure:
    """A figure that has one value a frame, of which the worst is judged.

    Attributes:
        name: As in the result and in a file of thresholds.
        unit: Of the value; empty for a ratio.
        worst: The worst value: "max", "min", or "far", the one farthest from 1 as a factor.
        meaning: What it shows, for people.
        formula: How it is computed.
        source: Where the formula is from.
        at_least: Least value that passes; None for any.
        at_most: Largest value that passes; None for any.
        needs: What it is computed from: "frames", "reference", "mask", "still" (pixels outside the mask), "layout",
            "lossless" (frames without compression), "video", "splats".
    """

    name: str
    unit: str
    worst: str
    meaning: str
    formula: str
    source: str
    at_least: float | None
    at_most: float | None
    needs: tuple[str, ...]

    def passes(self, value: float) -> bool:
        """Say whether a value lies within the thresholds; what is no number does not."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


_FRAMES, _AGAINST = ("frames",), ("frames", "reference")
FIGURES = (
    Figure("seam_ratio", "", "far", "a step across ±180°",
           "(|I[:,W-1] - I[:,0]| / the same of the four pairs of columns on either side), over that of the input",
           "pano4d, runtime/quality.py", 0.8, 1.25, _AGAINST),
    Figure("tile_border_ratio", "", "far", "steps along the outlines of tiles",
           "(steps across the outlines / steps beside them), over the same of outlines turned about the axis, over that "
           "of the input", "pano4d, runtime/quality.py", 0.8, 1.25, (*_AGAINST, "mask", "layout")),
    Figure("pole_ratio", "", "far", "a pole pinched, smeared or swirled",
           "(gradient within 12° of the pole / gradient from 12° to 24°), along meridians and along parallels, over that "
           "of the input", "pano4d, runtime/quality_sphere.py", 0.5, 2.0, _AGAINST),
    Figure("static_drift", "grey levels", "max", "what must stand still does not",
           "max |I - input| outside the mask", "pano4d, runtime/quality.py", None, 0.0,
           (*_AGAINST, "mask", "still", "lossless")),
    Figure("ws_psnr_db", "dB", "min", "the input is changed outside the mask",
           "10 log10(255² / (Σ w (I - input)² / Σ w)) outside the mask, w = cos(latitude); at most 100",
           "Sun, Lu, Yu 2017, IEEE Signal Processing Letters 24(9)", 35.0, None, (*_AGAINST, "mask", "still")),
    Figure("ws_ssim", "", "min", "structure is changed outside the mask",
           "Σ w SSIM / Σ w outside the mask, w = cos(latitude), SSIM of the luminance, 11 pixels, σ 1.5",
           "Zhou et al. 2018, ICSP; SSIM: Wang et al. 2004, eq. 13", 0.95, None, (*_AGAINST, "mask", "still")),
    Figure("motion", "grey levels", "min", "the video stands still", "mean |I[t] - I[t-1]| in the mask",
           "pano4d, runtime/quality.py", 2.0, None, (*_FRAMES, "mask")),
    Figure("motion_max", "grey levels", "max", "the video jumps", "mean |I[t] - I[t-1]| in the mask",
           "pano4d, runtime/quality.py", None, 40.0, (*_FRAMES, "mask")),
    Figure("flicker", "grey levels", "max", "brightness goes there and back",
           "mean over cells of 11° of |L[t-1] - 2 L[t] + L[t+1]| / 2, L the mean luminance in the mask",
           "pano4d, runtime/quality_time.py; the second difference where ITU-T P.910 takes the first", None, 2.0,
           (*_FRAMES, "mask")),
    Figure("loop_ratio", "", "max", "a jump where the video begins again",
           "mean |I[T-1] - I[0]| / mean over t of mean |I[t] - I[t-1]|, in the mask",
           "pano4d, runtime/quality_time.py", None, 1.5, (*_FRAMES, "mask")),
    Figure("hole_percent", "%", "max", "holes seen from beside the centre",
           "Σ w [coverage < 0.5] / Σ w, w the solid angle of a pixel, from 5 % of the median distance off the centre",
           "pano4d, lifting/holes.py", None, 1.0, ("splats",)),
    Figure("splat_bytes_per_frame", "bytes", "max", "splats too large", "bytes of a frame's PLY", "pano4d", None, 80e6,
           ("splats",)),
    Figure("video_bytes_per_frame", "bytes", "max", "a video too large", "bytes of video.mp4 / T", "pano4d", None, 4e6,
           ("video",)),
)


def thresholds(path: str | Path | None, report: dict, compressed: bool = False) -> dict[str, Figure]:
    """Settle the thresholds of every figure.

    Args:
        path: File of thresholds, TOML or JSON: a table for each figure it sets, with ``at_least``, ``at_most``, both or,
            for none, neither. None for the defaults of FIGURES.
        report: The run's report.json; empty if there is none. A run with a mask policy that lets still pixels move has no
            default threshold of ``static_drift``, one without ``loop`` none of ``loop_ratio``.
        compressed: Whether the frames are from a compressed video; `seam_ratio` is then allowed COMPRESSED_SEAM by default.

    Returns:
        All figures by name, with the thresholds that hold.

    Raises:
        InputError: The file cannot be read.
        SettingsError: It names something else than figures and their thresholds, or the lower one is the higher.
    """
    settings = report.get("settings") or {}
    figures = {figure.name: figure for figure in FIGURES}
    if settings.get("mask_policy", "freeze") != "freeze":
        figures["static_drift"] = replace(figures["static_drift"], at_most=None)
    if not settings.get("loop"):
        figures["loop_ratio"] = replace(figures["loop_ratio"], at_most=None)
    if compressed:
        figures["seam_ratio"] = replace(figures["seam_ratio"], at_most=COMPRESSED_SEAM)
    for name, bounds in (_read(Path(path)) if path else {}).items():
        figures[name] = replace(figures[name], **dict.fromkeys(BOUNDS) | bounds)
    return figures


def _read(path: Path) -> dict[str, dict[str, float]]:
    """Read and check a file of thresholds."""
    try:
        data = path.read_bytes()
        found = tomllib.loads(data.decode()) if path.suffix.lower() == ".toml" else json.loads(data)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; --thresholds needs a TOML or JSON file.") from error
    except ValueError as error:
        raise InputError(f"{path} is no {'TOML' if path.suffix.lower() == '.toml' else 'JSON'} ({error}); name a file of "
                         "TOML with the ending .toml.") from error
    if not isinstance(found, dict):
        raise SettingsError(f"{path} holds no table of thresholds; write for instance [motion] at_least = 3.")
    names = {figure.name for figure in FIGURES}
    for name, bounds in found.items():
        if name not in names:
            raise SettingsError(f"{path} sets {name!r}, which is no figure; these are: {', '.join(sorted(names))}.")
        if not isinstance(bounds, dict) or set(bounds) - set(BOUNDS) or not all(map(_is_number, bounds.values())):
            raise SettingsError(f"{path} gives {name} {bounds!r}; it may have numbers at_least and at_most, or neither.")
        if len(bounds) == 2 and bounds["at_least"] > bounds["at_most"]:
            raise SettingsError(f"{path} wants {name} to be at least {bounds['at_least']:g} and at most "
                                f"{bounds['at_most']:g}; exchange them.")
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
