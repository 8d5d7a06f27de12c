"""Draw an equirectangular view: six cube faces that overlap, blended over the sphere.

Splats look a little different in every plane that they are projected to, so faces that merely met would show their
edges. Each is drawn BORDER_DEG wider than its quarter on every side, and fades out to that border.
"""

import math

import numpy as np

from pano4d.lifting.cameras import perspective_K, viewmat
from pano4d.lifting.drawing import Renderer
from pano4d.runtime.sphere import pixel_directions, rotation

FACES = ((0.0, 0.0), (90.0, 0.0), (180.0, 0.0), (-90.0, 0.0), (0.0, 90.0), (0.0, -90.0))
"""Yaw and pitch, degrees."""

BORDER_DEG = 8.0
_DENSITY = 1.25
"""Pixels of a face over those of the panorama where a face is least dense, its middle."""


class CubeView:
    """Draws panoramas of one size."""

    def __init__(self, width: int, height: int) -> None:
        """Work out where each pixel looks at each face.

        Args:
            width: Panorama width in pixels, twice its height.
            height: Panorama height in pixels.
        """
        fov_deg = 90.0 + 2.0 * BORDER_DEG
        reach = math.tan(math.radians(fov_deg) / 2.0)
        self._side = max(8, math.ceil(_DENSITY * 2.0 * reach * width / (2.0 * math.pi)))
        self._K = perspective_K(fov_deg, self._side, self._side)
        self._shape = (height, width)
        directions = pixel_directions(height, width).reshape(-1, 3)
        self._looks = [_look(directions @ np.asarray(rotation(yaw, pitch)), reach) for yaw, pitch in FACES]
        total = np.zeros(len(directions), np.float32)
        for pixel, _, weight in self._looks:
            total[pixel] += weight
        self._looks = [(pixel, plane, weight / total[pixel]) for pixel, plane, weight in self._looks]

    def draw(self, renderer: Renderer, position: np.ndarray) -> np.ndarray:
        """Draw the sphere around a place, its middle ahead (+z).

        Args:
            renderer: What draws; it has been shown the scene.
            position: Where to stand, metres. float64 [3].

        Returns:
            uint8 [height, width, 3].

        Raises:
            Nothing.
        """
        views = np.stack([viewmat(yaw, pitch, position) for yaw, pitch in FACES])
        picture = np.zeros((self._shape[0] * self._shape[1], 3), np.float32)
        for face, (pixel, plane, weight) in zip(renderer.draw(views, self._K, self._side, self._side), self._looks):
            picture[pixel] += weight[:, None] * _bilinear(face, self._K, plane)
        return np.rint(picture).astype(np.uint8).reshape(*self._shape, 3)


def _look(rays: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the pixels that a face sees, where on its plane they lie, and how much it counts there."""
    ahead = np.flatnonzero(rays[:, 2] > 0.1)
    plane = rays[ahead, :2] / rays[ahead, 2:]
    room = reach - np.abs(plane).max(-1)
    seen = np.flatnonzero(room > 0.0)
    share = np.minimum(room[seen] / (reach - 1.0 / reach), 1.0)
    return ahead[seen], plane[seen].astype(np.float32), (share * share * (3.0 - 2.0 * share)).astype(np.float32)


def _bilinear(face: np.ndarray, K: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Look up a face at points of its plane. float32 [P, 3]."""
    side = len(face)
    x, y = (np.clip(K[0, 0] * plane[:, i] + K[i, 2] - 0.5, 0.0, side - 1.001) for i in (0, 1))
    left, top = x.astype(np.intp), y.astype(np.intp)
    u, v = (x - left)[:, None].astype(np.float32), (y - top)[:, None].astype(np.float32)
    flat, start = face.reshape(-1, 3).astype(np.float32), top * side + left
    upper = flat[start] + u * (flat[start + 1] - flat[start])
    lower = flat[start + side] + u * (flat[start + side + 1] - flat[start + side])
    return upper + v * (lower - upper)
