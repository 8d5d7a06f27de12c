"""Replace the blocks of the diffusers modules by ones that keep channels last, for engines compiled for a GPU.

Memory holds [.., rows, columns, channels] throughout, so that a picture is a list of tokens, a temporal convolution
is a two-dimensional one over (frames, pixels), and neither attention nor normalisation moves data. Of the identities
in ``shortcuts``, attention to one token and the share of the temporal branch are used here as well; query, key and value
are one product; the frames' position embedding, which depends on weights alone, is computed once.

``verify`` compares the result with the untouched modules.
"""

import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock, FeedForward, TemporalBasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D, SpatioTemporalResBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from pano4d.build_engines import temporal_convolution
from pano4d.build_engines.gated_product import gate_plain, multiply_and_gate
from pano4d.build_engines.shortcuts import temporal_share
from pano4d.build_engines.temporal_attention import attend_over_frames


def keep_channels_last(module: nn.Module, frames: int) -> nn.Module:
    """Replace what can be, in place, and lay the convolutions' weights out for it.

    Args:
        module: A network of diffusers or a wrapper around one, for inference only.
        frames: Frames T of every clip.

    Returns:
        The same module.
    """
    _replace(module, frames)
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            child.weight.data = child.weight.data.contiguous(memory_format=torch.channels_last)
    return module


def _replace(module: nn.Module, frames: int) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, TransformerSpatioTemporalModel):
            setattr(module, name, Transformer(child, frames))
        elif isinstance(child, SpatioTemporalResBlock):
            setattr(module, name, SpatioTemporalBlock(child))
        elif isinstance(child, ResnetBlock2D) and child.upsample is None and child.downsample is None:
            setattr(module, name, SpatialBlock(child))
        elif isinstance(child, Upsample2D) and child.conv is not None and child.norm is None:
            setattr(module, name, Upsample(child))
        elif isinstance(child, nn.GroupNorm):
            setattr(module, name, PictureNorm(child))
        else:
            _replace(child, frames)


def tokens_of(x: Tensor) -> Tensor:
    """View pictures [N, C, h, w], channels last in memory, as tokens [N, h w, C]."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[1])


def pictures_of(x: Tensor, height: int) -> Tensor:
    """View tokens [N, h w, C] as pictures [N, C, h, w], channels last in memory."""
    return x.reshape(x.shape[0], height, -1, x.shape[2]).permute(0, 3, 1, 2)


class TokenNorm(nn.Module):
    """Normalise groups of channels of tokens [N, P, C], each over its P tokens; sums are float32.

    Args:
        norm: What to compute.
        silu: Whether SiLU follows.
    """

    def __init__(self, norm: nn.GroupNorm, silu: bool = False) -> None:
        super().__init__()
        self.groups, self.eps, self.silu = norm.num_groups, norm.eps, silu
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        # Channels are summed first, each by itself: neighbouring threads then read neighbouring channels, and a group
        # is a sum over a handful of numbers.
        wide = x.float()
        mean, square = self._of_groups(wide.mean(dim=1)), self._of_groups((wide * wide).mean(dim=1))
        scale = torch.rsqrt((square - mean * mean).clamp(min=0) + self.eps) * self.weight.float()
        shift = self.bias.float() - mean * scale
        normal = wide * scale[:, None] + shift[:, None]
        return (F.silu(normal) if self.silu else normal).to(x.dtype)

    def _of_groups(self, means: Tensor) -> Tensor:
        """Replace means of channels [N, C] by that of their group."""
        grouped = means.unflatten(1, (self.groups, -1))
        return grouped.mean(dim=2, keepdim=True).expand_as(grouped).flatten(1)


class PictureNorm(nn.Module):
    """Normalise groups of channels of pictures [N, C, h, w]."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = TokenNorm(norm)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:  # tokens of the decoder's own attention, [N, C, P]
            return self.norm(x.transpose(1, 2)).transpose(1, 2)
        return pictures_of(self.norm(tokens_of(x)), x.shape[2])


class Upsample(nn.Module):
    """Double a picture by repetition and convolve it."""

    def __init__(self, upsample: Upsample2D) -> None:
        super().__init__()
        self.conv = upsample.conv

    def forward(self, hidden_states: Tensor, output_size: int | None = None, *_: object) -> Tensor:
        size = {"size": output_size} if output_size is not None else {"scale_factor": 2.0}
        return self.conv(F.interpolate(hidden_states, mode="nearest", **size))


