"""Reading checkpoints: both kinds are understood, damaged ones are refused in one sentence."""

import json

import pytest

from pano4d.build_engines.checkpoint import read_checkpoint
from pano4d.runtime.errors import CheckpointError

PARTS = ("unet", "vae", "image_encoder")
CONFIGS = ("unet/config.json", "vae/config.json", "image_encoder/config.json", "scheduler/scheduler_config.json",
           "feature_extractor/preprocessor_config.json")


def refusal(folder):
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(folder)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def change(folder, name, **entries):
    path = folder / name
    config = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def test_a_masked_checkpoint_is_understood(masked):
    found = read_checkpoint(masked)
    assert (found.name, found.license, found.channels, found.embedding) == ("tiny", "Apache-2.0", 9, 8)
    assert (found.factor, found.multiple, found.frames, found.tile_px, found.weights.variant) == (2, 2, 2, 16, None)
    assert found.image_mean == (0.48, 0.46, 0.41)
    assert found.sampler == {
        "sigma_min": 0.02, "sigma_max": 70.0, "rho": 7.0, "prediction_type": "v_prediction", "scaling_factor": 0.25,
        "num_inference_steps": 5, "solver": "dpmpp-2m", "levels": "aligned", "min_guidance_scale": 1.0, "max_guidance_scale": 1.0, "fps": 7,
        "motion_bucket_id": 127, "noise_aug_strength": 0.02}
    assert set(found.weight_files) == {"unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors",
                                  "image_encoder/model.safetensors"}


def test_a_stock_checkpoint_is_understood(stock):
    found = read_checkpoint(stock)
    assert (found.name, found.license, found.channels, found.weights.variant) == ("stock", "unknown", 8, "fp16")
    assert (found.frames, found.tile_px, found.sampler["num_inference_steps"]) == (2, 512, 7)
    assert (found.sampler["min_guidance_scale"], found.sampler["max_guidance_scale"]) == (1.0, 3.0)


def test_full_precision_is_preferred(copied):
    path = copied / "unet" / "diffusion_pytorch_model.safetensors"
    path.with_suffix(".fp16.safetensors").write_bytes(b"not read")
    assert read_checkpoint(copied).weights.variant is None


def test_a_scheduler_without_sigmas_has_those_of_svd(copied):
    change(copied, "scheduler/scheduler_config.json", sigma_min=None, sigma_max=None)
    sampler = read_checkpoint(copied).sampler
    assert (sampler["sigma_min"], sampler["sigma_max"]) == (0.002, 700.0)


def test_any_changed_file_changes_what_was_read(copied):
    before = read_checkpoint(copied).files
    change(copied, "pano4d.json", fps=8)
    assert read_checkpoint(copied).files != before


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    assert "is no folder and no file" in refusal(tmp_path / "nowhere")
    assert "unet/config.json" in refusal(tmp_path)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_missing_part_is_refused(copied, name):
    (copied / name).unlink()
    assert name in refusal(copied)


@pytest.mark.parametrize("name", [*CONFIGS, "pano4d.json"])
@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_a_damaged_configuration_is_refused(copied, name, content):
    (copied / name).write_text(content)
    assert name in refusal(copied)


@pytest.mark.parametrize("part", PARTS)
def test_missing_weights_are_refused(copied, part):
    next((copied / part).glob("*.safetensors")).unlink()
    assert f"{part} holds no .safetensors weights" in refusal(copied)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_truncated_weights_are_refused(copied, part, keep):
    path = next((copied / part).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:keep])
    assert f"{path.name} is damaged or truncated" in refusal(copied)


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin", ".CKPT"])
def test_pickles_are_refused_by_their_name(tmp_path, suffix):
    (tmp_path / f"svd{suffix}").write_bytes(b"never read")
    assert "is a pickle" in refusal(tmp_path / f"svd{suffix}")


def test_weights_that_are_a_pickle_are_refused(copied):
    path = next((copied / "unet").glob("*.safetensors"))
    path.rename(path.with_suffix(".bin"))
    assert "only diffusion_pytorch_model.bin, a pickle" in refusal(copied)


def test_weights_of_another_width_than_the_configuration_are_refused(copied):
    change(copied, "unet/config.json", in_channels=8)
    assert "take 9 input channels, and the configuration in" in refusal(copied)


@pytest.mark.parametrize("part, weight", [("unet", "conv_out.weight"), ("vae", "decoder.conv_out.bias"),
                                          ("image_encoder", "visual_projection.weight")])
@pytest.mark.parametrize("kept", [0, 1], ids=["missing", "cut"])
def test_a_tensor_that_is_missing_or_cut_is_refused_when_its_part_is_made(copied, part, weight, kept):
    from safetensors.torch import load_file, save_file

    path = next((copied / part).glob("*.safetensors"))
    held = load_file(path)
    whole = held.pop(weight)
    if kept:
        held[weight] = whole[:1].contiguous()
    save_file(held, path, {"format": "pt"})
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(copied).weights.module(part)
    message = str(caught.value)
    assert part in message and message.endswith("download or save this part again.") and "\n" not in message


def test_the_wrong_archive_of_animate_anything_is_refused(copied):
    change(copied, "unet/config.json", _class_name="UNet3DConditionModel")
    assert "UNet3DConditionModel" in (message := refusal(copied)) and "animate_anything_svd_v1.0" in message


def test_a_folder_that_holds_a_single_file_is_told_apart(tmp_path):
    (tmp_path / "svd_xt.safetensors").write_bytes(b"")
    assert "give the single file" in refusal(tmp_path)


@pytest.mark.parametrize("name, entries, word", [
    ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
    ("vae/config.json", {"_class_name": "AutoencoderKL"}, "AutoencoderKL"),
    ("vae/config.json", {"_class_name": None}, "None"),
    ("image_encoder/config.json", {"architectures": ["CLIPTextModel"]}, "CLIPTextModel"),
    ("image_encoder/config.json", {"image_size": 336}, "336"),
    ("image_encoder/config.json", {"projection_dim": 7}, "cross_attention_dim 8"),
    ("unet/config.json", {"in_channels": 4}, "in_channels 4, and 8 or 9"),
    ("unet/config.json", {"projection_class_embeddings_input_dim": 8}, "input_dim 8, and 24 is needed"),
    ("scheduler/scheduler_config.json", {"prediction_type": "epsilon"}, "epsilon"),
    ("vae/config.json", {"block_out_channels": 3}, "TypeError"),
    ("pano4d.json", {"fps": "fast"}, "ValueError"),
    ("feature_extractor/preprocessor_config.json", {"image_mean": None}, "image_mean"),
], ids=str)
def test_another_kind_of_model_is_refused(copied, name, entries, word):
    change(copied, name, **entries)
    assert word in refusal(copied)
