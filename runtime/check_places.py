"""Find where in a frame a fault is: the place that a report marks."""

from typing import NamedTuple

import numpy as np

from pano4d.runtime import quality, quality_sphere, quality_time
from pano4d.runtime.check_material import Material
from pano4d.runtime.quality_time import cell_sums


class Place(NamedTuple):
    """A rectangle on a panorama; columns may lie beyond the seam.

    Attributes:
        row: Of its middle, in pixels.
        column: Of its middle, in pixels.
        height: In pixels.
        width: In pixels; that of the panorama for a pole.
    """

    row: int
    column: int
    height: int
    width: int


def find_place(name: str, material: Material, frame: int) -> Place | None:
    """Find the worst place of a figure's worst frame.

    Args:
        name: Name of the figure.
        material: What it was computed from.
        frame: The frame.

    Returns:
        The place; None for a figure that is of no place, such as a video that stands still.
    """
    _, height, width, _ = material.frames.shape
    if name == "pole_ratio":
        own = quality_sphere.pole_contrasts(material.reference)
        off = np.abs(np.log(quality_sphere.pole_contrasts(material.frames[frame]) / own)).max(axis=1)
        cap = max(2, round(quality_sphere.CAP_DEG / 180 * height))
        return Place(cap // 2 if off[0] >= off[1] else height - 1 - cap // 2, width // 2, cap, width)
    side = max(8, height // 8)
    if name == "seam_ratio":
        steps, own = (_apart(one[:, 0], one[:, -1]).sum(axis=1) for one in (material.frames[frame], material.reference))
        steps = steps - own
        return Place(int(np.convolve(steps, np.ones(side), mode="same").argmax()), 0, side, side)
    if name == "static_drift":
        apart = _apart(material.frames[frame], material.reference).max(axis=2) * material.still
        row, column = np.unravel_index(apart.argmax(), apart.shape)
        return Place(int(row), int(column), side, side) if apart.any() else None
    if name not in _MAPS:
        return None
    cells = _MAPS[name](material, frame)
    if not cells.any():
        return None
    row, column = np.unravel_index(cells.argmax(), cells.shape)
    down, around = cells.shape
    return Place(int((row + 0.5) * height / down), int((column + 0.5) * width / around), side, side)


def _border_cells(material: Material, frame: int) -> np.ndarray:
    """Take how much larger the steps across outlines are than other steps in the cell, more so than in the input."""
    across = quality.separated_pairs(material.layout, *material.mask.shape) & material.mask
    marks = np.maximum(cell_sums(across.sum(axis=0)), 8)
    pairs = np.maximum(2 * cell_sums(material.mask) - marks, 8)
    excess = []
    for picture in (material.frames[frame], material.reference):
        steps = np.stack([_apart(picture, np.roll(picture, -1, axis)).sum(axis=2) for axis in (1, 0)]) * material.mask
        excess.append(cell_sums((steps * across).sum(axis=0)) / marks - cell_sums((steps * ~across).sum(axis=0)) / pairs)
    return np.maximum(excess[0] - excess[1], 0)


def _flicker_cells(material: Material, frame: int) -> np.ndarray:
    bends, areas = quality_time.flicker_cells(material.frames, material.mask)
    return bends[frame - 1] * (areas > areas.max() / 16)


def _moved_cells(material: Material, frame: int, other: int) -> np.ndarray:
    apart = _apart(material.frames[frame], material.frames[other]).sum(axis=2)
    return cell_sums(apart * material.mask * quality_sphere.row_weights(len(apart))[:, None])


def _error_cells(material: Material, frame: int) -> np.ndarray:
    error = quality_sphere.squared_error(material.frames[frame], material.reference) * material.still
    return cell_sums(error * quality_sphere.row_weights(len(error))[:, None])


def _structure_cells(material: Material, frame: int) -> np.ndarray:
    lost = 1 - quality_sphere.ssim_map(material.frames[frame], material.reference)
    weights = quality_sphere.whole_windows(material.still) * quality_sphere.row_weights(len(lost))[:, None]
    return cell_sums(np.where(lost > 1e-9, lost, 0) * weights)


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(np.int16) - b)


_MAPS = {
    "tile_border_ratio": _border_cells,
    "flicker": _flicker_cells,
    "motion_max": lambda material, frame: _moved_cells(material, frame, frame - 1),
    "loop_ratio": lambda material, frame: _moved_cells(material, frame, 0),
    "ws_psnr_db": _error_cells,
    "ws_ssim": _structure_cells,
}
