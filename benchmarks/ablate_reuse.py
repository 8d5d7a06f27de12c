"""Ask what features reused between neighbouring steps cost the demo model, against as much work saved by fewer steps.

    python -m pano4d.benchmarks.ablate_reuse --model FOLDER --out benchmarks/results/reuse.json

FOLDER is the trained model (``examples/demo_model/train.py``). As in DeepCache (arXiv 2312.00858), a step that reuses
evaluates only the outermost level of the denoiser; what comes up from the levels below is that of the last whole step.
Rows are judged as in ``ablate_steps``, against the same model's unabridged steps there; work is counted in whole
evaluations, for the demo model and for Stable Video Diffusion, whose outermost level is a larger part of it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pano4d.benchmarks.ablate_steps import UNABRIDGED, Way, compared
from pano4d.benchmarks.full_model import make_part
from pano4d.examples.demo_model.evaluate import held_out_clips
from pano4d.examples.demo_model.measures import generate, measure
from pano4d.examples.demo_model.networks import load
from pano4d.runtime.bundle import Bundle, default_bundle_path

RESULTS = Path(__file__).parent / "results"
WAYS = ((10, 0), (10, 1), (14, 1), (10, 2))
"""Steps, and how many after each whole one reuse its features."""


class Reusing:
    """A denoiser of which only some evaluations are whole.

    Args:
        unet: ``UNetSpatioTemporalConditionModel``.
        reused: Evaluations after each whole one that reuse its features.
        steps: Evaluations of a run; each run begins with a whole one.
    """

    def __init__(self, unet: nn.Module, reused: int, steps: int) -> None:
        self.unet, self._reused, self._steps, self._done = unet, reused, steps, 0
        self._kept: Any = None

    dtype = property(lambda self: self.unet.dtype)

    def __call__(self, *args: Any, **options: Any) -> Any:
        whole = self._done % self._steps % (self._reused + 1) == 0
        self._done += 1
        return (self._whole if whole else self.shallow)(*args, **options)

    def _whole(self, *args: Any, **options: Any) -> Any:
        below = self.unet.up_blocks[-2]
        hook = below.register_forward_hook(lambda module, given, made: setattr(self, "_kept", made))
        try:
            return self.unet(*args, **options)
        finally:
            hook.remove()

    def shallow(self, *args: Any, **options: Any) -> Any:
        """Evaluate the outermost level alone, what comes from below being what was kept."""
        inner = [*self.unet.down_blocks[1:], self.unet.mid_block, *self.unet.up_blocks[:-1]]
        for block in inner:
            block.forward = self._standing_in(block)
        try:
            return self.unet(*args, **options)
        finally:
            for block in inner:
                del block.forward

    def _standing_in(self, block: nn.Module) -> Callable:
        if block in list(self.unet.down_blocks):
            skips = (None,) * (len(block.resnets) + bool(block.downsamplers))
            return lambda hidden_states, *_, **__: (hidden_states, skips)
        if block is self.unet.up_blocks[-2]:
            return lambda *_, **__: self._kept
        return lambda hidden_states, *_, **__: hidden_states


def shallow_share(unet: nn.Module, size: int, context: int) -> float:
    """Count the operations of a shallow evaluation, over those of a whole one; on the meta device.

    Args:
        unet: The denoiser.
        size: Side of a latent tile.
        context: Size of the image embedding.
    """
    frames = unet.config.num_frames
    given = (torch.empty(1, frames, unet.config.in_channels, size, size, device="meta"), torch.empty((), device="meta"),
             torch.empty(1, 1, context, device="meta"), torch.empty(1, 3, device="meta"))
    reusing, counts = Reusing(unet.to("meta"), 1, 2), []
    for _ in range(2):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            reusing(*given)
        counts.append(counter.get_total_flops())
    return counts[1] / counts[0]


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS / "reuse.json")
    args = parser.parse_args()
    judged = json.loads((RESULTS / "steps.json").read_text())
    original = next(row for row in judged["rows"] if row["name"] == UNABRIDGED[0].name)
    bundle, nets = Bundle.open(default_bundle_path()), load(args.model)
    clips, masks, _ = held_out_clips(judged["clips"], "cpu", bundle.tile["px"])
    shares = {"demo": shallow_share(load(args.model).unet, bundle.tile["latent_px"], nets.unet.config.cross_attention_dim),
              "full": shallow_share(make_part("unet", "meta", torch.float32), 64, 1024)}
    result = {"command": "python -m pano4d.benchmarks.ablate_reuse " + " ".join(sys.argv[1:]), "clips": len(clips),
              "shallow_share": {name: round(share, 4) for name, share in shares.items()}, "rows": []}
    for steps, reused in WAYS:
        way, runs = Way("dpmpp-2m", steps, "aligned"), []
        whole = -(-steps // (reused + 1))
        for seed in range(2):
            begun = time.monotonic()
            held = SimpleNamespace(unet=Reusing(nets.unet, reused, steps), vae=nets.vae, image_encoder=nets.image_encoder)
            made = generate(held, clips, masks, way.sigmas(bundle.sampler), way.solver, seed)
            runs.append({"seed": seed, **measure(clips, masks, made), "seconds": round(time.monotonic() - begun, 1)})
            print(steps, reused, json.dumps(runs[-1]), flush=True)
        result["rows"].append({
            "name": f"{way.name}, {reused} of {reused + 1} reused" if reused else way.name, "steps": steps, "reused": reused,
            "evaluations": {name: round(whole + (steps - whole) * share, 2) for name, share in shares.items()},
            "runs": runs, **compared({"runs": runs}, original)})
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
