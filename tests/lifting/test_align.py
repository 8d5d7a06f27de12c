"""Alignment of what an estimator would say of a room whose distances are known."""

import functools

import numpy as np
import pytest
import box_room as room

from pano4d.lifting.align import Gauge, align, ray_cosines
from pano4d.lifting.align_compose import compose
from pano4d.lifting.align_time import read_tile
from pano4d.runtime.sphere import pixel_directions, row_solid_angles
from pano4d.runtime.tiles import icosahedron_faces, tile_masks

H, SIZE, FRAMES = 64, 56, 4
LAYOUT = icosahedron_faces(80)
DIRECTIONS = pixel_directions(H, 2 * H)
MOVING = room.moving_mask(H, 2 * H)
TILE_MOVING = tile_masks(MOVING, LAYOUT, SIZE, 1) > 0
COSINES = ray_cosines(LAYOUT, SIZE)
SHARE = np.repeat(row_solid_angles(H, 2 * H)[:, None], 2 * H, axis=1)
KINDS = [("metric", "z"), ("scale-invariant", "z"), ("affine-inverse", "ray"), ("affine-inverse", "z")]


@functools.cache
def truth():
    return room.tile_truth(LAYOUT, SIZE, FRAMES)


def aligned(said, kind, geometry, masks=TILE_MOVING, moving=MOVING, gauge=Gauge()):
    affine = kind == "affine-inverse"
    readings = [read_tile(said[:, v].copy(), masks[v], affine, v) for v in range(LAYOUT.count)]
    return align(readings, LAYOUT, moving, kind, geometry, gauge)


def gauged(distance, want, kind, fit):
    """Fix what a kind leaves open by the truth, on some pixels; returns a function of distances."""
    if kind != "affine-inverse":
        scale = np.exp(np.median(np.log(want / distance)[fit]))
        return lambda other: other * scale
    rows = np.stack([want / distance, want], axis=-1)[fit] * np.sqrt(SHARE[fit])[:, None]
    scale, shift = np.linalg.lstsq(rows, np.sqrt(SHARE[fit]), rcond=None)[0]
    return lambda other: 1 / (scale / other + shift)


def error(distance, want, where):
    return np.average((np.abs(distance - want) / want)[where], weights=SHARE[where])


@pytest.mark.parametrize("kind, geometry", KINDS)
def test_scales_and_shifts_of_tiles_and_frames_do_not_matter(kind, geometry):
    """Without noise the room comes back, still and moving, seam and poles included."""
    said = room.as_read(truth(), COSINES, np.random.default_rng(0), kind, geometry)
    distances, figures = aligned(said, kind, geometry)
    want = room.distance_along(DIRECTIONS)
    fix = gauged(distances.static, want, kind, ~MOVING)
    off = np.abs(np.log(fix(distances.static) / want))
    # Corners of the room are sharper than tiles of this size.
    assert np.quantile(off[~MOVING], 0.9) < 0.01 and off[~MOVING].max() < 0.15
    for part in (np.s_[:, [0, -1]], np.s_[:4], np.s_[-4:]):
        assert np.median(off[part][~MOVING[part]]) < 0.01
    for frame in range(FRAMES):
        assert error(fix(distances.frame(frame)), room.distance_along(DIRECTIONS, frame), MOVING) < 0.03
    assert figures["residual"] < 0.003 < 0.1 < figures["residual_raw"]


@pytest.mark.parametrize("kind, geometry", KINDS)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_error_is_little_more_than_that_of_the_noise(kind, geometry, seed):
    rng = np.random.default_rng(seed)
    noisy = room.noisy(truth()[:1], rng, fine=0.03, bend=0.03)
    still = np.zeros_like(TILE_MOVING)
    said = room.as_read(noisy, COSINES, rng, kind, geometry)
    distances, _ = aligned(said, kind, geometry, still, np.zeros_like(MOVING))
    perfect = compose(np.log(noisy[0]), [None] * LAYOUT.count, LAYOUT, np.zeros_like(MOVING)).static
    want, everywhere = room.distance_along(DIRECTIONS), np.ones_like(MOVING)
    found = error(gauged(distances.static, want, kind, everywhere)(distances.static), want, everywhere)
    assert found < 1.2 * error(perfect, want, everywhere)


