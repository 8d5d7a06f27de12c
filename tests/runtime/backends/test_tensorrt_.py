"""The TensorRT backend on a plan of one operator; TensorRT, of either version, and the GPU are stand-ins."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from pano4d.runtime import inspection
from pano4d.runtime.backends import tensorrt_
from pano4d.runtime.backends.base import NETWORKS, Availability, TensorSpec
from pano4d.runtime.backends.tensorrt_bindings import find
from pano4d.runtime.errors import BackendError, DeviceMemoryError

onnx = pytest.importorskip("onnx")


@pytest.fixture
def room(tensorrt_room):
    """TensorRT is installed, and its lean runtime is not."""
    tensorrt_room.install(tensorrt_room.trt)
    return tensorrt_room


@pytest.fixture
def scaled(room):
    """Makes the model that multiplies its input."""
    import trt_room

    return trt_room.scaled


def bundle_of(room, path, dtype="float32", version=None, extra=(), target=(), **plan):
    """Describe a bundle whose only network is the plan."""
    spec = {name: (TensorSpec(name, dtype, (2, 3)),) for name in "xy"}
    described = SimpleNamespace(path=path, inputs=spec["x"], outputs=spec["y"])
    manifest = {"backend": {"name": "tensorrt", "version": version or room.version},
                "target": {"device": "cuda", "compute_capability": "9.0", "cuda": "13.0", "plan": plan} | dict(target),
                "networks": {"scaled": {"extra_files": [{"file": name} for name in extra]}}}
    return SimpleNamespace(network=lambda name: described, manifest=manifest, path=path.parent)


@pytest.fixture
def bundle(room, scaled, tmp_path):
    """A bundle that doubles."""
    return bundle_of(room, room.write_plan(tmp_path / "scaled.plan", scaled()))


def run(engine, values, **options):
    """Run an engine on values, in buffers of its own."""
    buffers = engine.allocate()
    engine.write(buffers["x"], np.full((2, 3), values, engine.inputs[0].dtype))
    engine.run(buffers, **options)
    return engine.read(buffers["y"])


@pytest.mark.parametrize("graph", [True, False])
def test_it_writes_into_the_buffers_it_is_given(room, bundle, graph):
    with tensorrt_.load(bundle, "scaled", graph=graph) as engine:
        assert (engine.device, engine.workspace_bytes) == ("cuda", 4096 + (48 if graph else 0))
        first, second = engine.allocate(), engine.allocate()
        for factor, buffers in enumerate((first, second, first), 1):
            engine.write(buffers["x"], np.full((2, 3), factor, np.float32))
            engine.run(buffers, 7)
            np.testing.assert_array_equal(engine.read(buffers["y"]), np.full((2, 3), 2 * factor))
        assert room.driver.launches == (3 if graph else 0)
    assert not room.driver.live and not room.device.opened


def test_a_plan_in_float16(room, scaled, tmp_path):
    path = room.write_plan(tmp_path / "scaled.plan", scaled(0.5, "float16"))
    with tensorrt_.load(bundle_of(room, path, "float16"), "scaled") as engine:
        assert run(engine, 3).dtype == np.float16 and (run(engine, 3) == 1.5).all()


@pytest.mark.parametrize("failing", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", None])
def test_what_cannot_be_recorded_runs_without_a_graph(room, bundle, failing):
    room.driver.fails = failing
    room.gpu["fails"] = None if failing else "capture"
    with tensorrt_.load(bundle, "scaled") as engine:
        for _ in range(2):
            np.testing.assert_array_equal(run(engine, 3), np.full((2, 3), 6))
    assert room.driver.launches == 0 and not room.recorded


def test_a_full_gpu_is_told_even_while_recording(room, bundle):
    room.driver.fails, room.driver.code = "cuGraphInstantiate", room.driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY
    with tensorrt_.load(bundle, "scaled") as engine, pytest.raises(DeviceMemoryError):
        run(engine, 1)


@pytest.mark.parametrize("wrong", [np.zeros((2, 3), np.float32), None, "shape"], ids=["host", "missing", "shape"])
def test_buffers_that_do_not_fit_are_refused(bundle, wrong):
    with tensorrt_.load(bundle, "scaled") as engine:
        buffers = engine.allocate()
        buffers["x"] = buffers["y"][0] if isinstance(wrong, str) else wrong
        with pytest.raises(BackendError, match="'x'"):
            engine.run(buffers)


def test_a_damaged_plan_is_refused(room, bundle):
    path = bundle.network("scaled").path
    path.write_bytes(path.read_bytes()[9:])
    with pytest.raises(BackendError, match=r"^TensorRT \S+ cannot load \S+scaled.plan \(it is damaged, or no plan for this TensorRT"
                                           r"\): build the bundle again with `pano4d build --force`.\n") as caught:
        tensorrt_.load(bundle, "scaled")
    note, = caught.value.__notes__
    assert note.startswith("TensorRT said: IRuntime::deserializeCudaEngine") and note.endswith("due to an error above")
    assert not room.device.opened


@pytest.mark.parametrize("report, words, remedy", [
    ("IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion header.magicTag == "
     "kEXPECTED_MAGIC_TAG failed.Trying to load an engine created with incompatible serialization version", "it is damaged, or",
     "--force"),
    ("IRuntime::deserializeCudaEngine: Error Code 3: API Usage Error (Cannot deserialize with an empty memory buffer. In "
     "deserializeCudaEngineEx at /_src/runtime/dispatch/runtime.cpp:278)", "it is empty", "--force"),
    ("IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion header.pad == "
     "expectedPlatformTag failed.Platform specific tag mismatch detected. TensorRT plan files are only supported on the "
     "target runtime platform they were created on.", "it was built under another operating system", "--backend tensorrt"),
    ("IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion stdVersionRead == "
     "kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: 239, Serialized Engine Version: 228)",
     "it was built by another version of TensorRT than its manifest says", "--backend tensorrt"),
    ("A report that nobody knows (with a bracket, and words upon words " + "upon words " * 30, "upon ...)", "--force"),
])
def test_reports_of_plans_that_do_not_load_become_a_short_sentence(room, bundle, report, words, remedy, monkeypatch):
    def refuses(runtime, plan):
        runtime._logger.log(room.trt.ILogger.Severity.ERROR, report)

    monkeypatch.setattr(room.trt.Runtime, "deserialize_cuda_engine", refuses)
    with pytest.raises(BackendError) as caught:
        tensorrt_.load(bundle, "scaled")
    said = str(caught.value)
    assert words in said and remedy in said and said.count("(") == said.count(")")
    assert len(said) < 260 + len(str(bundle.path)) and report in caught.value.__notes__[0]


def test_a_cut_plan_is_refused(room, bundle):
    path = bundle.network("scaled").path
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BackendError, match="cannot load"):
        tensorrt_.load(bundle, "scaled")
    assert not room.device.opened


@pytest.mark.parametrize("target, words", [
    ({"compute_capability": "8.0"}, "built for a GPU of compute capability 8.0 and this machine's stand-in GPU has 9.0"),
    ({"cuda": "14.1"}, "under a driver for CUDA 14.1 and this machine's is for CUDA 13.0: install a newer NVIDIA driver"),
])
def test_another_machine_is_told_before_anything_is_read(room, bundle, target, words, monkeypatch):
    bundle.manifest["target"] |= target
    monkeypatch.setattr(tensorrt_.TensorrtEngine, "_deserialise", None)
    with pytest.raises(BackendError, match=words):
        tensorrt_.load(bundle, "scaled")
    assert not room.device.opened


def test_another_version_is_told_before_anything_is_read(room, bundle, monkeypatch):
    bundle.manifest["backend"]["version"] = "10.99.0.1"
    monkeypatch.setattr(tensorrt_.TensorrtEngine, "_deserialise", None)
    with pytest.raises(BackendError, match=f"built with TensorRT 10.99.0.1 and this is TensorRT {room.version}, which is not "
                                           "exactly 10.99.0.1: pip install 'tensorrt-cu13==10.99.0.1'"):
        tensorrt_.load(bundle, "scaled")


def test_an_older_version_compatible_plan_runs(room, scaled, tmp_path):
    path = room.write_plan(tmp_path / "scaled.plan", scaled(), ["VERSION_COMPATIBLE"], "10.16.0.72")
    with tensorrt_.load(bundle_of(room, path, version="10.16.0.72", version_compatible=True), "scaled") as engine:
        assert (run(engine, 1) == 2).all()


@pytest.mark.parametrize("distance", [1, -2])
def test_a_version_compatible_plan_of_a_newer_or_much_older_one_is_refused(room, scaled, tmp_path, distance):
    built = f"{int(room.version.split('.')[0]) + distance}.0.0.1"
    path = room.write_plan(tmp_path / "scaled.plan", scaled(), ["VERSION_COMPATIBLE"], built)
    with pytest.raises(BackendError, match=f"which is not {built} or newer"):
        tensorrt_.load(bundle_of(room, path, version=built, version_compatible=True), "scaled")


def test_the_lean_runtime_runs_version_compatible_plans_alone(room, scaled, tmp_path):
    room.install(room.lean)
    plan = room.write_plan(tmp_path / "scaled.plan", scaled(), ["VERSION_COMPATIBLE"])
    with tensorrt_.load(bundle_of(room, plan, version_compatible=True), "scaled") as engine:
        assert engine._trt is room.lean and (run(engine, 1) == 2).all()
    with pytest.raises(BackendError, match=f"scaled.plan needs all of TensorRT {room.version}, since it was not built with "
                                           f"--version-compatible, and only the lean runtime {room.version} is installed: pip "):
        tensorrt_.load(bundle_of(room, plan), "scaled")
    room.install()
    with pytest.raises(BackendError, match="the Python module tensorrt is not installed"):
        tensorrt_.load(bundle_of(room, plan), "scaled")


def test_a_stripped_plan_takes_its_weights_from_the_bundle(room, scaled, tmp_path):
    path = room.write_plan(tmp_path / "scaled.plan", scaled(5.0), ["STRIP_PLAN", "REFIT"])
    onnx.save(scaled(5.0), tmp_path / "scaled.onnx")
    with tensorrt_.load(bundle_of(room, path, extra=["scaled.onnx"], stripped=True), "scaled") as engine:
        assert (run(engine, 1) == 5).all()
    with pytest.raises(BackendError, match="stripped of its weights, and the bundle does not hold them"):
        tensorrt_.load(bundle_of(room, path, stripped=True), "scaled")


def test_other_weights_are_taken_at_load(room, scaled, tmp_path):
    path = room.write_plan(tmp_path / "scaled.plan", scaled(), ["REFIT"])
    onnx.save(scaled(7.0), tmp_path / "other.onnx")
    with tensorrt_.load(bundle_of(room, path, refittable=True), "scaled", tmp_path / "other.onnx") as engine:
        assert (run(engine, 1) == 7).all()


def test_a_plan_that_was_only_stripped_takes_no_other_weights(room, scaled, tmp_path):
    """Its kernels may rely on the weights it was built with."""
    path = room.write_plan(tmp_path / "scaled.plan", scaled(), ["STRIP_PLAN", "REFIT_IDENTICAL"])
    with pytest.raises(BackendError, match="scaled.plan takes no weights but its own, and .*other.onnx was given.*--refit"):
        tensorrt_.load(bundle_of(room, path, stripped=True), "scaled", tmp_path / "other.onnx")


def test_weights_that_do_not_fit_are_refused(room, scaled, tmp_path):
    plain = room.write_plan(tmp_path / "plain.plan", scaled())
    path = room.write_plan(tmp_path / "scaled.plan", scaled(), ["STRIP_PLAN"])
    other = scaled()
    other.graph.initializer[0].name = "elsewhere"
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(BackendError, match="plain.plan takes no weights, though its manifest says so"):
        tensorrt_.load(bundle_of(room, plain, refittable=True), "scaled", tmp_path / "other.onnx")
    with pytest.raises(BackendError, match="other.onnx lacks 1 weights of scaled.plan, such as weight"):
        tensorrt_.load(bundle_of(room, path, refittable=True), "scaled", tmp_path / "other.onnx")
    with pytest.raises(BackendError, match=r"cannot take the weights .* \(Failed to parse ONNX model FileNotFoundError\)"):
        tensorrt_.load(bundle_of(room, path, refittable=True), "scaled", tmp_path / "absent.onnx")
    onnx.save(scaled(), tmp_path / "right.onnx")
    room.gpu["fails"] = "refit"
    with pytest.raises(BackendError, match="cannot put the weights into scaled.plan .without saying why."):
        tensorrt_.load(bundle_of(room, path, refittable=True), "scaled", tmp_path / "right.onnx")
    assert not room.device.opened


@pytest.mark.parametrize("free, budget", [(30, 15), (10**9, 24)])
def test_weights_are_streamed_without_a_graph(room, scaled, tmp_path, free, budget):
    """What does not fit into half of the memory that is free; the model has 24 bytes of weights."""
    room.gpu["free"] = free
    path = room.write_plan(tmp_path / "scaled.plan", scaled(), ["WEIGHT_STREAMING"])
    with tensorrt_.load(bundle_of(room, path, weight_streaming=True), "scaled") as engine:
        assert engine._engine.weight_streaming_budget_v2 == budget
        assert (run(engine, 1) == 2).all() and room.driver.launches == 0


def test_tensors_that_differ_from_the_manifest_are_refused(room, bundle):
    described = bundle.network("scaled")
    described.inputs = (TensorSpec("x", "float16", (2, 3)),)
    with pytest.raises(BackendError, match=r"has tensors in x float32 \[2, 3\], out y .* its manifest says in x float16"):
        tensorrt_.load(bundle, "scaled")
    assert not room.device.opened


def test_another_kind_of_engine_is_refused(room, tmp_path):
    bundle = bundle_of(room, tmp_path / "unet.onnx")
    bundle.manifest["backend"]["name"] = "onnxruntime"
    with pytest.raises(BackendError, match="unet.onnx is no TensorRT plan: use --backend onnxruntime"):
        tensorrt_.load(bundle, "scaled")


@pytest.mark.parametrize("fails, words", [
    ("Runtime", "does not start .CUDA initialization failure with error: 35.: check the GPU and its driver"),
    ("Runtime crashes", "does not start .CUDA initialization failure with error: 35.: check the GPU and its driver"),
    ("context", "not enough free memory"),
])
def test_what_tensorrt_reports_becomes_our_sentence(room, bundle, fails, words):
    room.gpu["fails"] = fails
    with pytest.raises(BackendError, match=words):
        tensorrt_.load(bundle, "scaled")
    assert not room.device.opened


@pytest.mark.parametrize("graph", [True, False])
def test_an_execution_that_fails_is_told(room, bundle, graph):
    with tensorrt_.load(bundle, "scaled", graph=graph) as engine:
        room.gpu["fails"] = "execute"
        with pytest.raises(BackendError, match="failed while running scaled.plan .IExecutionContext::enqueueV3"):
            run(engine, 1)


def test_what_is_no_error_is_not_kept(room):
    log = tensorrt_.listen(room.trt)
    log.log(room.trt.ILogger.Severity.WARNING, "slow")
    assert log.told() == "without saying why"
    log.log(room.trt.ILogger.Severity.ERROR, "one\n two")
    log.log(room.trt.ILogger.Severity.INTERNAL_ERROR, "three")
    assert log.told() == "one two; 1 more" and log.told() == "without saying why"


def test_it_says_what_is_installed(room):
    assert tensorrt_.available() == Availability(True, f"TensorRT {room.version} on stand-in GPU")
    lean = f"the lean runtime {room.version}, which runs version-compatible plans on stand-in GPU"
    room.install(room.lean)
    assert tensorrt_.available() == Availability(True, lean)
    room.install(room.trt, room.lean)
    assert tensorrt_.available() == Availability(True, f"TensorRT {room.version} and {lean}")
    room.install()
    assert tensorrt_.available() == Availability(False, "the Python module tensorrt is not installed",
                                                 "pip install 'pano4d[tensorrt]'")


def test_doctor_says_whether_the_plans_fit_this_machine(room, fake_bundle):
    manifest = json.loads((fake_bundle / "manifest.json").read_text())
    (fake_bundle / "one.plan").touch()
    for name in NETWORKS:
        manifest["networks"][name]["file"] = "one.plan"
    manifest |= {"backend": {"name": "tensorrt", "version": room.version},
                 "target": {"device": "cuda", "compute_capability": "9.0", "cuda": "13.0", "plan": {}}}
    (fake_bundle / "manifest.json").write_text(json.dumps(manifest))
    assert inspection.doctor(fake_bundle)["ok"]
    room.gpu["capability"] = "sm_120"
    found = inspection.doctor(fake_bundle)
    assert not found["ok"] and "compute capability 9.0 and this machine's stand-in GPU has 12.0" in found["bundle"]["detail"]
    room.install()
    found = inspection.doctor(fake_bundle)
    assert not found["ok"] and "tensorrt is not installed" in found["bundle"]["detail"]
    assert not room.device.opened


def test_without_a_gpu_it_says_so(room, monkeypatch):
    def none():
        raise BackendError("No NVIDIA driver was found on this machine: install it.")

    monkeypatch.setattr(tensorrt_, "Device", none)
    found = tensorrt_.available()
    assert (found.ok, found.detail, found.remedy) == (
        False, f"TensorRT {room.version}; No NVIDIA driver was found on this machine", "install it")


def test_too_old_and_broken_installations_are_told(room, monkeypatch, tmp_path):
    room.trt.__version__ = "8.6.1"
    with pytest.raises(BackendError, match="TensorRT 8.6.1 is installed, and 10.16 or newer is needed"):
        find()
    monkeypatch.delitem(sys.modules, "tensorrt")
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.11: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match="does not load .libnvinfer.so.11: cannot open.*LD_LIBRARY_PATH"):
        find()
    found = tensorrt_.available()
    assert found.detail.endswith("(libnvinfer.so.11: cannot open shared object file)") and "LD_LIBRARY" in found.remedy
