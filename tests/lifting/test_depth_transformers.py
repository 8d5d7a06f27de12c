"""Tiny models of the true classes, with random weights, saved to a folder and loaded again."""

import json
import shutil

import numpy as np
import pytest

from pano4d.lifting.depth import open_estimator
from pano4d.runtime.errors import BackendError, CheckpointError, SettingsError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
TILES = np.random.default_rng(0).integers(0, 256, (3, 56, 56, 3), dtype=np.uint8)


def _depth_anything(**options):
    backbone = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, patch_size=14, image_size=56,
        out_indices=[1, 2, 3, 4], reshape_hidden_states=False, apply_layernorm=True)
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=24, neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=8,
        head_hidden_size=8, patch_size=14, **options)
    return transformers.DepthAnythingForDepthEstimation(config)


def _glpn():
    config = transformers.GLPNConfig(
        num_encoder_blocks=4, depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2],
        sr_ratios=[8, 4, 2, 1], decoder_hidden_size=8)
    return transformers.GLPNForDepthEstimation(config)


def _save(folder, model, side=56):
    torch.manual_seed(0)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "DPTImageProcessor", "do_resize": True, "size": {"height": side, "width": side},
        "keep_aspect_ratio": True, "ensure_multiple_of": 1, "do_rescale": True, "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3}))
    return folder


@pytest.fixture(scope="module")
def relative(tmp_path_factory):
    return _save(tmp_path_factory.mktemp("relative"), _depth_anything())


@pytest.fixture
def copy(relative, tmp_path):
    return shutil.copytree(relative, tmp_path / "model")


def test_a_relative_model_tells_disparity(relative):
    estimator = open_estimator(relative)
    assert (estimator.kind, estimator.geometry, estimator.panoramic) == ("affine-inverse", "z", False)
    assert estimator.name == "DepthAnythingForDepthEstimation"
    depth = estimator(TILES, 80.0)
    assert depth.shape == (3, 56, 56) and depth.dtype == np.float32
    np.testing.assert_allclose(estimator(TILES[:1], 80.0), depth[:1], rtol=1e-4, atol=1e-6)


def test_it_says_what_transformers_says(relative):
    model = transformers.AutoModelForDepthEstimation.from_pretrained(relative).eval()
    pixels = (TILES / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.inference_mode():
        want = model(torch.from_numpy(pixels.transpose(0, 3, 1, 2)).float()).predicted_depth.numpy()
    np.testing.assert_allclose(open_estimator(relative)(TILES, 80.0), want, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model, side", [
    (lambda: _depth_anything(depth_estimation_type="metric", max_depth=20), 56), (_glpn, 64)])
def test_metric_models_declare_it(tmp_path, model, side):
    estimator = open_estimator(_save(tmp_path, model(), side))
    assert (estimator.kind, estimator.geometry) == ("metric", "z")
    assert estimator(TILES, 80.0).shape == (3, 56, 56)


def test_a_model_that_fails_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="GLPNForDepthEstimation failed on pictures"):
        open_estimator(_save(tmp_path, _glpn(), 50))(TILES, 80.0)


def test_options_overrule_the_model(relative):
    estimator = open_estimator(relative, "scale-invariant", "ray")
    assert (estimator.kind, estimator.geometry) == ("scale-invariant", "ray")


@pytest.mark.parametrize("spoil, words", [
    (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    (lambda folder: (folder / "config.json").write_text("{"), "JSON"),
    (lambda folder: (folder / "config.json").write_text("[]"), "not a configuration"),
    (lambda folder: _set(folder, model_type="bert", architectures=["BertModel"]), "BertModel"),
    (lambda folder: (folder / "preprocessor_config.json").unlink(), "preprocessor_config.json"),
    (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "pickled"),
    (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"\x08" + bytes(30)), "cannot be loaded"),
    (lambda folder: _set(folder, model_type="prompt_depth_anything"), "--depth-kind")])
def test_unusable_folders_are_refused_in_one_sentence(copy, spoil, words):
    spoil(copy)
    with pytest.raises(CheckpointError, match=words) as refusal:
        open_estimator(copy)
    assert "\n" not in str(refusal.value) and "model" in str(refusal.value)


def test_missing_packages_are_named(relative, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BackendError, match=r"pip install 'pano4d\[lift\]'"):
        open_estimator(relative)


def _set(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def test_it_runs_on_the_device_that_was_asked_for(relative, monkeypatch):
    monkeypatch.setattr("pano4d.lifting.torch_drawing.sees_gpu", lambda: False)
    with pytest.raises(SettingsError, match="--device cuda needs"):
        open_estimator(relative, device="cuda")
    monkeypatch.setattr("pano4d.lifting.torch_drawing.sees_gpu", lambda: pytest.fail("the CPU was asked for"))
    assert open_estimator(relative, device="cpu")(TILES, 80.0).shape == TILES.shape[:3]
