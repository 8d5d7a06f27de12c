"""Train the denoiser and the image encoder on latent clips: small cuts first, whole tiles later."""

from __future__ import annotations

import time

import torch

from pano4d.examples.demo_model import speed
from pano4d.examples.demo_model.denoiser import denoiser_wires
from pano4d.examples.demo_model.diffusion import (
    clip_pixels,
    embed,
    frame_masks,
    karras_sigmas,
    predict_v,
    random_sigmas,
    time_ids,
    v_target,
)
from pano4d.examples.demo_model.measures import generate, measure
from pano4d.examples.demo_model.networks import RECOMMENDED, SCHEDULER, Networks
from pano4d.examples.demo_model.pools import Ring, Source, latent_rows
from pano4d.examples.demo_model.state import Every, Trainer, learning_rate

SOFT_SHARE = 0.12
STILL_WEIGHT = 3.0
WAYS = ((True, False), (True, True), (False, False))


def batch_of(pool: Ring, count: int, size: int, run) -> dict[str, torch.Tensor]:
    """Choose rows, cut them to `size` latent pixels at one place, turn half of them over, add noise.

    Returns:
        clean and noise [B, T, 4, h, w], sigma [B], masks [B, T, 1, h, w], image [B, 4, h, w], pixels
        [B, 3, 224, 224], ids [B, 3]; all float32.
    """
    g, device, rows = run.random, run.device, pool.rows
    pick, room = pool.pick(count, g), rows["image"].shape[-1] - size + 1
    y, x = run.choose(room), run.choose(room)
    turned = torch.rand(count, generator=g, device=device) < 0.5

    def turn(values: torch.Tensor) -> torch.Tensor:
        return torch.where(turned.view(-1, *[1] * (values.ndim - 1)), values.flip(-1), values)

    cuts = (rows[k][..., y : y + size, x : x + size][pick] for k in ("latents", "image", "share"))
    clean, image, share = (turn(cut.float()) for cut in cuts)
    soft = torch.rand(count, 1, 1, 1, generator=g, device=device) < SOFT_SHARE
    return {
        "clean": clean,
        "noise": torch.randn(clean.shape, generator=g, device=device),
        "sigma": random_sigmas(count, g, device),
        "masks": frame_masks(torch.where(soft, share, (share > 0).float())),
        "image": image,
        "pixels": clip_pixels(turn(rows["picture"][pick]).float() / 255),
        "ids": time_ids(rows["bucket"][pick], rows["aug"][pick]),
    }


