"""Gaussians that stay as placed show an even picture evenly, as bright as it is, and keep what has detail."""

import numpy as np
import pytest

from pano4d.lifting import drawing
from pano4d.lifting.cube import CubeView
from pano4d.lifting.gaps import SMOOTH, WIDEST, close_gaps, share_between, smoothness
from pano4d.lifting.gaussians import concatenate
from pano4d.lifting.layers import BACKGROUND, lay
from pano4d.runtime.sphere import pixel_directions

SHAPE = (96, 192)


def seen(layers) -> np.ndarray:
    """What shows from the centre, large enough that gaps are, away from the poles. float [128, 512, 3]."""
    renderer = drawing.open_renderer("cpu")
    renderer.show(concatenate([layers.static, layers.moving(0)]))
    return CubeView(512, 256).draw(renderer, np.zeros(3)).astype(float)[64:192]


@pytest.mark.parametrize("moves", [False, True])
def test_an_even_picture_is_as_bright_as_it_was_and_without_a_mesh(moves):
    even = np.full((1, *SHAPE, 3), 150, np.uint8)
    placed = lay(even, np.full(SHAPE, moves), np.full(SHAPE, 3.0, np.float32), 1500)
    before, after = seen(placed), seen(close_gaps(placed, even))
    assert before.mean() < 148 and abs(after.mean() - 150) < 0.5
    assert before.std() > 1.5 and after.std() < 0.4


def test_wider_footprints_leave_less_between():
    shares = [share_between(wider) for wider in (1.0, 1.1, 1.2, WIDEST)]
    assert 0.03 < shares[0] < 0.033 and shares == sorted(shares, reverse=True) and shares[-1] < 0.004


def test_smooth_is_what_does_not_differ_a_spacing_away():
    directions = pixel_directions(16, 32).reshape(-1, 3)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    even, ramp = np.full_like(noise, 90), np.zeros_like(noise)
    ramp[:] = np.arange(SHAPE[0])[:, None, None]  # a grey level a row, so 6 over as many rows
    six_rows = np.full(len(directions), 6 * np.pi / SHAPE[0])
    assert (smoothness(even, directions, six_rows) == 1).all()
    assert smoothness(noise, directions, six_rows).mean() < 0.01
    flat = np.abs(directions[:, 1]) < 0.7  # not over a pole
    along_rows = smoothness(ramp, directions, six_rows)[flat]  # none of four directions may be the steepest
    assert along_rows.min() > 1 - 6 / SMOOTH - 0.02 and along_rows.max() < 1 - 6 / SMOOTH / np.sqrt(2)


def test_detail_and_background_stay_as_they_were():
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (3, *SHAPE, 3), dtype=np.uint8)
    frames[:, :48] = 80
    distance, mask = np.full(SHAPE, 9.0, np.float32), np.zeros(SHAPE, bool)
    distance[30:70, 60:110], mask[20:80, 130:170] = 2.0, True
    placed = lay(frames, mask, distance, 4000)
    closed = close_gaps(placed, frames)
    behind = placed.kind == BACKGROUND
    assert behind.any()
    for name in ("means", "quats", "scales", "opacities", "sh"):
        np.testing.assert_array_equal(getattr(closed.static, name)[behind], getattr(placed.static, name)[behind])
    wider = closed.static.scales[:, 0] / placed.static.scales[:, 0]
    noisy = placed.static_directions[:, 1] > 0.15
    assert np.median(wider[noisy & ~behind]) == 1.0
    assert np.median(wider[~noisy & ~behind]) == pytest.approx(WIDEST, rel=1e-3)
    np.testing.assert_array_equal(closed.moving(2).means, placed.moving(2).means)


def test_what_moves_is_closed_in_each_frame_for_itself():
    frames = np.random.default_rng(2).integers(0, 256, (2, *SHAPE, 3), dtype=np.uint8)
    frames[1] = 80
    placed = lay(frames, np.ones(SHAPE, bool), np.full(SHAPE, 3.0, np.float32), 2000)
    closed = close_gaps(placed, frames)
    for frame, widened in ((0, 1.0), (1, WIDEST)):
        assert np.median(closed.moving(frame).scales / placed.moving(frame).scales, axis=0)[0] == pytest.approx(widened, rel=1e-3)
