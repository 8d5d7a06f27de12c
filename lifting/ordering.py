"""Put Gaussians in an order in which neighbours in a file are neighbours in space, so that they compress."""

import numpy as np

_BITS = 21


def curve_order(means: np.ndarray) -> np.ndarray:
    """Walk along a Morton curve through positions.

    Args:
        means: Positions, finite. float [N, 3].

    Returns:
        Indices of the positions in their order along the curve. int64 [N].

    Raises:
        Nothing.
    """
    if not len(means):
        return np.zeros(0, np.int64)
    low = means.min(0).astype(np.float64)
    side = max(float((means.max(0) - low).max()), 1e-30)
    cells = ((means - low) / side * (2**_BITS - 1)).astype(np.uint64)
    x, y, z = (_spread(cells[:, i]) for i in range(3))
    return np.argsort(x | y << np.uint64(1) | z << np.uint64(2), kind="stable")


def _spread(numbers: np.ndarray) -> np.ndarray:
    """Put two zero bits between the 21 bits of each number. uint64 [N]."""
    for shift, mask in ((32, 0x1F00000000FFFF), (16, 0x1F0000FF0000FF), (8, 0x100F00F00F00F00F),
                        (4, 0x10C30C30C30C30C3), (2, 0x1249249249249249)):
        numbers = (numbers | numbers << np.uint64(shift)) & np.uint64(mask)
    return numbers
