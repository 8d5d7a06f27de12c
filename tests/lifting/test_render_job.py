"""From splats to a video: the command line, its errors, panoramas, stereo, and every renderer there is."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pano4d.cli import cli
from pano4d.lifting import drawing
from pano4d.lifting.camera_path import Pose
from pano4d.lifting.cameras import perspective_K, viewmat
from pano4d.lifting.cube import FACES, CubeView
from pano4d.lifting.formats.ply import write_ply
from pano4d.lifting.gaussians import Gaussians, colors_to_sh
from pano4d.lifting.initialize import gaussians_at, place
from pano4d.lifting.prior import prior_distance
from pano4d.lifting.render_job import near_distance, render_frames, scene_frame
from pano4d.lifting.scene_files import FrameFiles, closes
from pano4d.lifting.render_settings import RenderSettings
from pano4d.lifting.scene import render
from pano4d.runtime.errors import SettingsError
from pano4d.runtime.spherical import parse
from pano4d.runtime.video import read_video

SMALL = ("--size", "64x48", "--frames", "5")


@pytest.fixture
def splats(tmp_path, panorama):
    """A result folder of three frames that get darker."""
    folder = tmp_path / "result" / "splats"
    folder.mkdir(parents=True)
    placement = place(prior_distance(panorama), 3000)
    for i in range(3):
        write_ply(folder / f"frame_{i:04d}.ply", gaussians_at(placement, panorama // (i + 1), np.arange(3000)))
    return folder


def run(*args):
    return CliRunner().invoke(cli, ["render", *map(str, args)])


def spots(*places, size=0.03):
    """White spots."""
    n = len(places)
    return Gaussians(np.array(places, np.float32), np.tile(np.float32([1, 0, 0, 0]), (n, 1)),
                     np.full((n, 3), size, np.float32), np.full(n, 0.99, np.float32), colors_to_sh(np.ones((n, 3))))


@pytest.mark.parametrize("path", ["orbit", "dolly", "still", "FILE"])
def test_a_folder_becomes_a_video(splats, tmp_path, path):
    (tmp_path / "p.json").write_text('[{"time": 0}, {"time": 1, "yaw": 90, "position": [0.1, 0, 0]}]')
    given = tmp_path / "p.json" if path == "FILE" else path
    done = run(splats.parent, "--out", tmp_path / "v.mp4", "--path", given, *SMALL, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["outputs"] == {"width": 64, "height": 48, "frames": 5, "fps": 24.0} and report["scene"]["frames"] == 3
    assert read_video(tmp_path / "v.mp4").shape == (5, 48, 64, 3) and not parse(tmp_path / "v.mp4")["v1"]


def test_a_path_file_decides_how_long_it_takes(splats, tmp_path):
    (tmp_path / "p.json").write_text('[{"time": 2}, {"time": 3, "yaw": 90}]')
    common = (splats, "--path", tmp_path / "p.json", "--size", "16x16", "--fps", 6)
    assert run(*common, "--out", tmp_path / "a").exit_code == 0
    assert run(*common, "--out", tmp_path / "b", "--seconds", 2).exit_code == 0
    assert (len(list((tmp_path / "a").iterdir())), len(list((tmp_path / "b").iterdir()))) == (7, 12)


def test_the_scene_keeps_its_pace_forth_and_back(splats, tmp_path):
    (splats.parent / "report.json").write_text('{"outputs": {"fps": 12}}')
    assert run(splats.parent, "--out", tmp_path / "f", "--path", "still", "--size", "32x24", "--frames", 9).exit_code == 0
    light = [np.asarray(Image.open(p)).mean() for p in sorted((tmp_path / "f").iterdir())]
    levels = sorted({round(v) for v in light}, reverse=True)
    assert [levels.index(round(v)) for v in light] == [0, 0, 1, 1, 2, 2, 1, 1, 0]
    assert [scene_frame(i, 1, 1.0) for i in range(3)] == [0, 0, 0]
    assert [scene_frame(i, 3, 0.5, closed=True) for i in range(8)] == [0, 0, 1, 1, 2, 2, 0, 0]
    assert [scene_frame(i, 4, 7 / 24) for i in (0, 24, 48)] == [0, 1, 2]


@pytest.mark.parametrize("report, wanted", [('{"settings": {"loop": true}}', True), ('{"settings": {"loop": false}}', False),
                                            ('{"settings": null}', False), ("[", False), (None, False)])
def test_the_report_says_whether_a_scene_closes(splats, report, wanted):
    if report:
        (splats.parent / "report.json").write_text(report)
    assert closes(splats) == closes(splats.parent) == closes(sorted(splats.glob("*.ply"))[0]) == wanted


def test_a_single_file_is_a_scene(splats, tmp_path):
    assert run(splats / "frame_0001.ply", "--out", tmp_path / "f", *SMALL).exit_code == 0
    assert len(list((tmp_path / "f").iterdir())) == 5


def test_frames_of_an_earlier_run_go(splats, tmp_path):
    out = tmp_path / "f"
    assert run(splats, "--out", out, *SMALL).exit_code == 0
    (out / "notes.txt").write_text("mine")
    refused = run(splats, "--out", out, *SMALL)
    assert refused.exit_code == 1 and "--overwrite" in refused.stderr
    assert run(splats, "--out", out, "--size", "64x48", "--frames", 2, "--overwrite").exit_code == 0
    assert sorted(p.name for p in out.iterdir()) == ["frame_0000.png", "frame_0001.png", "notes.txt"]


@pytest.mark.parametrize("height", [64, 50])
def test_an_equirectangular_view_from_the_centre_is_the_panorama(panorama, height):
    scene = gaussians_at(place(prior_distance(panorama), 20000), panorama, np.arange(20000))
    renderer = drawing.open_renderer("cpu")
    renderer.show(scene)
    got = CubeView(2 * height, height).draw(renderer, np.zeros(3)).astype(float)
    want = np.asarray(Image.fromarray(panorama).resize((2 * height, height), Image.Resampling.BOX), float)
    assert 10 * np.log10(255**2 / np.mean((got - want) ** 2)) > 33


def test_faces_show_no_seam(panorama):
    """Off the centre, over an even scene, the picture takes no step across the edges between faces."""
    white = np.full_like(panorama, 200)
    renderer = drawing.open_renderer("cpu")
    around = np.full(panorama.shape[:2], 5.0, np.float32)
    renderer.show(gaussians_at(place(around, 20000), white, np.arange(20000)))
    got = CubeView(256, 128).draw(renderer, np.array([0.1, 0.05, -0.1])).astype(float)
    level = got[40:88].mean((0, 2))
    for edge in (32, 96, 160, 224):
        assert abs(level[edge:edge + 4].mean() - level[edge - 4:edge].mean()) < 0.7
    assert np.abs(np.diff(got, axis=1, append=got[:, :1])).max() < 8 and np.abs(np.diff(got, axis=0)).max() < 8


def test_weights_of_the_faces_add_up_to_one():
    view = CubeView(96, 48)
    total = np.zeros(96 * 48)
    for pixel, plane, weight in view._looks:
        total[pixel] += weight
        assert weight.min() >= 0 and np.abs(plane).max() < 1.4
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert len(view._looks) == len(FACES)


def test_a_panorama_is_marked_as_one(splats, tmp_path):
    done = run(splats, "--out", tmp_path / "v.mp4", "--projection", "equirectangular", "--size", "64x32", "--frames", 2)
    assert done.exit_code == 0 and parse(tmp_path / "v.mp4")["v1"]


def test_near_things_lie_further_right_for_the_left_eye(tmp_path):
    write_ply(tmp_path / "s.ply", spots((0.0, -0.3, 1.0), (0.0, 1.0, 4.0)))
    done = run(tmp_path / "s.ply", "--out", tmp_path / "f", "--path", "still", "--frames", 1, "--size", "120x90",
               "--stereo", "--ipd", 0.1)
    assert done.exit_code == 0, done.output
    picture = np.asarray(Image.open(tmp_path / "f" / "frame_0000.png"), float)[..., 0]
    assert picture.shape == (90, 240)
    focal = perspective_K(75.0, 120, 90)[0, 0]
    for rows, distance in ((slice(0, 45), 1.0), (slice(45, 90), 4.0)):
        eyes = picture[rows, :120], picture[rows, 120:]
        left, right = (np.average(np.arange(120), weights=eye.sum(0)) for eye in eyes)
        assert left - right == pytest.approx(focal * 0.1 / distance, abs=0.05)


def test_renderers_agree(splats, monkeypatch, tmp_path):
    pytest.importorskip("torch")
    args = (splats, "--path", "orbit", "--size", "61x47", "--frames", 2, "--device", "cpu", "--json")
    assert json.loads(run(*args, "--out", tmp_path / "a").stdout)["renderer"] == "torch"
    monkeypatch.setattr(drawing.importlib.util, "find_spec", lambda name: None)
    assert json.loads(run(*args, "--out", tmp_path / "b").stdout)["renderer"] == "numpy"
    for name in ("frame_0000.png", "frame_0001.png"):
        a, b = (np.asarray(Image.open(tmp_path / one / name), int) for one in "ab")
        assert np.abs(a - b).max() <= 1
    refused = run(*args[:-1], "--device", "cuda", "--out", tmp_path / "c")
    assert refused.exit_code == 1 and "--device cpu" in refused.stderr and not (tmp_path / "c").exists()


class Counting:
    """Draw every view in the shade of its field of view and place, and note what was asked for."""

    name, together = "counting", 3

    def __init__(self):
        self.asked = []

    def show(self, gaussians):
        self.asked.append(gaussians)

    def draw(self, viewmats, K, width, height):
        self.asked.append(len(viewmats))
        shades = K[0, 0] + 10 * np.abs(viewmats[:, 0, 3])
        return np.broadcast_to(shades.astype(np.uint8)[:, None, None, None], (len(viewmats), height, width, 3))


@pytest.mark.parametrize("stereo, asked", [(False, ["a", 3, 1, "b", 1, 2]), (True, ["a", 2, 2, 2, 2, "b", 2, 2, 2])])
def test_frames_that_show_the_same_are_drawn_together(stereo, asked):
    class Scene:
        __len__, frame = (lambda self: 2), (lambda self, index: "ab"[index])

    fovs, told = (90, 90, 90, 90, 90, 60, 60), []
    poses = [Pose(0.0, 0.0, np.array([i, 0.0, 0.0]), fov) for i, fov in enumerate(fovs)]
    settings, renderer = RenderSettings(size=(32, 16), fps=4.0, stereo=stereo, ipd_m=0.02), Counting()
    frames = list(render_frames(Scene(), poses, settings, renderer, 1.0, lambda *done: told.append(done)))
    assert renderer.asked == asked and told == [("render", i + 1, 7) for i in range(7)]
    focals = [perspective_K(fov, 32, 16)[0, 0] for fov in fovs]
    assert [frame.shape for frame in frames] == [(16, 64 if stereo else 32, 3)] * 7
    for number, (frame, focal) in enumerate(zip(frames, focals)):
        assert frame[0, -1, 0] == pytest.approx(focal + 10 * number, abs=1)


def test_torch_has_its_threads_back_after_drawing(splats):
    torch = pytest.importorskip("torch")
    renderer, before = drawing.open_renderer("cpu"), torch.get_num_threads()
    renderer.show(FrameFiles([splats / "frame_0000.ply"]).frame(0))
    views = np.stack([viewmat(yaw, 0.0, np.zeros(3)) for yaw in (0.0, 50.0, 100.0)])
    K = perspective_K(75.0, 48, 32)
    together = renderer.draw(views, K, 48, 32)
    assert torch.get_num_threads() == before
    for view, picture in zip(views, together):
        np.testing.assert_array_equal(renderer.draw(view[None], K, 48, 32)[0], picture)


@pytest.mark.parametrize("options, words", [
    (("--size", "63x48"), "even --size"), (("--fov", 180), "--fov 180"), (("--fov", "nan"), "--fov nan"),
    (("--radius", 2), "--radius 2"), (("--fps", 0.0), "--fps"), (("--frames", 3, "--seconds", 1), "exclude"),
    (("--seconds", 0.001), "no frame"), (("--seconds", "inf"), "--seconds"), (("--ipd", 0), "--ipd"),
    (("--projection", "equirectangular", "--size", "64x64"), "twice as wide"), (("--size", "0x10"), "--size 0x10"),
    (("--projection", "equirectangular", "--stereo"), "--stereo"), (("--path", "spiral"), "spiral"),
    (("--path", "no.json"), "no.json")])
def test_wrong_settings_get_one_line_and_nothing_is_written(splats, tmp_path, options, words):
    done = run(splats, "--out", tmp_path / "v.mp4", *options)
    assert done.exit_code == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and words in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "fake_bundle") == ["result"]


def test_scenes_that_are_none(splats, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.ply").write_text("hello")
    for scene, words in (("nowhere", "does not exist"), ("empty", "no PLY file"), ("text.ply", "not a PLY file")):
        done = run(tmp_path / scene, "--out", tmp_path / "v.mp4")
        assert done.exit_code == 1 and words in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "v.mp4").exists()


def test_outputs_that_cannot_be(splats, tmp_path):
    (tmp_path / "old.mp4").write_text("mine")
    (tmp_path / "folder.mp4").mkdir()
    for out, words in (("v.mov", ".mp4"), ("old.mp4", "--overwrite"), ("folder.mp4", "is a folder"),
                       ("no/v.mp4", "does not exist")):
        done = run(splats, "--out", tmp_path / out, *SMALL)
        assert done.exit_code == 1 and words in done.stderr and done.stderr.count("\n") == 1
    assert (tmp_path / "old.mp4").read_text() == "mine"
    assert run(splats, "--out", tmp_path / "old.mp4", *SMALL, "--overwrite").exit_code == 0


def test_a_damaged_later_frame_leaves_nothing(splats, tmp_path):
    (splats / "frame_0002.ply").write_text("ply\n")
    for out in ("v.mp4", "f"):
        assert run(splats, "--out", tmp_path / out, *SMALL, "--fps", 7).exit_code == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["result"]


def test_from_python(splats, tmp_path):
    report = render(splats, tmp_path / "f", settings=RenderSettings(size=(16, 16), frames=1, path="still"))
    assert report["outputs"]["frames"] == 1 and report["scene"]["near_m"] > 0
    with pytest.raises(SettingsError):
        RenderSettings(projection="fisheye")


def test_near_distance_ignores_strays():
    assert near_distance(spots(*[(0, 0, 5.0)] * 99, (0, 0, 0.01))) == pytest.approx(5.0)
    assert near_distance(Gaussians(*(np.zeros((0, *s), np.float32) for s in ((3,), (4,), (3,), (), (1, 3))))) == 0
