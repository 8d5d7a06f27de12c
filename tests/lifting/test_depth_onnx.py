import numpy as np
import pytest

from pano4d.lifting.depth import open_estimator
from pano4d.lifting.scene_lift import DepthSource
from pano4d.runtime.errors import CheckpointError, SettingsError

onnx = pytest.importorskip("onnx")
TILES = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)


def save_model(path, shape=("b", 3, "h", "w"), axis_kept=False, properties=None, output="depth", dtype=1, extra=False):
    """Write a model whose depth is the mean of the normalised channels, plus 3."""
    kept = [shape[0], 1, *shape[2:]] if axis_kept else [shape[0], *shape[2:]]
    make = onnx.helper
    nodes = [make.make_node("ReduceMean", ["picture", "axes"], ["mean"], keepdims=int(axis_kept)),
             make.make_node("Add", ["mean", "three"], [output])]
    outputs = [make.make_tensor_value_info(output, dtype, kept)]
    if extra:
        nodes.append(make.make_node("Identity", ["mean"], ["other"]))
        outputs.append(make.make_tensor_value_info("other", dtype, kept))
    kind = np.float16 if dtype == 10 else np.float32
    graph = make.make_graph(
        nodes, "depth", [make.make_tensor_value_info("picture", dtype, shape)], outputs,
        [onnx.numpy_helper.from_array(np.array([1]), "axes"), onnx.numpy_helper.from_array(np.array(3, kind), "three")])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=9)
    make.set_model_props(model, properties or {})
    onnx.save(model, path)
    return path


def wanted(tiles):
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return ((tiles / 255.0 - mean) / deviation).mean(-1) + 3


@pytest.mark.parametrize("shape, axis_kept, dtype", [
    (("b", 3, "h", "w"), False, 1), ((2, 3, 28, 28), True, 1), ((1, 3, 28, 28), False, 1), (("b", 3, 28, 28), True, 10)])
def test_batches_sizes_and_types(tmp_path, shape, axis_kept, dtype):
    said = {"pano4d.kind": "metric", "pano4d.geometry": "ray"}
    path = save_model(tmp_path / "m.onnx", shape, axis_kept, said, dtype=dtype)
    estimator = open_estimator(path)
    assert (estimator.name, estimator.kind, estimator.geometry) == ("m.onnx", "metric", "ray")
    depth = estimator(TILES, 80.0)
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, wanted(TILES), rtol=2e-3 if dtype == 10 else 1e-5, atol=1e-5)


def test_another_size_is_resized_both_ways(tmp_path):
    smooth = np.broadcast_to(np.linspace(0, 255, 50)[:, None, None], (1, 50, 50, 3)).astype(np.uint8)
    for shape in ((1, 3, 28, 42), (1, 3, "h", "w")):
        depth = open_estimator(save_model(tmp_path / "m.onnx", shape), "affine-inverse")(smooth, 80.0)
        assert depth.shape == (1, 50, 50)
        np.testing.assert_allclose(depth[:, 5:-5], wanted(smooth)[:, 5:-5], atol=0.1)


def test_options_overrule_the_file(tmp_path):
    path = save_model(tmp_path / "m.onnx", properties={"pano4d.kind": "metric"})
    estimator = open_estimator(path, "affine-inverse", "ray")
    assert (estimator.kind, estimator.geometry, open_estimator(path).geometry) == ("affine-inverse", "ray", "z")


@pytest.mark.parametrize("options, words", [
    ({"shape": ("b", 4, "h", "w")}, r"\[B, 3, h, w\]"),
    ({"extra": True, "output": "first"}, "predicted_depth"), ({}, "--depth-kind"),
    ({"properties": {"pano4d.kind": "guess"}}, "pano4d.kind")])
def test_other_models_are_refused(tmp_path, options, words):
    with pytest.raises(CheckpointError, match=words):
        open_estimator(save_model(tmp_path / "m.onnx", **options))


def test_of_several_outputs_the_one_named_depth_is_taken(tmp_path):
    path = save_model(tmp_path / "m.onnx", extra=True, output="predicted_depth")
    np.testing.assert_allclose(open_estimator(path, "metric")(TILES, 80.0), wanted(TILES), rtol=1e-5, atol=1e-5)


def test_damaged_files_and_failing_models(tmp_path):
    (tmp_path / "noise.onnx").write_bytes(b"no model")
    with pytest.raises(CheckpointError, match="noise.onnx cannot be opened"):
        open_estimator(tmp_path / "noise.onnx")


def test_a_device_that_is_not_there_is_refused_before_anything_is_animated(tmp_path, monkeypatch):
    monkeypatch.setattr("pano4d.lifting.drawing.has_torch", lambda: False)
    path = save_model(tmp_path / "m.onnx")
    with pytest.raises(SettingsError, match="--device cuda needs"):
        DepthSource(None, None, path, "metric", None, 64, 128, 2, "cuda")
    DepthSource(None, None, path, "metric", None, 64, 128, 2, "auto")
    DepthSource(None, None, "prior", None, None, 64, 128, 2, "cuda")
