"""A .p4d scene: what is written is read again, every part is an ordinary file, and lies are refused."""

import contextlib
import hashlib
import json
import os
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner

import pano4d
from pano4d.benchmarks.fuzz_inputs import sample
from pano4d.cli import cli
from pano4d.lifting.container import Container, write_container
from pano4d.lifting.convert import convert
from pano4d.lifting.formats.table import read_gaussians, write_gaussians
from pano4d.lifting.gaussians import Gaussians, concatenate, take
from pano4d.lifting.ordering import curve_order
from pano4d.runtime.errors import InputError, OutputError, SettingsError

STATIC, FRAMES = sample(60), 4
SOURCE = {"name": "p.jpg", "sha256": "0" * 64}


def moving(count=25):
    """The same Gaussians in every frame, which drift and change colour."""
    first = sample(count, seed=3)
    return [Gaussians(first.means + np.float32(0.01 * t), first.quats, first.scales, first.opacities,
                      first.sh + np.float32(0.05 * t)) for t in range(FRAMES)]


@pytest.fixture(params=[(False, False), (True, False), (False, True), (True, True)],
                ids=["zip", "folder", "deltas", "both"])
def scene(request, tmp_path):
    """A scene in each form."""
    folder, deltas = request.param
    size = write_container(tmp_path / "scene.p4d", STATIC, moving(), 7, SOURCE, "CC0", folder, deltas)
    path = tmp_path / "scene.p4d"
    assert size == (sum(p.stat().st_size for p in path.iterdir()) if folder else path.stat().st_size)
    assert [p.name for p in tmp_path.iterdir() if p.name != "fake_bundle"] == ["scene.p4d"]
    return path


def test_what_is_written_is_read(scene):
    opened = Container.open(scene)
    assert len(opened) == FRAMES and opened.verify() > 0
    static = take(STATIC, curve_order(STATIC.means))
    order = curve_order(moving()[0].means)
    for t, truth in enumerate(moving()):
        whole = opened.frame(t)
        want = concatenate([static, take(truth, order)])
        assert np.abs(whole.means - want.means).max() <= 0.76 * opened.manifest["near_m"] / 1024 + 1e-6
        assert np.abs(whole.sh - want.sh).max() <= 0.76 / 38.25
    with pytest.raises(IndexError):
        opened.frame(FRAMES)


def test_the_manifest_says_what_is_there(scene):
    told = Container.open(scene).manifest
    distances = np.linalg.norm(np.concatenate([STATIC.means, moving()[0].means]), axis=1)
    assert list(told) == ["format", "schema_version", "generator", "fps", "frames", "axes", "units", "up", "bounds", "near_m",
                          "median_m", "static", "moving", "source", "licence"]
    assert (told["format"], told["schema_version"], told["fps"], told["frames"]) == ("p4d", 1, 7.0, FRAMES)
    assert (told["source"], told["licence"], told["up"]) == (SOURCE, "CC0", [0, -1, 0])
    assert told["near_m"] == pytest.approx(np.quantile(distances, 0.02), rel=1e-3)
    assert told["median_m"] == pytest.approx(np.median(distances), rel=1e-3)
    every = np.concatenate([STATIC.means, *(one.means for one in moving())])
    np.testing.assert_allclose([told["bounds"]["min"], told["bounds"]["max"]], [every.min(0), every.max(0)], atol=1e-5)
    assert told["static"]["gaussians"] == 60 and [entry["gaussians"] for entry in told["moving"]] == [25] * FRAMES


