"""What tests of several rooms share."""

import ctypes
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU where the NVIDIA driver is not installed; where it is, a fault there is a failure."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no NVIDIA driver"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the package, which is the root of the repository."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def fake_bundle(tmp_path: Path) -> Path:
    """A bundle folder for the backend `fake`: tiles of 64 px, 4 frames, one empty engine file."""
    from pano4d.runtime.backends.fake import FakeBundle

    manifest = json.loads(json.dumps(FakeBundle().manifest))
    for network in manifest["networks"].values():
        network["sha256"] = hashlib.sha256(b"").hexdigest()
    folder = tmp_path / "fake_bundle"
    folder.mkdir()
    (folder / "none").touch()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(params=["10.16", "11.4"])
def tensorrt_room(request, root, monkeypatch):
    """A machine with TensorRT of either version and a GPU, both stand-ins; a `Room`."""
    pytest.importorskip("onnx")
    if str(root / "tests" / "tensorrt_api") not in sys.path:
        sys.path.insert(0, str(root / "tests" / "tensorrt_api"))
    import trt_behaviour
    from trt_room import Room

    made = Room(request.param, monkeypatch)
    yield made
    trt_behaviour.reset()


@pytest.fixture(scope="session")
def panorama_pixels() -> np.ndarray:
    """A smooth panorama without a seam. uint8 [64, 128, 3]."""
    lon = (np.arange(128) + 0.5) / 128 * 2 * np.pi
    lat = (np.arange(64) + 0.5) / 64 * np.pi
    waves = [np.sin(lat)[:, None] * np.sin(k * lon + k)[None] for k in (1, 2, 3)]
    return np.round(127 + 90 * np.stack(waves, -1)).astype(np.uint8)
