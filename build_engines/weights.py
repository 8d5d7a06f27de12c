"""Say where the weights of a checkpoint lie, and make modules of them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from pano4d.build_engines.lora import Lora
from pano4d.build_engines.original_layout import Taken
from pano4d.runtime.backends.eager import CLASS_OF_PART, load_part, quiet
from pano4d.runtime.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of weights by the names that diffusers and transformers give them."""


@dataclass(frozen=True)
class FileWeights:
    """The weights of a part inside a file of another layout.

    Attributes:
        path: The file.
        config: What the part's class takes.
        taken: What each weight is made of.
    """

    path: Path
    config: Mapping[str, Any]
    taken: Mapping[str, Taken]

    def shapes(self) -> Shapes:
        """Read the shapes of the weights from the file's header."""
        held = dict(header(self.path))
        return {name: one.shape(held[one.key]) for name, one in self.taken.items()}

    def state(self) -> dict[str, "Tensor"]:
        """Read the weights, in the file's element type."""
        with safe_open(self.path, "pt") as file:
            return {name: one.weight(file.get_tensor(one.key)).contiguous() for name, one in self.taken.items()}

    def module(self, part: str) -> "nn.Module":
        """Make the part.

        Args:
            part: ``unet``, ``vae`` or ``image_encoder``.

        Returns:
            The module in float32, in evaluation mode.

        Raises:
            CheckpointError: Weights are missing, or do not fit.
        """
        import torch

        # A billion random weights take long to draw. The image encoder has buffers besides, which no file holds.
        with quiet(), torch.device("cpu" if part == "image_encoder" else "meta"):
            module = make_part(part, self.config)
        state = self.state()
        wanted = {name: tuple(weight.shape) for name, weight in module.state_dict().items()}
        if "quant_conv.weight" in wanted and "quant_conv.weight" not in state:
            state |= _identity(wanted["quant_conv.weight"])
        faults = [name for name, shape in wanted.items() if name not in state or tuple(state[name].shape) != shape]
        faults = faults or [name for name in state if name not in wanted]
        if faults:
            raise CheckpointError(f"{self.path} does not hold a {CLASS_OF_PART[part]}, since {len(faults)} of its weights "
                                  f"are missing or of another shape, such as {faults[0]}: download it again.")
        module.load_state_dict(state, assign=True)
        return module.float().eval().requires_grad_(False)


@dataclass(frozen=True)
class Weights:
    """The weights of a checkpoint.

    Attributes:
        path: Its folder in the layout of diffusers, or its single file.
        variant: Infix of the folder's weight files, None or ``fp16``.
        inside: Parts that are read from files of another layout, wherever these lie.
        loras: What is merged into the denoiser.
    """

    path: Path
    variant: str | None = None
    inside: Mapping[str, FileWeights] = field(default_factory=dict)
    loras: tuple[Lora, ...] = ()

    def shapes(self, part: str) -> Shapes:
        """Read the shapes of a part's weights from the headers of their files.

        Args:
            part: ``unet``, ``vae`` or ``image_encoder``.

        Returns:
            Shapes by the names that diffusers and transformers give the weights.
        """
        if part in self.inside:
            return self.inside[part].shapes()
        return dict(pair for file in self._files(part) for pair in header(file))

    def module(self, part: str) -> "nn.Module":
        """Load a part in float32.

        Args:
            part: ``unet``, ``vae`` or ``image_encoder``.

        Returns:
            The module of diffusers or transformers, in evaluation mode.

        Raises:
            CheckpointError: It does not load.
        """
        module = (self.inside[part].module(part) if part in self.inside else
                  load_part(self.path, part, self.variant))
        for lora in self.loras if part == "unet" else ():
            lora.merge(module)
        return module

    def elements(self, part: str) -> dict[str, int]:
        """Count the numbers in each weight of a part."""
        return {name: math.prod(shape) for name, shape in self.shapes(part).items()}

    def check_channels(self, channels: int) -> None:
        """Check that the denoiser's first weight takes as many channels as its configuration says.

        Args:
            channels: What the configuration says.

        Raises:
            CheckpointError: It takes others.
        """
        shape = self.shapes("unet").get("conv_in.weight", ())
        if len(shape) == 4 and shape[1] != channels:
            where = self.inside["unet"].path if "unet" in self.inside else self.path / "unet"
            raise CheckpointError(f"The weights of {where} take {shape[1]} input channels, and the configuration in "
                                  f"{self.path} says {channels}: the two belong to different checkpoints; download both "
                                  "again.")

    def _files(self, part: str) -> list[Path]:
        return [path for path in sorted((self.path / part).glob("*.safetensors"))
                if (".fp16." in path.name) == (self.variant == "fp16")]


def header(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Give the name and the shape of every tensor of a .safetensors file, reading no more than its header."""
    with safe_open(path, "numpy") as file:
        for name in file.keys():
            yield name, tuple(file.get_slice(name).get_shape())


def make_part(part: str, config: Mapping[str, Any]) -> "nn.Module":
    """Make a part of a checkpoint with random weights.

    Args:
        part: ``unet``, ``vae`` or ``image_encoder``.
        config: What its class takes.

    Returns:
        The module of diffusers or transformers.
    """
    import diffusers
    import transformers

    if part == "image_encoder":
        return transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**config))
    return getattr(diffusers, CLASS_OF_PART[part]).from_config(dict(config))


def _identity(shape: tuple[int, ...]) -> dict[str, "Tensor"]:
    """Stand in for a layer that a file has folded into the one before."""
    import torch

    return {"quant_conv.weight": torch.eye(shape[0]).reshape(shape), "quant_conv.bias": torch.zeros(shape[0])}
