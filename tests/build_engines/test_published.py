"""Published checkpoints: tiny models of the true classes in the folder layouts that are offered, from files to frames."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("torch")

from pano4d.build_engines.build import build_bundle  # noqa: E402
from pano4d.build_engines.checkpoint import SVD, read_checkpoint  # noqa: E402
from pano4d.runtime.inspection import inspect  # noqa: E402
from pano4d.runtime.pipeline import Animator  # noqa: E402
from pano4d.runtime.settings import AnimateSettings  # noqa: E402

COMMUNITY = "stable-video-diffusion-community"
KINDS = {  # channels, frames, variant, licence
    "animate_anything_svd_v1.0": (9, 14, "fp16", "unknown"),
    "stable-video-diffusion-img2vid": (8, 14, "fp16", COMMUNITY),
    "stable-video-diffusion-img2vid-xt": (8, 25, None, COMMUNITY),
    "stable-video-diffusion-img2vid-xt-1-1": (8, 25, "fp16", "stable-video-diffusion-1-1-community"),
}
CARD = "---\npipeline_tag: image-to-video\nlicense: {}\nlicense_name: some-community\n---\n# A model\nlicense: of the text\n"


@pytest.fixture(scope="module", params=KINDS)
def published(request, written, tmp_path_factory):
    """A folder of each kind, and what is expected of it."""
    channels, frames, variant, _ = expected = KINDS[request.param]
    folder = tmp_path_factory.mktemp("published") / request.param
    return written(folder, channels, frames, told=None, variant=variant), expected


def test_what_it_recommends_is_in_its_own_files(published):
    folder, (channels, frames, variant, license) = published
    found = read_checkpoint(folder)
    assert (found.name, found.channels, found.frames, found.weights.variant) == (folder.name, channels, frames, variant)
    assert (found.license, found.license_from) == (license, "nothing" if license == "unknown" else "known name")
    told = {"sigma_min": 0.02, "sigma_max": 70.0, "scaling_factor": 0.25}
    assert found.sampler.items() >= told.items()
    assert all(found.sampler[name] == SVD[name] for name in ("fps", "motion_bucket_id", "solver", "max_guidance_scale"))


def test_it_is_built_and_moves_only_where_it_may(published, tmp_path, exports_once):
    folder, (channels, _, _, license) = published
    bundle = build_bundle(folder, tmp_path / "engines", tile_px=16, frames=2, max_guidance_scale=1.0)
    model = inspect(bundle.path)["model"]
    assert (model["source"], model["license"], model["masked"]) == (folder.name, license, channels == 9)
    settings = AnimateSettings(width=64, height=32, steps=2)
    panorama = np.random.default_rng(0).integers(0, 255, (32, 64, 3)).astype(np.uint8)
    mask = np.zeros((32, 64), bool)
    mask[8:24, 8:24] = True
    frames = Animator(bundle, settings).animate(panorama, mask).frames
    assert frames.shape == (2, 32, 64, 3) and (frames[:, ~mask] == panorama[~mask]).all()
    assert (frames[:, mask] != panorama[mask]).any()


@pytest.mark.parametrize("license, expected", [("other", "some-community"), ("mit", "mit")])
def test_a_model_card_is_believed_before_the_name(stock, tmp_path, license, expected):
    folder = shutil.copytree(stock, tmp_path / "stable-video-diffusion-img2vid")
    (folder / "README.md").write_text(CARD.format(license))
    assert (read_checkpoint(folder).license, read_checkpoint(folder).license_from) == (expected, "model card")
    (folder / "pano4d.json").write_text(json.dumps({"license": "ours"}))
    assert (read_checkpoint(folder).license, read_checkpoint(folder).license_from) == ("ours", "pano4d.json")


@pytest.mark.parametrize("card", ["# No front matter\nlicense: mit\n", "---\ntags: [x]\n---\nlicense: mit\n", ""])
def test_a_card_that_names_no_licence_leaves_it_unknown(stock, tmp_path, card):
    folder = shutil.copytree(stock, tmp_path / "mine")
    (folder / "README.md").write_text(card)
    assert read_checkpoint(folder).license == "unknown"


@pytest.mark.parametrize("name, license", [
    ("svd_xt", COMMUNITY), ("SVD-XT-fp16", COMMUNITY), ("svd_xt_1_1", "stable-video-diffusion-1-1-community"),
    ("svd_mine", "unknown"), ("stable-video-diffusion-img2vid-mine", "unknown"),
    ("models--org--svd/snapshots/abc", COMMUNITY)])
def test_names_are_known_whole(stock, tmp_path, name, license):
    assert read_checkpoint(shutil.copytree(stock, tmp_path / name)).license == license


def test_a_folder_under_another_name_is_known_by_what_it_was_saved_as(stock, tmp_path):
    folder = shutil.copytree(stock, tmp_path / "mine")
    config = json.loads((folder / "unet/config.json").read_text())
    config["_name_or_path"] = "stabilityai/stable-video-diffusion-img2vid"
    (folder / "unet/config.json").write_text(json.dumps(config))
    assert read_checkpoint(folder).license == COMMUNITY


def test_the_name_of_the_folder_goes_before_what_it_was_saved_as(stock, tmp_path):
    folder = shutil.copytree(stock, tmp_path / "svd")
    (folder / "model_index.json").write_text(json.dumps({"_name_or_path": "stabilityai/stable-video-diffusion-img2vid-xt-1-1"}))
    assert read_checkpoint(folder).license == COMMUNITY


def test_a_masked_model_has_not_the_licence_of_what_it_was_tuned_from(masked, tmp_path):
    folder = shutil.copytree(masked, tmp_path / "stable-video-diffusion-img2vid")
    (folder / "pano4d.json").unlink()
    assert read_checkpoint(folder).license == "unknown"
