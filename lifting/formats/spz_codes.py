"""Turn Gaussians into the whole numbers that SPZ stores, and back.

| what | code | largest error |
| --- | --- | --- |
| position | 24 bits, steps of 2^-bits metres | half a step |
| opacity | 8 bits, 0 to 1 | 1/510 |
| constant harmonic | 8 bits, 38.25 steps to 1; colour 0 to 1 takes 136 steps | 0.94 grey levels |
| scale | 8 bits, logarithm in steps of 1/16 from -10 | 3.2 % |
| rotation | three components of 10 bits, steps of 1/723; the largest is left out | 2.4e-3 rad |
| other harmonics | 8 bits, steps of 1/128 from -1 | 1/256 |
"""

from dataclasses import dataclass

import numpy as np

from pano4d.lifting.gaussians import Gaussians

MOST_BITS = 23
HELD = 0.75
"""Steps from its former code within which a number keeps it, so that a Gaussian that is followed does not flicker."""

_COLOR_STEPS = 0.15 * 255.0
_QUAT_STEPS = 511.0 * np.sqrt(2.0)


@dataclass(frozen=True)
class Codes:
    """What SPZ stores of N Gaussians.

    Attributes:
        bits: Fractional bits of the positions.
        positions: int32 [N, 3], within 24 bits.
        alphas: uint8 [N].
        colors: uint8 [N, 3].
        scales: uint8 [N, 3].
        rotations: 2 bits that name the largest component of x y z w, then the others. uint32 [N].
        sh: uint8 [N, K - 1, 3].
    """

    bits: int
    positions: np.ndarray
    alphas: np.ndarray
    colors: np.ndarray
    scales: np.ndarray
    rotations: np.ndarray
    sh: np.ndarray


def fitting_bits(farthest_m: float, wanted: int = 12) -> int:
    """Choose the fractional bits of positions.

    Args:
        farthest_m: Largest coordinate, metres.
        wanted: Bits to use where they fit.

    Returns:
        0 to 23: as many as wanted, or as let the farthest coordinate fit into 24 bits.

    Raises:
        Nothing.
    """
    room = MOST_BITS - 1 - int(np.floor(np.log2(max(farthest_m, 2.0**-MOST_BITS))))
    return int(np.clip(min(wanted, room), 0, MOST_BITS))


def encode(gaussians: Gaussians, bits: int, former: Codes | None = None, coarse: int = 1) -> Codes:
    """Quantise Gaussians.

    Args:
        gaussians: N of them.
        bits: Fractional bits of the positions; what does not fit into 24 bits is clipped.
        former: Codes of the same N Gaussians in the frame before: where the value is within 0.75 steps of its former
            code, the code stays. Errors are then up to 0.75 steps instead of 0.5.
        coarse: Steps of rotations to round to: their last bits are noise, which does not compress.

    Returns:
        The codes.

    Raises:
        Nothing.
    """
    if former and (former.bits, *former.sh.shape[:2]) != (bits, len(gaussians), gaussians.sh.shape[1] - 1):
        former = None
    with np.errstate(divide="ignore"):
        logs = np.log(gaussians.scales.astype(np.float64))
    exact = {
        "positions": (gaussians.means.astype(np.float64) * 2.0**bits, -(2**MOST_BITS), 2**MOST_BITS - 1, np.int32),
        "alphas": (gaussians.opacities * 255.0, 0, 255, np.uint8),
        "colors": (gaussians.sh[:, 0] * _COLOR_STEPS + 127.5, 0, 255, np.uint8),
        "scales": ((logs + 10.0) * 16.0, 0, 255, np.uint8),
        "sh": (gaussians.sh[:, 1:] * 128.0 + 128.0, 0, 255, np.uint8),
    }
    codes = {name: _round(*how, former=getattr(former, name, None)) for name, how in exact.items()}
    return Codes(bits=bits, rotations=pack_rotations(gaussians.quats, former, coarse), **codes)


