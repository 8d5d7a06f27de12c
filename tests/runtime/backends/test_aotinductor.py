"""The AOTInductor backend on a network of a few operators, compiled here; on a GPU too where there is one."""

import gc
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from pano4d.build_engines import aot_export  # noqa: E402
from pano4d.runtime.backends import aotinductor, load_engine  # noqa: E402
from pano4d.runtime.backends.base import NETWORKS, TensorSpec  # noqa: E402
from pano4d.runtime.backends.fake import FakeBundle  # noqa: E402
from pano4d.runtime.bundle import Bundle, file_record  # noqa: E402
from pano4d.runtime.errors import BackendError, BundleError, DeviceMemoryError  # noqa: E402

X, Y = TensorSpec("x", "float32", (2, 3, 16, 16)), TensorSpec("y", "float32", (2, 5, 8, 8))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.GroupNorm(4, 32)
        self.out = nn.Conv2d(32, 5, 1)
        self.register_buffer("shift", torch.linspace(-1, 1, 5).reshape(1, 5, 1, 1), persistent=False)

    def forward(self, x):
        return self.out(torch.nn.functional.silu(self.norm(self.conv(x)))) + self.shift


def write_bundle(folder, device, precision):
    """Write a bundle whose four networks are the same file."""
    folder.mkdir()
    (x,), (y,) = (aot_export.typed_specs([spec], precision, device) for spec in (X, Y))
    options = aot_export.inductor_options(device, options={"layout_optimization": True})
    aot_export.export_aot(Small().eval(), {"x": np.zeros(x.shape, x.dtype)}, folder / "small.pt2", precision, device, options)
    tensors = {side: [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}]
               for side, spec in (("inputs", x), ("outputs", y))}
    network = file_record(folder, "small.pt2") | {"extra_files": [file_record(folder, "small.safetensors")]} | tensors
    manifest = FakeBundle().manifest | {
        "networks": dict.fromkeys(NETWORKS, network), "target": aot_export.target_block(device),
        "precision": aot_export.precision_block(precision, device),
        "backend": {"name": "aotinductor", "version": torch.__version__}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Engines for the CPU, in float32."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "cpu", "cpu", "fp32")


@pytest.fixture
def changed(bundle):
    """The bundle with other entries in a block of its manifest; nothing of it may be loaded."""
    def change(block, **entries):
        return Bundle(bundle.path, bundle.manifest | {block: bundle.manifest[block] | entries}, bundle.sha256)
    return change


@pytest.fixture
def sealed(monkeypatch):
    """Fail if anything is deserialised."""
    monkeypatch.setattr(aotinductor, "Package", None)
    monkeypatch.setattr(aotinductor, "_read_weights", None)


def refusal(bundle, network="unet"):
    with pytest.raises(BackendError) as caught:
        aotinductor.load(bundle, network)
    message = str(caught.value)
    assert "\n" not in message and message.count(". ") == 0 and message.endswith(".")
    return message


def draw(seed=0):
    return np.random.default_rng(seed).standard_normal(X.shape).astype(np.float32)


def expected(x, dtype=torch.float32):
    with torch.inference_mode():
        return Small().eval().to(dtype).float()(torch.from_numpy(x)).numpy()


def test_it_computes_in_the_buffers_it_is_given(bundle):
    with load_engine(bundle, "unet") as engine:
        assert engine.device == "cpu"
        buffers = engine.allocate()
        assert {name: (array.dtype.name, array.shape, bool(array.any())) for name, array in buffers.items()} == {
            "x": ("float32", X.shape, False), "y": ("float32", Y.shape, False)}
        y = buffers["y"]
        for seed in range(2):
            buffers["x"][:] = draw(seed)
            engine.run(buffers)
            assert buffers["y"] is y
            np.testing.assert_allclose(y, expected(draw(seed)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrong", [np.zeros((2, 3, 16, 15), np.float32), np.zeros(X.shape), torch.zeros(X.shape)],
                         ids=["shape", "dtype", "no array"])
def test_buffers_that_do_not_fit_are_refused(bundle, wrong):
    with aotinductor.load(bundle, "unet") as engine, pytest.raises(BackendError, match="The buffer 'x' is"):
        engine.run({"x": wrong, "y": np.zeros(Y.shape, np.float32)})


def test_engines_of_the_same_file_share_its_weights_until_the_last_is_closed(bundle):
    first, second = aotinductor.load(bundle, "unet"), aotinductor.load(bundle, "vae_decoder")
    assert first._weights is second._weights and len(aotinductor._loaded) == 1
    first.close()
    buffers = second.allocate()
    buffers["x"][:] = draw()
    second.run(buffers)
    np.testing.assert_allclose(buffers["y"], expected(draw()), rtol=1e-4, atol=1e-5)
    second.close()
    assert not aotinductor._loaded


def full(*args, **options):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 1 GiB free.")


def hidden(*args, **options):
    """As the end of a capture does."""
    try:
        full()
    finally:
        raise RuntimeError("operation failed due to a previous error during capture")


def failed_api(*args, **options):
    raise RuntimeError("cuBLAS: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")


@pytest.mark.parametrize("how", [full, hidden, failed_api])
def test_memory_that_runs_out_is_one_error_while_loading_and_running(bundle, monkeypatch, how):
    engine = aotinductor.load(bundle, "unet")
    buffers = engine.allocate()
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_compute", how)
        with pytest.raises(DeviceMemoryError, match="not enough free memory"):
            engine.run(buffers)
    engine.run(buffers)  # what failed once may fit later
    engine.close()
    for place in ("_read_weights", "Package"):
        with monkeypatch.context() as patch:
            patch.setattr(aotinductor, place, how)
            with pytest.raises(DeviceMemoryError):
                aotinductor.load(bundle, "unet")
    gc.collect()  # errors and their frames refer to one another
    assert not aotinductor._loaded


def test_memory_for_buffers_that_runs_out_is_the_same_error(bundle, monkeypatch):
    with aotinductor.load(bundle, "unet") as engine, monkeypatch.context() as patch:
        patch.setattr(engine, "device", "cuda")
        patch.setattr(torch, "zeros", full)
        with pytest.raises(MemoryError) as caught:
            engine.allocate()
        assert isinstance(caught.value, DeviceMemoryError)
        patch.undo()


def test_another_failure_says_so(bundle, monkeypatch):
    def fails(*args):
        raise RuntimeError("run_func_(...) API call failed")

    with aotinductor.load(bundle, "unet") as engine:
        monkeypatch.setattr(engine, "_compute", fails)
        with pytest.raises(BackendError, match="failed while running .run_func_.* API call failed.: use a bundle"):
            engine.run(engine.allocate())


@pytest.mark.parametrize("name", ["small.pt2", "small.safetensors"])
def test_a_damaged_file_is_refused_by_its_hash(bundle, tmp_path, name):
    for path in bundle.path.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} is not the file that was built"):
        Bundle.open(tmp_path)


def test_weights_without_a_tensor_are_refused(bundle, monkeypatch):
    monkeypatch.setattr(aotinductor, "_read_weights", lambda *_: aotinductor.Weights())
    assert "small.pt2 lack 7 tensors, such as conv.bias: build the bundle again" in refusal(bundle)


@pytest.mark.usefixtures("sealed")
class TestRefusedBeforeAnythingIsLoaded:
    def test_without_torch(self, bundle, monkeypatch):
        monkeypatch.setattr(aotinductor, "torch", None)
        found = aotinductor.available()
        assert (found.ok, found.remedy) == (False, "pip install torch")
        assert "torch is not installed: pip install torch." in refusal(bundle)

    def test_another_version_of_torch(self, changed):
        message = refusal(changed("backend", version="2.1.3+cu118"))
        assert f"compiled with torch 2.1.3+cu118 and this is torch {torch.__version__}" in message
        assert "pip install 'torch==2.1.*'" in message

    def test_another_patch_of_the_same_version_passes(self, changed):
        release = ".".join(torch.__version__.split(".")[:2])
        bundle = changed("backend", version=f"{release}.99+cu130")
        aotinductor.check_target(bundle, bundle.network("unet"))

    def test_a_gpu_engine_without_a_gpu(self, changed, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        message = refusal(changed("target", device="cuda", compute_capability="9.0"))
        assert "compiled for a GPU of compute capability 9.0 and this machine has no GPU that torch can use: use" in message

    def test_an_engine_for_another_gpu(self, changed, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 6))
        message = refusal(changed("target", device="cuda", compute_capability="9.0"))
        assert "compute capability 9.0 and this machine has a GPU of compute capability 8.6: use" in message

    def test_an_engine_for_another_processor(self, changed):
        assert "small.pt2 was compiled for a sparc CPU with" in refusal(changed("target", machine="sparc"))
        assert "CPU with none and this machine has" in refusal(changed("target", isa="none"))

    def test_another_kind_of_engine(self, bundle):
        other = SimpleNamespace(path=bundle.path / "unet.onnx")
        fake = SimpleNamespace(network=lambda name: other,
                               manifest=bundle.manifest | {"backend": {"name": "onnxruntime", "version": "1"}})
        assert "unet.onnx is no AOTInductor engine: use --backend onnxruntime" in refusal(fake)


def test_the_module_imports_without_torch():
    code = ("import sys; sys.modules['torch'] = None\n"
            "from pano4d.runtime.backends import get_backend; print(get_backend('aotinductor').available().detail)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "torch is not installed"


@pytest.mark.gpu
class TestOnTheGpu:
    @pytest.fixture(scope="class", params=["fp16", "fp32"])
    def gpu_bundle(self, request, tmp_path_factory):
        return write_bundle(tmp_path_factory.mktemp("bundles") / request.param, "cuda", request.param)

    def filled(self, engine, seed=0):
        buffers = engine.allocate()
        buffers["x"].copy_(torch.from_numpy(draw(seed)))
        return buffers

    def result(self, engine, seed=0, stream=None):
        buffers = self.filled(engine, seed)
        engine.run(buffers, stream)
        torch.cuda.synchronize()
        return buffers["y"].cpu().numpy()

    def test_it_agrees_with_torch(self, gpu_bundle):
        half = gpu_bundle.manifest["precision"]["compute"] == "float16"
        with aotinductor.load(gpu_bundle, "unet") as engine:
            assert engine.device == "cuda" and engine.allocate()["x"].is_cuda
            y = self.result(engine).astype(np.float32)
        scale = np.abs(expected(draw())).max()
        np.testing.assert_allclose(y, expected(draw(), torch.float16 if half else torch.float32),
                                   atol=(5e-3 if half else 1e-5) * scale)

    def test_a_replayed_graph_equals_a_plain_run_for_any_buffers(self, gpu_bundle):
        with aotinductor.load(gpu_bundle, "unet") as graph, aotinductor.load(gpu_bundle, "unet", graph=False) as plain:
            for seed in (0, 1, 0):
                assert self.result(graph, seed).tobytes() == self.result(plain, seed).tobytes()
            assert graph._graph is not None and plain._graph is None

    @pytest.mark.parametrize("graph", [True, False], ids=["graph", "plain"])
    def test_nothing_is_allocated_after_the_first_run(self, gpu_bundle, graph):
        with aotinductor.load(gpu_bundle, "unet", graph=graph) as engine:
            buffers = self.filled(engine)
            engine.run(buffers)
            torch.cuda.synchronize()
            before = torch.cuda.memory_stats()
            for _ in range(3):
                engine.run(buffers)
            torch.cuda.synchronize()
            after = torch.cuda.memory_stats()
        names = ["num_device_alloc", "segment.all.allocated"] + ["allocation.all.allocated"] * graph
        assert [after[name] - before[name] for name in names] == [0] * len(names)

    def test_it_runs_on_the_stream_of_the_caller(self, gpu_bundle):
        stream = torch.cuda.Stream()
        with aotinductor.load(gpu_bundle, "unet") as engine:
            wanted = self.result(engine)
            buffers, late = self.filled(engine, 1), self.filled(engine)["x"]
            with torch.cuda.stream(stream):
                torch.cuda._sleep(100_000_000)
                buffers["x"].copy_(late)
            engine.run(buffers, stream.cuda_stream)
            assert not stream.query(), "the run waited for the GPU"
            stream.synchronize()
            assert buffers["y"].cpu().numpy().tobytes() == wanted.tobytes()

    def test_it_takes_whatever_describes_itself_as_a_cuda_array(self, gpu_bundle):
        with aotinductor.load(gpu_bundle, "unet") as engine:
            buffers = self.filled(engine)
            shown = {name: SimpleNamespace(__cuda_array_interface__=tensor.__cuda_array_interface__)
                     for name, tensor in buffers.items()}
            engine.run(shown)
            assert self.result(engine).tobytes() == buffers["y"].cpu().numpy().tobytes()

    @pytest.mark.parametrize("wrong", [np.zeros(X.shape, np.float32), torch.zeros(X.shape)], ids=["numpy", "cpu tensor"])
    def test_memory_of_the_host_is_refused(self, gpu_bundle, wrong):
        with aotinductor.load(gpu_bundle, "unet") as engine, pytest.raises(BackendError, match="'x' .* does not lie on the"):
            engine.run(engine.allocate() | {"x": wrong})

    def test_strided_memory_is_refused(self, gpu_bundle):
        with aotinductor.load(gpu_bundle, "unet") as engine, pytest.raises(BackendError, match="C-contiguous"):
            x = engine.allocate()["x"]
            engine.run(engine.allocate() | {"x": x.transpose(2, 3)})

    def test_closing_gives_the_memory_back(self, gpu_bundle):
        with aotinductor.load(gpu_bundle, "unet") as engine:
            self.result(engine)  # the first makes the workspaces of the libraries, which stay
        before = torch.cuda.memory_allocated()
        with aotinductor.load(gpu_bundle, "unet") as engine:
            self.result(engine)
            assert torch.cuda.memory_allocated() > before
        assert torch.cuda.memory_allocated() == before
