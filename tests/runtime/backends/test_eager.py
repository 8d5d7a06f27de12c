"""The eager backend: the modules of a checkpoint, once its weights are known to be the bundle's."""

from types import SimpleNamespace

import numpy as np
import pytest

from pano4d.runtime.backends import eager
from pano4d.runtime.backends.base import TensorSpec
from pano4d.runtime.bundle import sha256_of_file
from pano4d.runtime.errors import BackendError, CheckpointError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The image encoder of a checkpoint, small and random."""
    folder = tmp_path_factory.mktemp("checkpoint")
    config = transformers.CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, patch_size=112,
                                           num_attention_heads=1, projection_dim=4)
    torch.manual_seed(0)
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(folder / "image_encoder")
    return folder


@pytest.fixture
def bundle(checkpoint):
    name = "image_encoder/model.safetensors"
    described = SimpleNamespace(inputs=(TensorSpec("pixels", "float32", (2, 3, 224, 224)),),
                                outputs=(TensorSpec("embeddings", "float32", (2, 1, 4)),))
    manifest = {"model": {"source": "small", "image_mean": MEAN, "image_std": STD},
                "weights": {name: sha256_of_file(checkpoint / name), "unet/x.safetensors": "0"}}
    return SimpleNamespace(network=lambda name: described, manifest=manifest)


def test_it_normalises_as_the_preprocessor_says(bundle, checkpoint, monkeypatch):
    monkeypatch.setenv("PANO4D_CHECKPOINT", str(checkpoint))
    buffers = {"pixels": np.random.default_rng(0).uniform(-1, 1, (2, 3, 224, 224)).astype(np.float32),
               "embeddings": np.zeros((2, 1, 4), np.float32)}
    with eager.load(bundle, "image_encoder", device="cpu") as engine:
        engine.run(buffers)
    clip = transformers.CLIPVisionModelWithProjection.from_pretrained(checkpoint / "image_encoder")
    colours = (buffers["pixels"] / 2 + 0.5 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    with torch.no_grad():
        expected = clip(torch.from_numpy(colours).float()).image_embeds.numpy()
    np.testing.assert_allclose(buffers["embeddings"][:, 0], expected, rtol=1e-4, atol=1e-6)


def test_without_a_checkpoint_it_says_where_to_name_one(bundle, monkeypatch):
    monkeypatch.delenv("PANO4D_CHECKPOINT", raising=False)
    with pytest.raises(BackendError, match="set PANO4D_CHECKPOINT to the folder 'small'"):
        eager.load(bundle, "image_encoder")


def test_other_weights_are_refused_before_they_are_read(bundle, checkpoint, tmp_path):
    (tmp_path / "image_encoder").mkdir()
    (tmp_path / "image_encoder" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(BackendError, match="is not the file this bundle was built from"):
        eager.load(bundle, "image_encoder", tmp_path)


def test_weights_that_do_not_fit_the_configuration_are_refused(checkpoint, tmp_path):
    wider = transformers.CLIPVisionConfig.from_pretrained(checkpoint / "image_encoder", num_hidden_layers=2)
    wider.save_pretrained(tmp_path / "image_encoder")
    source = checkpoint / "image_encoder" / "model.safetensors"
    (tmp_path / "image_encoder" / "model.safetensors").write_bytes(source.read_bytes())
    with pytest.raises(CheckpointError, match="lacks .* weights of a CLIPVisionModelWithProjection"):
        eager.load_part(tmp_path, "image_encoder")


def test_a_part_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not load as a CLIPVisionModelWithProjection") as caught:
        eager.load_part(tmp_path, "image_encoder")
    assert "\n" not in str(caught.value)


def test_without_torch_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    found = eager.available()
    assert not found.ok and "diffusers" in found.detail and found.remedy == "pip install 'pano4d[build]'"
