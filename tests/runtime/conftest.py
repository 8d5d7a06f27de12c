"""A device for kernels: the GPU in tests marked `gpu`, else the kernels' source run as C++ loops."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest


def _host_device_module():
    path = Path(__file__).parent / "kernels" / "host_device.py"
    spec = importlib.util.spec_from_file_location("host_device", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["host_device"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def waves():
    """Draw a smooth panorama of a height, uint8 [H, 2 H, 3]."""
    def draw(height):
        lon = (np.arange(2 * height) + 0.5) / (2 * height) * 2 * np.pi
        lat = (np.arange(height) + 0.5) / height * np.pi
        waves = [np.sin(lat)[:, None] * np.cos(k * lon + k) for k in (1, 2, 3)]
        return np.round(128 + 60 * np.stack(waves, axis=-1)).astype(np.uint8)
    return draw


@pytest.fixture(scope="session")
def sphere_picture():
    """A textured picture without seam or borders, float64 [128, 256, 3]: waves in many directions."""
    from pano4d.runtime.sphere import pixel_directions

    rng, directions = np.random.default_rng(3), pixel_directions(128, 256)
    waves = np.zeros((128, 256, 3))
    for _ in range(60):
        axis = rng.normal(size=3)
        waves += np.sin(directions @ (axis / np.linalg.norm(axis)) * rng.uniform(4, 40) + rng.uniform(0, 6))[..., None] \
            * rng.uniform(-1, 1, 3)
    return 127 + 12 * waves


@pytest.fixture(scope="session")
def host_folder(tmp_path_factory):
    """Where compiled stand-ins are kept for the session."""
    return tmp_path_factory.mktemp("host_kernels")


@pytest.fixture
def gpu():
    """The GPU."""
    from pano4d.runtime.device import Device

    with Device() as made:
        yield made


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request, host_folder, monkeypatch):
    """Give a device on which launchers work."""
    if request.param == "gpu":
        return request.getfixturevalue("gpu")
    module = _host_device_module()
    load = module.host_kernels(host_folder)
    if load is None:
        pytest.skip("no C++ compiler")
    monkeypatch.setattr("pano4d.runtime.kernels.compiler.load_kernels", load)
    return module.HostDevice()