def loss(nets: Networks, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """State the squared error of v over a batch of `batch_of`; what must not move weighs more."""
    clean, noise, sigma, masks = (batch[k] for k in ("clean", "noise", "sigma", "masks"))
    noisy = clean + sigma[:, None, None, None, None] * noise
    with torch.autocast(clean.device.type, torch.bfloat16, enabled=clean.is_cuda, cache_enabled=False):
        context = embed(nets, batch["pixels"])
        v = predict_v(nets.unet, noisy, sigma, masks, batch["image"], context, batch["ids"])
    error = (v - v_target(clean, noise, sigma)).square()
    return (error * (STILL_WEIGHT + (1 - STILL_WEIGHT) * masks)).mean()


class Step:
    """Compute a loss and its gradients, replayed from a CUDA graph where that was asked for and works.

    Args:
        nets: The networks.
        parameters: What gets gradients.
        graph: Record a graph for each new size of batch.
    """

    def __init__(self, nets: Networks, parameters: list, graph: bool):
        self.nets, self.parameters, self.wanted = nets, parameters, graph
        self.graph, self.inputs, self.value = None, {}, None

    def __call__(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Leave fresh gradients in the parameters and return the loss."""
        if self.wanted and (self.graph is None or self.inputs["clean"].shape != batch["clean"].shape):
            self._record(batch)
        if self.graph is None:
            return self.eager(batch)
        torch._foreach_copy_(list(self.inputs.values()), [batch[k] for k in self.inputs])
        self.graph.replay()
        return self.value

    def eager(self, batch) -> torch.Tensor:
        """Compute without a graph."""
        for parameter in self.parameters:
            parameter.grad = None
        value = loss(self.nets, batch)
        value.backward()
        return value.detach()

    def _record(self, batch) -> None:
        """Record loss and gradients; gradients stay where the graph writes them."""
        self.graph = self.value = None
        self.inputs = {k: v.clone() for k, v in batch.items()}
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(aside):
                for _ in range(3):
                    self.eager(self.inputs)
            torch.cuda.current_stream().wait_stream(aside)
            for parameter in self.parameters:
                parameter.grad = None
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                value = loss(self.nets, self.inputs)
                value.backward()
            self.graph, self.value = graph, value.detach()
        except RuntimeError as error:
            print(f"no graph, so step by step: {str(error).splitlines()[0]}", flush=True)
            torch.cuda.synchronize()
            self.wanted = False


def fastest(run, step: Step, batch) -> None:
    """Time the ways of `speed.ready` on this machine, once, and take the best."""
    if "way" not in run.progress:
        seconds = []
        for way in WAYS:
            speed.ready(run.nets.unet, *way)
            for repeat in range(9):
                if repeat == 4:
                    torch.cuda.synchronize()
                    begun = time.monotonic()
                step.eager(batch)
            torch.cuda.synchronize()
            seconds.append((time.monotonic() - begun) / 5)
            run.say(f"flat_time, channels_last = {way}: {seconds[-1] * 1e3:.0f} ms a step")
        run.progress["way"] = seconds.index(min(seconds))
    speed.ready(run.nets.unet, *WAYS[run.progress["way"]])


def check(run) -> dict:
    """Animate held-out clips with the recommended sampler and measure them."""
    clips, masks = run.held
    sigmas = karras_sigmas(RECOMMENDED["num_inference_steps"], SCHEDULER["sigma_min"], SCHEDULER["sigma_max"])
    found = measure(clips, masks, generate(run.nets, clips, masks, sigmas, RECOMMENDED["solver"]))
    keys = ("first_frame_psnr_db", "spectrum_ratio_1_to_4", "static_drift_levels")
    ratio = found["motion_levels_generated"] / max(found["motion_levels_true"], 1e-6)
    return {k: found[k] for k in keys} | {"motion_ratio": round(ratio, 3)}


def train(run) -> None:
    """Train until the denoiser's seconds are spent or this call must end."""
    plan, nets, spent = run.plan, run.nets, run.progress["unet"]
    nets.vae.requires_grad_(False)
    parameters = [*nets.unet.parameters(), *nets.image_encoder.parameters()]
    pool = Ring(plan.latent_pool)
    source = Source(run.next_seed(), run.device, plan.unet_render, plan.unet_px, run.args.render_share,
                    lambda clips, masks: pool.add(**latent_rows(clips, masks, run.random)))
    while pool.count < plan.unet_first and not run.late():
        source.render()
    run.say(f"{pool.count} latent clips in {source.spent:.1f} s")
    step = Step(nets, parameters, run.args.graph and run.device == "cuda")
    if run.device == "cuda":
        fastest(run, step, batch_of(pool, *plan.unet_sizes[spent > run.args.early * run.args.unet_seconds], run))
    trainer = run.trainer("unet", parameters, denoiser_wires(nets.unet), 0.999)
    total, begun, made = run.args.unet_seconds, time.monotonic(), 0
    told, checked, steps, sums, counted = Every(plan.tell), Every(plan.check), 0, 0.0, 0
    while not run.late() and steps < plan.max_steps and (done := (spent + time.monotonic() - begun) / total) < 1:
        value = step(batch_of(pool, *plan.unet_sizes[done > run.args.early], run))
        trainer.step(learning_rate(run.args.unet_rate, done))
        steps, sums, counted = steps + 1, sums + value, counted + 1
        if source.due():
            source.render()
        if told.due():
            share = source.spent / (time.monotonic() - source.started)
            run.say(f"denoiser {run.progress['unet_steps']} steps, mean loss {float(sums) / counted:.4f}, "
                    f"{run.progress['clips']} clips in all, rendering {share:.0%}")
            sums, counted = 0.0, 0
        if checked.due():
            trainer.swap()
            run.say(check(run))
            trainer.swap()
        run.count(unet=spent + time.monotonic() - begun, unet_steps=1, clips=source.batches - made)
        made = source.batches
        run.keep()
    trainer.swap()
    run.say(f"denoiser stops after {run.progress['unet_steps']} steps", check(run))
    trainer.swap()
    run.keep(now=True)
