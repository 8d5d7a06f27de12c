"""Every name and every call of TensorRT in our code exists in the real bindings of 10.16 and of 11.4."""

import re
from dataclasses import replace

import pytest
import trt_bindings
from trt_signatures import parse
from trt_usage import Use, collect, faults

RUNS = ("runtime/backends/tensorrt_bindings.py", "runtime/backends/tensorrt_.py", "runtime/backends/tensorrt_target.py")
BUILDS = ("build_engines/tensorrt_build.py",)
LEAN_LACKS = {"OnnxParserRefitter", "ParserError"}
"""What the lean runtime does not have and a version-compatible plan does not need: weights are given to the others only."""

CALLS = {
    "Builder.__init__(1)", "Builder.build_serialized_network(2)", "Builder.create_builder_config(0)",
    "Builder.create_network(1)", "IBuilderConfig.clear_flag(1)", "IBuilderConfig.create_timing_cache(1)",
    "IBuilderConfig.get_timing_cache(0)", "IBuilderConfig.set_flag(1)", "IBuilderConfig.set_memory_pool_limit(2)",
    "IBuilderConfig.set_timing_cache(2)", "IProgressMonitor.__init__(0)", "ITimingCache.serialize(0)",
    "OnnxParser.__init__(2)", "OnnxParser.get_error(1)", "OnnxParser.parse_from_file(1)", "ParserError.code(0)",
    "ParserError.node(0)", "ParserError.node_name(0)", "ParserError.node_operator(0)",
    "ICudaEngine.create_execution_context(1)", "ICudaEngine.get_tensor_dtype(1)", "ICudaEngine.get_tensor_mode(1)",
    "ICudaEngine.get_tensor_name(1)", "ICudaEngine.get_tensor_shape(1)",
    "IExecutionContext.execute_async_v3(1)",
    "IExecutionContext.set_device_memory(2)", "IExecutionContext.set_tensor_address(2)", "ILogger.__init__(0)",
    "OnnxParserRefitter.__init__(2)", "OnnxParserRefitter.get_error(1)", "OnnxParserRefitter.refit_from_file(1)",
    "ParserError.desc(0)", "Refitter.__init__(2)", "Refitter.get_missing_weights(0)", "Refitter.refit_cuda_engine(0)",
    "Runtime.__init__(1)", "Runtime.deserialize_cuda_engine(1)",
}
"""Every call, with the number of its arguments and the names of those that are given by name."""


@pytest.fixture(scope="module")
def uses(root):
    """What our code uses."""
    return uses_of(root, *RUNS, *BUILDS)


def uses_of(root, *sources):
    """List what is used in some files."""
    dumped = trt_bindings.committed("11.4")["tensorrt"]
    return sorted({use for source in sources for use in collect((root / source).read_text(encoding="utf-8"), dumped)})


@pytest.fixture(scope="module")
def text(root):
    """The source of the backend."""
    return (root / "runtime/backends/tensorrt_.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", trt_bindings.PACKAGES)
@pytest.mark.parametrize("release", trt_bindings.VERSIONS)
def test_the_dumps_are_those_of_the_real_bindings(release, module):
    try:
        folder = trt_bindings.fetch(release, module)
    except trt_bindings.NotToBeHad as reason:
        pytest.skip(str(reason))
    kept = trt_bindings.committed(release)
    assert trt_bindings.dump(folder, module) == kept[module]
    assert kept["source"][module].endswith(kept[module]["version"])


@pytest.mark.parametrize("release", trt_bindings.VERSIONS)
def test_all_that_is_used_is_there(uses, root, release):
    dumped = trt_bindings.committed(release)
    assert faults(uses, dumped["tensorrt"]) == []
    lean = [use for use in uses_of(root, *RUNS) if LEAN_LACKS.isdisjoint((use.owner, use.name))]
    assert len(lean) > 20 and faults(lean, dumped["tensorrt_lean"]) == []


def test_no_other_module_of_ours_uses_tensorrt(root):
    """Whoever imports it by its name, or through ``find``, stands in the lists above."""
    ours = {str(path.relative_to(root)) for room in ("runtime", "build_engines", "lifting")
            for path in (root / room).rglob("*.py")
            if re.search(r"import tensorrt\b|\btrt\.|find\(\)\.(?!__version__)", path.read_text(encoding="utf-8"))}
    assert ours == {*RUNS, *BUILDS}


def test_the_calls_are_those_that_are_listed(uses):
    assert {_said(use) for use in uses if use.how == "call"} == CALLS