class SpatialBlock(nn.Module):
    """Convolve pictures [N, C, h, w] twice, with the noise level's embedding between."""

    def __init__(self, block: ResnetBlock2D) -> None:
        super().__init__()
        assert block.time_embedding_norm == "default" and block.output_scale_factor == 1.0
        self.norm1, self.norm2 = TokenNorm(block.norm1, silu=True), TokenNorm(block.norm2, silu=True)
        self.conv1, self.conv2, self.shortcut = block.conv1, block.conv2, block.conv_shortcut
        self.embed = block.time_emb_proj

    def forward(self, x: Tensor, temb: Tensor | None = None, *_: object) -> Tensor:
        height = x.shape[2]
        y = self.conv1(pictures_of(self.norm1(tokens_of(x)), height))
        if temb is not None and self.embed is not None:
            y = y + self.embed(F.silu(temb))[:, :, None, None]
        y = self.conv2(pictures_of(self.norm2(tokens_of(y)), height))
        return y + (x if self.shortcut is None else self.shortcut(x))


class SpatioTemporalBlock(nn.Module):
    """Apply a spatial block frame by frame, then a temporal one whose share is in its last weights."""

    def __init__(self, block: SpatioTemporalResBlock) -> None:
        super().__init__()
        temporal, share = block.temporal_res_block, temporal_share(block.time_mixer)
        self.spatial = SpatialBlock(block.spatial_res_block)
        self.norm1, self.norm2 = TokenNorm(temporal.norm1, silu=True), TokenNorm(temporal.norm2, silu=True)
        self.embed = temporal.time_emb_proj
        self.conv1, self.conv2 = convolve_frames(temporal.conv1), convolve_frames(temporal.conv2, share)

    def forward(self, hidden_states: Tensor, temb: Tensor | None = None,
                image_only_indicator: Tensor | None = None) -> Tensor:
        batch, frames = image_only_indicator.shape
        x = self.spatial(hidden_states, temb)  # [B T, C, h, w]
        clips = tokens_of(x).reshape(batch, -1, x.shape[1])  # [B, T h w, C]
        y = self.conv1(self.norm1(clips), frames)
        if temb is not None and self.embed is not None:
            embedded = self.embed(F.silu(temb)).reshape(batch, frames, -1).transpose(1, 2)[..., None]
            y = tokens_of(pictures_of(y, frames) + embedded)
        y = self.conv2(self.norm2(y), frames)
        return pictures_of((clips + y).reshape(x.shape[0], -1, x.shape[1]), x.shape[2])


class Transformer(nn.Module):
    """Attend within each frame, then over the frames of each pixel; pictures [B T, C, h, w] in and out."""

    def __init__(self, model: TransformerSpatioTemporalModel, frames: int) -> None:
        super().__init__()
        self.norm, self.proj_in, self.proj_out = TokenNorm(model.norm), model.proj_in, model.proj_out
        self.spatial = nn.ModuleList(WithinFrame(block) for block in model.transformer_blocks)
        self.temporal = nn.ModuleList(OverFrames(block) for block in model.temporal_transformer_blocks)
        with torch.no_grad():
            weight = model.proj_in.weight
            steps = model.time_proj(torch.arange(frames, device=weight.device))
            positions = model.time_pos_embed(steps.to(weight.dtype))
        self.register_buffer("positions", positions[:, None].detach().clone())  # [T, 1, C]
        self.share = nn.Parameter(temporal_share(model.time_mixer).clone(), requires_grad=False)

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, image_only_indicator: Tensor,
                return_dict: bool = False) -> tuple[Tensor]:
        batch, frames = image_only_indicator.shape
        tokens = tokens_of(hidden_states)  # [B T, P, C]; Inductor takes what has four dimensions for pictures
        x, first = self.proj_in(self.norm(tokens)), encoder_hidden_states.unflatten(0, (batch, frames))[:, :1]
        for spatial, temporal in zip(self.spatial, self.temporal):
            x = spatial(x, encoder_hidden_states)
            x = x + self.share * (temporal(x + self.positions.repeat(batch, 1, 1), first) - x)
        return (pictures_of(self.proj_out(x) + tokens, hidden_states.shape[2]),)


