"""Move a camera: poses for every frame of a video.

Angles are degrees, positions metres in OpenCV axes (x right, y down, z forward); the panorama's centre is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pano4d.lifting.cameras import viewmat
from pano4d.runtime.sphere import rotation


@dataclass(frozen=True)
class Pose:
    """Where a camera stands and what it sees.

    Attributes:
        yaw_deg: Direction to look in, growing to the right of the panorama's centre.
        pitch_deg: Degrees above the horizon.
        position: Metres. float64 [3].
        fov_deg: Field of view over the picture's width.
    """

    yaw_deg: float
    pitch_deg: float
    position: np.ndarray
    fov_deg: float

    def viewmat(self, aside_m: float = 0.0) -> np.ndarray:
        """Return the matrix from world to camera.

        Args:
            aside_m: How far to step to the camera's right, metres.

        Returns:
            float64 [4, 4].

        Raises:
            Nothing.
        """
        right = np.asarray(rotation(self.yaw_deg, self.pitch_deg))[:, 0]
        return viewmat(self.yaw_deg, self.pitch_deg, self.position + aside_m * right)


def still(count: int, fov_deg: float) -> list[Pose]:
    """Stand in the centre and look ahead.

    Args:
        count: Number of frames.
        fov_deg: Field of view, degrees.

    Returns:
        One pose a frame.

    Raises:
        Nothing.
    """
    return [Pose(0.0, 0.0, np.zeros(3), fov_deg)] * count


def orbit(count: int, fov_deg: float, radius_m: float) -> list[Pose]:
    """Go once around the centre and look across it; the frame after the last would be the first.

    Args:
        count: Number of frames.
        fov_deg: Field of view, degrees.
        radius_m: Distance from the centre, metres.

    Returns:
        One pose a frame.

    Raises:
        Nothing.
    """
    return [Pose(yaw, 0.0, -radius_m * _ahead(yaw), fov_deg) for yaw in 360.0 * np.arange(count) / count]


def dolly(count: int, fov_deg: float, radius_m: float) -> list[Pose]:
    """Go straight ahead through the centre, from rest to rest.

    Args:
        count: Number of frames.
        fov_deg: Field of view, degrees.
        radius_m: How far behind the centre to begin, and ahead of it to end, metres.

    Returns:
        One pose a frame.

    Raises:
        Nothing.
    """
    share = np.linspace(0.0, 1.0, count) if count > 1 else np.full(1, 0.5)
    along = radius_m * (2.0 * share * share * (3.0 - 2.0 * share) - 1.0)
    return [Pose(0.0, 0.0, step * _ahead(0.0), fov_deg) for step in along]


def through_keyframes(times_s: Sequence[float], keyframes: Sequence[Pose], at_s: Sequence[float]) -> list[Pose]:
    """Interpolate poses smoothly, from rest to rest, yaw the short way round and never beyond a keyframe.

    Args:
        times_s: When each keyframe is reached, seconds, ascending. [K].
        keyframes: At least one pose. [K].
        at_s: Times to interpolate at, seconds; before the first and after the last the camera rests. [T].

    Returns:
        One pose for each time.

    Raises:
        Nothing.
    """
    values = np.array([[pose.yaw_deg, pose.pitch_deg, pose.fov_deg, *pose.position] for pose in keyframes], np.float64)
    values[:, 0] = np.unwrap(values[:, 0], period=360.0)
    found = _monotone(np.asarray(times_s, np.float64), values, np.asarray(at_s, np.float64))
    return [Pose(row[0], row[1], row[3:], row[2]) for row in found]


def _ahead(yaw_deg: float) -> np.ndarray:
    return np.asarray(rotation(yaw_deg, 0.0))[:, 2]


def _monotone(times: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Interpolate columns by cubics without overshoot (Fritsch and Butland, 1984), flat at both ends. [T, D]."""
    if len(times) == 1:
        return np.repeat(values, len(at), axis=0)
    step = np.diff(times)[:, None]
    slope = np.diff(values, axis=0) / step
    tangent = np.zeros_like(values)
    before, after = slope[:-1], slope[1:]
    same = before * after > 0
    weight = (step[:-1] + 2.0 * step[1:]) / (3.0 * (step[:-1] + step[1:]))
    tangent[1:-1][same] = (before * after)[same] / (weight * after + (1.0 - weight) * before)[same]
    at = np.clip(at, times[0], times[-1])
    k = np.clip(np.searchsorted(times, at, side="right") - 1, 0, len(step) - 1)
    u = (at - times[k])[:, None] / step[k]
    return values[k] + u * u * (3.0 - 2.0 * u) * (values[k + 1] - values[k]) \
        + step[k] * u * (1.0 - u) * ((1.0 - u) * tangent[k] - u * tangent[k + 1])
