"""Checkpoints of the Hugging Face hub: one commit, fetched once; the hub itself is never asked here."""

import shutil
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from pano4d.build_engines.build import describe  # noqa: E402
from pano4d.build_engines.checkpoint import read_checkpoint  # noqa: E402
from pano4d.build_engines.networks import tile_shape  # noqa: E402
from pano4d.runtime.errors import BackendError, CheckpointError  # noqa: E402

COMMIT = "0123456789abcdef0123456789abcdef01234567"
XT = "stabilityai/stable-video-diffusion-img2vid-xt"


@pytest.fixture
def asked(stock, tmp_path, monkeypatch):
    """Give a folder laid out as the cache of huggingface_hub is, instead of downloading; returns what was asked for."""
    calls = []

    def snapshot_download(name, **options):
        calls.append((name, options["revision"]))
        folder = tmp_path / f"models--{name.replace('/', '--')}" / "snapshots" / options["revision"]
        return str(shutil.copytree(stock, folder, dirs_exist_ok=True))

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    return calls


def test_a_commit_is_fetched_and_named_in_the_manifest(asked, stock):
    found = read_checkpoint(f"{XT}@{COMMIT}")
    assert asked == [(XT, COMMIT)]
    assert (found.source, found.name) == (f"{XT}@{COMMIT}", "stable-video-diffusion-img2vid-xt")
    assert found.license == "stable-video-diffusion-community" and found.files == read_checkpoint(stock).files
    manifest = describe(found, tile_shape(found, 8, 2, 1), "onnxruntime", "fp32")
    assert f"pano4d build {XT}@{COMMIT} --backend" in manifest["build"]["command"]
    assert manifest["key"] == describe(read_checkpoint(stock), tile_shape(found, 8, 2, 1), "onnxruntime", "fp32")["key"]


@pytest.mark.parametrize("source, words", [
    (XT, "lacks a revision: write stabilityai/.*@COMMIT"),
    (f"{XT}@main", "'main' of .* may come to mean other files"),
    (f"{XT}@v1.0", "a commit is needed"), (f"{XT}@", "a commit is needed"), (f"{XT}@{COMMIT[:7]}", "a commit is needed"),
    ("nowhere", "is no folder and no file"), ("a/b/c", "is no folder and no file"), ("./a", "is no folder and no file"),
    ("/a/b", "is no folder and no file"), ("../a", "is no folder and no file")])
def test_what_is_not_pinned_is_not_fetched(asked, source, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        read_checkpoint(source)
    assert not asked and "\n" not in str(caught.value)


def test_a_folder_of_that_name_goes_first(asked, stock, tmp_path, monkeypatch):
    shutil.copytree(stock, tmp_path / "stabilityai" / "mine")
    monkeypatch.chdir(tmp_path)
    assert read_checkpoint("stabilityai/mine").name == "mine" and not asked


def test_what_goes_wrong_is_told_in_one_line(monkeypatch):
    def snapshot_download(name, **options):
        raise RuntimeError("401 Client Error.\n\nAccess is restricted.")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    with pytest.raises(CheckpointError, match="could not be fetched .RuntimeError: 401 Client Error.*hf auth login") as caught:
        read_checkpoint(f"{XT}@{COMMIT}")
    assert "\n" not in str(caught.value)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BackendError, match=r"pip install 'pano4d\[hub\]'"):
        read_checkpoint(f"{XT}@{COMMIT}")


def test_patterns_take_the_parts_and_leave_the_rest():
    """The filter is huggingface_hub's own."""
    from huggingface_hub.utils import filter_repo_objects

    from pano4d.build_engines.hub import _FILES

    files = ["unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors", "model_index.json", "README.md"]
    others = ["svd_xt.safetensors", "unet/diffusion_pytorch_model.bin", "comparison.png", "model.ckpt"]
    assert list(filter_repo_objects(files + others, allow_patterns=_FILES)) == files
