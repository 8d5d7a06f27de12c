"""Say what every backend offers: an engine with named tensors of fixed shape, run in place."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pano4d.runtime.errors import BackendError

NETWORKS = ("image_encoder", "vae_encoder", "unet", "vae_decoder")


@dataclass(frozen=True)
class TensorSpec:
    """Name one input or output of an engine.

    Attributes:
        name: Name of the tensor, as in the manifest.
        dtype: NumPy name of the element type, such as ``float32``.
        shape: Fixed shape.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Availability:
    """Say whether a backend can run on this machine.

    Attributes:
        ok: Whether it can.
        detail: What was found: versions and devices, or what is missing.
        remedy: What to type to make it run; empty when it runs.
    """

    ok: bool
    detail: str
    remedy: str = ""


class Engine(ABC):
    """A loaded network, ready to run once constructed.

    Attributes:
        inputs: Tensors read by ``run``.
        outputs: Tensors written by ``run``.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @abstractmethod
    def run(self, buffers: Mapping[str, np.ndarray], stream: Any = None) -> None:
        """Read the inputs and write the outputs in place.

        Args:
            buffers: One C-contiguous array per input and output, of the dtype and shape of its spec.
            stream: Queue of the device to run on; backends without one ignore it.

        Raises:
            BackendError: A buffer is missing or does not fit its spec.
        """

    def close(self) -> None:
        """Release what the engine holds; it must not be run afterwards."""

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self, buffers: Mapping[str, np.ndarray]) -> None:
        """Refuse buffers that do not fit, before native code reads past their end.

        Args:
            buffers: As for ``run``.

        Raises:
            BackendError: A buffer is missing or does not fit its spec.
        """
        for spec in (*self.inputs, *self.outputs):
            array = buffers.get(spec.name)
            if array is None:
                raise BackendError(f"The engine needs a buffer named {spec.name!r}, and got only {sorted(buffers)}.")
            if array.shape != spec.shape or array.dtype != spec.dtype or not array.flags.c_contiguous:
                raise BackendError(f"The buffer {spec.name!r} is {array.dtype} {list(array.shape)}, and the engine needs "
                                   f"C-contiguous {spec.dtype} {list(spec.shape)}.")
