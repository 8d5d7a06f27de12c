"""Bring tiles' pictures to the size of an image encoder on a GPU (`resize.cu`)."""

from functools import lru_cache

import numpy as np

from pano4d.runtime.device import Arrays, Device, DeviceArray, Scope
from pano4d.runtime.kernels import compiler
from pano4d.runtime.kernels.compiler import THREADS, blocks



@lru_cache(maxsize=4)
def bicubic_taps(size: int, out: int) -> tuple[np.ndarray, np.ndarray]:
    """Table Pillow's bicubic filter (a = -1/2), widened for fewer pixels.

    Args:
        size: Pixels along an axis.
        out: Pixels wanted.

    Returns:
        First pixel that each takes, int32 [out], and its weights, which sum to one, float64 [out, taps].
    """
    step = size / out
    stretch = max(step, 1.0)
    centre = (np.arange(out) + 0.5) * step
    first = np.maximum((centre - 2 * stretch + 0.5).astype(np.int32), 0)
    end = np.minimum((centre + 2 * stretch + 0.5).astype(np.int32), size)
    at = first[:, None] + np.arange((end - first).max())
    far = np.abs(at - centre[:, None] + 0.5) / stretch
    near, tail = (1.5 * far - 2.5) * far**2 + 1, (((far - 5) * far + 8) * far - 4) * -0.5
    weights = np.where(far < 1, near, np.where(far < 2, tail, 0.0)) * (at < end[:, None])
    return first, weights / weights.sum(axis=1, keepdims=True)


def resize_arrays(size: int, out: int) -> Arrays:
    """List shape and element type of what a `Resizer` holds; what is planned is what is taken."""
    return {"first": ((out,), "int32"), "weights": (bicubic_taps(size, out)[1].shape, "float64"),
            "wide": ((3, size, out), "float32")}


class Resizer:
    """Resize square pictures of three colours, one after another. Nothing here allocates or waits after construction.

    Args:
        device: Where.
        size: Side of a picture, s.
        out: Side wanted, o.
        element: What is written: ``float16`` or ``float32``.

    Raises:
        BackendError: The GPU has not enough memory, or a kernel does not compile.
    """

    def __init__(self, device: Device, size: int, out: int, element: str = "float32") -> None:
        self._device, self._size, self._out = device, size, out
        self._rows, self._columns = compiler.load_kernels(device, "resize.cu", ("resize_rows", "resize_columns"),
                                                          compiler.definitions(np.dtype(element).itemsize))
        with Scope(device) as scope:
            tables = [scope.upload(table) for table in bicubic_taps(size, out)]
            self._arrays = (*tables, scope.empty(*resize_arrays(size, out)["wide"]))
            scope.keep()

    def __call__(self, picture: DeviceArray, resized: DeviceArray) -> None:
        """Resize one picture; enqueued, not waited for.

        Args:
            picture: In -1..1. float32 [3, s, s].
            resized: Where to. ``element`` [3, o, o].

        Raises:
            BackendError: The driver refuses.
        """
        (first, weights, wide), size, out = self._arrays, self._size, self._out
        sizes = tuple(map(np.int32, (size, out, weights.shape[1])))
        self._rows((blocks(size * out), 3), THREADS, picture, first, weights, wide, *sizes)
        self._columns((blocks(out * out), 3), THREADS, wide, first, weights, resized, *sizes)

    def free(self) -> None:
        """Give the memory back; the driver waits for the kernels first."""
        self._device.free(*self._arrays)
