"""Generate with the demo model and measure the result: reconstruction, first frame, spectrum in time, drift."""

from __future__ import annotations

import torch

from pano4d.examples.demo_model.clips import motion_bucket, motion_levels
from pano4d.examples.demo_model.diffusion import conditions_for, decode, sample_latents
from pano4d.examples.demo_model.networks import Networks


def psnr(made: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Measure the peak signal-to-noise ratio of values in [0, 1], in dB, per row. float32 [B]."""
    error = (made - true).square().flatten(1).mean(1).clamp(min=1e-10)
    return -10 * error.log10()


@torch.no_grad()
def reconstruct(nets: Networks, clips: torch.Tensor) -> torch.Tensor:
    """Encode and decode clips [B, T, 3, s, s] in [0, 1], one at a time. float32, as `clips`."""
    made = []
    for clip in clips:
        latents = nets.vae.encode(clip * 2 - 1).latent_dist.mode() * nets.vae.config.scaling_factor
        made.append(decode(nets.vae, latents[None]))
    return torch.cat(made)


@torch.no_grad()
def generate(nets, clips, masks, sigmas, solver: str, seed: int = 0, batch: int = 8, buckets=None) -> torch.Tensor:
    """Animate the clips' first frames, at the clips' own motion unless `buckets` [B] says otherwise."""
    generator, made = torch.Generator().manual_seed(seed), []
    buckets = motion_bucket(motion_levels(clips, masks)) if buckets is None else buckets
    for start in range(0, len(clips), batch):
        rows = slice(start, start + batch)
        conditions = conditions_for(nets, clips[rows, 0], masks[rows], buckets[rows], generator)
        latents = sample_latents(nets, conditions, sigmas, generator, solver)
        made += [decode(nets.vae, one[None]) for one in latents]
    return torch.cat(made)


def spectrum(clips: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Take the temporal power inside the masks at frequencies 1 to 4 of the 14-frame transform. float32 [4]."""
    power = torch.fft.rfft(clips * 255, dim=1)[:, 1:5].abs().square().mean(2)
    return (power * masks).sum(dim=(0, 2, 3)) / masks.sum()


def measure(clips, masks, made) -> dict:
    """Compare generated clips with the true ones.

    Args:
        clips: Truth. float32 [B, T, 3, s, s] in [0, 1].
        masks: float32 [B, 1, s, s].
        made: Generated. float32, as `clips`.
    """
    still = (masks < 0.01).float()
    drift = (made - made[:, :1]).abs().mean(2) * 255
    ratio = spectrum(made, masks) / spectrum(clips, masks)
    true, got = motion_levels(clips, masks), motion_levels(made, masks)
    tenth, ninetieth = got.quantile(torch.tensor([0.1, 0.9]).to(got)).tolist()
    return {
        "first_frame_psnr_db": round(psnr(made[:, 0], clips[:, 0]).mean().item(), 2),
        "spectrum_ratio_1_to_4": [round(r, 3) for r in ratio.tolist()],
        "static_drift_levels": round(((drift * still).sum() / (still.sum() * clips.shape[1]).clamp(min=1)).item(), 3),
        "motion_levels_true": round(true.mean().item(), 2),
        "motion_levels_generated": round(got.mean().item(), 2),
        "motion_levels_generated_10th_90th": [round(tenth, 2), round(ninetieth, 2)],
        "motion_correlation": round(torch.corrcoef(torch.stack([true, got]))[0, 1].item(), 3),
    }
