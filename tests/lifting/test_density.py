import numpy as np
import pytest

from pano4d.lifting.density import COARSEST, FINEST, Seen, share_out
from pano4d.runtime.sphere import pixel_directions

SHAPE = (128, 256)
COUNT = 4000
POLES_AND_SEAM = np.array([[0, -1, 0], [0, 1, 0], [0, 0, -1], [0.02, 0, -1], [-0.02, 0.3, -1]])


def _seen(frame=None, nearness=None, moving=None, shape=SHAPE):
    return Seen(np.full((*shape, 3), 90, np.uint8) if frame is None else frame,
                np.ones(shape, np.float32) if nearness is None else nearness,
                np.zeros(shape, bool) if moving is None else moving)


def _patch(towards, cosine=0.9, shape=SHAPE):
    """Which pixels lie near a direction. bool [H, W]"""
    return pixel_directions(*shape) @ (np.asarray(towards, float) / np.linalg.norm(towards)) > cosine


def _noise(where):
    """A grey picture with noise in some places."""
    noise = np.random.default_rng(1).integers(0, 256, (*where.shape, 3), dtype=np.uint8)
    return np.where(where[..., None], noise, np.uint8(128))


def _relative(spacing):
    """Density over the average."""
    return 4.0 * np.pi / spacing**2 / len(spacing)


@pytest.mark.parametrize("count", [16, 47, 192, 500, 3001, 4000])
@pytest.mark.parametrize("shape", [(128, 256), (37, 75), (8, 16)])
def test_count_is_exact_and_shares_fill_the_sphere(count, shape):
    for where in (_patch([1, 0, 0], 0.5, shape), np.zeros(shape, bool), np.ones(shape, bool)):
        for moving in (where, ~where):
            directions, spacing = share_out(_seen(_noise(where), moving=moving, shape=shape), count)
            assert directions.shape == (count, 3) and spacing.shape == (count,)
            np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0, atol=1e-12)
            assert len(np.unique(directions.round(9), axis=0)) == count
            np.testing.assert_allclose((spacing**2).sum(), 4.0 * np.pi, rtol=1e-9)


def test_a_picture_of_one_colour_is_covered_evenly():
    directions, spacing = share_out(_seen(), COUNT)
    assert _relative(spacing).min() > 0.45 and _relative(spacing).max() < 2.0
    axes = np.random.default_rng(0).normal(size=(60, 3))
    axes = np.concatenate([axes, POLES_AND_SEAM])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    share = (1.0 - np.cos(0.4)) / 2.0
    np.testing.assert_allclose((directions @ axes.T > np.cos(0.4)).mean(0), share, rtol=0.15)


@pytest.mark.parametrize("towards", [[0, 0, 1], [1, 0.3, 0], [0, 0, -1], [0, -1, 0], [0, 1, 0]],
                         ids=["ahead", "right", "seam", "top", "bottom"])
def test_detail_is_dense_wherever_it_is(towards):
    directions, spacing = share_out(_seen(_noise(_patch(towards, 0.95))), COUNT)
    towards = np.asarray(towards) / np.linalg.norm(towards)
    inside, outside = directions @ towards > 0.96, directions @ towards < 0.9
    assert np.median(_relative(spacing)[inside]) > 0.8 * FINEST
    assert np.median(_relative(spacing)[outside]) < 1.1
    # Numbers bear out what the spacing says.
    assert inside.mean() > 0.7 * FINEST * 0.02
    assert _relative(spacing).max() < 1.01 * FINEST and _relative(spacing).min() > 0.99 * FINEST / COARSEST * 0.9


def test_a_step_of_distance_is_detail():
    nearness = np.where(_patch([0, 0, 1], 0.8), np.float32(2.0), np.float32(0.5))
    directions, spacing = share_out(_seen(nearness=nearness), COUNT)
    angle = np.abs(np.arccos(directions[:, 2]) - np.arccos(0.8))
    assert np.median(_relative(spacing)[angle < 0.02]) > 1.9 * np.median(_relative(spacing)[angle > 0.2])


def test_every_place_has_a_gaussian_near():
    """No gap where densities meet, at the poles or at the seam: nearer than the local spacing."""
    directions, spacing = share_out(_seen(_noise(_patch([0, -0.5, -1], 0.8) | _patch([0, 1, 0], 0.97))), COUNT)
    places = np.random.default_rng(2).normal(size=(4000, 3))
    places = np.concatenate([places, POLES_AND_SEAM])
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    away = np.arccos(np.clip(places @ directions.T, -1.0, 1.0)) / spacing
    assert away.min(1).max() < 1.0
    # What is seen there from the centre, were all Gaussians as wide as they are placed.
    through = np.prod(1.0 - 0.99 * np.exp(-0.5 * (away / 0.6) ** 2), axis=1)
    assert through.max() < 0.35 and through.mean() < 0.06


def test_what_moves_is_not_thinned_out():
    moving = _patch([1, 0, 0], 0.9)
    directions, spacing = share_out(_seen(_noise(_patch([-1, 0, 0], 0.3)), moving=moving), COUNT)
    there = directions[:, 0] > 0.91
    assert _relative(spacing)[there].min() > 0.9
    assert _relative(spacing)[~there].min() < 0.3
    assert there.mean() > 0.9 * (1.0 - 0.91) / 2.0


@pytest.mark.parametrize("columns", [64, 100, 128])
def test_a_turned_picture_gives_a_turned_layout(columns):
    """The seam is where the picture ends, and nothing but that."""
    frame = _noise(_patch([0.3, 0.2, 1], 0.9))
    one, two = (share_out(_seen(np.roll(frame, shift, 1)), COUNT)[0] for shift in (0, columns))
    axes = np.random.default_rng(3).normal(size=(40, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    cosine, sine = np.cos(columns * np.pi / 128), np.sin(columns * np.pi / 128)
    turned = axes @ np.array([[cosine, 0.0, -sine], [0.0, 1.0, 0.0], [sine, 0.0, cosine]])
    numbers = [(directions @ around.T > np.cos(0.4)).sum(0) for directions, around in ((one, axes), (two, turned))]
    np.testing.assert_allclose(*numbers, rtol=0.12)
    assert max(numbers[0]) > 2 * min(numbers[0])


def test_the_same_input_gives_the_same_layout():
    one, two = (share_out(_seen(_noise(_patch([1, 1, 1]))), COUNT) for _ in range(2))
    for a, b in zip(one, two):
        np.testing.assert_array_equal(a, b)
