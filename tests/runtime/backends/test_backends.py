"""Choosing a backend, and what every engine asks of its buffers."""

import numpy as np
import pytest

from pano4d.runtime import backends
from pano4d.runtime.backends.base import Availability
from pano4d.runtime.backends.fake import FakeBundle
from pano4d.runtime.errors import BackendError


def test_an_unknown_backend_names_the_known_ones():
    known = "onnxruntime, onnxruntime-cuda, tensorrt, aotinductor, eager, fake"
    with pytest.raises(BackendError, match=f"no backend 'tensorflow': choose one of {known}"):
        backends.load_engine(FakeBundle(), "unet", "tensorflow")


def test_the_bundle_chooses_the_backend():
    with backends.load_engine(FakeBundle(), "unet") as engine:
        assert type(engine).__name__ == "FakeEngine"


@pytest.mark.parametrize("name", backends.BACKENDS)
def test_every_backend_says_whether_it_can_run(name):
    found = backends.get_backend(name).available()
    assert isinstance(found, Availability) and found.detail
    assert found.ok or found.remedy


@pytest.mark.parametrize("name, built_for, device", [
    ("onnxruntime", "any", "cpu"), ("onnxruntime-cuda", "any", "cuda"), ("tensorrt", "cuda", "cuda"),
    ("aotinductor", "cuda", "cuda"), ("aotinductor", "cpu", "cpu"), ("aotinductor", "any", "cpu"), ("eager", "cuda", "cpu")])
def test_every_backend_says_where_its_tensors_lie(name, built_for, device):
    bundle = FakeBundle()
    bundle.manifest["target"] = {"device": built_for}
    assert backends.device_of(bundle, name) == device
    bundle.manifest["backend"]["name"] = name
    assert backends.device_of(bundle) == device


def test_a_backend_that_cannot_run_says_what_to_type(monkeypatch):
    module = backends.get_backend("fake")
    monkeypatch.setattr(module, "available", lambda: Availability(False, "numpy is not installed", "pip install numpy"))
    with pytest.raises(BackendError, match="'fake' cannot run here, since numpy is not installed: pip install numpy"):
        backends.load_engine(FakeBundle(), "unet")


@pytest.mark.parametrize("wrong", [np.zeros((1, 3, 64, 63), np.float32), np.zeros((1, 3, 64, 64)),
                                   np.zeros((1, 3, 64, 128), np.float32)[..., ::2], None],
                         ids=["shape", "dtype", "strided", "missing"])
def test_buffers_that_do_not_fit_are_refused(wrong):
    with backends.load_engine(FakeBundle(), "vae_encoder") as engine:
        buffers = {"pixels": wrong, "latents": np.zeros((1, 4, 8, 8), np.float32)}
        if wrong is None:
            del buffers["pixels"]
        with pytest.raises(BackendError, match="'pixels'"):
            engine.run(buffers)
