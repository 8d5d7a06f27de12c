"""Checkpoints of the true classes, as small as they can be, with random weights."""

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

if str(Path(__file__).parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parent))

PREPROCESSOR = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
RECOMMENDED = {"name": "tiny", "license": "Apache-2.0", "num_frames": 2, "tile_px": 16, "num_inference_steps": 5,
               "min_guidance_scale": 1.0, "max_guidance_scale": 1.0}
INDEX = {"_class_name": "StableVideoDiffusionPipeline", "feature_extractor": ["transformers", "CLIPImageProcessor"],
         "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
         "scheduler": ["diffusers", "EulerDiscreteScheduler"], "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
         "vae": ["diffusers", "AutoencoderKLTemporalDecoder"]}


def write(folder, channels, frames=2, width=32, told=RECOMMENDED, variant=None, scheduler=None, seed=None, scale=0.25,
          layers=1):
    """Write a checkpoint of 2 px to a latent pixel, whose tiles are a multiple of 4 px, as its pipeline would save it."""
    import diffusers
    import torch
    import transformers

    torch.manual_seed(channels if seed is None else seed)
    unet = diffusers.UNetSpatioTemporalConditionModel(
        sample_size=8, in_channels=channels, out_channels=4, block_out_channels=(width, 2 * width), layers_per_block=1,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal",) * 2, num_attention_heads=(1, 2),
        cross_attention_dim=8, addition_time_embed_dim=8, projection_class_embeddings_input_dim=24, num_frames=frames)
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2, layers_per_block=layers, sample_size=16,
        latent_channels=4, scaling_factor=scale)
    clip = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, patch_size=112,
        projection_dim=8, hidden_act="gelu"))
    for part, module in (("unet", unet), ("vae", vae), ("image_encoder", clip)):
        module.save_pretrained(folder / part, variant=variant)
    diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction", use_karras_sigmas=True, sigma_min=0.02, sigma_max=70.0,
        timestep_type="continuous").save_pretrained(folder / "scheduler")
    (folder / "feature_extractor").mkdir()
    for name, content in (("feature_extractor/preprocessor_config.json", PREPROCESSOR), ("model_index.json", INDEX),
                          ("scheduler/scheduler_config.json", scheduler), ("pano4d.json", told)):
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def masked(tmp_path_factory):
    """A checkpoint with 9 input channels. Not to be changed."""
    return write(tmp_path_factory.mktemp("checkpoints") / "masked", 9)


@pytest.fixture(scope="session")
def stock(tmp_path_factory):
    """A checkpoint with 8 input channels and weights of variant fp16, without a pano4d.json. Not to be changed."""
    return write(tmp_path_factory.mktemp("checkpoints") / "stock", 8, told=None, variant="fp16")


@pytest.fixture(scope="session")
def written():
    """Write a checkpoint; see ``write``."""
    return write


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Files of networks by what they were exported from."""
    return {}, tmp_path_factory.mktemp("exported")


@pytest.fixture
def exports_once(exported, monkeypatch):
    """Let a build for onnxruntime take the file of an earlier one where module, weights and shapes are the same.

    That the same module gives the same bytes, test_onnx_export holds; what is taken is verified as what is exported is.
    """
    from pano4d.build_engines import build
    from pano4d.build_engines.recipes import recipe_of

    kept, folder = exported

    def once(export, asked, module, inputs, outputs, path, progress):
        key = _digest(module, inputs, outputs, path.name, asked)
        if key not in kept:
            written, = export(module, inputs, outputs, path, progress)
            kept[key] = shutil.copy(written, folder / f"{len(kept)}{written.suffix}")
        return [Path(shutil.copy(kept[key], path))]

    def recipe(backend, *asked):
        assert backend == "onnxruntime"
        found = recipe_of(backend, *asked)
        return replace(found, export=partial(once, found.export, asked))

    monkeypatch.setattr(build, "recipe_of", recipe)


def _digest(module, inputs, outputs, *more):
    shapes = {name: (array.shape, str(array.dtype)) for name, array in inputs.items()}
    digest = hashlib.sha256(repr((module, shapes, outputs, more)).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture
def copied(masked, tmp_path):
    """A copy of the masked checkpoint, to be damaged."""
    return shutil.copytree(masked, tmp_path / "copied")


@pytest.fixture(scope="session")
def operators(root):
    """Operators that TensorRT's parser knows, each with its types; and the opsets."""
    read = json.loads((root / "tests" / "tensorrt_api" / "onnx_operators.json").read_text(encoding="utf-8"))
    known = {name: set(group["types"]) for group in read["supported"] for name in group["operators"]}
    assert not set(known) & set(read["unsupported"])
    return known, read["opset"]
