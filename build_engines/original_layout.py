"""Find the weights of diffusers' modules in a file of the layout that Stability AI publishes.

Such a file holds ``model.diffusion_model`` (the denoiser), ``first_stage_model`` (the autoencoder, its decoder over
time), ``conditioner.embedders.0`` (the image encoder, by open_clip) and ``conditioner.embedders.3`` (the autoencoder's
encoder once more, with the layer that diffusers calls ``quant_conv``, which conditions the denoiser on the picture).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

UNET, CODEC = "model.diffusion_model.", "first_stage_model."
CLIP, PICTURE = "conditioner.embedders.0.open_clip.model.visual.", "conditioner.embedders.3.encoder."

_RESNET = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
           "out_layers.3": "conv2", "skip_connection": "conv_shortcut", "nin_shortcut": "conv_shortcut"}
_TRANSFORMER = {"time_stack": "temporal_transformer_blocks", "time_pos_embed.0": "time_pos_embed.linear_1",
                "time_pos_embed.2": "time_pos_embed.linear_2"}
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_UNET_ENDS = {"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
              "label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2",
              "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out"}
_CODEC_ENDS = {"conv_out.time_mix_conv": "time_conv_out", "norm_out": "conv_norm_out"}
_CLIP = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1",
         "mlp.c_proj": "mlp.fc2"}
_CLIP_ENDS = {"class_embedding": "embeddings.class_embedding", "conv1": "embeddings.patch_embedding",
              "positional_embedding": "embeddings.position_embedding.weight", "ln_pre": "pre_layrnorm",
              "ln_post": "post_layernorm"}


@dataclass(frozen=True)
class Taken:
    """Say what a weight is made of.

    Attributes:
        key: Name of a tensor in the file.
        third: Which third of its rows; None for all.
        turned: Whether it is transposed.
        matrix: Whether trailing dimensions of size 1 go: a kernel of one pixel that diffusers keeps as a matrix.
    """

    key: str
    third: int | None = None
    turned: bool = False
    matrix: bool = False

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Say the weight's shape, given the tensor's."""
        shape = shape[:2] if self.matrix else shape
        shape = shape[::-1] if self.turned else shape
        return shape if self.third is None else (shape[0] // 3, *shape[1:])

    def weight(self, tensor: Any) -> Any:
        """Make the weight of the tensor, of torch or NumPy."""
        tensor = tensor.reshape(tensor.shape[:2]) if self.matrix and tensor.ndim > 2 else tensor
        tensor = tensor.T if self.turned else tensor
        if self.third is None:
            return tensor
        rows = tensor.shape[0] // 3
        return tensor[self.third * rows:(self.third + 1) * rows]


def unet_weights(keys: Iterable[str]) -> dict[str, Taken]:
    """Find the weights of UNetSpatioTemporalConditionModel.

    Args:
        keys: Names of the file's tensors.

    Returns:
        What each weight is made of.

    Raises:
        KeyError: A tensor has no place there.
    """
    inner = [key.removeprefix(UNET) for key in keys if key.startswith(UNET)]
    # Each level ends with a block that halves, but for the last.
    numbers = {key: int(key.split(".")[1]) for key in inner if key.startswith("input_blocks.")}
    halving = [number for key, number in numbers.items() if key.endswith(".op.weight")]
    level = min(halving) if halving else 1 + max(numbers.values(), default=0)
    return {_unet_name(key, level): Taken(UNET + key) for key in inner}


def codec_weights(keys: Iterable[str]) -> dict[str, Taken]:
    """Find the weights of AutoencoderKLTemporalDecoder; the encoder is that of the conditioner, where there is one.

    Args:
        keys: Names of the file's tensors.

    Returns:
        What each weight is made of; without ``quant_conv`` where the file has none.

    Raises:
        KeyError: A tensor has no place there.
    """
    keys = list(keys)
    encoder = PICTURE if any(key.startswith(f"{PICTURE}encoder.") for key in keys) else CODEC
    levels = 1 + max((int(key.split(".")[3]) for key in keys if key.startswith(f"{CODEC}decoder.up.")), default=0)
    found = {}
    for key in keys:
        if key.startswith(f"{encoder}encoder."):
            name = _codec_name(key.removeprefix(encoder), levels)
        elif key.startswith(f"{CODEC}decoder."):
            name = _codec_name(key.removeprefix(CODEC), levels)
        elif key.startswith(f"{encoder}quant_conv."):
            name = key.removeprefix(encoder)
        else:
            continue
        found[name] = Taken(key, matrix=".attentions." in name and name.endswith("weight"))
    return found


def clip_weights(keys: Iterable[str]) -> dict[str, Taken]:
    """Find the weights of CLIPVisionModelWithProjection.

    Args:
        keys: Names of the file's tensors.

    Returns:
        What each weight is made of.

    Raises:
        KeyError: A tensor has no place there.
    """
    return dict(pair for key in keys if key.startswith(CLIP) for pair in _clip_pairs(key))


def _unet_name(key: str, level: int) -> str:
    place, _, rest = key.partition(".")
    if place not in ("input_blocks", "middle_block", "output_blocks") or key.startswith("input_blocks.0."):
        return _renamed(key, _UNET_ENDS, needed=True)
    number, _, rest = rest.partition(".")
    if place == "middle_block":
        inside = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}[number]
        return f"mid_block.{inside}.{_resnet(rest) if number != '1' else _renamed(rest, _TRANSFORMER)}"
    block, layer = divmod(int(number) - (place == "input_blocks"), level)
    side, (what, _, rest) = "down" if place == "input_blocks" else "up", rest.partition(".")
    if rest.startswith(("op.", "conv.")):
        return f"{side}_blocks.{block}.{side}samplers.0.conv.{rest.partition('.')[2]}"
    if what == "0":
        return f"{side}_blocks.{block}.resnets.{layer}.{_resnet(rest)}"
    return f"{side}_blocks.{block}.attentions.{layer}.{_renamed(rest, _TRANSFORMER)}"


