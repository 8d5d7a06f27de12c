"""Checkpoints as one file: the same weights, the same engines, and sentences for files that are something else."""

import json
import pickle
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from pano4d.build_engines.build import build_bundle  # noqa: E402
from pano4d.build_engines.checkpoint import SVD, read_checkpoint  # noqa: E402
from pano4d.build_engines.networks import example_inputs, reference_module  # noqa: E402
from pano4d.build_engines.original_layout import clip_weights, codec_weights, unet_weights  # noqa: E402
from pano4d.build_engines.single_file import COLOURS, clip_config, codec_config, unet_config  # noqa: E402
from pano4d.build_engines.verify import BOUNDS, parity, run_engine  # noqa: E402
from pano4d.runtime.backends import load_engine  # noqa: E402
from pano4d.runtime.backends.base import NETWORKS  # noqa: E402
from pano4d.runtime.errors import BackendError, CheckpointError  # noqa: E402
from pano4d.runtime.pipeline import Animator  # noqa: E402
from pano4d.runtime.settings import AnimateSettings  # noqa: E402

ENDS = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
CODEC = [
    (r"^decoder\.time_conv_out\.", "decoder.conv_out.time_mix_conv."), (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."), (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."), (r"\.group_norm\.", ".norm."), (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."), (r"\.down_blocks\.(\d)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d)\.downsamplers\.0\.", r".down.\1.downsample."), (r"\.up_blocks\.0\.resnets\.", ".up.1.block."),
    (r"\.up_blocks\.0\.upsamplers\.0\.", ".up.1.upsample."), (r"\.up_blocks\.1\.resnets\.", ".up.0.block."),
    (r"\.time_mixer\.mix_factor", ".mix_factor"), (r"\.spatial_res_block\.", "."),
    (r"\.temporal_res_block\.norm1\.", ".time_stack.in_layers.0."), (r"\.temporal_res_block\.conv1\.", ".time_stack.in_layers.2."),
    (r"\.temporal_res_block\.norm2\.", ".time_stack.out_layers.0."),
    (r"\.temporal_res_block\.conv2\.", ".time_stack.out_layers.3."), (r"\.conv_shortcut\.", ".nin_shortcut.")]