@pytest.mark.parametrize("kind, geometry", KINDS)
def test_another_scale_and_shift_per_tile_gives_the_same_map(kind, geometry):
    rng = np.random.default_rng(3)
    noisy = room.noisy(truth(), rng)
    first = room.as_read(noisy, COSINES, rng, kind, geometry, flicker=0)
    factor = np.exp(rng.normal(0, 0.5, (1, LAYOUT.count, 1, 1)))
    other = first * factor + (rng.normal(0, 1, factor.shape) if kind == "affine-inverse" else 0)
    one, two = (aligned(said.astype(np.float32), kind, geometry)[0].static for said in (first, other))
    ratio = two / one
    np.testing.assert_allclose(ratio / np.median(ratio), 1, rtol=0.02)


def test_what_is_still_is_the_same_in_every_frame_though_predictions_flicker():
    rng = np.random.default_rng(4)
    said = room.as_read(room.noisy(truth(), rng), COSINES, rng, "affine-inverse", "z", flicker=0.1)
    distances, _ = aligned(said, "affine-inverse", "z")
    for frame in range(FRAMES):
        np.testing.assert_array_equal(distances.frame(frame)[~MOVING], distances.static[~MOVING])


@pytest.mark.parametrize("kind, geometry", KINDS)
def test_scale_does_not_drift_where_things_move(kind, geometry):
    rng = np.random.default_rng(5)
    said = room.as_read(room.noisy(truth(), rng, fine=0.01), COSINES, rng, kind, geometry, flicker=0.1)
    distances, _ = aligned(said, kind, geometry)
    fix = gauged(distances.static, room.distance_along(DIRECTIONS), kind, ~MOVING)
    ratios = [np.median((fix(distances.frame(t)) / room.distance_along(DIRECTIONS, t))[MOVING]) for t in range(FRAMES)]
    assert max(ratios) / min(ratios) - 1 < 0.02


def test_metric_scale_is_kept_and_others_get_the_one_asked_for():
    said = truth()[:1] * COSINES
    still, nothing = np.zeros_like(TILE_MOVING), np.zeros_like(MOVING)
    metric, _ = aligned(said, "metric", "z", still, nothing)
    want = room.distance_along(DIRECTIONS)
    assert np.median(metric.static / want) == pytest.approx(1, rel=5e-3)
    free, _ = aligned(said, "scale-invariant", "z", still, nothing, Gauge(near_m=7.0))
    assert SHARE[free.static < 7.0].sum() / SHARE.sum() == pytest.approx(0.25, abs=0.01)


def test_everything_may_move():
    rng = np.random.default_rng(6)
    said = room.as_read(truth(), COSINES, rng, "scale-invariant", "z")
    distances, _ = aligned(said, "scale-invariant", "z", np.ones_like(TILE_MOVING), np.ones_like(MOVING))
    want = room.distance_along(DIRECTIONS, 2)
    frame = distances.frame(2)
    assert error(frame * np.median(want / frame), want, np.ones_like(MOVING)) < 0.03
    assert len(distances.pixels) == MOVING.size


def test_edges_stay_sharp_where_tiles_disagree():
    tiles = np.log(truth()[0])
    shifted = np.roll(tiles, 2, axis=2)  # every tile sees edges two of its pixels aside
    mixed = np.where((np.arange(LAYOUT.count) % 2)[:, None, None], shifted, tiles)
    static = compose(mixed, [None] * LAYOUT.count, LAYOUT, np.zeros_like(MOVING)).static
    ball = room.distance_along(DIRECTIONS) < 0.99 * room.distance_along(DIRECTIONS, ball=False)
    between = (static > 1.25 * static[ball].max()) & (static < 1.5 * static[ball].max())
    near_ball = MOVING & (room.distance_along(DIRECTIONS, ball=False) > 1.6 * static[ball].max())
    assert (between & near_ball).sum() < ball.sum() ** 0.5, "more than a line's worth of pixels lies in between"
