"""Read a checkpoint that is one .safetensors file, in the layout that Stability AI publishes.

Such a file names neither its widths nor its constants: widths are read off the shapes of its tensors, heads are 64 wide in
the denoiser and 80 in the image encoder (arXiv 2311.15127; open_clip's ViT-H/14), and constants are those of Stable Video
Diffusion, unless NAME.pano4d.json beside NAME.safetensors says otherwise. Nothing is fetched.
"""

from pathlib import Path
from typing import Any

from pano4d.build_engines.folder import Found, check_whole, read_told, refuse_pickle
from pano4d.build_engines.original_layout import (CLIP, CODEC, UNET, Taken, clip_weights, codec_weights,
                                                  unet_weights)
from pano4d.build_engines.weights import FileWeights, Shapes, header
from pano4d.runtime.backends.eager import CLASS_OF_PART
from pano4d.runtime.errors import CheckpointError

UNET_HEAD, CLIP_HEAD = 64, 80
SCALING_FACTOR = 0.18215
COLOURS = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
SCHEDULER = {"prediction_type": "v_prediction", "sigma_min": 0.002, "sigma_max": 700.0, "use_karras_sigmas": True}

_PARTS = {"unet": (UNET, unet_weights), "vae": (CODEC, codec_weights), "image_encoder": (CLIP, clip_weights)}


def read_file(path: Path, parts: tuple[str, ...] = tuple(CLASS_OF_PART)) -> tuple[Found, dict[str, dict[str, Taken]]]:
    """Find the parts of a single file and infer their configurations.

    Args:
        path: The file.
        parts: Parts that must be there.

    Returns:
        What it says, and what the weights of each part are made of; no weights are held.

    Raises:
        CheckpointError: It is damaged, or another kind of model.
    """
    check_whole(path)
    held = dict(header(path))
    taken = {part: _part(path, held, part) for part in parts}
    beside = path.with_name(f"{path.stem}.pano4d.json")
    told = read_told(beside)
    try:
        shapes = {part: {name: one.shape(held[one.key]) for name, one in found.items()} for part, found in taken.items()}
        configs = {"unet": unet_config(shapes["unet"]), "vae": codec_config(shapes["vae"]),
                   "image_encoder": clip_config(shapes["image_encoder"])}
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"{path} lacks weights of a Stable Video Diffusion checkpoint, such as {error.args[0]}: "
                              "download it again.") from error
    configs |= {"scheduler": SCHEDULER, "feature_extractor": COLOURS}
    files = {file.name: file for file in (path, *([beside] if told else []))}
    return Found(configs, told, dict.fromkeys(configs, path), files, None, (path.stem,)), taken


def read_denoiser(path: Path, config: dict[str, Any]) -> FileWeights:
    """Find a denoiser in a file that may hold nothing else, under diffusers' names or under Stability AI's.

    Args:
        path: A .safetensors file.
        config: Configuration of the denoiser that it takes the place of.

    Returns:
        Its weights, not held.

    Raises:
        CheckpointError: The file is missing or damaged, or holds no denoiser of this configuration.
    """
    refuse_pickle(path)
    if not path.is_file():
        raise CheckpointError(f"There is no denoiser {path}: give a .safetensors file with --unet.")
    check_whole(path)
    held = dict(header(path))
    if "conv_in.weight" in held:
        return FileWeights(path, config, {name: Taken(name) for name in held})
    return FileWeights(path, config, _part(path, held, "unet"))


