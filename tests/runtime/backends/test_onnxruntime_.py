"""The onnxruntime backend on a network of one operator."""

from types import SimpleNamespace

import numpy as np
import pytest

from pano4d.runtime.backends import onnxruntime_
from pano4d.runtime.backends.base import TensorSpec
from pano4d.runtime.errors import BackendError

onnx = pytest.importorskip("onnx")
X, Y = TensorSpec("x", "float32", (2, 3)), TensorSpec("y", "float32", (2, 3))


@pytest.fixture
def path(tmp_path):
    """A network that doubles its input."""
    tensors = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 3]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "x"], ["y"])], "double", tensors[:1], tensors[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "double.onnx")
    return tmp_path / "double.onnx"


def load(path, inputs=(X,), outputs=(Y,)):
    described = SimpleNamespace(path=path, inputs=inputs, outputs=outputs)
    bundle = SimpleNamespace(network=lambda name: described, manifest={"backend": {"name": "tensorrt"}})
    return onnxruntime_.load(bundle, "double")


def test_it_writes_into_the_buffers_it_is_given(path):
    buffers = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "y": np.zeros((2, 3), np.float32)}
    y = buffers["y"]
    with load(path) as engine:
        for _ in range(2):
            engine.run(buffers)
            assert buffers["y"] is y
            np.testing.assert_array_equal(y, 2 * buffers["x"])
            buffers["x"] += 1


def test_tensors_that_differ_from_the_manifest_are_refused(path):
    with pytest.raises(BackendError, match="its manifest says"):
        load(path, inputs=(TensorSpec("x", "float32", (2, 4)),))


def test_a_damaged_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BackendError, match="cannot load .*double.onnx") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_another_kind_of_engine_is_refused(tmp_path):
    with pytest.raises(BackendError, match="unet.plan is no ONNX engine: use --backend tensorrt"):
        load(tmp_path / "unet.plan")


def test_without_onnxruntime_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    found = onnxruntime_.available()
    assert not found.ok and found.remedy == "pip install onnxruntime"
