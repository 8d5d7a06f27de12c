"""What the stand-in does behind TensorRT's names: a class here acts for the class of the same name there.

A plan is a line of JSON and an ONNX model. It is refused, as by TensorRT, where its version or GPU is another one.
"""

import ctypes
import json

import numpy as np
import onnx
import onnxruntime

MAGIC = b"stand-in plan\n"
DATA_TYPES = {"float32": "FLOAT", "float16": "HALF"}
KINDS = {onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.FLOAT16: "HALF", onnx.TensorProto.INT64: "INT64"}
GPU = {"capability": "sm_90", "free": 10**9, "fails": None}
"""The GPU that stands in: tests change it, and what fails there."""
RECORDED: dict[int, list] = {}
"""Streams whose work is being recorded, and what was enqueued there."""
UNSUPPORTED: set[str] = set()
"""Operators that the parser pretends not to know."""

def _report(logger, message):
    logger.log(logger._module.ILogger.Severity.ERROR, message)


def _start(logger, kind):
    """Fail as TensorRT does: it reports an error, and gives nothing or, where CUDA does not start, a thing that crashes."""
    if GPU["fails"] in (kind, f"{kind} crashes"):
        _report(logger, "CUDA initialization failure with error: 35")
    if GPU["fails"] == kind:
        raise TypeError("pybind11::init(): factory function returned nullptr")


def _new(module, name, **state):
    """Make an instance of a class that has no constructor."""
    kind = getattr(module, name)
    made = kind.__new__(kind)
    for key, value in state.items():
        object.__setattr__(made, f"_{key}", value)
    return made


class Runtime:
    def __init__(self, logger):
        self._logger = logger
        _start(logger, "Runtime")

    def deserialize_cuda_engine(self, serialized_engine):
        assert GPU["fails"] != "Runtime crashes", "the process would crash"
        module = self._module
        try:
            if not serialized_engine.startswith(MAGIC):
                raise ValueError("Magic tag does not match")
            line, _, model = serialized_engine[len(MAGIC):].partition(b"\n")
            about = json.loads(line)
            model = onnx.load_model_from_string(model)
        except Exception as error:
            _report(self._logger, f"IRuntime::deserializeCudaEngine: Error Code 1: Serialization\n  ({error})")
            _report(self._logger, "failed due to an error above")
            return None
        compatible = "VERSION_COMPATIBLE" in about["flags"]
        if about["version"] != module.__version__ and not compatible:
            _report(self._logger, "Version tag does not match")
            return None
        if compatible and not self.__dict__.get("_values", {}).get("engine_host_code_allowed"):
            _report(self._logger, "Host code is not allowed")
            return None
        return _new(module, "ICudaEngine", about=about, model=model, logger=self._logger)


class ICudaEngine:
    def _tensors(self):
        return [*self._model.graph.input, *self._model.graph.output]

    def num_io_tensors(self):
        return len(self._tensors())

    def refittable(self):
        return bool({"REFIT", "STRIP_PLAN"} & set(self._about["flags"]))

    def device_memory_size_v2(self):
        return self._about["memory"]

    def streamable_weights_size(self):
        return sum(len(one.raw_data) for one in self._model.graph.initializer)

    def _set_weight_streaming_budget_v2(self, value):
        assert not self._about.get("context"), "the budget is set before there is a context"

    def get_tensor_name(self, index):
        return self._tensors()[index].name

    def _named(self, name):
        return next(one for one in self._tensors() if one.name == name)

    def get_tensor_mode(self, name):
        read = any(one.name == name for one in self._model.graph.input)
        return getattr(self._module.TensorIOMode, "INPUT" if read else "OUTPUT")

    def get_tensor_dtype(self, name):
        return getattr(self._module.DataType, KINDS[self._named(name).type.tensor_type.elem_type])

    def get_tensor_shape(self, name):
        return [one.dim_value for one in self._named(name).type.tensor_type.shape.dim]

    def create_execution_context(self, strategy=None):
        if GPU["fails"] == "context":
            _report(self._logger, "[resizingAllocator.cpp] Requested size was 100 bytes: out of memory")
            return None
        self._about["context"] = True
        managed = strategy == self._module.ExecutionContextAllocationStrategy.USER_MANAGED
        return _new(self._module, "IExecutionContext", engine=self, addresses={}, managed=managed, memory=None)


class IExecutionContext:
    def set_device_memory(self, memory, size):
        assert size >= self._engine.device_memory_size_v2
        ctypes.memset(memory, 7, size)
        self._memory = memory

    def set_tensor_address(self, name, memory):
        known = any(one.name == name for one in self._engine._tensors())
        if known:
            self._addresses[name] = memory
        return known

    def execute_async_v3(self, stream_handle):
        missing = [one.name for one in self._engine._tensors() if one.name not in self._addresses]
        unready = missing or (self._managed and self._memory is None)
        if unready or GPU["fails"] == "execute" or (GPU["fails"] == "capture" and stream_handle in RECORDED):
            _report(self._engine._logger, f"IExecutionContext::enqueueV3: Error Code 3: API Usage Error ({missing} lack)")
            return False
        work = (self._engine, dict(self._addresses))
        if stream_handle in RECORDED:
            RECORDED[stream_handle].append(work)
        else:
            execute(*work)
        return True


class OnnxParserRefitter:
    def __init__(self, refitter, logger):
        self._refitter, self._errors = refitter, []

    def refit_from_file(self, model):
        try:
            given = {one.name: one for one in onnx.load(model).graph.initializer}
        except Exception as error:
            self._errors.append({"desc": f"Failed to parse ONNX model\n {type(error).__name__}"})
            return False
        self._refitter._given = given
        return True

    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return _new(self._module, "ParserError", about=self._errors[index])


