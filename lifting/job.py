"""Lift a panoramic video to one file of Gaussians per frame."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pano4d.lifting.distances import Distances, from_maps, unchanging
from pano4d.lifting.formats.ply import to_rows, write_rows
from pano4d.lifting.layers import BACKGROUND, SKY, lay
from pano4d.lifting.lattice import default_count
from pano4d.lifting.prior import prior_distance
from pano4d.runtime.errors import InputError, OutputError

Progress = Callable[[str, int, int], None]


def lift_frames(
    frames: np.ndarray,
    mask: np.ndarray,
    folder: Path,
    *,
    depth: np.ndarray | Distances | None = None,
    gaussians: int | None = None,
    progress: Progress | None = None,
) -> dict:
    """Write ``frame_0000.ply`` ... into a folder, one frame after another.

    What does not move is packed once, with the colours of frame 0, and written in front of every
    frame's moving part: Gaussian i is the same sample in every file.

    Args:
        frames: Panoramas. uint8 [T, H, W, 3].
        mask: Non-zero where the picture may move. bool or uint8 [H, W].
        folder: Where to write; made if missing.
        depth: Distance along each pixel's ray, metres, above 0: of all frames, float32 [H, W],
            or of each, float32 [T, H, W] or `Distances`; outside the mask the median over
            time counts. None: guessed from frame 0.
        gaussians: Count per frame; None: a quarter of the pixels, at most 1,000,000.
        progress: Called as progress("lift", frames done, frames in all).

    Returns:
        ``gaussians``, ``static`` and ``moving`` counts, of the static ones ``background`` and
        ``sky``, ``depth`` ("given" or "prior"), ``bytes`` in all, ``files`` (names in order).

    Raises:
        InputError: Shapes do not fit each other.
        SettingsError: The count is too small.
        OutputError: A file cannot be written.
    """
    _check_shapes(frames, mask, depth)
    count = default_count(*frames.shape[1:3]) if gaussians is None else gaussians
    distances = _as_distances(depth, frames[0], mask)
    maps = np.stack([distances.frame(number) for number in range(len(frames))]) if distances.changing else distances.static
    layers = lay(frames, mask, maps, count)
    static_rows = to_rows(layers.static)
    written, files = 0, []
    for number in range(len(frames)):
        files.append(f"frame_{number:04d}.ply")
        written += _write(Path(folder), files[-1], [static_rows, to_rows(layers.moving(number))])
        if progress:
            progress("lift", number + 1, len(frames))
    return {
        "gaussians": count, "static": len(layers.static), "moving": len(layers.moving_directions),
        "background": int((layers.kind == BACKGROUND).sum()), "sky": int((layers.kind == SKY).sum()),
        "depth": "prior" if depth is None else "given", "bytes": written, "files": files,
    }


def _write(folder: Path, name: str, rows: list[np.ndarray]) -> int:
    """Write one file; turn a failing disk into one sentence."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return write_rows(folder / name, rows)
    except OSError as error:
        raise OutputError(
            f"{folder / name} cannot be written ({error.strerror}); free some space or choose "
            "another --out."
        ) from error


def _as_distances(
    depth: np.ndarray | Distances | None, first: np.ndarray, mask: np.ndarray
) -> Distances:
    """Take what was given, or guess."""
    if isinstance(depth, Distances):
        return depth
    if depth is None or depth.ndim == 2 or len(depth) == 1:
        return unchanging(prior_distance(first) if depth is None else depth.reshape(mask.shape))
    return from_maps(depth, np.asarray(mask) != 0)


def _check_shapes(
    frames: np.ndarray, mask: np.ndarray, depth: np.ndarray | Distances | None
) -> None:
    """Refuse arrays that do not belong together."""
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise InputError(
            f"Frames are {frames.dtype} {list(frames.shape)}; lifting needs uint8 [T, H, W, 3]."
        )
    for name, shape in (("mask", mask.shape), ("depth map", _map_shape(depth))):
        if shape is not None and shape != frames.shape[1:3]:
            raise InputError(
                f"The {name} is {list(shape)}, the frames are {list(frames.shape[1:3])} "
                "[height, width]; give both in one size."
            )
    maps = _map_count(depth)
    if maps not in (None, 1, len(frames)):
        raise InputError(
            f"There are distances of {maps} frames, and {len(frames)} frames; give one map for all "
            "frames, or one for each."
        )


def _map_shape(depth: np.ndarray | Distances | None) -> tuple[int, ...] | None:
    """Give the height and width of distances; None if there are none."""
    if depth is None:
        return None
    return depth.static.shape if isinstance(depth, Distances) else depth.shape[-2:]


def _map_count(depth: np.ndarray | Distances | None) -> int | None:
    """Give of how many frames distances are; None if one map is for all."""
    if isinstance(depth, Distances):
        return len(depth.changes) if depth.changing else None
    return len(depth) if depth is not None and depth.ndim == 3 else None
