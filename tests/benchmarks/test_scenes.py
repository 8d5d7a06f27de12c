"""Scenes are exact, alike from everywhere, still where nothing moves, and apart from each other."""

import numpy as np
import pytest
import torch

from pano4d.benchmarks.scene_light import Stage
from pano4d.benchmarks.scene_rays import PanoramaCamera, PerspectiveCamera, blocks
from pano4d.benchmarks.scene_render import Renderer
from pano4d.benchmarks.scene_shapes import World, roll
from pano4d.benchmarks.scene_sheets import Sheet, waves
from pano4d.benchmarks.scene_textures import Paint, Palette
from pano4d.benchmarks.scenes import REPORTING, SKY_DISTANCE_M, TUNING, open_scene
from pano4d.lifting.cameras import perspective_K, viewmat
from pano4d.runtime.errors import SettingsError
from pano4d.runtime.sphere import directions_to_pixels, pixel_directions, rotation, sample_panorama

NAMES = TUNING + REPORTING
HEIGHT = 40
PAINT = Paint("mottled", (0.5, 0.4, 0.3), (0.6, 0.5, 0.4))
_seen = {}


def scene(name):
    """Open each scene once."""
    if name not in _seen:
        _seen[name] = open_scene(name)
    return _seen[name]


def clip(name):
    """Render each scene's panoramas once."""
    if (name, "clip") not in _seen:
        _seen[name, "clip"] = scene(name).panoramas(HEIGHT, samples=1)
    return _seen[name, "clip"]


def distances(world, height=32):
    """Render a world alone."""
    renderer = Renderer(Stage.of(world, "cpu"), [Stage.of(World(world.palette), "cpu")], world.palette.tables("cpu"),
                        torch.device("cpu"))
    return renderer.render(PanoramaCamera(height), [0], 1)[0].distance.numpy()


def test_families_are_apart():
    assert len(TUNING) >= 2 and len(REPORTING) >= 3 and not set(TUNING) & set(REPORTING)
    paints = {name: set(map(repr, scene(name)._worlds[0].palette.paints)) for name in NAMES}
    assert not any(paints[a] & paints[b] for a in TUNING for b in REPORTING)
    assert len({round(scene(name).median_distance, 3) for name in NAMES}) == len(NAMES)


def test_an_unknown_scene_is_refused():
    with pytest.raises(SettingsError, match="give one of workshop"):
        open_scene("nowhere")


def test_a_ball_and_a_floor_lie_where_geometry_says():
    world = World(Palette(1))
    world.ball((1.0, -0.5, 4.0), 1.5, PAINT)
    world.box((0.0, 2.5, 0.0), (200.0, 1.0, 200.0), PAINT, rotation(30, 0))
    d = pixel_directions(32, 64)
    middle = np.array([1.0, -0.5, 4.0])
    inside = (d @ middle) ** 2 - middle @ middle + 1.5**2
    expected = np.where(d[..., 1] > 0.03, 2.0 / np.maximum(d[..., 1], 0.03), np.inf)
    ball = np.where((inside >= 0) & (d @ middle > 0), d @ middle - np.sqrt(np.maximum(inside, 0)), np.inf)
    expected = np.minimum(ball, expected)
    found = distances(world)
    known = np.isfinite(expected) & (np.abs(inside) > 1e-3)
    np.testing.assert_allclose(found[known], expected[known], rtol=1e-5)
    np.testing.assert_allclose(found[(d[..., 1] < 0) & (inside < -1e-3)], SKY_DISTANCE_M, rtol=1e-6)


