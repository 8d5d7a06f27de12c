"""Precondition, weigh and sample the denoiser, as Stable Video Diffusion does (EDM, Karras et al., 2022)."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

from pano4d.examples.demo_model.masks import latent_masks
from pano4d.examples.demo_model.networks import CLIP_MEAN, CLIP_PX, CLIP_STD, NUM_FRAMES, RECOMMENDED, Networks
from pano4d.runtime import schedule

BROAD_SHARE, BROAD_LOG = 0.25, (-5.3, 4.9)


def random_sigmas(count: int, generator: torch.Generator, device) -> torch.Tensor:
    """Draw noise levels, log sigma normal with mean 0.7 and deviation 1.6.

    A quarter of them has a uniform logarithm instead, from 0.005 to 134, so that the first and last steps of
    sampling are trained too.

    Returns:
        float32 [count].
    """
    usual = 0.7 + 1.6 * torch.randn(count, generator=generator, device=device)
    low, high = BROAD_LOG
    broad = low + (high - low) * torch.rand(count, generator=generator, device=device)
    pick = torch.rand(count, generator=generator, device=device) < BROAD_SHARE
    return torch.where(pick, broad, usual).exp()


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> torch.Tensor:
    """Space noise levels as the runtime does, with a final zero. float32 [steps + 1]."""
    return torch.from_numpy(schedule.karras_sigmas(steps, sigma_min, sigma_max, rho)).float()


def clip_pixels(first: torch.Tensor) -> torch.Tensor:
    """Resize pictures for the image encoder. float [B, 3, s, s] in [0, 1] to [B, 3, 224, 224] in [0, 1]."""
    small = F.interpolate(first, (CLIP_PX, CLIP_PX), mode="bicubic", antialias=True, align_corners=False)
    return small.clamp(0, 1)


def embed(nets: Networks, pixels: torch.Tensor) -> torch.Tensor:
    """Embed resized pictures [B, 3, 224, 224] in [0, 1] as cross-attention context [B, 1, D]."""
    mean, std = _colour_statistics(pixels.device)
    return nets.image_encoder(((pixels - mean) / std).to(nets.image_encoder.dtype)).image_embeds[:, None]


@functools.cache
def _colour_statistics(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep the image encoder's mean and deviation on a device: a graph that is being recorded can't fetch them."""
    return tuple(torch.tensor(values, device=device)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))


def frame_masks(masks: torch.Tensor) -> torch.Tensor:
    """Repeat latent masks [B, 1, h, w] over the frames, with none on the first: [B, T, 1, h, w]."""
    frames = masks[:, None].repeat(1, NUM_FRAMES, 1, 1, 1)
    frames[:, 0] = 0
    return frames


def time_ids(buckets: torch.Tensor, noise_aug: torch.Tensor) -> torch.Tensor:
    """Pack the added conditions: frame rate less one, motion bucket, noise augmentation. float32 [B, 3]."""
    fps = torch.full_like(buckets, RECOMMENDED["fps"] - 1)
    return torch.stack([fps, buckets, noise_aug], dim=-1)


def predict_v(unet, noisy, sigma, masks, image_latents, context, ids) -> torch.Tensor:
    """Call the network on noisy latents.

    Args:
        unet: The network.
        noisy: x = x0 + sigma * noise. float32 [B, T, 4, h, w].
        sigma: float32 [B].
        masks: Masks of every frame. float32 [B, T, 1, h, w].
        image_latents: Mode of the first frame's latent, unscaled. float32 [B, 4, h, w].
        context: float32 [B, 1, D].
        ids: float32 [B, 3].

    Returns:
        v. float32 [B, T, 4, h, w].
    """
    scaled = noisy / (sigma**2 + 1).sqrt()[:, None, None, None, None]
    images = image_latents[:, None].expand(-1, noisy.shape[1], -1, -1, -1)
    sample = torch.cat([masks, scaled, images], dim=2).to(unet.dtype)
    return unet(sample, 0.25 * sigma.log(), context.to(unet.dtype), ids, return_dict=False)[0].float()


def v_target(clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """State what v should be, (noise - sigma * clean) / sqrt(sigma^2 + 1).

    The squared error of v equals the denoised estimate's, weighted (sigma^2 + 1) / sigma^2.
    """
    s = sigma[:, None, None, None, None]
    return (noise - s * clean) / (s**2 + 1).sqrt()


@torch.no_grad()
def sample_latents(nets: Networks, conditions: dict, sigmas: torch.Tensor, generator: torch.Generator,
                   solver: str = RECOMMENDED["solver"]) -> torch.Tensor:
    """Step down `sigmas` as the runtime does.

    Args:
        nets: The networks.
        conditions: masks, image_latents, context, ids as of `predict_v`.
        sigmas: Decreasing, ending with 0. float32 [steps + 1].
        generator: Source of the noise, on the CPU.
        solver: One of the runtime's.

    Returns:
        Scaled latents. float32 [B, T, 4, h, w].
    """
    masks = conditions["masks"]
    shape = (masks.shape[0], masks.shape[1], 4, *masks.shape[3:])
    x = torch.randn(shape, generator=generator).to(masks.device) * (sigmas[0] ** 2 + 1).sqrt()
    previous, weights = x, schedule.extrapolations(sigmas.numpy(), solver)
    for sigma, following, weight in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), weights.tolist()):
        level = torch.full((shape[0],), sigma, device=x.device)
        v = predict_v(nets.unet, x, level, **conditions)
        denoised = x / (sigma**2 + 1) - sigma / (sigma**2 + 1) ** 0.5 * v
        target = denoised + weight * (denoised - previous)
        x, previous = target + following / sigma * (x - target), denoised
    return x


@torch.no_grad()
def conditions_for(nets: Networks, first, masks, buckets, generator, noise_aug: float = 0.02, soft=False) -> dict:
    """Encode first frames [B, 3, s, s] in [0, 1] and masks [B, 1, s, s] into the network's conditions."""
    noise = torch.randn(first.shape, generator=generator).to(first.device)
    pixels = first * 2 - 1 + noise_aug * noise
    aug = torch.full_like(buckets, noise_aug)
    return {
        "masks": frame_masks(latent_masks(masks, soft=soft)),
        "image_latents": nets.vae.encode(pixels).latent_dist.mode(),
        "context": embed(nets, clip_pixels(first)),
        "ids": time_ids(buckets, aug),
    }


@torch.no_grad()
def decode(vae, latents: torch.Tensor) -> torch.Tensor:
    """Decode scaled latents [B, T, 4, h, w] to pixels [B, T, 3, 4h, 4w] in [0, 1]."""
    flat = latents.flatten(0, 1) / vae.config.scaling_factor
    pixels = vae.decode(flat, num_frames=latents.shape[1]).sample
    return (pixels.unflatten(0, latents.shape[:2]).float() / 2 + 0.5).clamp(0, 1)
