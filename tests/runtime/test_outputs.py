"""The output folder: complete or untouched."""

import errno
import shutil
from collections import namedtuple

import pytest

from pano4d.runtime.checkpointing import save_state
from pano4d.runtime.errors import OutputError
from pano4d.runtime.outputs import OutputFolder, estimate_bytes


def _fill(folder, text="new", names=("frames/a.png", "report.json")):
    for name in names:
        folder.path(name).write_text(text)


def _listing(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def test_nothing_shows_before_commit(tmp_path):
    out = tmp_path / "deep" / "out"
    with OutputFolder(out) as folder:
        _fill(folder)
        assert not (out / "report.json").exists()
        folder.commit()
        assert (out / "report.json").read_text() == "new"
    assert _listing(out) == ["frames/a.png", "report.json"]
    assert sorted(path.name for path in out.iterdir()) == ["frames", "report.json"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_failure_leaves_no_trace(tmp_path, failure):
    with pytest.raises(failure), OutputFolder(tmp_path / "deep" / "out") as folder:
        _fill(folder)
        raise failure
    assert list(tmp_path.iterdir()) == []


def test_leaving_without_commit_leaves_no_trace(tmp_path):
    with OutputFolder(tmp_path / "out") as folder:
        _fill(folder)
    assert list(tmp_path.iterdir()) == []


def test_refuses_what_is_there(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for options in ({}, {"resume": True}):
        with pytest.raises(OutputError, match="--overwrite"), OutputFolder(tmp_path, **options):
            pass
    with pytest.raises(OutputError, match="is a file"), OutputFolder(tmp_path / "mine.txt"):
        pass
    assert _listing(tmp_path) == ["mine.txt"]


def test_overwrite_replaces_whole_names_and_leaves_the_rest(tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "splats").mkdir()
    for name in ("frames/a.png", "frames/b.png", "splats/a.ply", "mine.txt"):
        (tmp_path / name).write_text("old")
    with OutputFolder(tmp_path, overwrite=True, owns=("splats", "video.mp4")) as folder:
        _fill(folder)
        assert (tmp_path / "frames/b.png").exists()
        folder.commit()
    assert _listing(tmp_path) == ["frames/a.png", "mine.txt", "report.json"]
    assert (tmp_path / "frames/a.png").read_text() == "new"


def test_interrupted_overwrite_keeps_the_former_result(tmp_path):
    (tmp_path / "report.json").write_text("old")
    with pytest.raises(KeyboardInterrupt), OutputFolder(tmp_path, overwrite=True) as folder:
        _fill(folder)
        raise KeyboardInterrupt
    assert _listing(tmp_path) == ["report.json"] and (tmp_path / "report.json").read_text() == "old"


def test_failed_commit_puts_everything_back(tmp_path, monkeypatch):
    from pano4d.runtime import outputs
    for name in ("a", "report.json"):
        (tmp_path / name).write_text("old")
    move = outputs._move

    def fail_late(source, destination, moved):
        if destination == tmp_path / "report.json":
            raise OSError(errno.EIO, "broken disk")
        move(source, destination, moved)

    monkeypatch.setattr(outputs, "_move", fail_late)
    with pytest.raises(OutputError, match="left as it was"), OutputFolder(tmp_path, overwrite=True) as folder:
        _fill(folder, names=("a", "b", "report.json"))
        folder.commit()
    assert _listing(tmp_path) == ["a", "report.json"]
    assert (tmp_path / "a").read_text() == (tmp_path / "report.json").read_text() == "old"


def test_resume_state_survives_and_goes_with_the_commit(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), OutputFolder(out) as folder:
        save_state(folder.resume_folder, "key", 3, {})
        raise KeyboardInterrupt
    assert _listing(out) == [".resume/state.npz"]
    with pytest.raises(OutputError, match="--resume"), OutputFolder(out):
        pass
    with OutputFolder(out, resume=True) as folder:
        assert (folder.resume_folder / "state.npz").exists()
        _fill(folder)
        folder.commit()
    assert _listing(out) == ["frames/a.png", "report.json"]


def test_overwrite_begins_again(tmp_path):
    save_state(tmp_path / ".resume", "key", 3, {})
    with OutputFolder(tmp_path, overwrite=True) as folder:
        assert not folder.resume_folder.exists()


def test_two_runs_do_not_share_a_folder(tmp_path):
    pytest.importorskip("fcntl")
    with OutputFolder(tmp_path) as folder:
        _fill(folder)
        with pytest.raises(OutputError, match="another run"), OutputFolder(tmp_path):
            pass
        assert folder.path("report.json").exists()


def test_killed_run_is_cleaned_up(tmp_path):
    (tmp_path / ".staging-old").mkdir()
    (tmp_path / ".staging-old" / "half.png").touch()
    with OutputFolder(tmp_path) as folder:
        _fill(folder)
        folder.commit()
    assert _listing(tmp_path) == ["frames/a.png", "report.json"]


def test_refuses_without_space(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10**6))
    with pytest.raises(OutputError, match="MiB free"), OutputFolder(tmp_path / "out", needs_bytes=10**7):
        pass
    assert not (tmp_path / "out").exists()


def test_full_disk_becomes_one_sentence(tmp_path):
    with pytest.raises(OutputError, match="No space"), OutputFolder(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not (tmp_path / "out").exists()


def test_estimate_grows_with_everything():
    base = estimate_bytes(14, 512, 1024)
    assert base > 14 * 512 * 1024 * 3
    assert estimate_bytes(14, 512, 1024, gaussians=1000) == base + 14 * 1000 * 88