@pytest.mark.parametrize("kind", ["box", "ball", "rod", "cone", "hills", "cloth"])
def test_no_ray_enters_a_shape_before_it_meets_it(kind):
    world, turn = World(Palette(1)), rotation(40, 25) @ roll(20)
    at = np.array([0.3, 0.2, 1.5])
    if kind == "box":
        world.box(at, (1.4, 0.8, 1.9), PAINT, turn)
    elif kind == "ball":
        world.ball(at, (0.9, 0.3, 0.6), PAINT, turn)
    elif kind in ("rod", "cone"):
        world.rod(at - turn[:, 1], at + turn[:, 1], 0.4, PAINT, 0.02 if kind == "cone" else None)
    elif kind == "hills":
        world.sheets.append(Sheet(np.array([0.0, 1.0, 0.0]), np.eye(3), (20.0, 20.0),
                                  waves((7, 20, 0.4, 0.1), (3, 80, 0.2, 0.6)), world.palette.index(PAINT), foot=5.0,
                                  slope=0.5, solid=True))
    else:
        world.sheets.append(Sheet(at, turn, (0.9, 0.7), waves((0.7, 20, 0.1, 0.1)), world.palette.index(PAINT), hem=True))
    d, t = pixel_directions(32, 64).reshape(-1, 3), distances(world, 32).reshape(-1, 1).astype(float)
    met = t[:, 0] < SKY_DISTANCE_M - 1
    assert met.mean() > 0.02
    reach = np.minimum(t, 25.0)
    for share in np.linspace(0.02, 0.999, 25):
        assert not world.hold(d * (reach * share - 1e-3), 0.0).any()
    # A cloth has no inside: what is met is near it.
    within = world.hold(d * (t + 1e-3), 2e-3 if kind == "cloth" else 0.0)[met]
    assert within.mean() > 0.97


