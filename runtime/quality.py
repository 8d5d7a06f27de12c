"""Measure what a panoramic video must not show: a seam, tile borders, drift, standstill.

Ratios are relative to the input picture, which may have a seam or an edge of its own at the
same place; 1 means as in the input. All figures are per frame; a report keeps the worst.
"""

from dataclasses import replace

import numpy as np

from pano4d.runtime.parallel import each
from pano4d.runtime.sphere import directions_to_pixels
from pano4d.runtime.tiles import Layout

SEAM_REACH_PX = 4
BORDER_GAP_PX = 2
MIN_BORDER_PAIRS = 32
TURNS = 4
_GOLDEN = 0.618034
# A hundredth of a grey level keeps flat pictures at 1 instead of 0/0 and changes nothing else.
_FLOOR = 0.01


def seam_ratio(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Compare the step across ±180° with the steps beside it, relative to the input's.

    The mean absolute difference of the last and the first column, over the mean of the same
    for the neighbouring pairs of columns (four on either side), divided by that figure of the input.

    Args:
        frames: uint8 [T, H, W, 3].
        reference: The input at the same size. uint8 [H, W, 3].

    Returns:
        float64 [T].
    """
    return np.array(each(_seam_contrast, frames)) / _seam_contrast(reference)


def tile_border_ratio(frames: np.ndarray, reference: np.ndarray, layout: Layout, *,
                      mask: np.ndarray | None = None) -> np.ndarray:
    """Compare the steps across tile borders with those inside the tiles, relative to the input's.

    The mean absolute difference of pixel pairs that the outline of a tile separates, over the mean of parallel
    pairs a few pixels off. The sky and the sea have gradients of their own, and outlines prefer some latitudes:
    so this is divided by the same figure of the outlines turned about the vertical axis, where nothing was joined,
    and by the result for the input.

    Args:
        frames: uint8 [T, H, W, 3].
        reference: The input at the same size. uint8 [H, W, 3].
        layout: The tiles the frames were made from.
        mask: Where the picture moves, bool [H, W]; pairs with a still pixel say nothing about
            the tiles and are left out. None counts every pair.

    Returns:
        float64 [T]; all 1 where next to no border crosses what moves.
    """
    height, width = reference.shape[:2]
    pairs, turned = _border_pairs(layout, height, width, mask)
    if sum(len(border) for border, _ in pairs) < MIN_BORDER_PAIRS:
        return np.ones(len(frames))

    def figure(image: np.ndarray) -> float:
        steps = [_steps(image, axis) for axis in (1, 0)]
        return _border_contrast(steps, pairs) / np.mean([_border_contrast(steps, other) for other in turned])

    own, *others = each(figure, [reference, *frames])
    return np.array(others) / own


def static_drift(frames: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Measure how far pixels that must not move differ from the input.

    Args:
        frames: uint8 [T, H, W, 3].
        reference: The input at the same size. uint8 [H, W, 3].
        mask: Where the picture may move. bool [H, W].

    Returns:
        Largest absolute difference outside the mask, in grey levels. int64 [T]; 0 where all may move.
    """
    still = ~np.asarray(mask, bool)[..., None]
    return np.array(each(lambda frame: _apart(frame, reference).max(initial=0, where=still), frames), np.int64)


def motion(frames: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Measure the motion: the mean absolute difference of consecutive frames inside the mask.

    Args:
        frames: uint8 [T, H, W, 3].
        mask: Where the picture may move, bool [H, W]; None for everywhere.

    Returns:
        Grey levels, one for each pair of frames. float64 [T - 1]; [0] for a single frame.
    """
    moving = np.ones(frames.shape[1:3], bool) if mask is None else np.asarray(mask, bool)
    if len(frames) < 2 or not moving.any():
        return np.zeros(max(1, len(frames) - 1))
    return np.array(each(lambda t: _apart(frames[t + 1], frames[t])[moving].mean(dtype=np.float64), range(len(frames) - 1)))


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Take the absolute difference of uint8 arrays, as uint8."""
    return np.maximum(a, b) - np.minimum(a, b)


def _seam_contrast(image: np.ndarray) -> float:
    # The last five columns and the first five laid side by side, the seam in the middle.
    beside = np.roll(image, SEAM_REACH_PX + 1, axis=1)[:, :2 * SEAM_REACH_PX + 2].astype(np.float64)
    steps = np.abs(np.diff(beside, axis=1)).mean(axis=(0, 2))
    return (steps[SEAM_REACH_PX] + _FLOOR) / (np.delete(steps, SEAM_REACH_PX).mean() + _FLOOR)


def _steps(image: np.ndarray, axis: int) -> np.ndarray:
    """Add up the channels' absolute differences of each pixel and the next one along an axis. uint16 [H W]."""
    steps = _apart(image, np.roll(image, -1, axis))
    total = steps[..., 0].astype(np.uint16)  # NumPy's own sum over a short last axis takes five times as long
    total += steps[..., 1]
    total += steps[..., 2]
    return total.ravel()


def _border_contrast(steps: list[np.ndarray], pairs: "Pairs") -> float:
    border, inside = 0.0, 0.0
    for values, (across, beside) in zip(steps, pairs):
        # Each direction counts by its border pairs, so both means speak of the same places.
        if len(across) and len(beside):
            border += values[across].sum(dtype=np.float64)
            inside += values[beside].mean(dtype=np.float64) * len(across)
    total = sum(len(across) for across, beside in pairs if len(beside)) or 1
    return (border / total + 3 * _FLOOR) / (inside / total + 3 * _FLOOR)


Pairs = list[tuple[np.ndarray, np.ndarray]]


def _border_pairs(layout: Layout, height: int, width: int, mask: np.ndarray | None) -> tuple[Pairs, list[Pairs]]:
    """Index the pairs that borders separate, and those that turned borders would, each with parallel ones beside.

    A pair is named by its left or upper pixel; flat indices into [H, W]. Left-right pairs first.
    """
    moving = np.ones((height, width), bool) if mask is None else np.asarray(mask, bool)
    separated = separated_pairs(layout, height, width)
    turned = (replace(layout, yaw_deg=layout.yaw_deg + 360 * (k * _GOLDEN % 1)) for k in range(1, TURNS + 1))
    others = [_with_neighbours(separated_pairs(other, height, width) & ~separated, moving) for other in turned]
    return _with_neighbours(separated, moving), others


def separated_pairs(layout: Layout, height: int, width: int) -> np.ndarray:
    """Mark the pairs of pixels that the outline of any tile separates, each at its left or upper one.

    Args:
        layout: The tiles.
        height: Panorama height in pixels.
        width: Panorama width in pixels.

    Returns:
        bool [2, H, W], left-right pairs first.
    """
    separated = np.zeros((2, height, width), bool)
    for v in range(layout.count):
        _mark_crossings(separated, *_outline(layout, v, height, width))
    return separated


def _with_neighbours(separated: np.ndarray, moving: np.ndarray) -> Pairs:
    """Index marked pairs and the parallel ones beside them, of moving pixels only."""
    near = _dilated(separated.any(axis=0), BORDER_GAP_PX)
    reach = BORDER_GAP_PX + max(4, moving.shape[1] // 128)
    result = []
    for axis, across in zip((1, 0), separated):
        both = moving & np.roll(moving, -1, axis)
        if axis == 0:
            both[-1] = False
        beside = _dilated(across, reach) & ~near & both
        result.append((np.flatnonzero(across & both), np.flatnonzero(beside)))
    return result


def _outline(layout: Layout, v: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Trace the outline of a tile on the panorama in steps below a pixel: columns and rows."""
    reach = np.tan(np.radians(layout.fov_deg) / 2)
    count = 8 * width
    side, along = np.divmod(np.arange(count) * 4 / count, 1.0)
    along = reach * (2 * along - 1)
    # Round the square: top edge to the right, right edge down, bottom to the left, left up.
    x = np.choose(side.astype(int), [along, reach, -along, -reach])
    y = np.choose(side.astype(int), [-reach, along, reach, -along])
    rays = np.stack([x, y, np.ones(count)], axis=-1) @ layout.rotations[v].T
    return directions_to_pixels(rays / np.linalg.norm(rays, axis=-1, keepdims=True), height, width)


def _mark_crossings(separated: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> None:
    """Mark the pairs between whose centres the closed outline passes."""
    _, height, width = separated.shape
    step = (np.roll(columns, -1) - columns + width / 2) % width - width / 2
    middle_column, middle_row = columns + step / 2, (rows + np.roll(rows, -1)) / 2
    # Where the outline passes a row of centres it separates two pixels of that row.
    passes_row = np.floor(rows) != np.floor(np.roll(rows, -1))
    row = np.floor(np.maximum(rows, np.roll(rows, -1))[passes_row]).astype(int)
    column = np.floor(middle_column[passes_row]).astype(int) % width
    valid = (row >= 0) & (row < height)
    separated[0, row[valid], column[valid]] = True
    passes_column = np.floor(columns) != np.floor(columns + step)
    column = np.floor(np.maximum(columns, columns + step)[passes_column]).astype(int) % width
    row = np.floor(middle_row[passes_column]).astype(int)
    # Over a pole there is no pair of rows to separate.
    valid = (row >= 0) & (row < height - 1)
    separated[1, row[valid], column[valid]] = True


def _dilated(marked: np.ndarray, reach: int) -> np.ndarray:
    """Widen marks by a square of the reach in pixels, round the seam, not over the poles."""
    for axis, mode in ((1, "wrap"), (0, "constant")):
        sides = [(reach, reach) if one == axis else (0, 0) for one in (0, 1)]
        marked = _any_of(np.pad(marked, sides, mode=mode), 2 * reach + 1, axis)
    return marked


def _any_of(values: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Say for every run of neighbours along an axis whether one of them is set; the axis gets count - 1 shorter."""
    values, covered = np.moveaxis(values, axis, 0), 1
    while covered < count:
        step = min(covered, count - covered)
        values, covered = values[:-step] | values[step:], covered + step
    return np.moveaxis(values, 0, axis)