def _codec_name(key: str, levels: int) -> str:
    half, place, *rest = key.split(".")
    over_time = half == "decoder"
    if place == "mid":
        inside = {"block_1": "resnets.0", "block_2": "resnets.1", "attn_1": "attentions.0"}[rest[0]]
        tail = ".".join(rest[1:])
        tail = _renamed(tail, _ATTENTION) if rest[0] == "attn_1" else _resnet(tail, over_time)
        return f"{half}.mid_block.{inside}.{tail}"
    if place in ("down", "up"):
        block = levels - 1 - int(rest[0]) if place == "up" else int(rest[0])
        if rest[1] == "block":
            return f"{half}.{place}_blocks.{block}.resnets.{rest[2]}.{_resnet('.'.join(rest[3:]), over_time)}"
        return f"{half}.{place}_blocks.{block}.{place}samplers.0.{'.'.join(rest[2:])}"
    return f"{half}.{_renamed('.'.join((place, *rest)), _CODEC_ENDS)}"


def _clip_pairs(key: str) -> Iterator[tuple[str, Taken]]:
    rest = key.removeprefix(CLIP)
    if rest == "proj":
        yield "visual_projection.weight", Taken(key, turned=True)
    elif rest.startswith("transformer.resblocks."):
        number, _, rest = rest.removeprefix("transformer.resblocks.").partition(".")
        layer = f"vision_model.encoder.layers.{number}."
        if rest.startswith("attn.in_proj_"):
            for third, side in enumerate("qkv"):
                yield f"{layer}self_attn.{side}_proj.{rest.removeprefix('attn.in_proj_')}", Taken(key, third)
        else:
            yield layer + _renamed(rest, _CLIP, needed=True), Taken(key)
    else:
        yield f"vision_model.{_renamed(rest, _CLIP_ENDS, needed=True)}", Taken(key)


def _resnet(key: str, over_time: bool = True) -> str:
    """Rename what is inside a residual block; one over time holds a spatial and a temporal one, and how to mix them."""
    if key.endswith("mix_factor"):
        return "time_mixer.mix_factor"
    inner = key.removeprefix("time_stack.")
    half = "temporal_res_block." if inner != key else "spatial_res_block."
    return (half if over_time else "") + _renamed(inner, _RESNET)


def _renamed(key: str, names: dict[str, str], needed: bool = False) -> str:
    """Rename the start of a key."""
    for old, new in names.items():
        if key == old or key.startswith(f"{old}."):
            return new + key[len(old):]
    if needed:
        raise KeyError(key)
    return key