def decode(codes: Codes) -> Gaussians:
    """Turn codes into Gaussians.

    Args:
        codes: Of N Gaussians.

    Returns:
        The Gaussians; quaternions of unit length.

    Raises:
        Nothing.
    """
    sh0 = (codes.colors[:, None].astype(np.float32) - np.float32(127.5)) / np.float32(_COLOR_STEPS)
    sh = np.concatenate([sh0, (codes.sh.astype(np.float32) - np.float32(128)) / np.float32(128)], 1)
    return Gaussians(
        (codes.positions * 2.0**-codes.bits).astype(np.float32), _quats(codes.rotations),
        np.exp(codes.scales.astype(np.float32) / np.float32(16) - np.float32(10)),
        codes.alphas.astype(np.float32) / np.float32(255), sh)


def _round(exact: np.ndarray, low: int, high: int, dtype: type, former: np.ndarray | None) -> np.ndarray:
    exact = np.clip(exact, low, high)
    codes = np.rint(exact).astype(dtype)
    return codes if former is None else np.where(np.abs(exact - former) <= HELD, former, codes)


def pack_rotations(quats: np.ndarray, former: Codes | None = None, coarse: int = 1) -> np.ndarray:
    """Pack quaternions as the three smallest of x y z w.

    Args:
        quats: w x y z, of any length. float [N, 4].
        former: Codes of the frame before, whose rotation stays where it is near enough; None: of no frame.
        coarse: Steps to round to.

    Returns:
        uint32 [N].

    Raises:
        Nothing.
    """
    norms = np.linalg.norm(quats.astype(np.float64), axis=1, keepdims=True)
    xyzw = np.where(norms > 1e-12, quats / np.maximum(norms, 1e-12), [1.0, 0.0, 0.0, 0.0])[:, [1, 2, 3, 0]]
    largest = np.abs(xyzw).argmax(1)
    xyzw = np.where(np.take_along_axis(xyzw, largest[:, None], 1) < 0, -xyzw, xyzw)
    packed = largest.astype(np.uint32)
    for i in range(4):
        size = np.minimum(np.rint(np.abs(xyzw[:, i]) * _QUAT_STEPS / coarse) * coarse, 511).astype(np.uint32)
        one = (packed << np.uint32(10)) | ((xyzw[:, i] < 0) & (size > 0)).astype(np.uint32) << np.uint32(9) | size
        packed = np.where(largest == i, packed, one)
    if former is None:
        return packed
    before = _quats(former.rotations)[:, [1, 2, 3, 0]].astype(np.float64)
    apart = np.abs(xyzw - before * np.sign(np.sum(before * xyzw, 1, keepdims=True)))
    np.put_along_axis(apart, (former.rotations >> np.uint32(30)).astype(np.int64)[:, None], 0.0, 1)
    return np.where(apart.max(1, initial=0.0) * _QUAT_STEPS <= HELD * coarse, former.rotations, packed)


def _quats(rotations: np.ndarray) -> np.ndarray:
    """Unpack to unit quaternions w x y z. float32 [N, 4]."""
    largest, rest = rotations >> np.uint32(30), rotations.copy()
    xyzw = np.zeros((len(rotations), 4), np.float32)
    for i in (3, 2, 1, 0):
        size = (rest & np.uint32(511)).astype(np.float32) / np.float32(_QUAT_STEPS)
        value = np.where(rest & np.uint32(512), -size, size)
        xyzw[:, i] = np.where(largest == i, 0.0, value)
        rest = np.where(largest == i, rest, rest >> np.uint32(10))
    missing = np.sqrt(np.maximum(0.0, 1.0 - (xyzw * xyzw).sum(1)))
    np.put_along_axis(xyzw, largest.astype(np.int64)[:, None], missing[:, None].astype(np.float32), 1)
    norms = np.linalg.norm(xyzw, axis=1, keepdims=True)
    return (xyzw / np.maximum(norms, np.float32(1e-6)))[:, [3, 0, 1, 2]]
