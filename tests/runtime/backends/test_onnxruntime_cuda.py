"""The CUDA provider of onnxruntime, stood in for by a session of the CPU on the memory behind the pointers."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from pano4d.runtime.backends import onnxruntime_cuda
from pano4d.runtime.backends.base import TensorSpec
from pano4d.runtime.device import DeviceArray
from pano4d.runtime.errors import BackendError, DeviceMemoryError

onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
X, Y = TensorSpec("x", "float32", (2, 3)), TensorSpec("y", "float32", (2, 3))


@pytest.fixture
def made(tmp_path, monkeypatch):
    tensors = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 3]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "x"], ["y"])], "double", tensors[:1], tensors[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10),
              tmp_path / "double.onnx")
    log = SimpleNamespace(calls=[], providers=[onnxruntime_cuda.PROVIDER], fails=None)

    class Session:
        def __init__(self, path, options, providers, enable_fallback):
            (name, chosen), = providers
            assert (name, enable_fallback, chosen["user_compute_stream"]) == (onnxruntime_cuda.PROVIDER, 0, "7")
            log.chosen = chosen
            assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
            self.real = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
            self.get_inputs, self.get_outputs = self.real.get_inputs, self.real.get_outputs

        def get_providers(self):
            return log.providers

        def io_binding(self):
            binding = self.real.io_binding()
            bind = lambda to: lambda name, kind, number, *rest: (  # noqa: E731
                log.calls.append((name, kind, rest[-1])), to(name, "cpu", 0, *rest))
            return SimpleNamespace(real=binding, bind_input=bind(binding.bind_input), bind_output=bind(binding.bind_output))

        def run_with_iobinding(self, binding, options):
            if log.fails:
                raise RuntimeError(log.fails)
            log.calls.append("run")
            self.real.run_with_iobinding(binding.real)

    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(
        InferenceSession=Session, SessionOptions=ort.SessionOptions, RunOptions=ort.RunOptions,
        preload_dlls=lambda: print("Failed to load libcudnn.so")))
    device = log.device = SimpleNamespace(
        ordinal=0, stream=7, activate=lambda: None, close=lambda: log.calls.append("close"),
        synchronize=lambda: log.calls.append("wait"), chain=lambda first, then: log.calls.append((first, then)))
    described = log.described = SimpleNamespace(path=tmp_path / "double.onnx", inputs=(X,), outputs=(Y,))
    return lambda: onnxruntime_cuda.OnnxruntimeCudaEngine(described, device), log


def arrays():
    x, y = np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((2, 3), np.float32)
    return x, y, {n: DeviceArray(a.ctypes.data, a.shape, a.dtype, a) for n, a in (("x", x), ("y", y))}


def test_it_binds_the_pointers_and_orders_the_streams(made):
    make, log = made
    x, y, buffers = arrays()
    make().run(buffers, 5)
    np.testing.assert_array_equal(y, 2 * x)
    assert log.calls == [("x", "cuda", x.ctypes.data), ("y", "cuda", y.ctypes.data), (5, 7), "run", (7, 5)]


def test_nothing_is_printed_while_libraries_are_looked_for(made, capsys):
    made[0]()
    assert capsys.readouterr() == ("", "")


def test_only_another_device_than_the_first_is_named(made):
    """onnxruntime looks for a plugin of a device that is named, and prints a warning where there is none."""
    make, log = made
    make()
    assert "device_id" not in log.chosen
    log.device.ordinal = 2
    make()
    assert log.chosen["device_id"] == "2"


@pytest.mark.parametrize("dtype, tf32", [("float32", "0"), ("float16", None)])
def test_float32_is_not_rounded_and_float16_keeps_its_tensor_cores(made, dtype, tf32):
    make, log = made
    described = SimpleNamespace(outputs=(TensorSpec("y", dtype, (2, 3)),))
    assert onnxruntime_cuda._provider_options(described, log.device).get("use_tf32") == tf32


def test_other_tensors_than_the_manifest_says_are_refused(made):
    make, log = made
    log.described.inputs = (TensorSpec("x", "float32", (3, 2)),)
    with pytest.raises(BackendError, match="its manifest says"):
        make()


@pytest.mark.parametrize("spoil, said", [
    (lambda buffers: buffers.pop("y"), "needs a buffer named 'y'"),
    (lambda buffers: buffers.update(x=DeviceArray(1, (3, 2), np.dtype("float32"), None)), r"'x' is float32 \[3, 2\]"),
    (lambda buffers: buffers.update(x=DeviceArray(1, (2, 3), np.dtype("float16"), None)), "'x' is float16"),
    (lambda buffers: buffers.update(x=np.zeros((2, 3), np.float32)), "A GPU array was needed")])
def test_buffers_that_do_not_fit_are_refused_before_they_are_bound(made, spoil, said):
    make, log = made
    buffers = arrays()[2]
    spoil(buffers)
    with pytest.raises(BackendError, match=said):
        make().run(buffers, 5)
    assert log.calls == []


def test_closing_waits_and_gives_the_device_back_once(made):
    make, log = made
    engine = make()
    engine.close(), engine.close()
    assert log.calls == ["wait", "close"]


def test_an_engine_of_another_kind_is_refused(made):
    made[1].described.path = made[1].described.path.with_suffix(".plan")
    with pytest.raises(BackendError, match="double.plan is no ONNX engine"):
        onnxruntime_cuda.load(SimpleNamespace(network=lambda name: made[1].described), "double")


def test_falling_back_to_the_cpu_is_refused(made):
    make, log = made
    log.providers = ["CPUExecutionProvider"]
    with pytest.raises(BackendError, match="fell back to the CPU"):
        make()


@pytest.mark.parametrize("fails, kind", [("Failed to allocate memory for requested buffer", DeviceMemoryError),
                                         ("CUDA failure 700", BackendError)])
def test_failures_are_told_in_one_sentence(made, fails, kind):
    make, log = made
    log.fails = fails
    with pytest.raises(BackendError) as caught:
        make().run(arrays()[2], 5)
    assert type(caught.value) is kind and "\n" not in str(caught.value)


@pytest.mark.parametrize("providers, detail", [(["CPUExecutionProvider"], "has no CUDA"),
                                               ([onnxruntime_cuda.PROVIDER], "no NVIDIA GPU")])
def test_it_says_what_is_missing(monkeypatch, providers, detail):
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(__version__="1.32.0",
                                                                    get_available_providers=lambda: providers))
    monkeypatch.setattr(onnxruntime_cuda, "driver", lambda: (_ for _ in ()).throw(BackendError("none")))
    found = onnxruntime_cuda.available()
    assert not found.ok and detail in found.detail and found.remedy


@pytest.mark.gpu
def test_it_computes_on_the_gpu(made, monkeypatch, gpu):
    monkeypatch.setitem(sys.modules, "onnxruntime", ort)
    if onnxruntime_cuda.PROVIDER not in ort.get_available_providers():
        pytest.skip("onnxruntime has no CUDAExecutionProvider")
    described = made[1].described
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    with onnxruntime_cuda.load(SimpleNamespace(network=lambda name: described), "double") as engine:
        buffers = {"x": gpu.upload(x), "y": gpu.zeros((2, 3), "float32")}
        engine.run(buffers, gpu.stream)
        np.testing.assert_array_equal(gpu.download(buffers["y"]), 2 * x)
