"""Say what every backend offers: an engine with named tensors of fixed shape, run in place."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pano4d.runtime.errors import BackendError

NETWORKS = ("image_encoder", "vae_encoder", "unet", "vae_decoder")
"""What every bundle holds."""

TAIL = "unet_tail"
"""What a bundle may hold besides: the denoiser for one tile, for those that do not fill a call of ``unet``."""


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
        device: Where its buffers lie: ``cpu`` for NumPy arrays, ``cuda`` for arrays with ``__cuda_array_interface__``.
        workspace_bytes: What it takes on a GPU beyond weights and buffers; None where it does not know.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    device: str = "cpu"
    workspace_bytes: int | None = None

    @abstractmethod
    def run(self, buffers: Mapping[str, Any], stream: Any = None) -> None:
        """Read the inputs and write the outputs in place.

        Args:
            buffers: One C-contiguous array per input and output, of the dtype and shape of its spec, on ``device``.
            stream: Queue of the device to run on; backends without one ignore it.

        Raises:
            BackendError: A buffer is missing or does not fit its spec.
        """

    def allocate(self) -> dict[str, Any]:
        """Make buffers to run with.

        Returns:
            One zeroed array per input and output, of the dtype and shape of its spec, on ``device``.

        Raises:
            MemoryError: The device has no room for them.
        """
        return {spec.name: np.zeros(spec.shape, spec.dtype) for spec in (*self.inputs, *self.outputs)}

    def write(self, buffer: Any, values: np.ndarray) -> None:
        """Fill one of the buffers that ``allocate`` made.

        Args:
            buffer: The buffer.
            values: What to fill it with. Of the same dtype and shape.
        """
        buffer[:] = values

    def read(self, buffer: Any) -> np.ndarray:
        """Copy one of the buffers that ``allocate`` made into an array of its own."""
        return np.array(buffer)

    def close(self) -> None:
        """Release what the engine holds; it must not be run afterwards."""

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self, buffers: Mapping[str, Any]) -> None:
        """Refuse buffers that do not fit, before native code reads past their end.

        Args:
            buffers: As for ``run``.

        Raises:
            BackendError: A buffer is missing or does not fit its spec.
        """
        layout_of = _device_layout if self.device == "cuda" else _host_layout
        for spec in (*self.inputs, *self.outputs):
            array = buffers.get(spec.name)
            if array is None:
                raise BackendError(f"The engine needs a buffer named {spec.name!r}, and got only {sorted(buffers)}.")
            dtype, shape, contiguous = layout_of(spec.name, array)
            if shape != spec.shape or dtype != spec.dtype or not contiguous:
                raise BackendError(f"The buffer {spec.name!r} is {dtype} {list(shape)}, and the engine needs "
                                   f"C-contiguous {spec.dtype} {list(spec.shape)}.")


def _host_layout(name: str, array: Any) -> tuple[Any, tuple[int, ...], bool]:
    """Give dtype, shape and whether it is C-contiguous."""
    if not isinstance(array, np.ndarray):
        raise BackendError(f"The buffer {name!r} is a {type(array).__name__}, and the engine needs a NumPy array: make "
                           "its buffers with allocate().")
    return array.dtype, array.shape, array.flags.c_contiguous


def _device_layout(name: str, array: Any) -> tuple[str, tuple[int, ...], bool]:
    """Give dtype, shape and whether it is C-contiguous."""
    # Tensors of torch that lie elsewhere raise a TypeError or an AttributeError here.
    try:
        described = array.__cuda_array_interface__
    except (AttributeError, TypeError) as error:
        raise BackendError(f"The buffer {name!r} is a {type(array).__name__} that does not lie on the GPU, and the engine "
                           "needs one that does: make its buffers with allocate().") from error
    return np.dtype(described["typestr"]).name, tuple(described["shape"]), described.get("strides") is None
