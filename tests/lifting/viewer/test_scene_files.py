"""What the viewer plays, and what it refuses."""

import json
import shutil
import zipfile

import numpy as np
import pytest

from pano4d.lifting.formats.ply import read_ply, write_ply
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


@pytest.mark.parametrize("change, word", [
    ({"schema_version": 2}, "schema version 2"),
    ({"format": "else"}, "not that of a scene"),
    ({"frames": 5}, "not that of a scene"),
    ({"moving": [{"file": "../../secret.spz"}] * 3}, "not that of a scene"),
    ({"moving": [{"file": "moving_0000.delta"}] * 3}, "without --deltas"),
    ({"moving": 3}, "damaged"),
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
    with pytest.raises(InputError, match="no scene.p4d"):
        open_scene(tmp_path)
    shutil.copytree(lettered / "scene.p4d", tmp_path / "half.p4d")
    (tmp_path / "half.p4d" / "static.spz").unlink()
    with pytest.raises(InputError, match="static.spz is missing"):
        open_scene(tmp_path / "half.p4d").read("static.spz")
