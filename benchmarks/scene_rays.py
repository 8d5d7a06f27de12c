"""Cast the rays of a panorama or of a perspective view, in blocks that look one way.

Conventions are those of ``runtime.sphere`` and ``lifting.cameras``. Rays are float32 [3, N] on the device; what decides
whether a block can meet an object, its cone, is worked out by NumPy so that no device is waited for.
"""

from dataclasses import dataclass

import numpy as np
import torch

from pano4d.runtime.sphere import lonlat_to_directions


@dataclass(frozen=True)
class PanoramaCamera:
    """See all around from the centre of the world.

    Attributes:
        height: Rows; there are twice as many columns.
    """

    height: int

    @property
    def width(self) -> int:
        """Columns."""
        return 2 * self.height

    @property
    def origin(self) -> np.ndarray:
        """Where the camera stands, metres. float64 [3]."""
        return np.zeros(3)

    @property
    def pixel_angle(self) -> float:
        """Side of a pixel, radians."""
        return np.pi / self.height

    def directions(self, rows: np.ndarray, columns: np.ndarray, device: torch.device | str) -> torch.Tensor:
        """Look along continuous positions; the centre of the first pixel is (0.5, 0.5).

        Args:
            rows: float64 [h].
            columns: float64 [w].
            device: Where the result lies.

        Returns:
            Unit vectors, row by row. float32 [3, h, w].

        Raises:
            RuntimeError: The device is not there.
        """
        lon, lat = columns / self.width * 2 * np.pi - np.pi, np.pi / 2 - rows / self.height * np.pi
        tables = np.sin(lon), np.cos(lon), np.sin(lat)[:, None], np.cos(lat)[:, None]
        sin_lon, cos_lon, sin_lat, cos_lat = (torch.from_numpy(t).to(device, torch.float32) for t in tables)
        return torch.stack([cos_lat * sin_lon, (-sin_lat).expand(-1, len(columns)), cos_lat * cos_lon])

    def outline(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Give directions at the crossings of rows and columns. float64 [h * w, 3]."""
        lon, lat = columns / self.width * 2 * np.pi - np.pi, np.pi / 2 - rows / self.height * np.pi
        return lonlat_to_directions(lon[None], lat[:, None]).reshape(-1, 3)


@dataclass(frozen=True)
class PerspectiveCamera:
    """See through a pinhole.

    Attributes:
        viewmat: World to camera. float64 [4, 4].
        K: Intrinsic matrix, pixels. float64 [3, 3].
        width: Columns.
        height: Rows.
    """

    viewmat: np.ndarray
    K: np.ndarray
    width: int
    height: int

    @property
    def origin(self) -> np.ndarray:
        """Where the camera stands, metres. float64 [3]."""
        return -self.viewmat[:3, :3].T @ self.viewmat[:3, 3]

    @property
    def pixel_angle(self) -> float:
        """Side of the middle pixel, radians."""
        return 1.0 / self.K[1, 1]

    def directions(self, rows: np.ndarray, columns: np.ndarray, device: torch.device | str) -> torch.Tensor:
        """Look along continuous positions, as in ``PanoramaCamera``. Unit vectors, float32 [3, h, w]."""
        return torch.from_numpy(self._world(rows, columns)).to(device, torch.float32)

    def outline(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Give directions at the crossings of rows and columns. float64 [h * w, 3]."""
        return self._world(rows, columns).reshape(3, -1).T

    def _world(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return unit vectors, float64 [3, h, w]."""
        x, y = np.meshgrid((columns - self.K[0, 2]) / self.K[0, 0], (rows - self.K[1, 2]) / self.K[1, 1])
        rays = np.stack([x, y, np.ones_like(x)])
        return np.einsum("ji,jhw->ihw", self.viewmat[:3, :3], rays / np.linalg.norm(rays, axis=0))


Camera = PanoramaCamera | PerspectiveCamera


@dataclass(frozen=True)
class Block:
    """A rectangle of pixels.

    Attributes:
        rows: Its rows.
        columns: Its columns.
        axis: Where it looks. float64 [3].
        angle: Half the opening of a cone that holds all its rays, radians.
    """

    rows: slice
    columns: slice
    axis: np.ndarray
    angle: float

    def meets(self, origin: np.ndarray, centers: np.ndarray, radii: np.ndarray) -> np.ndarray:
        """Tell which balls the cone may touch.

        Args:
            origin: Tip of the cone. [3]
            centers: [P, 3]
            radii: [P]

        Returns:
            bool [P].

        Raises:
            ValueError: The shapes do not fit.
        """
        offset = centers - origin
        length = np.maximum(np.linalg.norm(offset, axis=-1), 1e-9)
        apart = np.arccos(np.clip(offset @ self.axis / length, -1, 1))
        return (length <= radii) | (apart <= self.angle + np.arcsin(np.clip(radii / length, 0, 1)))


def blocks(camera: Camera, side: int) -> list[Block]:
    """Cut a picture into rectangles.

    Args:
        camera: What is cut.
        side: Longest side, pixels.

    Returns:
        Rectangles that cover each pixel once.

    Raises:
        ValueError: The side is not above 0.
    """
    found = []
    for top in range(0, camera.height, side):
        for left in range(0, camera.width, side):
            rows, columns = slice(top, min(top + side, camera.height)), slice(left, min(left + side, camera.width))
            edge = camera.outline(np.linspace(rows.start, rows.stop, 9), np.linspace(columns.start, columns.stop, 9))
            axis = edge[40] / np.linalg.norm(edge[40])
            angle = np.arccos(np.clip(edge @ axis, -1, 1)).max()
            found.append(Block(rows, columns, axis, float(angle * 1.05 + 1e-3)))
    return found


def block_rays(camera: Camera, block: Block, samples: int, device: torch.device | str) -> torch.Tensor:
    """Cast the rays of a block: ``samples`` x ``samples`` a pixel for its colour, then one for its distance.

    Args:
        camera: What looks.
        block: Which pixels.
        samples: Along a side of a pixel; 1 lets one ray serve both.
        device: Where the result lies.

    Returns:
        Unit vectors; all pixels of the first sample come first. float32 [3, N].

    Raises:
        RuntimeError: The device is not there.
    """
    shifts = [((i + 0.5) / samples, (j + 0.5) / samples) for i in range(samples) for j in range(samples)]
    if samples > 1:
        shifts.append((0.5, 0.5))
    rows = np.arange(block.rows.start, block.rows.stop, dtype=np.float64)
    columns = np.arange(block.columns.start, block.columns.stop, dtype=np.float64)
    rays = [camera.directions(rows + down, columns + right, device).reshape(3, -1) for down, right in shifts]
    return torch.cat(rays, dim=1)
