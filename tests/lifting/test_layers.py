"""Layers of rooms whose every view is known: nothing may be missing, and nothing be in the way."""

import numpy as np
import pytest

from pano4d.lifting.background import find_backdrop
from pano4d.lifting.cameras import perspective_K, viewmat
from pano4d.lifting.edges import find_surface
from pano4d.lifting.gaussians import Gaussians, concatenate, sh_to_colors
from pano4d.lifting.lattice import lattice_directions, lattice_spacing
from pano4d.lifting.layers import BACKGROUND, LARGEST_BACKGROUND, SKY, SURFACE, lay
from pano4d.lifting.render import splat
from pano4d.runtime.sphere import sample_panorama
import ray_rooms as rooms

COUNT = 40_000
SIDE = 150
STEP_M = 3.6
"""About the middle distance of the room."""

K = perspective_K(80.0, SIDE, SIDE)
WHITE = (1.0, 1.0, 1.0)


@pytest.fixture(scope="module", params=[False, True], ids=["room", "sky"])
def scene(request):
    picture, distance = rooms.panorama(256, 512, sky=request.param)
    still = np.zeros(distance.shape, bool)
    return request.param, distance, lay(picture[None], still, distance, COUNT)


def _look(gaussians, share, yaw_deg, **room):
    """Render a view from some way to the right. PSNR to the truth in dB, and the share of holes."""
    view = viewmat(yaw_deg, -5.0)
    view = viewmat(yaw_deg, -5.0, share * STEP_M * view[0, :3])
    dark, bright = (splat(gaussians, view, K, SIDE, SIDE, b).astype(float) for b in ((0.0, 0.0, 0.0), WHITE))
    error = np.mean((dark - rooms.view(view, K, SIDE, SIDE, **room)) ** 2)
    return 10 * np.log10(255.0**2 / error), ((bright - dark).mean(-1) > 127.5).mean()


def _only(gaussians, select):
    return Gaussians(*(getattr(gaussians, name)[select] for name in Gaussians.__dataclass_fields__))


@pytest.mark.parametrize("share, least", [(0.0, 26.5), (0.05, 26.0), (0.1, 25.0)])
def test_views_off_the_centre_are_whole(scene, share, least):
    sky, _, layers = scene
    figures = np.array([_look(layers.static, share, yaw, sky=sky) for yaw in (-30.0, 25.0, 170.0)])
    assert figures[:, 0].mean() > least - 1.5 * sky
    assert figures[:, 1].max() < 0.005


def test_background_fills_what_is_uncovered_and_is_not_seen_from_the_centre(scene):
    sky, _, layers = scene
    surface = _only(layers.static, layers.kind != BACKGROUND)
    for yaw in (-30.0, 170.0):
        assert _look(layers.static, 0.0, yaw, sky=sky)[0] > _look(surface, 0.0, yaw, sky=sky)[0] - 0.1
        assert _look(layers.static, 0.1, yaw, sky=sky)[0] > _look(surface, 0.1, yaw, sky=sky)[0] + 3.0
        assert _look(surface, 0.1, yaw, sky=sky)[1] > 0.005


def test_kinds_and_counts(scene):
    sky, distance, layers = scene
    assert len(layers.static) == len(layers.kind) == len(layers.static_directions) == COUNT
    assert len(layers.moving_directions) == len(layers.moving(0)) == 0
    reach = np.linalg.norm(layers.static.means, axis=1)
    np.testing.assert_allclose(layers.static.means / reach[:, None], layers.static_directions, atol=1e-5)
    seen = sample_panorama(distance[..., None], layers.static_directions)[:, 0]
    behind = layers.kind == BACKGROUND
    assert 0.01 < behind.mean() <= LARGEST_BACKGROUND
    assert (reach[behind] > 1.05 * seen[behind]).mean() > 0.9
    far = layers.kind == SKY
    assert (far.mean() > 0.15) == far.any() == sky
    if sky:
        assert np.ptp(reach[far]) < 1e-3
        np.testing.assert_allclose(layers.static.scales[far, 0], layers.static.scales[far, 1])


def _crossing(frames=5):
    """A ball that rolls by, as seen from the middle. Frames, distances, mask, and the balls of each frame."""
    balls = [(((-1.6 + 0.8 * t, 0.3, 1.9), 0.45),) for t in range(frames)]
    drawn = [rooms.panorama(128, 256, spheres=ball, pole=None) for ball in balls]
    pictures, distances = (np.stack([d[i] for d in drawn]) for i in (0, 1))
    mask = np.ptp(distances, axis=0) > 1e-3
    for axis in (0, 1):
        mask = mask | np.roll(mask, 2, axis) | np.roll(mask, -2, axis)
    return pictures, distances, mask, balls


