"""Say what float8 (e4m3) can hold, with which scale, and which products TensorRT computes in it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

E4M3 = ml_dtypes.float8_e4m3fn
LARGEST = 448.0
ALIGNMENT, MOST_TAPS = 16, 32
WIDEST = 4096.0
"""Largest value over typical value that still fits."""
SMALLEST_SCALE = 2.0**-15
"""Smallest scale whose reciprocal float16 holds, should an engine multiply by that."""


@dataclass
class Range:
    """What an input has been.

    Attributes:
        largest: Largest absolute value.
        squares: Sum of squares.
        count: Number of values.
        name: Name of the weight that it is multiplied with.
    """

    largest: float = 0.0
    squares: float = 0.0
    count: int = 0
    name: str = ""

    @property
    def typical(self) -> float:
        """Root of the mean square."""
        return float(np.sqrt(self.squares / max(self.count, 1)))


def weight_key(weight: np.ndarray) -> str:
    """Know a weight by its values: exporters rename, transpose and fold, and leave those.

    Args:
        weight: As torch holds it. float16 [C', C, ...].

    Returns:
        A digest of shape and values.
    """
    return hashlib.sha256(repr(weight.shape).encode() + np.ascontiguousarray(weight).tobytes()).hexdigest()


def range_of(array: np.ndarray) -> Range:
    """Measure an array."""
    wide = np.abs(array.astype(np.float64))
    return Range(float(wide.max()), float((wide * wide).sum()), array.size)


def scale_of(largest: float) -> np.float16:
    """Give the scale that takes a largest value to 448, or just below.

    Args:
        largest: At least 448 * ``SMALLEST_SCALE``.

    Returns:
        largest / 448, rounded up.
    """
    scale = np.float16(largest / LARGEST)
    return scale if float(scale) * LARGEST >= largest else np.nextafter(scale, np.float16(np.inf))


def to_float8(array: np.ndarray, scale: np.float16) -> np.ndarray:
    """Divide by a scale and round to the nearest float8, ties to even; what is larger than 448 becomes that."""
    return np.clip(array.astype(np.float32) / np.float32(scale), -LARGEST, LARGEST).astype(E4M3)


def fits(seen: Range) -> bool:
    """Say whether values keep their precision in float8 with one scale."""
    return LARGEST * SMALLEST_SCALE <= seen.largest <= WIDEST * seen.typical


def has_kernel(convolves: bool, x: Sequence[int], weight: Sequence[int]) -> bool:
    """Say whether TensorRT has a kernel in float8 for a product, and whether there is enough work for one.

    Args:
        convolves: Whether it is a convolution.
        x: Shape of what the weight is multiplied with.
        weight: Its own shape, as torch holds it. [C', C, ...].

    Returns:
        False for unaligned channels, groups, large kernels, and for [N, C] and [N, 1, C], which all pixels share.
    """
    if any(size % ALIGNMENT for size in weight[:2]) or np.prod(weight[2:]) > MOST_TAPS:
        return False
    return x[1] == weight[1] if convolves else len(x) > 2 and x[-2] != 1
