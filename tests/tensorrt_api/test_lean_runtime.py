"""Our backend on the real lean runtime, libraries and all: what it reports becomes a sentence, and nothing crashes.

Plans cannot be built here, so none is run: the runtime is given one that is damaged. Without a GPU it fails before that.
"""

import ctypes
import subprocess
import sys

import pytest
import trt_bindings

LOAD = """
import sys
from pathlib import Path
from types import SimpleNamespace
import tensorrt_lean_bindings
sys.modules["tensorrt_lean"], sys.modules["tensorrt"] = tensorrt_lean_bindings, None
from pano4d.runtime.backends import tensorrt_
from pano4d.runtime.errors import BackendError

class Anywhere:
    arch, name, closed = "sm_90", "any GPU", 0
    driver_cuda = lambda self: "13.0"
    def close(self):
        Anywhere.closed += 1

tensorrt_.Device = Anywhere
described = SimpleNamespace(path=Path(sys.argv[1]), inputs=(), outputs=())
manifest = {"backend": {"name": "tensorrt", "version": tensorrt_lean_bindings.__version__},
            "target": {"compute_capability": "9.0", "cuda": "13.0", "plan": {"version_compatible": True}}}
try:
    tensorrt_.load(SimpleNamespace(network=lambda name: described, manifest=manifest), "unet")
except BackendError as error:
    print(error)
assert Anywhere.closed == 1
"""


@pytest.mark.parametrize("release", trt_bindings.VERSIONS)
def test_a_damaged_plan_and_a_missing_gpu_are_told_in_one_sentence(release, tmp_path):
    try:
        folder = trt_bindings.fetch_lean(release)
    except trt_bindings.NotToBeHad as reason:
        pytest.skip(str(reason))
    (tmp_path / "unet.plan").write_bytes(b"damaged" * 100)
    code = f"import sys; sys.path.insert(1, {str(folder)!r})\n{LOAD}"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "unet.plan")], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
    said, = done.stdout.splitlines()
    version = trt_bindings.VERSIONS[release]
    if _has_driver():
        assert said.startswith(f"TensorRT {version} ") and "unet.plan" in said or "does not start" in said
    else:
        assert said.startswith(f"TensorRT {version} does not start (createInferRuntime: Error Code 6") and "35" in said


def _has_driver():
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
