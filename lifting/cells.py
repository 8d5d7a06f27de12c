"""Divide the sphere into cells of one area that can be halved, with neither poles nor a seam.

The projection of HEALPix (Górski et al. 2005, eqs. 4 to 9): twelve square faces cover the sphere, and equal squares of a
face cover equal areas. Four faces surround each pole and four stand on the equator.
"""

import numpy as np

FACES = 12


def cell_lonlat(face: np.ndarray | int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place points of faces on the sphere.

    Args:
        face: Number, 0 to 3 around the upper pole, 4 to 7 on the equator, 8 to 11 around the lower pole.
        x: Along the face to the upper right, 0 to 1. Any shape that broadcasts with ``y`` and ``face``.
        y: Along the face to the upper left, 0 to 1.

    Returns:
        Longitude, -pi/4 to 2 pi, and latitude, in radians. float64 [...] each.

    Raises:
        ValueError: The shapes do not broadcast.
    """
    ring, turn = np.divmod(face, 4)
    up = (1 - ring) + (x + y - 1.0)
    # Beyond two thirds of the height, circles of latitude get shorter.
    around = np.minimum(1.0, 2.0 - np.abs(up))
    height = np.where(around < 1.0, np.sign(up) * (1.0 - around * around / 3.0), up / 1.5)
    lon = (2 * turn + (ring != 1) + (x - y) / around) * (np.pi / 4)
    return lon, np.arcsin(height)