def unet_config(shapes: Shapes) -> dict[str, Any]:
    """Read the configuration of a denoiser off the shapes of its weights.

    Args:
        shapes: Shapes by diffusers' names.

    Returns:
        What UNetSpatioTemporalConditionModel takes.

    Raises:
        KeyError: A weight is missing.
    """
    levels = _count(shapes, "down_blocks.")
    widths = tuple(shapes[f"down_blocks.{i}.resnets.0.spatial_res_block.conv1.weight"][0] for i in range(levels))
    crossed = [f"down_blocks.{i}.attentions.0.proj_in.weight" in shapes for i in range(levels)]
    raised = [f"up_blocks.{i}.attentions.0.proj_in.weight" in shapes for i in range(levels)]
    middle = "mid_block.attentions.0."
    return {
        "in_channels": shapes["conv_in.weight"][1], "out_channels": shapes["conv_out.weight"][0],
        "block_out_channels": widths, "layers_per_block": _count(shapes, "down_blocks.0.resnets."),
        "down_block_types": tuple(("CrossAttn" if cross else "") + "DownBlockSpatioTemporal" for cross in crossed),
        "up_block_types": tuple(("CrossAttn" if cross else "") + "UpBlockSpatioTemporal" for cross in raised),
        "num_attention_heads": tuple(max(1, width // UNET_HEAD) for width in widths),
        "cross_attention_dim": shapes[f"{middle}transformer_blocks.0.attn2.to_k.weight"][1],
        "transformer_layers_per_block": _count(shapes, f"{middle}transformer_blocks."),
        "addition_time_embed_dim": shapes["add_embedding.linear_1.weight"][1] // 3,
        "projection_class_embeddings_input_dim": shapes["add_embedding.linear_1.weight"][1]}


def codec_config(shapes: Shapes) -> dict[str, Any]:
    """Read what AutoencoderKLTemporalDecoder takes off the shapes of its weights; raises KeyError as `unet_config`."""
    levels = _count(shapes, "encoder.down_blocks.")
    widths = tuple(shapes[f"encoder.down_blocks.{i}.resnets.0.conv1.weight"][0] for i in range(levels))
    return {"block_out_channels": widths,
            "down_block_types": ("DownEncoderBlock2D",) * levels, "latent_channels": shapes["decoder.conv_in.weight"][1],
            "layers_per_block": _count(shapes, "encoder.down_blocks.0.resnets."), "scaling_factor": SCALING_FACTOR}


def clip_config(shapes: Shapes) -> dict[str, Any]:
    """Read what CLIPVisionConfig takes off the shapes of the image encoder; raises KeyError as `unet_config`."""
    width, _, patch, _ = shapes["vision_model.embeddings.patch_embedding.weight"]
    places, _ = shapes["vision_model.embeddings.position_embedding.weight"]
    return {"hidden_size": width, "patch_size": patch, "image_size": round((places - 1) ** 0.5) * patch,
            "intermediate_size": shapes["vision_model.encoder.layers.0.mlp.fc1.weight"][0],
            "num_hidden_layers": _count(shapes, "vision_model.encoder.layers."),
            "num_attention_heads": max(1, width // CLIP_HEAD), "projection_dim": shapes["visual_projection.weight"][0],
            "hidden_act": "gelu"}


def _count(shapes: Shapes, prefix: str) -> int:
    """Count numbered members of a list of modules."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in shapes if name.startswith(prefix)})


def _part(path: Path, held: Shapes, part: str) -> dict[str, Taken]:
    """Find a part, or say what the file is instead."""
    prefix, find = _PARTS[part]
    if not any(key.startswith(prefix) for key in held):
        if "conv_in.weight" in held and any(key.startswith("down_blocks.") for key in held):
            raise CheckpointError(f"{path} holds a denoiser alone: give the checkpoint that it was tuned from, and this "
                                  "file with --unet.")
        raise CheckpointError(f"{path} holds no {prefix}*, which is where a Stable Video Diffusion checkpoint keeps its "
                              f"{CLASS_OF_PART[part]}: give the whole checkpoint, such as svd_xt.safetensors.")
    if part != "image_encoder" and not any("time_stack" in key for key in held if key.startswith(prefix)):
        raise CheckpointError(f"{path} holds a {'denoiser' if part == 'unet' else 'decoder'} of still pictures, and one "
                              "of videos is needed: give svd.safetensors or svd_xt.safetensors, not another model or their "
                              "*_image_decoder.safetensors.")
    try:
        return find(held)
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path} holds {error.args[0]!r} under {prefix}*, which a Stable Video Diffusion checkpoint "
                              "has not: download it again.") from error