def test_what_a_moving_thing_uncovers_is_known():
    pictures, distances, mask, _ = _crossing()
    empty, wall = rooms.panorama(128, 256, spheres=(), pole=None)
    backdrop = find_backdrop([find_surface(d) for d in distances], pictures, mask, 0.5)
    hidden = (distances.min(0) < 0.8 * wall) & backdrop.inside
    assert hidden.sum() > 400 and hidden.sum() > 0.95 * (distances.min(0) < 0.8 * wall).sum()
    found = 1.0 / backdrop.surface.nearness[hidden]
    assert (np.abs(found - wall[hidden]) < 0.05 * wall[hidden]).mean() > 0.95
    assert np.abs(backdrop.colors[hidden] - empty[hidden]).mean() < 3.0


def test_one_map_for_a_clip_takes_the_colours_that_look_uncovered():
    pictures, distances, mask, _ = _crossing()
    empty, _ = rooms.panorama(128, 256, spheres=(), pole=None)
    backdrop = find_backdrop([find_surface(distances[0])], pictures, mask, 0.5)
    inside = backdrop.inside
    assert inside.sum() > 100
    still = find_backdrop([find_surface(distances[0])], pictures[:1], mask, 0.5)
    wrong, guessed = (np.abs(b.colors[inside] - empty[inside]).mean() for b in (backdrop, still))
    assert wrong < 8.0 and wrong < 0.5 * guessed


def test_moving_gaussians_follow_their_frame():
    pictures, distances, mask, balls = _crossing()
    layers = lay(pictures, mask, distances, 20_000)
    assert len(layers.static) + len(layers.moving_directions) == 20_000
    for frame in (0, 2, 4):
        moving = layers.moving(frame)
        reach = np.linalg.norm(moving.means, axis=1)
        np.testing.assert_allclose(moving.means / reach[:, None], layers.moving_directions, atol=1e-5)
        true = rooms.cast(layers.moving_directions, spheres=balls[frame], pole=None)[0]
        assert (np.abs(reach - true) < 0.05 * true).mean() > 0.88
        psnr, holes = _look(concatenate([layers.static, moving]), 0.1, 0.0, spheres=balls[frame], pole=None)
        assert psnr > 24.0 and holes < 0.005


def test_the_background_does_not_cover_a_floor_that_is_seen(monkeypatch):
    # A ball rolls over the floor, so the background lies on it wherever the ball is not.
    balls = [(((-1.6 + 0.8 * t, 1.1, 1.9), 0.45),) for t in range(5)]
    drawn = [rooms.panorama(128, 256, spheres=ball, pole=None) for ball in balls]
    pictures, distances = (np.stack([d[i] for d in drawn]) for i in (0, 1))
    mask = np.ptp(distances, axis=0) > 1e-3

    def looks():
        layers = lay(pictures, mask, distances, 8_000)
        surface, moving = _only(layers.static, layers.kind != BACKGROUND), layers.moving(0)
        down = viewmat(20.0, -30.0)
        true = rooms.view(down, K, SIDE, SIDE, spheres=balls[0], pole=None)
        drawn = (splat(concatenate([part, moving]), down, K, SIDE, SIDE, (0.0, 0.0, 0.0)) for part in (layers.static, surface))
        return [np.mean((one.astype(float) - true) ** 2) for one in drawn]

    with_background, without = looks()
    assert with_background < 1.02 * without
    monkeypatch.setattr("pano4d.lifting.layers.BACK", 0.0)
    assert looks()[0] > 1.1 * without


def test_still_gaussians_touch_no_moving_pixel(monkeypatch):
    # Where Gaussians stand depends on the picture: here it must not.
    monkeypatch.setattr("pano4d.lifting.layers.share_out", lambda seen, count: (
        lattice_directions(count), np.full(count, lattice_spacing(count))))
    picture, distance = rooms.panorama(96, 192)
    mask = np.zeros(distance.shape, bool)
    mask[30:60, 180:] = mask[:5] = mask[40:60, 60:90] = True
    changed = np.where(mask[..., None], 255 - picture, picture)
    first, second = (lay(p[None], mask, distance, 3000) for p in (picture, changed))
    surface = first.kind == SURFACE
    np.testing.assert_array_equal(first.static.sh[surface], second.static.sh[surface])
    moved = np.abs(sh_to_colors(first.moving(0).sh) - sh_to_colors(second.moving(0).sh)).mean()
    assert moved > 0.1 and 0.05 < len(first.moving_directions) / 3000 < 0.2


def test_the_same_input_gives_the_same_layers(panorama):
    mask = np.ones(panorama.shape[:2], bool)
    one, two = (lay(panorama[None], mask, np.full(mask.shape, 3.0, np.float32), 500) for _ in range(2))
    assert len(one.static) == 0 and len(one.moving(0)) == 500
    np.testing.assert_array_equal(one.moving(0).means, two.moving(0).means)
