import numpy as np
import pytest

from pano4d.lifting.cells import FACES, cell_lonlat
from pano4d.runtime.sphere import lonlat_to_directions


def _centres(side):
    at = (np.arange(side) + 0.5) / side
    lon, lat = cell_lonlat(np.arange(FACES)[:, None, None], at[:, None], at)
    return lon, lat, lonlat_to_directions(lon, lat).reshape(-1, 3)


@pytest.mark.parametrize("side", [1, 2, 5, 16])
def test_directions_are_balanced(side):
    _, _, directions = _centres(side)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(directions.mean(0), 0.0, atol=1e-12)
    np.testing.assert_allclose(directions.T @ directions / len(directions), np.eye(3) / 3.0, atol=0.06 / side)


def test_cells_have_equal_areas():
    """The area that x and y span on the sphere is the same everywhere: a twelfth of it."""
    rng, step = np.random.default_rng(0), 1e-5
    face, (x, y) = rng.integers(0, FACES, 4000), rng.uniform(0.01, 0.99, (2, 4000))
    ends = [[lonlat_to_directions(*cell_lonlat(face, x + a, y + b)) for a, b in ((-i, -j), (i, j))]
            for i, j in ((step, 0.0), (0.0, step))]
    along = [(after - before) / (2 * step) for before, after in ends]
    area = np.linalg.norm(np.cross(*along), axis=1)
    up = np.abs(1 - face // 4 + x + y - 1.0)
    away = (np.abs(up - 1.0) > 1e-3) & (up < 1.97)
    np.testing.assert_allclose(area[away], 4.0 * np.pi / FACES, rtol=1e-4)


def test_faces_meet():
    """Where a face ends, at its four sides, others begin; at the poles four do."""
    at = np.linspace(0.0, 1.0, 9)[1:-1]
    for face in range(4):
        left = lonlat_to_directions(*cell_lonlat(face, at, np.ones(7)))
        before = lonlat_to_directions(*cell_lonlat((face + 3) % 4, np.ones(7), at))
        np.testing.assert_allclose(left, before, atol=1e-12)
        below = lonlat_to_directions(*cell_lonlat(face, np.zeros(7), at))
        middle = lonlat_to_directions(*cell_lonlat(4 + face, np.ones(7), at))
        np.testing.assert_allclose(below, middle, atol=1e-12)
    near = 1.0 - 1e-9
    tops = np.stack([lonlat_to_directions(*cell_lonlat(face, near, near)) for face in range(4)])
    np.testing.assert_allclose(tops, np.broadcast_to([0.0, -1.0, 0.0], (4, 3)), atol=1e-7)
