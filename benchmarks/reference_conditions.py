"""Make what the original 4K4DGen (arXiv 2406.13527) tells the UNet: all of it from the whole panorama."""

import numpy as np
import torch
from PIL import Image
from torch import nn

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_MASK_SIDE_PX, _MASK_MULTIPLE_PX = 1080, 64


def embed(encoder: nn.Module, panorama: np.ndarray) -> torch.Tensor:
    """Embed the panorama squashed to a square, which every view and window is then told.

    Args:
        encoder: ``CLIPVisionModelWithProjection``.
        panorama: uint8 [H, W, 3].

    Returns:
        Unconditional embedding, which is zero, and conditional one, in the encoder's dtype. [2, 1, D].

    Raises:
        ValueError: The panorama has no three channels.
    """
    side, device = encoder.config.image_size, encoder.device
    pixels = torch.tensor(panorama, device=device).permute(2, 0, 1)[None].float() / 255
    pixels = nn.functional.interpolate(pixels, (side, side), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(values, device=device).reshape(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    embedding = encoder(((pixels - mean) / std).to(encoder.dtype)).image_embeds[:, None]
    return torch.cat([torch.zeros_like(embedding), embedding])


def encode(vae: nn.Module, panorama: np.ndarray, height: int, noise: float, generator: torch.Generator) -> torch.Tensor:
    """Encode the whole panorama at once, in float32.

    Args:
        vae: ``AutoencoderKLTemporalDecoder``; float32 while it works.
        panorama: uint8 [H, W, 3].
        height: Height of the latent, h.
        noise: Standard deviation of the noise added to the pixels, which are in -1..1.
        generator: Draws that noise, on the CPU.

    Returns:
        The posterior's mode, unscaled, float32 [4, h, 2h].

    Raises:
        torch.OutOfMemoryError: The panorama does not fit the device.
    """
    dtype, rows = vae.dtype, height * px_per_latent(vae)
    resized = Image.fromarray(panorama).resize((2 * rows, rows), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None].float() / 127.5 - 1
    pixels += noise * torch.randn(pixels.shape, generator=generator)
    # diffusers' own ``to`` logs a warning each time.
    nn.Module.to(vae, torch.float32)
    try:
        return vae.encode(pixels.to(vae.device)).latent_dist.mode()[0]
    finally:
        nn.Module.to(vae, dtype)


def px_per_latent(vae: nn.Module) -> int:
    """Give the pixels to a latent pixel and axis: 8 for SVD.

    Args:
        vae: ``AutoencoderKLTemporalDecoder``.

    Returns:
        A power of 2.

    Raises:
        AttributeError: The module has no such configuration.
    """
    return 2 ** (len(vae.config.block_out_channels) - 1)


def latent_mask(mask: np.ndarray, shape: tuple[int, int], height: int) -> torch.Tensor:
    """Resize a mask twice: to about a megapixel, where every touched pixel counts, then softly to latents.

    Args:
        mask: True where the picture may move. bool [h0, w0].
        shape: Height and width of the panorama.
        height: Height of the latent, h.

    Returns:
        Shares in 0..1, float32 [1, h, 2h], on the CPU.

    Raises:
        ValueError: The mask is no picture.
    """
    scale = _MASK_SIDE_PX / (shape[0] * shape[1]) ** 0.5 / _MASK_MULTIPLE_PX
    size = tuple(max(1, round(side * scale)) * _MASK_MULTIPLE_PX for side in (shape[1], shape[0]))
    working = Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).resize(size, Image.Resampling.BICUBIC)
    moving = torch.from_numpy(np.array(working) > 0)[None, None].float()
    return nn.functional.interpolate(moving, (height, 2 * height), mode="bilinear", align_corners=False)[0]
