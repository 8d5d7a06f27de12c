"""The original's lifting does what its code did: fixed positions, resets, degrees, scales by the nearest neighbours."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pano4d.benchmarks.reference_lifting import ReferenceFrame, ReferenceLifting, neighbour_distances  # noqa: E402
from pano4d.lifting.rasterize import rasterization  # noqa: E402
from pano4d.runtime.sphere import pixel_directions  # noqa: E402

CPU = torch.device("cpu")
TINY = ReferenceLifting(iterations=8, view_px=24, yaws=1, reset_every=3, degree_every=2)


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    distance = (2 + np.sin(pixel_directions(12, 24)[..., 0] * 3)).astype(np.float32)
    return rng.integers(0, 256, (12, 24, 3), np.uint8), np.zeros((12, 24), bool), distance


def opened(frame, settings=TINY):
    return ReferenceFrame(*frame, settings, rasterization, CPU)


def test_neighbour_distances_are_those_of_a_search(frame):
    means = pixel_directions(12, 24) * frame[2][..., None]
    flat = means.reshape(-1, 3)
    squares = ((flat[:, None] - flat) ** 2).sum(-1)
    np.fill_diagonal(squares, np.inf)
    exact = np.sqrt(np.sort(squares, axis=1)[:, :3].mean(1)).reshape(12, 24)
    ours = neighbour_distances(torch.from_numpy(means).float()).numpy()
    # Beside a pole the three nearest are all of its row, further along it than the next pixel.
    np.testing.assert_allclose(ours[2:-2], exact[2:-2], rtol=1e-3)
    assert (ours >= exact * 0.999).all()


def test_begins_with_one_gaussian_a_pixel(frame):
    begun = opened(frame).gaussians()
    assert len(begun) == 288 and begun.sh.shape == (288, 16, 3)
    assert begun.opacities == pytest.approx(0.1)
    np.testing.assert_allclose(np.linalg.norm(begun.means, axis=1), frame[2].ravel(), rtol=1e-5)
    np.testing.assert_allclose(0.5 + 0.28209479 * begun.sh[:, 0], frame[0].reshape(-1, 3) / 255, atol=1e-5)


def test_positions_stay_and_the_rest_learns(frame):
    training = opened(frame)
    begun = training.gaussians()
    for _ in range(2):
        training.step()
    now = training.gaussians()
    assert np.array_equal(now.means, begun.means)
    assert all(not np.array_equal(getattr(now, name), getattr(begun, name)) for name in ("scales", "opacities", "quats"))
    assert not now.sh[:, 1:].any()


def test_opacities_are_reset_but_not_at_the_end(frame):
    training, low = opened(frame, ReferenceLifting(iterations=6, view_px=24, yaws=1, reset_every=3)), []
    for _ in range(6):
        training.step()
        low.append(bool(training.gaussians().opacities.max() <= 0.0101))
    assert low[2] and not low[1] and not low[5]


def test_shortened_moves_what_happens_in_proportion():
    short = ReferenceLifting().shortened(1000)
    assert (short.iterations, short.reset_every, short.degree_every) == (1000, 300, 100)
