"""A folder of panoramas."""

from pathlib import Path

import numpy as np
import pytest

from pano4d.runtime.batch import run_batch
from pano4d.runtime.errors import BundleError, InputError, OutputError
from pano4d.runtime.image import write_png


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "set").mkdir()
    for name in ("b.png", "a.png", "a_mask.png"):
        write_png(tmp_path / "set" / name, np.zeros((2, 4, 3), np.uint8))
    return tmp_path / "set"


def record(panorama, out, **options):
    return {"panorama": panorama.name, "out": out, **options}


def test_each_panorama_gets_a_folder_of_its_own(folder):
    told = []
    result = run_batch(folder, "out", record, progress=lambda *args: told.append(args), settings="s")
    assert [scene["panorama"] for scene in result["scenes"]] == ["a.png", "b.png"]
    assert [scene["out"] for scene in result["scenes"]] == [Path("out/a"), Path("out/b")]
    assert all(scene["settings"] == "s" and "mask" not in scene and "depth" not in scene
               for scene in result["scenes"])
    assert told == [("scenes", 0, 2), ("scenes", 1, 2), ("scenes", 2, 2)] and result["failed"] == []


def test_masks_and_depths_come_from_folders_or_one_file(folder, tmp_path):
    depths = tmp_path / "depths"
    depths.mkdir()
    for name in ("a.npy", "b.exr"):
        (depths / name).touch()
    scenes = run_batch(folder, "out", record, mask=folder / "a_mask.png", depth=depths)["scenes"]
    assert [scene["mask"].name for scene in scenes] == ["a_mask.png", "a_mask.png"]
    assert [scene["depth"].name for scene in scenes] == ["a.npy", "b.exr"]


def test_one_bad_panorama_does_not_stop_the_others(folder, tmp_path):
    def job(panorama, out, **options):
        if panorama.stem == "a":
            raise OutputError("out/a is not empty.")
        return record(panorama, out, **options)

    result = run_batch(folder, "out", job)
    assert [scene["panorama"] for scene in result["scenes"]] == ["b.png"]
    assert result["failed"] == [{"panorama": str(folder / "a.png"), "error": "out/a is not empty."}]
    (tmp_path / "masks").mkdir()
    result = run_batch(folder, "out", job, mask=tmp_path / "masks")
    assert len(result["failed"]) == 2 and "a.png" in result["failed"][0]["error"]


def test_what_concerns_all_stops_all(folder):
    def job(*args, **options):
        raise BundleError("damaged.")

    with pytest.raises(BundleError):
        run_batch(folder, "out", job)


def test_two_panoramas_of_one_name_are_refused(folder):
    write_png(folder / "a.PNG", np.zeros((2, 4, 3), np.uint8))
    if len(list(folder.iterdir())) == 3:
        pytest.skip("this file system does not tell a.png from a.PNG")
    with pytest.raises(InputError, match="rename"):
        run_batch(folder, "out", record)
