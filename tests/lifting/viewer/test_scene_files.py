"""What the viewer plays, and what it refuses."""

import json
import shutil
import zipfile

import numpy as np
import pytest

from pano4d.lifting.container import Container, write_container
from pano4d.lifting.formats.ply import read_ply, write_ply
from pano4d.lifting.formats.table import write_gaussians
from pano4d.lifting.gaussians import take
from pano4d.lifting.viewer.scene_files import open_scene
from pano4d.runtime.errors import InputError


def test_a_result_folder_and_its_container_are_the_same_scene(lettered):
    for path in (lettered, lettered / "scene.p4d"):
        scene = open_scene(path)
        assert scene.names == ("static.spz", *(f"moving_{i:04d}.spz" for i in range(3)))
        assert scene.read("static.spz") == (lettered / "scene.p4d" / "static.spz").read_bytes()
        assert "video" not in scene.manifest


def test_a_stored_archive_is_read(lettered, tmp_path):
    with zipfile.ZipFile(tmp_path / "scene.p4d", "w") as archive:
        for file in (lettered / "scene.p4d").iterdir():
            archive.write(file, file.name)
    scene = open_scene(tmp_path)
    assert scene.manifest == open_scene(lettered).manifest
    assert scene.read("moving_0002.spz") == open_scene(lettered).read("moving_0002.spz")


def test_deltas_are_handed_out_as_the_files_they_stand_for(lettered_frames, tmp_path):
    still, moving = lettered_frames[0], [take(frame, slice(-81, None)) for frame in lettered_frames]
    for name in ("plain", "deltas"):
        (tmp_path / name).mkdir()
        write_container(tmp_path / name / "scene.p4d", still, moving, 7, deltas=name == "deltas")
    plain, deltas = (open_scene(tmp_path / name) for name in ("plain", "deltas"))
    assert any("keyframe" in entry for entry in Container.open(tmp_path / "deltas" / "scene.p4d").manifest["moving"])
    assert deltas.manifest == plain.manifest
    assert [deltas.read(name) for name in deltas.names] == [plain.read(name) for name in plain.names]


def test_a_part_that_changed_is_not_handed_out(lettered, tmp_path):
    shutil.copytree(lettered / "scene.p4d", tmp_path / "scene.p4d")
    part = tmp_path / "scene.p4d" / "moving_0001.spz"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match="moving_0001.spz is not what the manifest says"):
        open_scene(tmp_path).read("moving_0001.spz")


def test_the_video_of_the_run_is_found(lettered, tmp_path):
    shutil.copytree(lettered, tmp_path / "out")
    (tmp_path / "out" / "video.mp4").write_bytes(b"moving pictures")
    for path in (tmp_path / "out", tmp_path / "out" / "scene.p4d"):
        scene = open_scene(path)
        assert scene.manifest["video"] == {"file": "video.mp4"}
        assert scene.read("video.mp4") == b"moving pictures"


def test_ply_files_are_split_into_what_stays_and_what_moves(lettered_frames, tmp_path):
    for i, frame in enumerate(lettered_frames):
        write_ply(tmp_path / f"frame_{i:04d}.ply", frame)
    scene = open_scene(tmp_path)
    assert scene.manifest["frames"] == 3 and scene.manifest["near_m"] > 0
    parts = []
    for name in ("static.ply", "moving_0001.ply"):
        (tmp_path / "part.bin").write_bytes(scene.read(name))
        parts.append(read_ply(tmp_path / "part.bin"))
    assert len(parts[1]) == 81
    np.testing.assert_array_equal(np.concatenate([part.means for part in parts]), lettered_frames[1].means)


def test_one_ply_file_is_a_scene_that_stays(lettered_frames, tmp_path):
    write_ply(tmp_path / "one.ply", lettered_frames[0])
    scene = open_scene(tmp_path / "one.ply")
    assert scene.names == ("static.ply",) and scene.manifest["frames"] == 1
    write_gaussians(tmp_path / "one.spz", lettered_frames[0])
    assert open_scene(tmp_path / "one.spz").names == ("static.ply",)


@pytest.mark.parametrize("change, word", [
    ({"schema_version": 2}, "schema version 2"),
    ({"format": "else"}, "no manifest of a p4d scene"),
    ({"frames": 5}, "'moving' in manifest.json"),
    ({"moving": [{"file": "../../secret.spz"}] * 3}, r"'moving\[0\]' in manifest.json"),
    ({"moving": [{"file": "moving_0000.delta"}] * 3}, r"'moving\[0\]' in manifest.json"),
    ({"moving": 3}, "'moving' in manifest.json"),
])
def test_a_manifest_that_cannot_be_played_is_refused(lettered, tmp_path, change, word):
    shutil.copytree(lettered / "scene.p4d", tmp_path / "scene.p4d")
    path = tmp_path / "scene.p4d" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=word):
        open_scene(tmp_path)


def test_what_is_missing_is_named(lettered, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_scene(tmp_path / "nothing")
    with pytest.raises(InputError, match="no PLY file"):
        open_scene(tmp_path)
    with pytest.raises(InputError, match="video"):
        open_scene(lettered, tmp_path / "no.mp4")
    (tmp_path / "scene.p4d").write_bytes(b"no archive")
    with pytest.raises(InputError, match="no zip file"):
        open_scene(tmp_path)
    shutil.copytree(lettered / "scene.p4d", tmp_path / "half.p4d")
    (tmp_path / "half.p4d" / "static.spz").unlink()
    with pytest.raises(InputError, match="static.spz cannot be read"):
        open_scene(tmp_path / "half.p4d").read("static.spz")
