"""Train the demo model: sharpen the decoder, then train the denoiser with the image encoder.

    python -m pano4d.examples.demo_model.train --folder RUN --smoke        (a few tiny steps, on a CPU)

On a machine with one large GPU whose calls end after ten minutes, three calls make the model. It wants torch,
transformers, diffusers 0.42.1 and importlib_metadata (carried as wheels where there is no network), and `pano4d` to
be importable, for which a link of that name to the repository's root is enough. OUT is what comes back of a call:

    python -m pano4d.examples.demo_model.train --folder RUN --out OUT/weights --graph --stop-after 562
    python -m pano4d.examples.demo_model.train --folder RUN --out OUT/weights --graph --stop-after 562
    python -m pano4d.examples.demo_model.train --folder RUN --out OUT/weights --graph --stop-after 330 && \\
        python -m pano4d.examples.demo_model.evaluate --parts OUT/weights --out OUT/figures.json --sheet OUT/sheet.png

RUN stays on the machine between calls; on a fresh machine add `--resume-parts` with the last OUT/weights. OUT/weights
holds averaged float32 weights in parts of at most 15 MiB. Where they end up, the pipeline folder is written by

    python -m pano4d.examples.demo_model.evaluate --parts OUT/weights --pipeline FOLDER

Schedules are set in seconds over all calls, so the number of steps depends on the machine; first weights and the
clips' seeds depend on `--seed` alone.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from pano4d.examples.demo_model import networks, speed, state, train_unet, train_vae
from pano4d.examples.demo_model.clips import sample_clips

HELD_OUT_SEED = 1_000_000_000
SAVE_S, EXPORT_S = 120, 300


@dataclass(frozen=True)
class Plan:
    """Set the sizes of a run; the defaults are for one large GPU.

    Sizes of the decoder's batches are (clips, frames, px), of the denoiser's (clips, latent px): early, late.
    Seconds between prints and between checks are `tell` and `check`.
    """

    vae_sizes: tuple = ((48, 4, 64), (4, 14, 128))
    vae_render: int = 64
    vae_px: int = 128
    vae_first: int = 256
    clip_pool: int = 4096
    unet_sizes: tuple = ((96, 16), (32, 32))
    unet_render: int = 512
    unet_px: int = 64
    unet_first: int = 4096
    latent_pool: int = 40960
    held_out: int = 8
    held_px: int = 128
    tell: float = 20
    check: float = 180
    max_steps: int = 10**9


SMOKE = Plan(((1, 2, 16), (1, 3, 32)), 2, 32, 2, 4, ((2, 4), (1, 8)), 2, 16, 4, 8, 2, 32, 0, 0, 4)


class Run:
    """Hold everything that a training run keeps between calls."""

    def __init__(self, args, plan: Plan):
        self.args, self.plan = args, plan
        self.deadline = time.monotonic() + args.stop_after
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.path = args.folder / "state.pt"
        self.nets = networks.build(args.seed)
        counts = ("vae_steps", "unet_steps", "clips", "batches", "stages")
        self.progress = {"vae": 0.0, "unet": 0.0} | dict.fromkeys(counts, 0)
        self.trainers, self.saved = {}, {}
        self._load()
        self.nets.to(self.device)
        speed.ready(self.nets.unet), speed.ready(self.nets.vae.decoder)
        stage = self.progress["stages"] = self.progress["stages"] + 1
        self.random = torch.Generator(self.device).manual_seed(args.seed + 1000 * stage)
        self.places = random.Random(args.seed + stage)
        self.saving, self.exporting = state.Every(SAVE_S), state.Every(EXPORT_S)
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        self.held = sample_clips(plan.held_out, HELD_OUT_SEED, self.device, plan.held_px, held_out=True)[:2]

    def _load(self) -> None:
        if self.path.exists():
            self.saved = torch.load(self.path, map_location="cpu", weights_only=True)
        elif self.args.resume_parts:
            self.saved = state.read_parts(self.args.resume_parts, "weights")
        if self.saved:
            self.progress.update(self.saved["progress"])
            for name, module in self.nets.modules().items():
                module.load_state_dict(self.saved[name])

    def trainer(self, stage: str, parameters: list, wires, decay: float) -> state.Trainer:
        """Make the trainer of a stage, as it was when the stage was left."""
        trainer = self.trainers[stage] = state.Trainer(parameters, wires, decay)
        if stage in self.saved.get("trainers", {}):
            trainer.resume(self.saved["trainers"][stage])
        return trainer

    def say(self, *words) -> None:
        """Print with the seconds left in this call."""
        print(f"[{self.deadline - time.monotonic():6.1f} s left]", *words, flush=True)

    def late(self) -> bool:
        """Say whether this call must stop."""
        return time.monotonic() > self.deadline

    def choose(self, count: int) -> int:
        """Choose a number below `count` without asking the device."""
        return self.places.randrange(count)

    def next_seed(self) -> int:
        """Give the first seed of clips that this run has not rendered yet."""
        return self.args.seed * 10_000_000 + self.progress["stages"] * 100_000 + self.progress["batches"]

    def count(self, clips: int = 0, unet_steps: int = 0, **seconds: float) -> None:
        """Note the seconds of a stage, and what was done since the last note: batches of clips, steps."""
        self.progress.update(seconds)
        size = self.plan.vae_render if "vae" in seconds else self.plan.unet_render
        self.progress["batches"] += clips
        self.progress["clips"] += clips * size
        self.progress["unet_steps"] += unet_steps

    def keep(self, now: bool = False) -> None:
        """Save the state, and the averaged weights in parts, when it is time."""
        if self.saving.due() or now:
            value = self._weights() | {"trainers": {k: t.state() for k, t in self.trainers.items()}}
            state.save_atomic(value, self.path)
        if self.args.out and (self.exporting.due() or now):
            for trainer in self.trainers.values():
                trainer.swap()
            state.write_parts(self._weights(), self.args.out, "weights")
            for trainer in self.trainers.values():
                trainer.swap()

    def _weights(self) -> dict:
        return {n: m.state_dict() for n, m in self.nets.modules().items()} | {"progress": dict(self.progress)}


def main() -> None:
    """Run both stages as far as the time goes, then write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the state is kept")
    parser.add_argument("--out", type=Path, help="write the averaged weights here, in parts of 15 MiB")
    parser.add_argument("--resume-parts", type=Path, help="begin from such parts if the folder has no state")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--vae-seconds", type=float, default=170)
    parser.add_argument("--unet-seconds", type=float, default=1215)
    parser.add_argument("--early", type=float, default=0.35, help="share of the denoiser's time on small cuts")
    parser.add_argument("--vae-rate", type=float, default=5e-4, help="highest learning rate of the decoder")
    parser.add_argument("--unet-rate", type=float, default=5e-4, help="highest learning rate of the denoiser")
    parser.add_argument("--render-share", type=float, default=0.15, help="share of the denoiser's time for new clips")
    parser.add_argument("--stop-after", type=float, default=1500, help="seconds after which this call ends")
    parser.add_argument("--graph", action="store_true", help="replay steps from a CUDA graph where it works")
    parser.add_argument("--smoke", action="store_true", help="a few tiny steps")
    args = parser.parse_args()
    run = Run(args, SMOKE if args.smoke else Plan())
    if run.progress["vae"] < args.vae_seconds:
        train_vae.train(run)
    if not run.late() and run.progress["unet"] < args.unet_seconds:
        train_unet.train(run)
    run.keep(now=True)


if __name__ == "__main__":
    main()
