"""From a checkpoint to a bundle that computes the same."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pano4d.build_engines import build, verify  # noqa: E402
from pano4d.build_engines.build import build_bundle, describe  # noqa: E402
from pano4d.build_engines.checkpoint import read_checkpoint  # noqa: E402
from pano4d.build_engines.networks import (example_inputs, network_specs, reference_module,  # noqa: E402
                                           tile_shape)
from pano4d.build_engines.onnx_export import export_onnx  # noqa: E402
from pano4d.build_engines.recipes import recipe_of  # noqa: E402
from pano4d.build_engines.shortcuts import simplify  # noqa: E402
from pano4d.runtime.backends import load_engine  # noqa: E402
from pano4d.runtime.backends.base import NETWORKS, TensorSpec  # noqa: E402
from pano4d.runtime.backends.onnxruntime_ import OnnxruntimeEngine  # noqa: E402
from pano4d.runtime.bundle import Bundle  # noqa: E402
from pano4d.runtime.errors import BackendError, BundleError, CheckpointError, SettingsError  # noqa: E402


@pytest.fixture(scope="module")
def built(masked, tmp_path_factory):
    """The masked checkpoint as a bundle, and what was told while it was built."""
    told = []
    out = tmp_path_factory.mktemp("bundles") / "masked"
    return build_bundle(masked, out, progress=lambda *step: told.append(step)), told


def test_a_bundle_is_built_and_says_what_it_is(built, masked):
    bundle, told = built
    assert bundle == Bundle.open(bundle.path)
    manifest = bundle.manifest
    assert manifest["model"]["name"] == "tiny" and manifest["model"]["masked"]
    assert manifest["precision"] == {"weights": "float16", "compute": "float32"}
    assert manifest["weights"] == read_checkpoint(masked).weight_files
    assert set(manifest["parity"]) == set(manifest["networks"]) == set(NETWORKS)
    assert all(figures["relative_error"] <= 1e-2 for figures in manifest["parity"].values())
    assert manifest["build"]["command"].startswith("pano4d build masked --backend onnxruntime --precision fp16")
    assert told[0] == ("export", 0, 4) and told[-1] == ("verify", 4, 4)
    assert {path.name for path in bundle.path.iterdir()} == {"manifest.json", *(f"{name}.onnx" for name in NETWORKS)}


def test_nothing_in_it_says_where_it_was_made(built, masked):
    bundle, _ = built
    for path in bundle.path.iterdir():
        assert str(masked.parent).encode() not in path.read_bytes()


def test_engines_agree_with_the_eager_backend(built, masked, monkeypatch):
    bundle, _ = built
    monkeypatch.setenv("PANO4D_CHECKPOINT", str(masked))
    described = bundle.network("unet")
    results = []
    for backend in ("onnxruntime", "eager"):
        buffers = example_inputs(list(described.inputs), seed=5)
        buffers["v"] = np.zeros(described.outputs[0].shape, np.float32)
        with load_engine(bundle, "unet", backend) as engine:
            engine.run(buffers)
        results.append(buffers["v"])
    assert verify.parity(*results)["relative_error"] < 1e-2


def test_a_key_that_is_there_is_not_built_again(built, masked, monkeypatch):
    bundle, _ = built
    monkeypatch.setattr(build, "_fill", None)
    assert build_bundle(masked, bundle.path) == bundle


@pytest.mark.parametrize("options", [{"precision": "fp32"}, {"tile_px": 8}, {"frames": 3}, {"tile_batch": 2},
                                     {"max_guidance_scale": 2.0}], ids=str)
def test_every_option_changes_the_key(built, masked, options):
    bundle, _ = built
    with pytest.raises(BundleError, match="holds another bundle"):
        build_bundle(masked, bundle.path, **options)


def test_a_stock_denoiser_with_guidance_in_fp32(stock, tmp_path):
    checkpoint = read_checkpoint(stock)
    tile = tile_shape(checkpoint, 8, 2, 1)
    assert not describe(checkpoint, tile, "onnxruntime", "fp32")["model"]["masked"]
    inputs, outputs = network_specs(checkpoint, tile)["unet"]
    assert inputs[0].shape == (2, 2, 8, 4, 4)
    module = simplify(reference_module(checkpoint, "unet"))
    path, = export_onnx(module, example_inputs(inputs), outputs, tmp_path / "unet.onnx", "fp32")
    buffers = example_inputs(inputs, seed=1)
    reference = reference_module(checkpoint, "unet")(*(torch.from_numpy(array) for array in buffers.values())).numpy()
    buffers["v"] = np.zeros_like(reference)
    with OnnxruntimeEngine(path, tuple(inputs), tuple(outputs)) as engine:
        engine.run(buffers)
    assert verify.parity(buffers["v"], reference)["relative_error"] <= verify.BOUNDS["fp32"]


@pytest.mark.parametrize("options, error, words", [
    ({"backend": "tensorflow"}, BackendError, "no such backend: choose one of onnxruntime"),
    ({"backend": "fake"}, BackendError, "nothing to build for it"),
    ({"precision": "fp4"}, BackendError, "no precision 'fp4': choose one of fp32, fp16, fp8"),
    ({"precision": "fp8"}, BackendError, "'onnxruntime' does not compute in fp8: choose --precision fp16"),
    ({"precision": "fp8", "backend": "aotinductor", "device": "cpu"}, BackendError, "fp8 were asked for, and engines for a CPU"),
    ({"tile_px": 9}, CheckpointError, "--tile-px 8"),
])
def test_options_that_do_not_exist_are_refused(masked, tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        build_bundle(masked, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_an_engine_that_computes_something_else_is_refused(built, masked, tmp_path, monkeypatch):
    bundle, _ = built
    copied = Bundle(shutil.copytree(bundle.path, tmp_path / "copied"), bundle.manifest, bundle.sha256)
    monkeypatch.setattr(verify, "reference_module", lambda *_: lambda *inputs: torch.ones(copied.network(
        "image_encoder").outputs[0].shape))
    with pytest.raises(BackendError, match="differs from the checkpoint by .* build with --precision fp32"):
        verify.verify_network(copied, read_checkpoint(masked), "image_encoder", "fp16")


def test_an_engine_on_a_gpu_is_measured(monkeypatch):
    """What torch would say: 100 bytes of weights, 40 of the buffers are counted, 300 held at most."""
    engine = SimpleNamespace(device="cuda", workspace_bytes=None, inputs=[TensorSpec("x", "float16", (2, 5))], outputs=[TensorSpec("y", "float32", (5,))])
    told = []
    for name, value in (("synchronize", None), ("empty_cache", None), ("reset_peak_memory_stats", None),
                        ("memory_allocated", 100), ("max_memory_reserved", 300)):
        monkeypatch.setattr(torch.cuda, name, lambda name=name, value=value: told.append(name) or value)
    monkeypatch.setattr(verify, "run_engine", lambda *_: told.append("run") or "output")
    assert verify.run_measured(engine, {}) == ("output", {"workspace_bytes": 160})
    assert told == ["synchronize", "empty_cache", "reset_peak_memory_stats", "memory_allocated", "run", "max_memory_reserved"]
    engine.workspace_bytes = 9
    assert verify.run_measured(engine, {}) == ("output", {"workspace_bytes": 9})
    engine.device = "cpu"
    assert verify.run_measured(engine, {}) == ("output", {})


def test_what_was_measured_stands_in_the_manifest(masked, tmp_path, monkeypatch):
    checkpoint = read_checkpoint(masked)
    recipe = replace(recipe_of("onnxruntime", "fp16"), export=lambda *asked: asked[3].touch() or [asked[3]])
    tile = tile_shape(checkpoint, None, None, 1)
    manifest = describe(checkpoint, tile, "onnxruntime", "fp16", recipe)
    monkeypatch.setattr(build, "verify_network", lambda *_: {"relative_error": 0.0, "workspace_bytes": 7})
    build._fill(tmp_path, manifest, checkpoint, tile, recipe, build._exporter(recipe, (), 1), lambda *_: None)
    written = Bundle.open(tmp_path).manifest
    assert {name: network["workspace_bytes"] for name, network in written["networks"].items()} == dict.fromkeys(NETWORKS, 7)
    assert written["parity"] == dict.fromkeys(NETWORKS, {"relative_error": 0.0})


def test_a_limit_needs_engines_for_a_gpu(masked, tmp_path):
    with pytest.raises(SettingsError, match="--backend aotinductor --device cuda"):
        build_bundle(masked, tmp_path / "out", vram_limit_bytes=10**9)


def test_nan_is_not_parity(built, masked, monkeypatch):
    bundle, _ = built
    monkeypatch.setattr(verify, "parity", lambda *_: {"relative_error": float("nan"), "max_abs_error": 0.0})
    with pytest.raises(BackendError, match="differs"):
        verify.verify_network(bundle, read_checkpoint(masked), "image_encoder", "fp16")


def test_a_build_that_fails_leaves_nothing(copied, tmp_path):
    config = json.loads((copied / "vae" / "config.json").read_text()) | {"layers_per_block": 2}
    (copied / "vae" / "config.json").write_text(json.dumps(config))
    (tmp_path / "bundles").mkdir()
    with pytest.raises(CheckpointError, match="lacks .* weights of a AutoencoderKLTemporalDecoder"):
        build_bundle(copied, tmp_path / "bundles" / "out")
    assert not list((tmp_path / "bundles").iterdir())


def test_processes_export_the_same(built, masked, tmp_path):
    bundle, _ = built
    seen = []
    again = build_bundle(masked, tmp_path / "again", jobs=2, progress=lambda *told: seen.append(told))
    assert again.manifest["key"] == bundle.manifest["key"]
    assert list(again.manifest["networks"]) == list(bundle.manifest["networks"])
    assert [told for told in seen if told[0] == "export"] == [("export", done, 4) for done in range(5)]
    assert all(again.manifest["parity"][name]["relative_error"] < 1e-2 for name in again.manifest["networks"])


def test_a_process_that_fails_says_why_and_leaves_nothing(copied, tmp_path, monkeypatch):
    def spoilt(*asked):
        (copied / "image_encoder" / "config.json").write_text("{")
        return describe(*asked)

    (tmp_path / "bundles").mkdir()
    monkeypatch.setattr(build, "describe", spoilt)  # after the checkpoint was read
    with pytest.raises(CheckpointError, match="image_encoder"):
        build_bundle(copied, tmp_path / "bundles" / "out", jobs=2)
    assert not list((tmp_path / "bundles").iterdir())
