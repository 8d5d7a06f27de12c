"""Say where the weights of a checkpoint lie, and make modules of them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import nn

from pano4d.runtime.backends.eager import load_part
from pano4d.runtime.errors import CheckpointError


@dataclass(frozen=True)
class Weights:
    """The weights of a checkpoint in the layout of diffusers.

    Attributes:
        path: Its folder.
        variant: Infix of the weight files, None or ``fp16``.
    """

    path: Path
    variant: str | None = None

    def shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """Read the shapes of a part's weights from the headers of their files.

        Args:
            part: ``unet``, ``vae`` or ``image_encoder``.

        Returns:
            Shapes by the names that diffusers and transformers give the weights.
        """
        return dict(pair for file in self._files(part) for pair in header(file))

    def module(self, part: str) -> nn.Module:
        """Load a part in float32.

        Args:
            part: ``unet``, ``vae`` or ``image_encoder``.

        Returns:
            The module of diffusers or transformers, in evaluation mode.

        Raises:
            CheckpointError: It does not load.
        """
        return load_part(self.path, part, self.variant)

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
            raise CheckpointError(f"The weights of {self.path / 'unet'} take {shape[1]} input channels, and its config.json "
                                  f"says {channels}: the two belong to different checkpoints; download it again.")

    def _files(self, part: str) -> list[Path]:
        return [path for path in sorted((self.path / part).glob("*.safetensors"))
                if (".fp16." in path.name) == (self.variant == "fp16")]


def header(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Give the name and the shape of every tensor of a .safetensors file, reading no more than its header."""
    with safe_open(path, "numpy") as file:
        for name in file.keys():
            yield name, tuple(file.get_slice(name).get_shape())