class Refitter:
    def __init__(self, engine, logger):
        self._engine, self._given = engine, {}

    def get_missing_weights(self):
        needed = [one.name for one in self._engine._model.graph.initializer if not one.raw_data]
        return [name for name in needed if name not in self._given]

    def refit_cuda_engine(self):
        if GPU["fails"] == "refit":
            return False
        for one in self._engine._model.graph.initializer:
            if one.name in self._given:
                one.CopyFrom(self._given[one.name])
        return True


class ParserError:
    def desc(self):
        return self._about["desc"]

    def node(self):
        return self._about.get("node", -1)

    def node_name(self):
        return self._about.get("name", "")

    def node_operator(self):
        return self._about.get("operator", "")

    def code(self):
        return getattr(self._module.ErrorCode, self._about.get("code", "INTERNAL_ERROR"))


class Builder:
    def __init__(self, logger):
        self._logger = logger
        _start(logger, "Builder")

    def create_network(self, flags=0):
        return _new(self._module, "INetworkDefinition", flags=flags, model=None)

    def create_builder_config(self):
        return _new(self._module, "IBuilderConfig", chosen=set(), pools={}, cache=None)

    def build_serialized_network(self, network, config):
        module = self._module
        if GPU["fails"] == "build":
            _report(self._logger, "Error Code 10: Internal Error (Could not find any implementation for node {a...b}.)")
            return None
        if not network._flags & 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED):
            _report(self._logger, "this stand-in builds strongly typed networks only")
            return None
        monitor = config.__dict__.get("_values", {}).get("progress_monitor")
        if monitor is not None and not _watched(monitor):
            return None
        model = onnx.ModelProto()
        model.CopyFrom(network._model)
        if "STRIP_PLAN" in config._chosen:
            for one in model.graph.initializer:
                one.ClearField("raw_data")
        if config._cache is not None:
            config._cache._content += b" timed"
        about = {"version": module.__version__, "flags": sorted(config._chosen), "memory": 4096, "pools": config._pools,
                 "level": config.__dict__.get("_values", {}).get("builder_optimization_level")}
        plan = MAGIC + json.dumps(about).encode() + b"\n" + model.SerializeToString()
        return module.IHostMemory(plan)


def _watched(monitor):
    """Report phases as TensorRT does; False where the monitor wants to stop."""
    monitor.phase_start("Building Engine", None, 2)
    going = monitor.step_complete("Building Engine", 0)
    if going:
        monitor.phase_start("Timing", "Building Engine", 3)
        going = all(monitor.step_complete("Timing", step) for step in range(3))
        monitor.phase_finish("Timing")
    going = going and monitor.step_complete("Building Engine", 1)
    monitor.phase_finish("Building Engine")
    return going


class INetworkDefinition:
    def num_layers(self):
        return len(self._model.graph.node)


class IBuilderConfig:
    def set_flag(self, flag):
        self._chosen.add(flag.name)

    def clear_flag(self, flag):
        self._chosen.discard(flag.name)

    def set_memory_pool_limit(self, pool, pool_size):
        self._pools[pool.name] = pool_size

    def create_timing_cache(self, serialized_timing_cache):
        if serialized_timing_cache and not serialized_timing_cache.startswith(b"cache"):
            return None
        return _new(self._module, "ITimingCache", content=serialized_timing_cache or b"cache")

    def set_timing_cache(self, cache, ignore_mismatch):
        fits = b"other GPU" not in cache._content
        self._cache = cache if fits else self._cache
        return fits

    def get_timing_cache(self):
        return self._cache


class ITimingCache:
    def serialize(self):
        return self._module.IHostMemory(self._content)


class OnnxParser:
    def __init__(self, network, logger):
        self._network, self._errors = network, []

    def parse_from_file(self, model):
        try:
            loaded = onnx.load(model)
            onnx.checker.check_model(loaded, full_check=True)
        except Exception as error:
            self._errors.append({"desc": f"Failed to parse the model\n {error}", "code": "MODEL_DESERIALIZE_FAILED"})
            return False
        self._errors += [{"desc": f"Assertion failed: importer for {node.op_type}\n not found", "node": index,
                          "name": node.name, "operator": node.op_type, "code": "UNSUPPORTED_NODE"}
                         for index, node in enumerate(loaded.graph.node) if node.op_type in UNSUPPORTED]
        self._network._model = loaded
        return not self._errors

    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return _new(self._module, "ParserError", about=self._errors[index])


def execute(engine, addresses):
    """Run a plan's ONNX on what lies at the addresses."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    if not hasattr(engine, "_session") or engine._session[0] is not engine._model:
        session = onnxruntime.InferenceSession(engine._model.SerializeToString(), options)
        object.__setattr__(engine, "_session", (engine._model, session))
    views = {}
    for one in engine._tensors():
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(one.type.tensor_type.elem_type))
        shape = engine.get_tensor_shape(one.name)
        memory = (ctypes.c_char * (int(np.prod(shape)) * dtype.itemsize)).from_address(addresses[one.name])
        views[one.name] = np.frombuffer(memory, dtype).reshape(shape)
    outputs = [one.name for one in engine._model.graph.output]
    results = engine._session[1].run(outputs, {one.name: views[one.name] for one in engine._model.graph.input})
    for name, result in zip(outputs, results):
        views[name][...] = result


def reset():
    """Forget what a test has changed."""
    GPU.update({"fails": None})
    UNSUPPORTED.clear()
    RECORDED.clear()
