"""Keep the training state: optimiser and moving average, atomic checkpoints, weights in parts small enough to carry."""

from __future__ import annotations

import io
import math
import os
import shutil
import time
from pathlib import Path

import torch
from torch import nn

from pano4d.examples.demo_model.wires import Wires

PART_BYTES = 15 * 2**20


def learning_rate(peak: float, done: float, warmup: float = 0.02) -> float:
    """Warm up, then fall as a cosine to a hundredth; `done` is the share of the stage, 0 to 1."""
    if done < warmup:
        return peak * (done + 0.001) / (warmup + 0.001)
    return peak * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * min(1.0, (done - warmup) / (1 - warmup)))))


class Every:
    """Say when so many seconds have passed since the last time."""

    def __init__(self, seconds: float):
        self.seconds, self.last = seconds, time.monotonic()

    def due(self) -> bool:
        """Say whether it is time, and if so begin anew."""
        late = time.monotonic() - self.last >= self.seconds
        self.last = time.monotonic() if late else self.last
        return late


class Trainer:
    """Step float32 parameters with AdamW, without weight decay, and follow them with a moving average.

    Args:
        parameters: What to train, on its device.
        wires: Entries to leave alone.
        decay: Share of the old average kept in each step, less in the first steps.
    """

    def __init__(self, parameters, wires: Wires, decay: float):
        self.live, self.wires, self.decay, self.steps = list(parameters), wires, decay, 0
        self.average = [p.detach().clone() for p in self.live]
        self.optimiser = torch.optim.AdamW(self.live, lr=1e-4, betas=(0.9, 0.98), weight_decay=0.0, fused=True)

    @torch.no_grad()
    def step(self, rate: float, clip: float = 1.0) -> None:
        """Use the parameters' gradients; gradients that are not finite move nothing."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.wires.quiet()
        size = nn.utils.clip_grad_norm_(self.live, clip)
        self.optimiser.found_inf = (~torch.isfinite(size)).float()
        self.optimiser.step()
        self.steps += 1
        torch._foreach_lerp_(self.average, self.live, 1 - min(self.decay, (1 + self.steps) / (10 + self.steps)))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters and their averages in place; call again to undo."""
        kept = [p.detach().clone() for p in self.live]
        torch._foreach_copy_(self.live, self.average)
        torch._foreach_copy_(self.average, kept)

    def state(self) -> dict:
        """Collect what a later call needs to go on."""
        return {"average": self.average, "optimiser": self.optimiser.state_dict(), "steps": self.steps}

    @torch.no_grad()
    def resume(self, state: dict) -> None:
        """Take back what `state` gave."""
        torch._foreach_copy_(self.average, [a.to(p.device) for a, p in zip(state["average"], self.live)])
        self.optimiser.load_state_dict(state["optimiser"])
        for parameter, kept in self.optimiser.state.items():
            for name in ("exp_avg", "exp_avg_sq"):  # laid out as the parameter is now
                kept[name] = torch.empty_like(parameter).copy_(kept[name])
        self.steps = state["steps"]


def save_atomic(value: dict, path: Path) -> None:
    """Write a checkpoint so that an interruption leaves the old one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(value, temporary)
    os.replace(temporary, path)


def write_parts(value: dict, folder: Path, name: str) -> None:
    """Write `value` as files of at most 15 MiB, `name.00.part` and so on."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    data = buffer.getvalue()
    fresh = folder.with_name(folder.name + "_new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for index, start in enumerate(range(0, len(data), PART_BYTES)):
        (fresh / f"{name}.{index:02d}.part").write_bytes(data[start : start + PART_BYTES])
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(fresh, folder)


def read_parts(folder: Path, name: str) -> dict:
    """Read what `write_parts` wrote."""
    data = b"".join(path.read_bytes() for path in sorted(Path(folder).glob(f"{name}.*.part")))
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