@pytest.mark.parametrize("before, after, fault", [
    ("set_tensor_address(", "set_tensor_adress(", "IExecutionContext.set_tensor_adress is not called so"),
    ("execute_async_v3(stream)", "execute_async_v3(stream, 0)", "execute_async_v3 is not called so: 2 arguments"),
    ("execute_async_v3(stream)", "execute_async_v3(stream=stream)", "execute_async_v3 is not called so: 0 arguments"),
    ("set_device_memory(", "set_device_memory_v2(", "IExecutionContext.set_device_memory_v2 is not called so"),
    ("engine.refittable:", "engine.refittable():", "ICudaEngine.refittable is not called so"),
    ("engine_host_code_allowed", "host_code_allowed", "Runtime.host_code_allowed cannot be set"),
    ("weight_streaming_budget_v2 =", "device_memory_size_v2 =", "ICudaEngine.device_memory_size_v2 cannot be set"),
    ("trt.DataType.HALF", "trt.DataType.FLOAT16", "DataType.FLOAT16 does not exist"),
    (".USER_MANAGED", ".USER", "ExecutionContextAllocationStrategy.USER does not exist"),
    ("trt.Refitter(", "trt.ReFitter(", "there is no ReFitter"),
    ("refitter, self._log)", "refitter)", "OnnxParserRefitter.__init__ is not called so: 1 arguments"),
])
def test_a_slip_in_the_backend_is_found(text, before, after, fault):
    assert before in text
    dumped = trt_bindings.committed("11.4")["tensorrt"]
    found = faults(collect(text.replace(before, after), dumped), dumped)
    assert any(re.search(fault, one) for one in found), found


@pytest.mark.parametrize("before, after, fault", [
    ("STRONGLY_TYPED", "EXPLICIT_BATCH", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH does not exist"),
    ("trt.BuilderFlag.REFIT]", "trt.BuilderFlag.FP16]", "BuilderFlag.FP16 does not exist"),
    ("cache, False)", "cache)", "IBuilderConfig.set_timing_cache is not called so: 1 arguments"),
    ("builder_optimization_level =", "optimization_level =", "IBuilderConfig.optimization_level cannot be set"),
    (", num_steps: int)", ")", "IProgressMonitor.phase_start is overridden with 2 parameters"),
    ("def phase_finish(", "def phase_end(", "is derived from without ['phase_finish']"),
    ("build_serialized_network(network, config)", "build_engine(network, config)", "Builder.build_engine is not called so"),
])
def test_a_slip_in_the_builder_is_found(root, before, after, fault):
    text = (root / BUILDS[0]).read_text(encoding="utf-8")
    assert before in text
    dumped = trt_bindings.committed("11.4")["tensorrt"]
    found = faults(collect(text.replace(before, after), dumped), dumped)
    assert any(fault in one for one in found), found


@pytest.mark.parametrize("change, fault", [
    (("def log(self, severity: Any, msg: str)", "def log(self, severity: Any)"), "log is overridden with 1 parameters"),
    (("def log(self", "def tell(self"), "is derived from without ['log']"),
])
def test_a_slip_in_a_class_of_ours_is_found(root, change, fault):
    text = (root / "runtime/backends/tensorrt_bindings.py").read_text(encoding="utf-8")
    dumped = trt_bindings.committed("11.4")["tensorrt"]
    assert any(fault in one for one in faults(collect(text.replace(*change), dumped), dumped))


@pytest.mark.parametrize("owner, name", [("IExecutionContext", "execute_async_v3"), ("ICudaEngine", "device_memory_size_v2"),
                                         ("DataType", "HALF"), ("Refitter", None)])
def test_a_name_that_tensorrt_gives_up_is_found(uses, owner, name):
    dumped = trt_bindings.committed("11.4")["tensorrt"]
    if name is None:
        del dumped["classes"][owner]
    else:
        for part in ("methods", "properties", "enum"):
            dumped["classes"][owner].get(part, {}).pop(name, None)
    assert any(owner in one and (name or "") in one for one in faults(uses, dumped))


def test_a_call_nobody_can_type_is_refused(text):
    dumped = trt_bindings.committed("11.4")["tensorrt"]
    with pytest.raises(AssertionError, match="execute_async_v3"):
        collect("def f(thing):\n    thing.execute_async_v3(1)\n", dumped)


def test_signatures_are_read():
    text = "f(self: C, a: list[tuple[int, str]], b: C.D = <D.X: 0>, c: str = None) -> tuple[list[str], bool]"
    made = parse(text)
    assert [(one.name, one.optional) for one in made.parameters] == [("a", False), ("b", True), ("c", True)]
    assert made.returns == "tuple[list[str], bool]"
    assert made.takes(1, ()) and made.takes(2, ("c",)) and made.takes(0, ("a", "c"))
    assert not made.takes(0, ()) and not made.takes(4, ()) and not made.takes(1, ("a",)) and not made.takes(1, ("d",))


def test_a_use_is_told_apart():
    one = Use("C", "f", "call", 1)
    assert faults([one, replace(one, positional=2)], {"classes": {"C": {"methods": {"f": ["f(self: C, a: int) -> None"]}}},
                                                      "values": {}}) == ["C.f is not called so: 2 arguments and []"]


def _said(use):
    return f"{use.owner}.{use.name}({', '.join([str(use.positional), *use.keywords])})"

