"""Exported files: small weights, nothing of the building machine, the same bytes each time."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from pano4d.build_engines import onnx_export  # noqa: E402
from pano4d.build_engines.onnx_export import export_onnx  # noqa: E402
from pano4d.runtime.backends.base import TensorSpec  # noqa: E402
from pano4d.runtime.backends.onnxruntime_ import OnnxruntimeEngine  # noqa: E402
from pano4d.runtime.errors import BackendError  # noqa: E402

X, Y = TensorSpec("x", "float32", (3, 32)), TensorSpec("y", "float32", (3, 32))


class Layer(torch.nn.Module):
    """A linear layer, with one weight that float16 cannot hold where asked for."""

    def __init__(self, largest=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(32, 32).requires_grad_(False)
        self.linear.weight[0, 0] = largest

    def forward(self, x):
        return torch.sin(self.linear(x))


def export(path, module=None, precision="fp16"):
    return export_onnx(module or Layer(), {"x": np.ones((3, 32), np.float32)}, [Y], path, precision)


def types(path):
    return sorted(tensor.data_type for tensor in onnx.load(path).graph.initializer)


def test_large_weights_are_stored_as_float16_and_computed_as_float32(tmp_path):
    path, = export(tmp_path / "layer.onnx")
    onnx.checker.check_model(path, full_check=True)
    assert types(path) == [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16]
    x, y = np.random.default_rng(0).standard_normal((3, 32)).astype(np.float32), np.zeros((3, 32), np.float32)
    with OnnxruntimeEngine(path, (X,), (Y,)) as engine:
        engine.run({"x": x, "y": y})
    module = Layer()
    module.linear.weight.data = module.linear.weight.half().float()
    np.testing.assert_allclose(y, module(torch.from_numpy(x)).numpy(), atol=1e-5)


def test_weights_that_float16_cannot_hold_stay(tmp_path):
    path, = export(tmp_path / "layer.onnx", Layer(largest=1e6))
    assert types(path) == [onnx.TensorProto.FLOAT] * 2


def test_fp32_keeps_every_weight(tmp_path):
    path, = export(tmp_path / "layer.onnx", precision="fp32")
    assert types(path) == [onnx.TensorProto.FLOAT] * 2


def test_the_same_module_gives_the_same_bytes_and_no_paths(tmp_path):
    first, second = (export(tmp_path / name)[0].read_bytes() for name in ("layer.onnx", "again.onnx"))
    assert first == second
    assert b".py" not in first and b"site-packages" not in first


def test_many_weights_go_into_a_file_beside(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "_ONE_FILE_BYTES", 1000)
    path, data = export(tmp_path / "layer.onnx")
    assert data.name == "layer.onnx.data" and data.stat().st_size >= 2048 > path.stat().st_size
    OnnxruntimeEngine(path, (X,), (Y,)).close()


def test_a_module_that_cannot_be_exported_is_refused(tmp_path):
    class Branch(torch.nn.Module):
        def forward(self, x):
            return x + 1 if x.sum() > 0 else x - 1

    with pytest.raises(BackendError, match="could not export layer") as caught:
        export(tmp_path / "layer.onnx", Branch())
    assert "\n" not in str(caught.value)
