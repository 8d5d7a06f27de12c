"""Turn rotation matrices into quaternions and back, many at a time."""

import numpy as np


def matrices_to_quats(matrices: np.ndarray) -> np.ndarray:
    """Turn rotation matrices into unit quaternions.

    Of the four products q_k * (w, x, y, z) that a matrix holds, the one with the largest
    q_k is taken, so that nothing is ever divided by a small number (Shepperd, 1978).

    Args:
        matrices: Proper rotations. float [N, 3, 3].

    Returns:
        w x y z, with w >= 0. float64 [N, 4].

    Raises:
        Nothing.
    """
    m = np.asarray(matrices, np.float64)
    xx, yy, zz = m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]
    wx, wy, wz = m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]
    xy, xz, yz = m[:, 0, 1] + m[:, 1, 0], m[:, 0, 2] + m[:, 2, 0], m[:, 1, 2] + m[:, 2, 1]
    products = np.stack([
        np.stack([1 + xx + yy + zz, wx, wy, wz], -1),
        np.stack([wx, 1 + xx - yy - zz, xy, xz], -1),
        np.stack([wy, xy, 1 - xx + yy - zz, yz], -1),
        np.stack([wz, xz, yz, 1 - xx - yy + zz], -1),
    ], 1)
    largest = np.argmax(np.diagonal(products, axis1=1, axis2=2), axis=1)
    quats = products[np.arange(len(m)), largest]
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    return np.where(quats[:, :1] < 0, -quats, quats)


def quats_to_matrices(quats: np.ndarray) -> np.ndarray:
    """Turn quaternions into rotation matrices.

    Args:
        quats: w x y z, of any length above 0. float [N, 4].

    Returns:
        float64 [N, 3, 3].

    Raises:
        Nothing.
    """
    q = np.asarray(quats, np.float64)
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    return np.stack([
        np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        np.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ], 1)