class WithinFrame(nn.Module):
    """Let the tokens of a frame attend to one another and to the context; x [B T, P, C], context [B T, 1, D]."""

    def __init__(self, block: BasicTransformerBlock) -> None:
        super().__init__()
        self.norm1, self.attention, self.known = block.norm1, SelfAttention(block.attn1), OneToken(block.attn2)
        self.norm3, self.feed = block.norm3, Feed(block.ff)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + self.attention.out(self._attend(self.attention.qkv(self.norm1(x)))) + self.known(context)
        return x + self.feed(self.norm3(x))

    def _attend(self, qkv: Tensor) -> Tensor:
        heads = qkv.unflatten(2, (3, self.attention.heads, -1)).permute(2, 0, 3, 1, 4)  # [3, B T, H, P, d]
        return F.scaled_dot_product_attention(*heads.unbind(0)).transpose(1, 2).flatten(2)


class OverFrames(nn.Module):
    """Let the frames of a pixel attend to one another and to the context; x [B T, P, C], context [B, 1, 1, D]."""

    def __init__(self, block: TemporalBasicTransformerBlock) -> None:
        super().__init__()
        assert block.is_res
        self.norm_in, self.feed_in = block.norm_in, Feed(block.ff_in)
        self.norm1, self.attention, self.known = block.norm1, SelfAttention(block.attn1), OneToken(block.attn2)
        self.norm3, self.feed = block.norm3, Feed(block.ff)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        batch, frames = context.shape[0], x.shape[0] // context.shape[0]
        x = x + self.feed_in(self.norm_in(x))
        qkv = self.attention.qkv(self.norm1(x)).unflatten(0, (batch, frames))
        attended = attend_over_frames(qkv, self.attention.heads).flatten(0, 1)
        x = x + self.attention.out(attended) + self.known(context).expand(-1, frames, -1, -1).flatten(0, 1)
        return x + self.feed(self.norm3(x))


class SelfAttention(nn.Module):
    """Hold one product for query, key and value, and the product that follows attention."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads, self.out = attention.heads, attention.to_out[0]
        parts = (attention.to_q, attention.to_k, attention.to_v)
        self.qkv = nn.Linear(parts[0].in_features, sum(part.out_features for part in parts), parts[0].bias is not None)
        self.qkv.weight = _joined(part.weight for part in parts)
        if parts[0].bias is not None:
            self.qkv.bias = _joined(part.bias for part in parts)


class OneToken(nn.Module):
    """Attend to a context of one token: the projected value, whatever the query."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.value, self.out = attention.to_v, attention.to_out[0]

    def forward(self, context: Tensor) -> Tensor:
        return self.out(self.value(context))


class Feed(nn.Module):
    """Compute the gated feed-forward: out(hidden * gelu(gate))."""

    def __init__(self, feed: FeedForward) -> None:
        super().__init__()
        self.enter, self.leave = feed.net[0].proj, feed.net[2]

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.enter, nn.Linear):
            return self.leave(multiply_and_gate(x, self.enter.weight, self.enter.bias))
        return self.leave(gate_plain(self.enter(x)))


def _joined(parts) -> nn.Parameter:
    return nn.Parameter(torch.cat([part.detach() for part in parts]), requires_grad=False)


def convolve_frames(conv: nn.Conv3d, share: Tensor | float = 1.0) -> nn.Module:
    """Make a (3, 1, 1) convolution one of tokens: called with clips [B, T P, C] and T, its result times ``share``."""
    weight, bias = (nn.Parameter(share * part.detach(), requires_grad=False) for part in (conv.weight, conv.bias))
    few = temporal_convolution.suits(conv.in_channels, conv.out_channels)
    return (FewChannels if few else FrameConvolution)(weight[..., 0, 0], bias)


class FrameConvolution(nn.Module):
    """Convolve over the frames of clips as over the rows of a picture: T of them, with a column for every pixel.

    Args:
        weight: [C', C, 3].
        bias: [C'].
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.conv = nn.Conv2d(weight.shape[1], weight.shape[0], (3, 1), padding=(1, 0))
        self.conv.weight, self.conv.bias = nn.Parameter(weight[..., None], requires_grad=False), bias

    def forward(self, clips: Tensor, frames: int) -> Tensor:
        return tokens_of(self.conv(pictures_of(clips, frames)))


class FewChannels(nn.Module):
    """Convolve over the frames of clips with a kernel of our own.

    Args:
        weight: [C', C, 3].
        bias: [C'].
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.permute(2, 1, 0).contiguous(), requires_grad=False)  # [3, C, C']
        self.bias = bias

    def forward(self, clips: Tensor, frames: int) -> Tensor:
        return temporal_convolution.convolve_over_frames(clips, self.weight, self.bias, frames)
