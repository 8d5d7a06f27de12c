"""Atomic writing."""

import os

import pytest

from pano4d.runtime.errors import OutputError
from pano4d.runtime.files import atomic_file, sha256_of


def test_takes_its_place_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.suffix == ".txt"
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError])
def test_failure_keeps_the_old(tmp_path, failure):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(failure), atomic_file(path) as temporary:
        temporary.write_text("ne")
        raise failure
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_full_disk_is_one_sentence(tmp_path):
    with pytest.raises(OutputError, match="No space"), atomic_file(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == []


def test_new_files_follow_the_umask(tmp_path):
    with atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
    (tmp_path / "b.txt").write_text("x")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_digest():
    assert sha256_of(b"").startswith("e3b0c44298fc1c14")