def test_a_wire_is_as_thick_far_away_as_near():
    world = World(Palette(1))
    world.rod((-10.0, 0.0, 60.0), (10.0, 0.5, 60.0), 0.004, PAINT)
    K = np.array([[3e5, 0, 80], [0, 3e5, 80], [0, 0, 1.0]])
    camera = PerspectiveCamera(viewmat(0, np.degrees(np.arctan2(-0.25, 60.0))), K, 160, 160)
    stage = Stage.of(world, "cpu")
    renderer = Renderer(stage, [Stage.of(World(world.palette), "cpu")], world.palette.tables("cpu"), torch.device("cpu"))
    wire = renderer.render(camera, [0], 1)[0].distance < 100
    assert wire.sum(0).float().mean() == pytest.approx(2 * 0.004 / 60 * 3e5 * np.hypot(1, 0.025), rel=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_distances_agree_with_what_is_occupied(name):
    picture, d = clip(name)[3], pixel_directions(HEIGHT, 2 * HEIGHT).reshape(-1, 3)
    t = picture.distance.numpy().reshape(-1, 1).astype(float)
    for share in (0.6, 1.0):
        early = scene(name).occupied(d * (t * share - 2e-3), 3)
        assert early.mean() < 1e-3
    met = t[:, 0] < SKY_DISTANCE_M * 0.99
    assert scene(name).occupied((d * t)[met], 3, 1e-3 + 2e-5 * float(t[met].max())).mean() > 0.995


@pytest.mark.parametrize("name", NAMES)
def test_points_seen_from_the_centre_are_where_a_view_beside_it_sees_them(name):
    where = 0.1 * scene(name).median_distance * np.array([0.6, -0.5, 0.62])
    size, matrix, K = 96, viewmat(40.0, -5.0, where), perspective_K(80.0, 96, 96)
    view = scene(name).view(3, matrix, K, size, size, samples=1).distance.numpy()
    points = pixel_directions(HEIGHT, 2 * HEIGHT) * clip(name)[3].distance.numpy()[..., None]
    local = points @ matrix[:3, :3].T + matrix[:3, 3]
    column, row = (local @ K.T)[..., :2].transpose(2, 0, 1) / np.maximum(local[..., 2], 1e-9)
    fits = (local[..., 2] > 0) & (np.minimum(row, column) >= 1.5) & (np.maximum(row, column) < size - 1.5)
    length, row, column = np.linalg.norm(local, axis=-1)[fits], row[fits].astype(int), column[fits].astype(int)
    around = np.stack([view[row + i, column + j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    assert fits.sum() > 150
    # None stands in front of what the view sees; most are what it sees, the others are hidden from it.
    assert (length < around.min(0) * 0.998).mean() < 0.02
    assert (length < around.max(0) * 1.002).mean() > 0.7


@pytest.mark.parametrize("name", NAMES)
def test_a_view_from_the_centre_samples_the_panorama(name):
    size, matrix, K = 40, viewmat(-30.0, -20.0), perspective_K(80.0, 40, 40)
    view = scene(name).view(5, matrix, K, size, size)
    x, y = np.meshgrid(np.arange(size) + 0.5 - K[0, 2], np.arange(size) + 0.5 - K[1, 2])
    rays = np.stack([x / K[0, 0], y / K[1, 1], np.ones_like(x)], -1) @ matrix[:3, :3]
    whole = scene(name).panorama(5, 80)
    inverse = sample_panorama(1 / whole.distance.numpy()[..., None], rays)[..., 0]
    assert np.median(np.abs(inverse * view.distance.numpy() - 1)) < 0.01
    difference = np.abs(sample_panorama(whole.rgb.numpy(), rays) - view.rgb.numpy())
    assert np.median(difference) < 8 and difference.mean() < 20


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_move_is_the_same_in_all_frames(name):
    moving = scene(name).moving(HEIGHT, samples=1)
    assert 0.02 < moving.float().mean() < 0.25
    first = clip(name)[0]
    for picture in clip(name)[1:]:
        assert torch.equal(picture.rgb[~moving], first.rgb[~moving])
        assert torch.equal(picture.distance[~moving], first.distance[~moving])
        assert not (picture.moving_body & ~moving).any()
    assert not torch.equal(clip(name)[7].rgb, first.rgb)


@pytest.mark.parametrize("name", TUNING[:1])
def test_views_of_several_frames_are_those_of_each(name):
    scene, K = open_scene(name), np.array([[20.0, 0, 12], [0, 20, 10], [0, 0, 1]])
    viewmat = np.eye(4)
    viewmat[0, 3] = 0.1
    for frame, picture in zip((0, 7), scene.views((0, 7), viewmat, K, 24, 20), strict=True):
        alone = scene.view(frame, viewmat, K, 24, 20)
        assert all(torch.equal(getattr(picture, part), getattr(alone, part)) for part in ("rgb", "distance", "moving_body"))


@pytest.mark.parametrize("name", NAMES)
def test_a_scene_is_the_same_each_time(name):
    again = open_scene(name).panorama(9, HEIGHT, samples=1)
    for part in ("rgb", "distance", "moving_body"):
        assert torch.equal(getattr(again, part), getattr(clip(name)[9], part))
    assert again.rgb.dtype == torch.uint8 and again.distance.dtype == torch.float32
    assert again.rgb.float().std() > 20 and again.distance.max() <= SKY_DISTANCE_M * (1 + 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_seam_is_not_seen(name):
    picture = clip(name)[0]
    steps = (picture.rgb.float() - picture.rgb.float().roll(1, 1)).abs().mean((0, 2))
    assert steps[0] < steps.mean() + 4 * steps.std()


@pytest.mark.parametrize("name", NAMES)
def test_viewers_near_the_centre_are_in_the_open(name):
    radius = 0.1 * scene(name).median_distance
    points = np.concatenate([pixel_directions(10, 20).reshape(-1, 3) * radius * share for share in (0.0, 0.5, 1.0)])
    for frame in range(0, scene(name).frames, 2):
        assert not scene(name).occupied(points, frame, margin_m=0.05).any()


def test_blocks_hold_their_rays():
    for camera in (PanoramaCamera(40), PerspectiveCamera(viewmat(20, 80, (1, 2, 3)), perspective_K(120, 50, 40), 50, 40)):
        count = np.zeros((camera.height, camera.width), int)
        for block in blocks(camera, 32):
            count[block.rows, block.columns] += 1
            rows, columns = np.arange(block.rows.start, block.rows.stop + 1), np.arange(block.columns.start,
                                                                                       block.columns.stop + 1)
            rays = camera.directions(rows * 1.0, columns * 1.0, "cpu").reshape(3, -1).numpy()
            assert (block.axis @ rays > np.cos(block.angle)).all()
        assert (count == 1).all()


def test_panorama_pixels_look_where_the_conventions_say():
    rays = PanoramaCamera(20).directions(np.arange(20) + 0.5, np.arange(40) + 0.5, "cpu").numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(rays, pixel_directions(20, 40), atol=1e-7)
    assert directions_to_pixels(rays, 20, 40)[0][0, 0] == pytest.approx(0, abs=1e-4)
