"""Sharpen the decoder of the linear autoencoder: error of pixels and of their gradients over clips."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F

from pano4d.examples.demo_model.autoencoder import decoder_wires, encode_cells
from pano4d.examples.demo_model.measures import psnr, reconstruct
from pano4d.examples.demo_model.pools import Ring, Source
from pano4d.examples.demo_model.state import Every, Trainer, learning_rate

LATENT_NOISE = 0.02
COLOUR_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


def cut(ring: Ring, count: int, frames: int, size_px: int, run) -> torch.Tensor:
    """Cut clips at one place, turned over or not, colours in one order: [count, frames, 3, s, s] in [0, 1]."""
    clips = ring.rows["clips"]
    late, room = clips.shape[1] - frames + 1, clips.shape[-1] - size_px + 1
    t, y, x, flip, order = (run.choose(n) for n in (late, room, room, 2, len(COLOUR_ORDERS)))
    piece = clips[:, t : t + frames, :, y : y + size_px, x : x + size_px][ring.pick(count, run.random)]
    piece = torch.stack([piece[:, :, c] for c in COLOUR_ORDERS[order]], dim=2).float() / 255
    return piece.flip(-1) if flip else piece


def gradient_error(made: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Compare neighbouring pixels' differences, L1."""
    d = made - true
    return (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()


def loss(vae, clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """State the decoder's loss on clips [B, T, 3, s, s] in [0, 1]; latents are noisy, as generated ones are."""
    true = clips.flatten(0, 1)
    latents = encode_cells(F.avg_pool2d(true, 2))
    latents = latents + LATENT_NOISE * torch.randn(latents.shape, generator=generator, device=latents.device)
    with torch.autocast(clips.device.type, torch.bfloat16, enabled=clips.is_cuda):
        made = vae.decode(latents, num_frames=clips.shape[1]).sample.float()
    true = true * 2 - 1
    return F.mse_loss(made, true) + 0.02 * F.l1_loss(made, true) + 0.02 * gradient_error(made, true)


def held_out_psnr(run) -> float:
    """Reconstruct the held-out clips and take the mean PSNR of clips, in dB."""
    clips = run.held[0][:, ::4]
    return psnr(reconstruct(run.nets, clips), clips).mean().item()


def train(run) -> None:
    """Train the decoder until its seconds are spent: short cuts first, whole tiles later."""
    plan, vae, total, spent = run.plan, run.nets.vae, run.args.vae_seconds, run.progress["vae"]
    trainer = run.trainer("vae", list(vae.decoder.parameters()), decoder_wires(vae), 0.998)
    pool = Ring(plan.clip_pool)
    source = Source(run.next_seed(), run.device, plan.vae_render, plan.vae_px, 0.25,
                    lambda clips, masks: pool.add(clips=(clips * 255).round().byte()))
    while pool.count < plan.vae_first:
        source.render()
    run.say(f"decoder begins at {held_out_psnr(run):.2f} dB; {pool.count} clips in {source.spent:.1f} s")
    begun, told, steps, made = time.monotonic(), Every(plan.tell), 0, 0
    while not run.late() and steps < plan.max_steps and (done := (spent + time.monotonic() - begun) / total) < 1:
        size = plan.vae_sizes[done > 0.5]
        value = loss(vae, cut(pool, *size, run), run.random)
        vae.decoder.zero_grad(set_to_none=True)
        value.backward()
        trainer.step(learning_rate(run.args.vae_rate, done))
        steps += 1
        if source.due():
            source.render()
        if told.due():
            trainer.swap()
            run.say(f"decoder {steps} steps, loss {value.item():.5f}, held-out {held_out_psnr(run):.2f} dB")
            trainer.swap()
        run.count(vae=spent + time.monotonic() - begun, clips=source.batches - made)
        made = source.batches
        run.keep()
    run.progress["vae_steps"] += steps
    if run.progress["vae"] >= total or steps >= plan.max_steps:
        trainer.swap()
        run.trainers.clear()
        run.progress["vae"] = total
        run.say(f"decoder done: {run.progress['vae_steps']} steps, held-out {held_out_psnr(run):.2f} dB")
    run.keep(now=True)