def test_every_part_is_an_ordinary_file(tmp_path):
    write_container(tmp_path / "a.p4d", STATIC, moving(), 7)
    with zipfile.ZipFile(tmp_path / "a.p4d") as archive:
        assert all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
        archive.extractall(tmp_path)
        told = json.loads(archive.read("manifest.json"))
    for entry in (told["static"], *told["moving"]):
        data = (tmp_path / entry["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["bytes"], entry["sha256"])
        assert len(read_gaussians(tmp_path / entry["file"])) == entry["gaussians"]


def test_deltas_lose_nothing_and_are_smaller(tmp_path):
    sizes = [write_container(tmp_path / f"{d}.p4d", STATIC, moving(400), 7, deltas=d) for d in (False, True)]
    plain, small = (Container.open(tmp_path / f"{d}.p4d") for d in (False, True))
    assert sizes[1] < sizes[0] and sum("keyframe" in entry for entry in small.manifest["moving"]) == FRAMES - 1
    for t in range(FRAMES):
        for name in Gaussians.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(plain.moving(t), name), getattr(small.moving(t), name))


def test_nothing_or_everything_moves(tmp_path):
    write_container(tmp_path / "still.p4d", STATIC, [sample(0)] * 3, 7)
    still = Container.open(tmp_path / "still.p4d")
    assert still.manifest["moving"] == [] and len(still) == 3 and still.moving(2) is None and len(still.frame(2)) == 60
    write_container(tmp_path / "all.p4d", sample(0), moving(), 7)
    assert len(Container.open(tmp_path / "all.p4d").frame(1)) == 25


def test_a_scene_that_fails_leaves_nothing(tmp_path):
    for static, frames in ((STATIC, []), (STATIC, [sample(3), sample(4)]), (sample(0), [sample(0)])):
        for folder in (False, True):
            with pytest.raises(ValueError):
                write_container(tmp_path / "a.p4d", static, frames, 7, folder=folder)
    assert not [p for p in tmp_path.iterdir() if p.name != "fake_bundle"]


def change(path, edit, name="manifest.json"):
    """Write a scene again with one file changed."""
    with zipfile.ZipFile(path) as archive:
        parts = {one: archive.read(one) for one in archive.namelist()}
    told = json.loads(parts["manifest.json"])
    edit(told, parts)
    parts["manifest.json"] = json.dumps(told).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for one, data in parts.items():
            archive.writestr(one, data)


@pytest.mark.parametrize("field, value", [
    ("format", "zip"), ("schema_version", 2), ("schema_version", True), ("fps", 0), ("fps", float("nan")), ("frames", 0),
    ("frames", 10**9), ("frames", 3), ("axes", "y up"), ("up", [0, 1, 0]), ("bounds", {}), ("near_m", "1"), ("median_m", -1),
    ("static", None), ("static", []), ("moving", {}), ("moving", [1, 2, 3, 4]), ("source", "me"), ("licence", 1)])
def test_manifests_that_lie(tmp_path, field, value):
    write_container(tmp_path / "a.p4d", STATIC, moving(), 7)
    change(tmp_path / "a.p4d", lambda told, parts: told.update({field: value}))
    with pytest.raises(InputError) as caught:
        Container.open(tmp_path / "a.p4d")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("entry", [
    {"file": "../static.spz"}, {"file": "/etc/passwd.spz"}, {"file": "a/b.spz"}, {"file": "a\\b.spz"}, {"file": "C:.spz"},
    {"file": "nowhere.spz"}, {"file": "manifest.json"}, {"file": ".spz"}, {"gaussians": 61}, {"gaussians": 2**40},
    {"gaussians": -1}, {"bytes": 1}, {"bytes": 2**62}, {"sha256": "0" * 64}, {"sha256": 5}, {"file": "moving_0000.spz"}])
def test_parts_that_lie(tmp_path, entry):
    write_container(tmp_path / "a.p4d", STATIC, moving(), 7)
    change(tmp_path / "a.p4d", lambda told, parts: told["static"].update(entry))
    with pytest.raises(InputError) as caught:
        Container.open(tmp_path / "a.p4d").frame(0)
    assert "\n" not in str(caught.value)


def test_archives_that_lie(tmp_path):
    write_container(tmp_path / "a.p4d", STATIC, moving(), 7)
    with zipfile.ZipFile(tmp_path / "a.p4d") as archive:
        parts = {one: archive.read(one) for one in archive.namelist()}
    odd = {"packed": [("big.spz", bytes(2**20), zipfile.ZIP_DEFLATED)], "outside": [("../x", b"", 0)],
           "root": [("/x", b"", 0)], "twice": [("static.spz", b"", 0)]}
    link = zipfile.ZipInfo("link.spz")
    link.external_attr = 0o120777 << 16
    odd["link"] = [(link, b"/etc/passwd", 0)]
    for name, more in odd.items():
        warns = pytest.warns(UserWarning) if name == "twice" else contextlib.nullcontext()
        with zipfile.ZipFile(tmp_path / f"{name}.p4d", "w") as archive, warns:
            for one, data, how in [*((one, data, 0) for one, data in parts.items()), *more]:
                archive.writestr(one, data, how)
        with pytest.raises(InputError):
            Container.open(tmp_path / f"{name}.p4d")
    whole = (tmp_path / "a.p4d").read_bytes()
    (tmp_path / "cut.p4d").write_bytes(whole[:-40])
    with pytest.raises(InputError, match="zip"):
        Container.open(tmp_path / "cut.p4d")


def test_folders_that_lie(tmp_path):
    write_container(tmp_path / "a.p4d", STATIC, moving(), 7, folder=True)
    part = tmp_path / "a.p4d" / "static.spz"
    part.rename(tmp_path / "elsewhere")
    part.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError):
        Container.open(tmp_path / "a.p4d").static()
    part.unlink()
    os.mkfifo(part)
    with pytest.raises(InputError):
        Container.open(tmp_path / "a.p4d").static()


def test_commands_take_scenes(tmp_path):
    write_container(tmp_path / "a.p4d", STATIC, moving(), 7)
    told = pano4d.inspect(tmp_path / "a.p4d")
    assert (told["kind"], told["static"], told["moving"], told["frames"]) == ("scene", 60, 25, FRAMES)
    with pytest.raises(SettingsError):
        pano4d.inspect(tmp_path / "a.p4d", moving_tiles=3)

    def run(*args):
        return CliRunner().invoke(cli, [str(arg) for arg in args])

    done = run("render", tmp_path / "a.p4d", "--out", tmp_path / "f", "--size", "16x16", "--frames", 2, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["scene"] == {"frames": 4, "fps": 7.0, "near_m": pytest.approx(1, abs=9)}
    assert run("convert", tmp_path / "a.p4d", tmp_path / "b.ply", "--frame", 3, "--sh3").exit_code == 0
    assert read_gaussians(tmp_path / "b.ply").sh.shape == (85, 16, 3)
    assert json.loads(run("inspect", tmp_path / "a.p4d", "--json").stdout)["frames"] == FRAMES


def test_conversions_that_cannot_be(tmp_path):
    write_gaussians(tmp_path / "a.ply", sample(5))
    for out, options, kind in (("a.ply", {}, OutputError), ("b.txt", {}, InputError),
                               ("b.splat", {"sh3": True}, SettingsError), ("b.spz", {"frame": 1}, InputError),
                               ("no/b.spz", {}, OutputError)):
        with pytest.raises(kind):
            convert(tmp_path / "a.ply", tmp_path / out, **options)
    assert convert(tmp_path / "a.ply", tmp_path / "b.sog")["outputs"]["gaussians"] == 5
    assert convert(tmp_path / "b.sog", tmp_path / "a.ply", overwrite=True)["outputs"]["sh_degree"] == 0
