"""State the sphere's conventions once: axes, angles, pixel centres, tile cameras.

Axes are OpenCV's: +x right, +y down, +z forward. Longitude 0 is the panorama's centre, looks along +z and
grows to the right; latitude +90° is row 0, up. A direction is::

    d = (cos(lat) sin(lon), -sin(lat), cos(lat) cos(lon))

The centre of pixel (row r, column c) of an H x W panorama lies at::

    lon = (c + 0.5) / W * 2 pi - pi        lat = pi / 2 - (r + 0.5) / H * pi

Continuous pixel coordinates are integers at pixel centres. Columns wrap; over a pole, row -1 - k is row k
half a turn away. A tile is a pinhole view without roll, ``world = rotation(yaw_deg, pitch_deg) @ ray``: yaw
turns to the right, pitch up. The ray of its pixel (y, x) is ``((x + 0.5 - s/2)/f, (y + 0.5 - s/2)/f, 1)``
with size s and focal length ``f = s / 2 / tan(fov / 2)``.
"""

import numpy as np

# Rows of directions sampled at a time: bounds the memory of temporaries to a few tens of MiB.
_BLOCK = 1 << 18


def lonlat_to_directions(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Turn angles into unit vectors.

    Args:
        lon: Longitude in radians. Any shape that broadcasts with ``lat``.
        lat: Latitude in radians.

    Returns:
        float64 [..., 3].

    Raises:
        ValueError: The shapes do not broadcast.
    """
    lon, lat = np.broadcast_arrays(np.asarray(lon, np.float64), np.asarray(lat, np.float64))
    return np.stack([np.cos(lat) * np.sin(lon), -np.sin(lat), np.cos(lat) * np.cos(lon)], axis=-1)


def directions_to_lonlat(directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn vectors of any length into longitude (-pi..pi) and latitude, in radians.

    Args:
        directions: [..., 3], none of them zero.

    Returns:
        Longitude and latitude, float64 [...] each.

    Raises:
        ValueError: The last axis does not hold three coordinates.
    """
    x, y, z = np.moveaxis(np.asarray(directions, np.float64), -1, 0)
    return np.arctan2(x, z), np.arctan2(-y, np.hypot(x, z))


def lonlat_to_pixels(lon: np.ndarray, lat: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Turn angles into continuous pixel coordinates.

    Args:
        lon: Longitude in radians.
        lat: Latitude in radians.
        height: Panorama height in pixels.
        width: Panorama width in pixels.

    Returns:
        Column and row, float64; for a longitude of -pi..pi, -0.5 <= column <= width - 0.5.

    Raises:
        ZeroDivisionError: Never; empty panoramas give negative coordinates.
    """
    return (lon + np.pi) / (2 * np.pi) * width - 0.5, (np.pi / 2 - lat) / np.pi * height - 0.5


def pixel_lonlat(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Give the angles of pixel centres.

    Args:
        height: Panorama height in pixels.
        width: Panorama width in pixels.

    Returns:
        Longitudes of the columns, float64 [W], and latitudes of the rows, float64 [H], in radians.

    Raises:
        ValueError: A size is negative.
    """
    lon = (np.arange(width) + 0.5) / width * 2 * np.pi - np.pi
    return lon, np.pi / 2 - (np.arange(height) + 0.5) / height * np.pi


def pixel_directions(height: int, width: int) -> np.ndarray:
    """Give the unit vectors of all pixel centres.

    Args:
        height: Panorama height in pixels.
        width: Panorama width in pixels.

    Returns:
        float64 [H, W, 3].

    Raises:
        ValueError: A size is negative.
    """
    lon, lat = pixel_lonlat(height, width)
    return lonlat_to_directions(lon[None, :], lat[:, None])


def directions_to_pixels(directions: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Find where vectors of any length meet the panorama.

    Args:
        directions: [..., 3].
        height: Panorama height in pixels.
        width: Panorama width in pixels.

    Returns:
        Column and row in continuous pixel coordinates, float64 [...] each.

    Raises:
        ValueError: The last axis does not hold three coordinates.
    """
    return lonlat_to_pixels(*directions_to_lonlat(directions), height, width)


def rotation(yaw_deg: float, pitch_deg: float) -> np.ndarray:
    """Give the rotation from a tile's camera to the world.

    Args:
        yaw_deg: To the right, in degrees.
        pitch_deg: Up, in degrees.

    Returns:
        float64 [3, 3]; its columns are the camera's right, down and forward in the world.

    Raises:
        TypeError: An angle is not a number.
    """
    yaw, pitch = np.radians(yaw_deg), np.radians(pitch_deg)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    return turn @ tilt


def row_solid_angles(height: int, width: int) -> np.ndarray:
    """Give the solid angle of one pixel of each row, exactly; all pixels add up to 4 pi.

    Args:
        height: Panorama height in pixels.
        width: Panorama width in pixels.

    Returns:
        Steradians, float64 [H].

    Raises:
        ValueError: The height is negative.
    """
    edges = np.sin(np.pi / 2 - np.arange(height + 1) / height * np.pi)
    return (edges[:-1] - edges[1:]) * 2 * np.pi / width


def sample_panorama(image: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Look up a panorama bilinearly, across the seam and over the poles.

    Args:
        image: Any numeric dtype. [H, W, C].
        directions: Vectors of any length. [..., 3].

    Returns:
        float32 [..., C].

    Raises:
        ValueError: The image has no channel axis.
    """
    height, width, channels = image.shape
    pixels, rays = image.reshape(height * width, channels), directions.reshape(-1, 3)
    result = np.empty((len(rays), channels), np.float32)
    for start in range(0, len(rays), _BLOCK):
        block = slice(start, start + _BLOCK)
        column, row = directions_to_pixels(rays[block], height, width)
        upper = np.floor(row)
        share = (row - upper).astype(np.float32)[:, None]
        above = _sample_row(pixels, upper.astype(np.intp), column, height, width)
        below = _sample_row(pixels, upper.astype(np.intp) + 1, column, height, width)
        result[block] = above + share * (below - above)
    return result.reshape(*directions.shape[:-1], channels)


def _sample_row(pixels: np.ndarray, row: np.ndarray, column: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interpolate along one integer row per sample; rows beyond a pole continue on the other side."""
    over = (row < 0) | (row >= height)
    row = np.where(row < 0, -1 - row, np.where(row >= height, 2 * height - 1 - row, row))
    column = column + over * (width / 2)
    left = np.floor(column)
    share = (column - left).astype(np.float32)[:, None]
    left = left.astype(np.intp) % width
    right = np.where(left + 1 == width, 0, left + 1)
    first = pixels[row * width + left].astype(np.float32)
    return first + share * (pixels[row * width + right].astype(np.float32) - first)
