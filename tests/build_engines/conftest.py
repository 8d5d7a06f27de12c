"""Checkpoints of the true classes, as small as they can be, with random weights."""

import json
import shutil

import pytest

PREPROCESSOR = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
RECOMMENDED = {"name": "tiny", "license": "Apache-2.0", "num_frames": 2, "tile_px": 16, "num_inference_steps": 5,
               "min_guidance_scale": 1.0, "max_guidance_scale": 1.0}


def write(folder, channels):
    """Write a checkpoint of 2 px to a latent pixel, whose tiles are a multiple of 4 px."""
    import diffusers
    import torch
    import transformers

    torch.manual_seed(channels)
    unet = diffusers.UNetSpatioTemporalConditionModel(
        sample_size=8, in_channels=channels, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal",) * 2, num_attention_heads=(1, 2),
        cross_attention_dim=8, addition_time_embed_dim=8, projection_class_embeddings_input_dim=24, num_frames=2)
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2, layers_per_block=1, sample_size=16,
        latent_channels=4, scaling_factor=0.25)
    clip = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, patch_size=112,
        projection_dim=8))
    for part, module in (("unet", unet), ("vae", vae), ("image_encoder", clip)):
        module.save_pretrained(folder / part)
    diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction", use_karras_sigmas=True, sigma_min=0.02, sigma_max=70.0,
        timestep_type="continuous").save_pretrained(folder / "scheduler")
    (folder / "feature_extractor").mkdir()
    (folder / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    (folder / "pano4d.json").write_text(json.dumps(RECOMMENDED))
    return folder


@pytest.fixture(scope="session")
def masked(tmp_path_factory):
    """A checkpoint with 9 input channels. Not to be changed."""
    return write(tmp_path_factory.mktemp("checkpoints") / "masked", 9)


@pytest.fixture(scope="session")
def stock(tmp_path_factory):
    """A checkpoint with 8 input channels and weights of variant fp16, without a pano4d.json. Not to be changed."""
    folder = write(tmp_path_factory.mktemp("checkpoints") / "stock", 8)
    for path in sorted(folder.rglob("*.safetensors")):
        path.rename(path.with_suffix(".fp16.safetensors"))
    (folder / "pano4d.json").unlink()
    return folder


@pytest.fixture
def copied(masked, tmp_path):
    """A copy of the masked checkpoint, to be damaged."""
    return shutil.copytree(masked, tmp_path / "copied")
