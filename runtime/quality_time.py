"""Measure what a panoramic video must not show in time: flicker, and a jump where it begins again."""

import numpy as np

from pano4d.runtime.parallel import each
from pano4d.runtime.quality import motion
from pano4d.runtime.quality_sphere import row_weights

CELLS_DOWN = 16
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # BT.709
# A hundredth of a grey level keeps a standing video at 1 instead of 0/0.
_FLOOR = 0.01


def flicker(frames: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Measure how far brightness goes there and back from one frame to the next.

    What moves through a place changes its pixels, but hardly the mean over a cell of the sphere, 11 degrees high. With L
    that mean of the luminance over the moving pixels of a cell, and a the area of these, frame t has

        sum a |L[t - 1] - 2 L[t] + L[t + 1]| / 2 / sum a

    the second difference in time, where the TI of ITU-T P.910 takes the first: brightness that only rises or falls is
    none, and one frame in two brighter by d is d.

    Args:
        frames: uint8 [T, H, W, 3].
        mask: Where the picture may move, bool [H, W]; None for everywhere.

    Returns:
        Grey levels, of the frames 1 to T - 2. float64 [T - 2]; [0] for fewer than three frames.
    """
    bends, areas = flicker_cells(frames, mask)
    if not len(bends) or not areas.sum():
        return np.zeros(max(1, len(bends)))
    return (bends * areas).sum(axis=(1, 2)) / areas.sum()


def flicker_cells(frames: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Measure the flicker of each cell: grey levels, float64 [T - 2, h, w], and the cells' moving areas, [h, w]."""
    moving = np.ones(frames.shape[1:3], bool) if mask is None else np.asarray(mask, bool)
    weights = row_weights(len(moving))[:, None] * moving
    areas = cell_sums(weights)
    means = np.array(each(lambda frame: cell_sums(weights * (frame @ _LUMA)), frames)) / np.maximum(areas, 1e-12)
    return np.abs(means[:-2] - 2 * means[1:-1] + means[2:]) / 2, areas


def cell_sums(values: np.ndarray) -> np.ndarray:
    """Add up a map over cells, at most CELLS_DOWN of them from pole to pole and twice as many around. float64 [h, w]."""
    height, width = values.shape
    down, around = min(CELLS_DOWN, height), min(2 * CELLS_DOWN, width)
    rows = np.add.reduceat(values, np.arange(down) * height // down, axis=0, dtype=np.float64)
    return np.add.reduceat(rows, np.arange(around) * width // around, axis=1)


def loop_ratio(frames: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Compare the step from the last frame to the first with the steps from frame to frame.

        mean |I[T - 1] - I[0]| / mean over t of mean |I[t + 1] - I[t]|

    Means are over the moving pixels. Of a video that goes on where it began it is 1; of one that drifts, more.

    Args:
        frames: uint8 [T, H, W, 3].
        mask: Where the picture may move, bool [H, W]; None for everywhere.

    Returns:
        The ratio; 1 for a single frame.
    """
    if len(frames) < 2:
        return 1.0
    back = motion(np.stack([frames[-1], frames[0]]), mask)[0]
    return float((back + _FLOOR) / (motion(frames, mask).mean() + _FLOOR))