VISUAL = [
    (r"^vision_model\.embeddings\.class_embedding", "class_embedding"), (r"^vision_model\.pre_layrnorm\.", "ln_pre."),
    (r"^vision_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "conv1."), (r"^vision_model\.post_layernorm\.", "ln_post."),
    (r"^vision_model\.encoder\.layers\.", "transformer.resblocks."), (r"\.layer_norm1\.", ".ln_1."),
    (r"\.layer_norm2\.", ".ln_2."), (r"\.self_attn\.out_proj\.", ".attn.out_proj."), (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj.")]


def renamed(name, rules):
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name


def place(name, layers):
    """Number a block as sgm's VideoUNet does, and say whether it is a residual one."""
    match = re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.+)", name)
    if match is None:
        inside, number, rest = re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name).groups()
        return f"middle_block.{1 if inside == 'attentions' else 2 * int(number)}", rest, inside == "resnets"
    side, level, inside, number, rest = match.groups()
    if inside == "downsamplers":
        return f"input_blocks.{(int(level) + 1) * (layers + 1)}.0.op", rest.removeprefix("conv."), False
    if inside == "upsamplers":
        # Transformers stand in all levels but the lowest, from which the first raises.
        return f"output_blocks.{(int(level) + 1) * (layers + 1) - 1}.{1 if level == '0' else 2}", rest, False
    number = int(level) * (layers + 1) + int(number) + (side == "down")
    return f"{'input' if side == 'down' else 'output'}_blocks.{number}.{int(inside == 'attentions')}", rest, inside == "resnets"


def original_unet_name(name, layers):
    for new, old in ENDS.items():
        if name.startswith(f"{new}."):
            return old + name.removeprefix(new)
    where, rest, resnet = place(name, layers)
    if not resnet:
        rest = rest.replace("temporal_transformer_blocks.", "time_stack.")
        rest = re.sub(r"^time_pos_embed\.linear_(1|2)", lambda found: f"time_pos_embed.{2 * int(found[1]) - 2}", rest)
    elif not rest.startswith("time_mixer."):
        half, inner, end = rest.split(".")
        rest = ("time_stack." if half == "temporal_res_block" else "") + f"{RESNET[inner]}.{end}"
    return f"{where}.{rest}"


def original_unet(state, layers=1):
    return {f"model.diffusion_model.{original_unet_name(name, layers)}": weight for name, weight in state.items()}


def original_codec(state, fold):
    """The decoder, and the encoder twice: with the layer after it, and ruined where it must not be read."""
    keys = {}
    for name, weight in state.items():
        new = renamed(name, CODEC)
        if ".mid.attn_1." in new and new.endswith("weight") and ".norm." not in new:
            weight = weight[:, :, None, None]
        if name.startswith("decoder."):
            keys[f"first_stage_model.{new}"] = weight
        elif fold:
            keys[f"first_stage_model.{new}"] = weight
        else:
            keys[f"conditioner.embedders.3.encoder.{new}"] = weight
            if name.startswith("encoder."):
                keys[f"first_stage_model.{new}"] = torch.full_like(weight, torch.nan)
    return keys


def original_clip(state):
    keys = {}
    for name, weight in state.items():
        new = renamed(name, VISUAL)
        if name == "visual_projection.weight":
            keys["proj"] = weight.T.contiguous()
        elif ".self_attn.q_proj." in new:
            parts = [state[name.replace("q_proj", f"{side}_proj")] for side in "qkv"]
            keys[new.replace(".self_attn.q_proj.", ".attn.in_proj_")] = torch.cat(parts)
        elif not re.search(r"self_attn\.[kv]_proj", new):
            keys[new] = weight
    return {f"conditioner.embedders.0.open_clip.model.visual.{name}": weight for name, weight in keys.items()}


def original(folder, fold=False):
    """The tensors of a folder's checkpoint under their original names."""
    unet, vae = (load_file(folder / part / "diffusion_pytorch_model.safetensors") for part in ("unet", "vae"))
    clip = load_file(folder / "image_encoder" / "model.safetensors")
    return original_unet(unet) | original_codec(vae, fold) | original_clip(clip)


@pytest.fixture(scope="module")
def folder(written, tmp_path_factory):
    """A folder whose widths and constants are such as a single file can be told to have."""
    made = written(tmp_path_factory.mktemp("single") / "svd_xt", 8, 25, width=64, told=None, scale=0.18215, layers=2)
    (made / "scheduler/scheduler_config.json").write_text(json.dumps(
        {"prediction_type": "v_prediction", "sigma_min": 0.002, "sigma_max": 700.0}))
    (made / "feature_extractor/preprocessor_config.json").write_text(json.dumps(COLOURS))
    return made


@pytest.fixture(scope="module")
def single(folder):
    """The same checkpoint as one file. Not to be changed."""
    path = folder.parent / "svd_xt.safetensors"
    save_file(original(folder), path)
    return path


@pytest.fixture
def changed(single, tmp_path):
    """Write another file: without some tensors, with others."""
    def write(drop="\0", name="other.safetensors", **more):
        held = {key: value for key, value in load_file(single).items() if not re.search(drop, key)}
        save_file(held | more, tmp_path / name)
        return tmp_path / name
    return write


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


@pytest.mark.parametrize("network", NETWORKS)
def test_the_weights_are_those_of_the_folder(folder, single, network):
    ours, theirs = (reference_module(read_checkpoint(path), network).state_dict() for path in (single, folder))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_it_is_described_as_the_folder_is(folder, single):
    ours, theirs = read_checkpoint(single), read_checkpoint(folder)
    same = ("name", "license", "channels", "embedding", "widths", "factor", "multiple", "frames", "tile_px", "sampler",
            "image_mean", "image_std")
    assert {name: getattr(ours, name) for name in same} == {name: getattr(theirs, name) for name in same}
    assert ours.frames == 25 and ours.license == "stable-video-diffusion-community"
    assert list(ours.weight_files) == ["svd_xt.safetensors"]
    for part in ("unet", "vae", "image_encoder"):
        assert ours.weights.shapes(part) == theirs.weights.shapes(part)


def test_engines_of_both_agree(folder, single, tmp_path):
    options = {"tile_px": 16, "frames": 2, "max_guidance_scale": 1.0}
    bundles = [build_bundle(path, tmp_path / f"of_{path.name}", **options) for path in (single, folder)]
    assert bundles[0].manifest["model"]["source"] == "svd_xt.safetensors"
    for name in NETWORKS:
        inputs = example_inputs(list(bundles[0].network(name).inputs), seed=7)
        outputs = []
        for bundle in bundles:
            with load_engine(bundle, name) as engine:
                outputs.append(run_engine(engine, inputs))
        assert parity(*outputs)["relative_error"] <= BOUNDS["fp16"] / 100, name
    with pytest.raises(BackendError, match="the backend 'eager' runs folders in the layout of diffusers alone"):
        load_engine(bundles[0], "unet", "eager")


@pytest.mark.parametrize("name, channels, frames", [("svd", 8, 14), ("svd_xt_1_1", 8, 25), ("animate_anything_svd_v1.0", 9, 14)])
def test_a_file_of_each_kind_is_built_and_moves_only_where_it_may(written, exports_once, tmp_path, name, channels, frames):
    folder = written(tmp_path / "folder", channels, frames, width=64, told=None, scale=0.18215, layers=2)
    save_file(original(folder), tmp_path / f"{name}.safetensors")
    bundle = build_bundle(tmp_path / f"{name}.safetensors", tmp_path / "engines", tile_px=16, frames=2, max_guidance_scale=1.0)
    assert bundle.manifest["model"]["masked"] == (channels == 9)
    assert read_checkpoint(tmp_path / f"{name}.safetensors").frames == frames
    panorama = np.random.default_rng(0).integers(0, 255, (32, 64, 3)).astype(np.uint8)
    mask = np.zeros((32, 64), bool)
    mask[8:24, 8:24] = True
    made = Animator(bundle, AnimateSettings(width=64, height=32, steps=2)).animate(panorama, mask).frames
    assert (made[:, ~mask] == panorama[~mask]).all() and (made[:, mask] != panorama[mask]).any()


def test_an_encoder_with_the_last_layer_folded_in_is_read(folder, tmp_path):
    held = original(folder, fold=True)
    held = {key: value for key, value in held.items() if "quant_conv" not in key}
    save_file(held, tmp_path / "svd.safetensors")
    checkpoint = read_checkpoint(tmp_path / "svd.safetensors")
    module = checkpoint.weights.module("vae")
    latents = torch.rand(1, 8, 2, 2)
    assert checkpoint.frames == 14 and torch.equal(module.quant_conv(latents), latents)
    assert torch.equal(module.encoder.conv_in.weight, held["first_stage_model.encoder.conv_in.weight"])


def test_settings_lie_beside_the_file(changed):
    path = changed(name="mine.safetensors")
    assert read_checkpoint(path).sampler["fps"] == SVD["fps"]
    (path.parent / "mine.pano4d.json").write_text(json.dumps({"fps": 12, "num_frames": 3, "license": "ours"}))
    found = read_checkpoint(path)
    assert (found.sampler["fps"], found.frames, found.license, found.name) == (12, 3, "ours", "mine")
    assert set(found.files) == {"mine.safetensors", "mine.pano4d.json"}


@pytest.mark.parametrize("drop, words", [
    (r"^conditioner\.embedders\.0", "holds no conditioner.embedders.0.open_clip"),
    (r"^first_stage_model", "holds no first_stage_model."),
    (r"^model", "holds no model.diffusion_model."),
    (r"^first_stage_model.*time_stack", "a decoder of still pictures"),
    (r"^model.*time_stack", "a denoiser of still pictures"),
    (r"output_blocks\.\d\.0\.in_layers\.2|input_blocks\.0\.0\.weight", "such as conv_in.weight"),
])
def test_another_kind_of_file_is_refused(changed, drop, words):
    assert words in refusal(changed(drop))


def test_a_tensor_without_a_place_is_refused(changed):
    path = changed(**{"model.diffusion_model.input_blocks.0.1.weight": torch.zeros(1)})
    assert "'input_blocks.0.1.weight' under model.diffusion_model.*" in refusal(path)


def test_a_missing_tensor_is_refused_when_the_part_is_made(changed):
    checkpoint = read_checkpoint(changed(r"output_blocks\.1\.0\.out_layers\.3"))
    with pytest.raises(CheckpointError, match="2 of its weights are missing .* up_blocks.0.resnets.1.spatial"):
        checkpoint.weights.module("unet")


@pytest.mark.parametrize("keep", [0, 300, -1])
def test_a_truncated_file_is_refused(single, tmp_path, keep):
    (tmp_path / "svd.safetensors").write_bytes(single.read_bytes()[:keep])
    assert "svd.safetensors is damaged or truncated" in refusal(tmp_path / "svd.safetensors")


def test_a_denoiser_alone_is_told_how_to_be_used(folder):
    assert "holds a denoiser alone" in refusal(folder / "unet" / "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize("part", ["unet", "image_encoder"])
def test_the_full_model_is_inferred_from_its_shapes(part):
    """At the true size, without weights: every name has its place, and widths, heads and depths are the published ones."""
    from pano4d.benchmarks import full_model

    state = full_model.make_part(part, "meta", in_channels=8).state_dict() if part == "unet" else (
        full_model.make_part(part, "meta").state_dict())
    held = original_unet(state, 2) if part == "unet" else original_clip(state)
    taken = unet_weights(held) if part == "unet" else clip_weights(held)
    shapes = {name: one.shape(tuple(held[one.key].shape)) for name, one in taken.items()}
    assert shapes == {name: tuple(weight.shape) for name, weight in state.items()}
    config = unet_config(shapes) if part == "unet" else clip_config(shapes)
    published = full_model.UNET | {"in_channels": 8} if part == "unet" else full_model.IMAGE_ENCODER
    assert {name: value for name, value in published.items() if name not in ("sample_size", "num_frames")} == config


def test_the_full_autoencoder_is_inferred_from_its_shapes():
    from pano4d.benchmarks import full_model

    state = full_model.make_part("vae", "meta").state_dict()
    held = {}
    for name in state:
        # Levels of the decoder are numbered from the picture, which the tables above do for two.
        new = re.sub(r"^decoder\.up_blocks\.(\d)\.", lambda found: f"decoder.up.{3 - int(found[1])}.", name)
        new = re.sub(r"(up\.\d)\.resnets\.", r"\1.block.", re.sub(r"(up\.\d)\.upsamplers\.0\.", r"\1.upsample.", new))
        held[f"{'first_stage_model' if name[0] == 'd' else 'conditioner.embedders.3.encoder'}.{renamed(new, CODEC)}"] = state[name]
    taken = codec_weights(held)
    shapes = {name: one.shape(tuple(held[one.key].shape)) for name, one in taken.items()}
    assert shapes == {name: tuple(weight.shape) for name, weight in state.items()}
    config = codec_config(shapes)
    assert config.items() <= full_model.VAE.items() and set(full_model.VAE) - set(config) == {"sample_size", "force_upcast"}


def test_a_denoiser_of_another_file_goes_into_a_single_file_too(single, folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    checkpoint = read_checkpoint(single, unet=path)
    assert checkpoint.unet_replaced and not read_checkpoint(single).unet_replaced
    state = pickle.loads(pickle.dumps(checkpoint)).weights.module("unet").state_dict()  # as for a process that exports
    assert all(torch.equal(state[name], weight) for name, weight in load_file(path).items())
