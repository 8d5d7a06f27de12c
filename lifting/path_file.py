"""Read a camera path from JSON: a list of keyframes, as docs/render.md describes."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from pano4d.lifting.camera_path import Pose
from pano4d.runtime.errors import InputError

_KEYS = ("time", "yaw", "pitch", "position", "fov")


def read_path(path: Path, fov_deg: float) -> tuple[list[float], list[Pose]]:
    """Read keyframes.

    Args:
        path: JSON file.
        fov_deg: Field of view of keyframes that name none, degrees.

    Returns:
        Their times in seconds, ascending, and their poses.

    Raises:
        InputError: The file cannot be read, or a key is unknown, missing or out of its range.
    """
    try:
        keyframes = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give --path orbit, dolly, still or a JSON file.") \
            from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); a list of keyframes is needed.") from error
    if not isinstance(keyframes, list) or not keyframes:
        raise InputError(f"{path} holds no list of keyframes; write [{{\"time\": 0, \"yaw\": 0}}, ...].")
    read = [_keyframe(f"{path}: keyframe {i}", keyframe, fov_deg) for i, keyframe in enumerate(keyframes)]
    times = [time for time, _ in read]
    late = next((i for i in range(1, len(times)) if times[i] <= times[i - 1]), None)
    if late is not None:
        raise InputError(f"{path}: keyframe {late}: \"time\" is {times[late]:g}, not later than {times[late - 1]:g} "
                         "before it; keyframes must be in order.")
    return times, [pose for _, pose in read]


def _keyframe(where: str, keyframe: Any, fov_deg: float) -> tuple[float, Pose]:
    """Check one keyframe."""
    if not isinstance(keyframe, dict):
        raise InputError(f"{where} is {json.dumps(keyframe)[:60]}; an object with {', '.join(_KEYS)} is needed.")
    unknown = sorted(set(keyframe) - set(_KEYS))
    if unknown:
        raise InputError(f"{where}: \"{unknown[0]}\" is unknown; use {', '.join(_KEYS)}.")
    if "time" not in keyframe:
        raise InputError(f"{where}: \"time\" is missing; give the second at which it is reached.")
    position = keyframe.get("position", [0, 0, 0])
    if not isinstance(position, list) or len(position) != 3:
        raise InputError(f"{where}: \"position\" is {json.dumps(position)[:60]}; three numbers of metres are needed.")
    place = np.array([_number(where, "position", value, -1e6, 1e6) for value in position])
    pose = Pose(_number(where, "yaw", keyframe.get("yaw", 0), -1e6, 1e6),
                _number(where, "pitch", keyframe.get("pitch", 0), -90, 90), place,
                _number(where, "fov", keyframe.get("fov", fov_deg), 1, 170))
    return _number(where, "time", keyframe["time"], 0, 1e6), pose


def _number(where: str, key: str, value: Any, low: float, high: float) -> float:
    """Return a number within its range."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) \
            or not low <= value <= high:
        raise InputError(f"{where}: \"{key}\" is {json.dumps(value)[:60]}; a number from {low:g} to {high:g} is needed.")
    return float(value)
