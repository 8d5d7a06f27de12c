"""The pipeline on a device against that on the CPU with the shipped model, whose engines compute on the CPU for both."""

import numpy as np
import pytest

from pano4d.runtime import backends, image
from pano4d.runtime.backends.base import Engine
from pano4d.runtime.bundle import Bundle, default_bundle_path
from pano4d.runtime.pipeline import Animator
from pano4d.runtime.settings import AnimateSettings

SETTINGS = AnimateSettings(width=256, height=128, steps=2)


class OnDevice(Engine):
    """An engine of the CPU with its buffers in the device's memory."""

    device = "cuda"

    def __init__(self, inner, where):
        self.inner, self.where = inner, where
        self.inputs, self.outputs = inner.inputs, inner.outputs

    def run(self, buffers, stream=None):
        values = {name: self.where.download(array) for name, array in buffers.items()}
        self.inner.run(values)
        for spec in self.outputs:
            self.where.upload(values[spec.name], buffers[spec.name])

    def close(self):
        self.inner.close()


def test_frames_are_those_of_the_cpu(device, root, monkeypatch):
    pytest.importorskip("onnxruntime")
    bundle = Bundle.open(default_bundle_path())
    picture = image.resize_panorama(image.read_panorama(root / "examples" / "panorama.jpg").pixels, 128, 256)
    mask = np.zeros((128, 256), bool)
    mask[58:70, 245:] = mask[58:70, :4] = True
    wanted = Animator(bundle, SETTINGS).animate(picture, mask)
    load = backends.load_engine
    monkeypatch.setattr(backends, "load_engine", lambda *asked: OnDevice(load(*asked), device))
    ours = Animator(bundle, SETTINGS, device=device).animate(picture, mask)
    assert 0 < len(ours.moving_tiles) < ours.tiles_total and ours.moving_tiles.tolist() == wanted.moving_tiles.tolist()
    assert (ours.frames[:, ~mask] == picture[~mask]).all()
    assert np.abs(wanted.frames[-1][mask].astype(int) - picture[mask]).mean() > 1
    error = np.mean((ours.frames[:, mask].astype(float) - wanted.frames[:, mask]) ** 2)
    assert 10 * np.log10(255**2 / max(error, 1e-9)) > 40
