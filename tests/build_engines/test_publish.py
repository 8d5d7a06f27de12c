"""A bundle takes its place whole or not at all, and never takes that of something else unasked."""

import json

import pytest

from pano4d.build_engines.publish import built_already, staged
from pano4d.runtime.bundle import Bundle
from pano4d.runtime.errors import BundleError


def test_a_folder_appears_when_the_block_succeeds(tmp_path):
    out = tmp_path / "deep" / "bundle"
    with staged(out) as folder:
        (folder / "a").write_text("new")
        assert not out.exists()
    assert (out / "a").read_text() == "new"
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_remains_when_the_block_fails(tmp_path, error):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "a").write_text("old")
    with pytest.raises(error), staged(tmp_path / "bundle") as folder:
        (folder / "a").write_text("new")
        raise error
    assert (tmp_path / "bundle" / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "bundle"]


def test_what_was_there_is_replaced_as_a_whole(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "old").touch()
    with staged(tmp_path / "bundle") as folder:
        (folder / "new").touch()
    assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["new"]


def test_a_file_system_that_refuses_gives_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="could not be written .*--out"):
        with staged(tmp_path / "file" / "bundle"):
            pass


def test_a_build_is_known_by_its_key(fake_bundle):
    assert built_already(fake_bundle, "fake", force=False) == Bundle.open(fake_bundle)
    with pytest.raises(BundleError, match=r"holds another bundle \(fake\): .*--force"):
        built_already(fake_bundle, "other", force=False)
    assert built_already(fake_bundle, "other", force=True) is None


def test_a_damaged_bundle_is_built_again_only_when_asked(fake_bundle):
    (fake_bundle / "none").write_text("changed")
    with pytest.raises(BundleError, match="holds a damaged bundle.*--force"):
        built_already(fake_bundle, "fake", force=False)
    assert built_already(fake_bundle, "fake", force=True) is None


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_bundle_is_never_replaced(tmp_path, force):
    (tmp_path / "thesis.json").write_text(json.dumps({}))
    with pytest.raises(BundleError, match="something that is no bundle: choose another folder with --out"):
        built_already(tmp_path, "key", force)
    with pytest.raises(BundleError, match="something that is no bundle"):
        built_already(tmp_path / "thesis.json", "key", force)


def test_an_empty_folder_is_free(tmp_path):
    assert built_already(tmp_path, "key", force=False) is None
    assert built_already(tmp_path / "nowhere", "key", force=False) is None
