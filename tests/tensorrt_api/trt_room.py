"""A machine with TensorRT and a GPU, of which nothing is real: host memory, and a driver that records graphs."""

import enum
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import trt_behaviour as behaviour
import trt_stand_in
from onnx import helper


def _host_device():
    path = Path(__file__).parent.parent / "runtime" / "kernels" / "host_device.py"
    spec = importlib.util.spec_from_file_location("host_device", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.HostDevice, module.host_kernels


HostDevice, host_kernels = _host_device()


class RoomDevice(HostDevice):
    """What engines use of a `Device`, in host memory."""

    stream, name, ordinal, cuda = 1, "stand-in GPU", 0, "13.0"
    opened = 0

    def __init__(self):
        super().__init__()
        self.arch = behaviour.GPU["capability"]
        RoomDevice.opened += 1

    def driver_cuda(self):
        return self.cuda

    def memory(self):
        return behaviour.GPU["free"], 10**9

    def activate(self):
        assert self.blocks is not None, "closed"

    settle = activate

    def copy(self, source, target, stream=None):
        super().copy(source, target)

    def close(self):
        RoomDevice.opened -= 1 if self.blocks is not None else 0
        self.blocks = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Driver:
    """The part of the CUDA driver that records graphs; ``fails`` names a function that reports an error."""

    class CUresult(enum.IntEnum):
        CUDA_SUCCESS = 0
        CUDA_ERROR_OUT_OF_MEMORY = 2
        CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900

    class CUstreamCaptureMode(enum.IntEnum):
        CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1

    def __init__(self):
        self.fails, self.code, self.live, self.launches = None, self.CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, set(), 0

    def _give(self, name, *results):
        return (self.code, *[None for _ in results]) if self.fails == name else (self.CUresult.CUDA_SUCCESS, *results)

    def cuGetErrorString(self, code):
        return self.CUresult.CUDA_SUCCESS, b"operation not permitted"

    def cuStreamBeginCapture(self, stream, mode):
        assert stream > 0 and stream not in behaviour.RECORDED
        if self.fails != "cuStreamBeginCapture":
            behaviour.RECORDED[stream] = []
        return self._give("cuStreamBeginCapture")

    def cuStreamEndCapture(self, stream):
        graph = Handle(behaviour.RECORDED.pop(stream))
        self.live.add(graph)
        return self._give("cuStreamEndCapture", graph)

    def cuGraphInstantiate(self, graph, flags):
        made = Handle(graph.work)
        self.live.add(made)
        return self._give("cuGraphInstantiate", made)

    def cuGraphLaunch(self, graph, stream):
        assert graph in self.live
        self.launches += 1
        for work in graph.work:
            behaviour.execute(*work)
        return self._give("cuGraphLaunch")

    def cuGraphDestroy(self, graph):
        self.live.remove(graph)
        return self._give("cuGraphDestroy")

    cuGraphExecDestroy = cuGraphDestroy


class Handle:
    """A graph, or an executable one."""

    def __init__(self, work):
        self.work = work


class Room:
    """What tests reach of it.

    Attributes:
        trt: TensorRT.
        lean: Its lean runtime.
        gpu: What the GPU is and what fails there, to be changed.
        driver: The driver.
        unsupported: Operators that the parser does not know, to be changed.
        recorded: Streams that are being recorded.
    """

    def __init__(self, release, monkeypatch):
        self.trt, self.lean = trt_stand_in.make(release), trt_stand_in.make(release, "tensorrt_lean")
        self.gpu, self.driver, self.device = behaviour.GPU, Driver(), RoomDevice
        self.monkeypatch, self.unsupported, self.recorded = monkeypatch, behaviour.UNSUPPORTED, behaviour.RECORDED
        monkeypatch.setitem(behaviour.GPU, "capability", "sm_90")
        monkeypatch.setitem(behaviour.GPU, "free", 10**9)
        monkeypatch.setattr(RoomDevice, "opened", 0)
        for module in ("tensorrt_", "tensorrt_target"):
            monkeypatch.setattr(f"pano4d.runtime.backends.{module}.Device", RoomDevice)
        for module in ("device", "graph"):
            monkeypatch.setattr(f"pano4d.runtime.{module}.driver", lambda: self.driver)
        self.version = self.trt.__version__

    def install(self, *modules):
        """Choose which of ``trt`` and ``lean`` can be imported."""
        for name in ("tensorrt", "tensorrt_lean"):
            found = next((module for module in modules if module.__name__ == name), None)
            self.monkeypatch.setitem(sys.modules, name, found)

    def write_plan(self, path, model, flags=(), version=None):
        """Write a plan of a model, as the builder does; stripped of its weights with STRIP_PLAN."""
        kept = onnx.ModelProto()
        kept.CopyFrom(model)
        if "STRIP_PLAN" in flags:
            for one in kept.graph.initializer:
                one.ClearField("raw_data")
        about = {"version": version or self.version, "flags": list(flags), "memory": 4096}
        path.write_bytes(behaviour.MAGIC + json.dumps(about).encode() + b"\n" + kept.SerializeToString())
        return path


def scaled(factor=2.0, dtype="float32"):
    """Make a model that multiplies x [2, 3] by a weight of the same shape."""
    kind = {"float32": onnx.TensorProto.FLOAT, "float16": onnx.TensorProto.FLOAT16}[dtype]
    x, y = (helper.make_tensor_value_info(name, kind, [2, 3]) for name in "xy")
    weight = onnx.numpy_helper.from_array(np.full((2, 3), factor, dtype), "weight")
    node = helper.make_node("Mul", ["x", "weight"], ["y"], name="product")
    graph = helper.make_graph([node], "scaled", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
