"""Make perspective cameras that look out from, or from near, the panorama's centre."""

import math
from collections.abc import Sequence

import numpy as np

from pano4d.runtime.errors import SettingsError
from pano4d.runtime.sphere import rotation


def perspective_K(fov_deg: float, width: int, height: int) -> np.ndarray:
    """Make the intrinsic matrix of a pinhole camera with square pixels.

    Pixel (row, col) has its centre at (col + 0.5, row + 0.5), as in gsplat.

    Args:
        fov_deg: Field of view over the width, in degrees, above 0 and below 180.
        width: Picture width in pixels.
        height: Picture height in pixels.

    Returns:
        K, in pixels. float64 [3, 3].

    Raises:
        SettingsError: The field of view is out of range.
    """
    if not 0.0 < fov_deg < 180.0:
        raise SettingsError(
            f"A field of view of {fov_deg} degrees fits no flat picture; give one above "
            "0 and below 180."
        )
    focal = width / 2.0 / math.tan(math.radians(fov_deg) / 2.0)
    return np.array([[focal, 0.0, width / 2.0], [0.0, focal, height / 2.0], [0.0, 0.0, 1.0]])


def viewmat(
    yaw_deg: float, pitch_deg: float, position: Sequence[float] = (0.0, 0.0, 0.0)
) -> np.ndarray:
    """Make the matrix that takes world points to camera points.

    Args:
        yaw_deg: Direction to look in, degrees, growing to the right of the panorama's centre.
        pitch_deg: Degrees above the horizon.
        position: Where the camera stands, in metres, OpenCV axes (x right, y down,
            z forward); the panorama's centre is 0.

    Returns:
        World to camera. float64 [4, 4].

    Raises:
        Nothing.
    """
    world_to_camera = np.asarray(rotation(yaw_deg, pitch_deg)).T
    matrix = np.eye(4)
    matrix[:3, :3] = world_to_camera
    matrix[:3, 3] = -world_to_camera @ np.asarray(position, np.float64)
    return matrix
