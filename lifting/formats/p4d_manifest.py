"""Read and check the manifest of a .p4d scene. Every field is described in docs/p4d.md."""

import json
import math
import re
from typing import Any

from pano4d.lifting.formats.archive import PLAIN_NAME
from pano4d.runtime.errors import InputError

FORMAT, SCHEMA_VERSION = "p4d", 1
AXES, UNITS, UP = "x right, y down, z forward", "metre", [0, -1, 0]
MOST_BYTES = 16 * 2**20
MOST_FRAMES = 100_000

_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


def parse_manifest(data: bytes, name: str) -> dict:
    """Read a manifest and check every field of it.

    Args:
        data: The bytes of manifest.json.
        name: What to call the scene in an error.

    Returns:
        The manifest.

    Raises:
        InputError: It is none, of another version, or contradicts itself.
    """
    try:
        manifest = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: manifest.json is no JSON; fetch or write the scene again.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{name} holds no manifest of a p4d scene; name one written by 'pano4d generate' or "
                         "'pano4d lift'.")
    if not _whole(manifest.get("schema_version"), 1, 2**31):
        raise InputError(f"{name}: manifest.json has no schema_version; fetch or write the scene again.")
    if manifest["schema_version"] > SCHEMA_VERSION:
        raise InputError(f"{name} has schema version {manifest['schema_version']}, and {SCHEMA_VERSION} can be read: "
                         "install a newer pano4d.")
    wrong = next((field for field, holds in _checks(manifest) if not holds), None)
    if wrong:
        raise InputError(f"{name}: '{wrong}' in manifest.json is missing or wrong; fetch or write the scene again.")
    return manifest


def _checks(manifest: dict):
    """Name each field and tell whether it holds, in an order in which later checks may rely on earlier ones."""
    yield "fps", _number(manifest.get("fps")) and 0 < manifest["fps"] <= 1000
    yield "frames", _whole(manifest.get("frames"), 1, MOST_FRAMES)
    yield "axes", manifest.get("axes") == AXES
    yield "units", manifest.get("units") == UNITS
    yield "up", manifest.get("up") == UP
    bounds = manifest.get("bounds")
    yield "bounds", isinstance(bounds, dict) and all(_vector(bounds.get(end)) for end in ("min", "max"))
    for field in ("near_m", "median_m"):
        yield field, _number(manifest.get(field)) and manifest[field] >= 0
    source = manifest.get("source")
    yield "source", source is None or isinstance(source, dict)
    yield "licence", manifest.get("licence") is None or isinstance(manifest["licence"], str)
    yield "static", _entry(manifest.get("static"), ".spz")
    moving = manifest.get("moving")
    yield "moving", isinstance(moving, list) and len(moving) in (0, manifest["frames"])
    keyframes = {entry["file"]: entry["gaussians"] for entry in moving if _entry(entry, ".spz")}
    for number, entry in enumerate(moving):
        delta = _entry(entry, ".delta") and isinstance(entry.get("keyframe"), str) \
            and keyframes.get(entry["keyframe"]) == entry["gaussians"]
        yield f"moving[{number}]", _entry(entry, ".spz") or delta


def _entry(entry: Any, suffix: str) -> bool:
    """Tell whether something describes a file."""
    return (isinstance(entry, dict) and isinstance(entry.get("file"), str) and entry["file"].endswith(suffix)
            and PLAIN_NAME.fullmatch(entry["file"]) is not None and _whole(entry.get("gaussians"), 0, 2**32)
            and _whole(entry.get("bytes"), 1, 2**63) and isinstance(entry.get("sha256"), str)
            and _HASH.fullmatch(entry["sha256"]) is not None)


def _number(value: Any) -> bool:
    """Tell whether something is a finite number; a whole one may be too large for a float."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30 and math.isfinite(value)


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value < high + 1


def _vector(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_number, value))
