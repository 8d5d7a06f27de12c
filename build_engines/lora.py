"""Merge a LoRA (arXiv 2106.09685, eq. 3) into the denoiser before it is exported::

    W' = W + scale * alpha / rank * up @ down

Files of kohya's scripts (``lora_unet_..._to_q.lora_down.weight``, with ``.alpha``) and of diffusers and peft
(``unet....to_q.lora_A.weight``, ``....lora.down.weight``, ``....processor.to_q_lora.down.weight``) are read. An alpha
that is named nowhere is the rank, so that the factor is the scale alone.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from pano4d.build_engines.folder import check_whole, refuse_pickle
from pano4d.runtime.bundle import sha256_of_file
from pano4d.runtime.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn

_ENDS = re.compile(r"^(?P<module>.+?)(?:\.(?:lora_(?P<a>[AB]|down|up)(?:\.\w+)?|lora\.(?P<b>down|up))\.weight"
                   r"|\.processor\.(?P<side>to_\w+?)_lora\.(?P<c>down|up)\.weight|\.(?P<alpha>alpha))$")
_BEFORE = re.compile(r"^(?:base_model\.model\.)?(?:unet\.|lora_unet_)?")
_FACTORS = {"A": "down", "B": "up", "down": "down", "up": "up"}


@dataclass(frozen=True)
class Lora:
    """A LoRA whose every tensor has a place in a denoiser.

    Attributes:
        path: Its .safetensors file.
        scale: How much of it is added.
        sha256: Digest of the file.
        places: Keys of ``down``, ``up`` and, where there is one, ``alpha`` for each weight that it changes.
        alpha: Alpha of those that have no key for it; None for the rank.
    """

    path: Path
    scale: float
    sha256: str
    places: Mapping[str, Mapping[str, str]]
    alpha: float | None

    @property
    def record(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return {"file": self.path.name, "sha256": self.sha256, "scale": self.scale}

    def merge(self, module: "nn.Module") -> None:
        """Add it to a denoiser, in float64, rounded once.

        Args:
            module: The denoiser, changed in place.
        """
        import torch

        with safe_open(self.path, "pt") as file, torch.no_grad():
            for name, keys in self.places.items():
                weight = module.get_parameter(name)
                down, up = (file.get_tensor(keys[side]).double().flatten(1) for side in ("down", "up"))
                rank = down.shape[0]
                alpha = file.get_tensor(keys["alpha"]).item() if "alpha" in keys else self.alpha
                factor = self.scale * (rank if alpha is None else alpha) / rank
                weight.copy_(weight.double() + factor * (up @ down).reshape(weight.shape))


def parse_lora(text: str) -> tuple[Path, float]:
    """Split FILE[:SCALE]; a file of that whole name goes first.

    Args:
        text: Such as ``style.safetensors:0.8``.

    Returns:
        The file, and the scale, 1 unless given.

    Raises:
        CheckpointError: The scale is no finite number.
    """
    name, colon, scale = text.rpartition(":")
    if not colon or Path(text).exists() or scale.lower().endswith(".safetensors"):
        return Path(text), 1.0
    try:
        factor = float(scale)
    except ValueError:
        factor = math.nan
    if not math.isfinite(factor):
        raise CheckpointError(f"The scale of the LoRA {name} is {scale!r}, and a number is needed: write for instance "
                              f"--lora {name}:0.8.")
    return Path(name), factor


def read_lora(path: Path, scale: float, shapes: Mapping[str, tuple[int, ...]]) -> Lora:
    """Find the place of every tensor of a LoRA.

    Args:
        path: Its .safetensors file.
        scale: How much of it is added.
        shapes: Shapes of the denoiser's weights by diffusers' names.

    Returns:
        The LoRA; its tensors are not held.

    Raises:
        CheckpointError: The file is missing or damaged, or a tensor has no place in this denoiser.
    """
    refuse_pickle(path)
    if not path.is_file():
        raise CheckpointError(f"There is no LoRA {path}: give a .safetensors file, as --lora FILE or --lora FILE:SCALE.")
    check_whole(path)
    names = {name.removesuffix(".weight").replace(".", "_"): name for name in shapes if name.endswith(".weight")}
    places: dict[str, dict[str, str]] = {}
    with safe_open(path, "numpy") as file:
        held = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
        alpha = _metadata_alpha(path, file.metadata() or {})
    lost = []
    for key in held:
        place = _place(key, names)
        if place is None:
            lost.append(key)
        else:
            places.setdefault(place[0], {})[place[1]] = key
    if lost or not places:
        named = f", such as {lost[0]}" if lost else ""
        raise CheckpointError(f"{len(lost)} of {len(held)} tensors of the LoRA {path} have no place in this denoiser{named}: "
                              "give a LoRA for the UNet of Stable Video Diffusion.")
    for name, keys in places.items():
        _check_shapes(path, name, shapes[name], {side: held[key] for side, key in keys.items()})
    return Lora(path, scale, sha256_of_file(path), places, alpha)


def _place(key: str, names: Mapping[str, str]) -> tuple[str, str] | None:
    """Give the weight that a tensor changes, and whether it is ``down``, ``up`` or ``alpha``."""
    ends = _ENDS.match(key)
    if ends is None:
        return None
    module = ends["module"] + (f".{ends['side']}" if ends["side"] else "")
    plain = _BEFORE.sub("", module).replace(".", "_")
    # The output projection of an attention is the first of a list, which the oldest form leaves out.
    name = names.get(plain) or names.get(f"{plain}_0")
    side = "alpha" if ends["alpha"] else _FACTORS[ends["a"] or ends["b"] or ends["c"]]
    return (name, side) if name else None


def _check_shapes(path: Path, name: str, shape: tuple[int, ...], held: Mapping[str, tuple[int, ...]]) -> None:
    """Check that up @ down is as large as the weight."""
    if not {"down", "up"} <= held.keys():
        raise CheckpointError(f"The LoRA {path} has but {' and '.join(held)} for {name}, and down and up are needed: "
                              "download it again.")
    down, up = held["down"], held["up"]
    if (up[0], up[1], math.prod(down[1:])) != (shape[0], down[0], math.prod(shape[1:])) or math.prod(up[2:]) != 1:
        raise CheckpointError(f"The LoRA {path} was made for another model: it changes {name}, which is "
                              f"{'x'.join(map(str, shape))}, by factors of {'x'.join(map(str, up))} and "
                              f"{'x'.join(map(str, down))}; give one for this checkpoint.")


def _metadata_alpha(path: Path, metadata: Mapping[str, str]) -> float | None:
    """Read alpha where peft writes it: into the file's metadata, or into adapter_config.json beside it."""
    beside = path.with_name("adapter_config.json")
    try:
        told = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        told = {key.removeprefix("unet."): value for key, value in told.items()}
        told = (json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}) | told
        alpha = None if told.get("lora_alpha") is None else float(told["lora_alpha"])
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise CheckpointError(f"What the LoRA {path} says of its alpha cannot be read ({error}): download it "
                              "again.") from error
    other = next((name for name in ("use_rslora", "use_dora", "alpha_pattern") if told.get(name)), None)
    if other:
        raise CheckpointError(f"The LoRA {path} was trained with peft's {other}, and one alpha over the rank is needed: "
                              "merge it with peft, and give the merged checkpoint.")
    return alpha
