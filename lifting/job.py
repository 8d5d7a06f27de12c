"""Lift a panoramic video to one file of Gaussians per frame."""

import contextlib
import importlib.util
import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pano4d.lifting.container import ContainerWriter
from pano4d.lifting import drawing
from pano4d.lifting.distances import Distances, from_maps, unchanging
from pano4d.lifting.drawing import DEVICES
from pano4d.lifting.formats.ply import to_rows, write_rows
from pano4d.lifting.gaps import close_gaps
from pano4d.lifting.gaussians import Gaussians
from pano4d.lifting.lattice import default_count
from pano4d.lifting.layers import BACKGROUND, SKY, Layers, lay
from pano4d.lifting.prior import prior_distance
from pano4d.lifting.store import Store
from pano4d.runtime.errors import InputError, OutputError, SettingsError

Progress = Callable[[str, int, int], None]
DEFAULT_ITERATIONS = 600
_WRITERS = 4  # files at a time


@dataclass(frozen=True)
class LiftSettings:
    """How to lift.

    Attributes:
        gaussians: Count per frame; None: a quarter of the pixels, at most 1,000,000.
        iterations: Steps of optimisation of what does not move; what moves takes half of that in the first frame and a
            third in the others. 0 leaves all as placed. None: 600 on a GPU with gsplat, else 0.
        device: Where to optimise: "auto", "cpu" or "cuda".
        seed: Of the views that are compared.
    """

    gaussians: int | None = None
    iterations: int | None = None
    device: str = "auto"
    seed: int = 0


def lift_frames(
    frames: np.ndarray,
    mask: np.ndarray,
    folder: Path,
    *,
    depth: np.ndarray | Distances | None = None,
    settings: LiftSettings = LiftSettings(),
    store: Store | None = None,
    open_container: Callable[[Gaussians], ContainerWriter] | None = None,
    progress: Progress | None = None,
) -> dict:
    """Write ``frame_0000.ply`` ... into a folder, one frame after another.

    What does not move is packed once and written in front of every frame's moving part: Gaussian i is the same sample in
    every file.

    Args:
        frames: Panoramas. uint8 [T, H, W, 3].
        mask: Non-zero where the picture may move. bool or uint8 [H, W], or [T, H, W]: what moves in any frame.
        folder: Where to write; made if missing.
        depth: Distance along each pixel's ray, metres, above 0: of all frames, float32 [H, W], or of each, float32
            [T, H, W] or `Distances`; outside the mask the median over time counts. None: guessed from frame 0.
        settings: How.
        store: Where to keep what is optimised in case of an interruption; None: nowhere.
        open_container: Opens what takes the scene as one file too, from what does not move; None: no such file.
        progress: Called as progress("lift", frames done, frames in all), and while optimising as
            progress("optimize: 34.1 dB", steps done, steps in all).

    Returns:
        ``gaussians``, ``static`` and ``moving`` counts, of the static ones ``background`` and ``sky``, ``depth`` ("given"
        or "prior"), ``bytes`` in all, ``files`` (names in order), ``iterations``, and where there were any ``rasterizer``
        and ``psnr_db``, of the worst part: the still one or a frame's moving one; ``container_bytes`` if there is one.

    Raises:
        InputError: Shapes do not fit each other, or distances are not finite and above 0.
        SettingsError: The count is too small, or the device is not there.
        OutputError: A file cannot be written.
    """
    _check_shapes(frames, mask, depth)
    mask = np.asarray(mask).reshape(-1, *frames.shape[1:3]).any(0)
    _check_distances(depth)
    where, iterations = device_and_steps(settings)
    count = default_count(*frames.shape[1:3]) if settings.gaussians is None else settings.gaussians
    distances = _as_distances(depth, frames[0], mask)
    layers, told = lay(frames, mask, distances, count), {"iterations": iterations}
    if iterations:
        optimizer = _open_optimizer(frames, mask, distances, layers, iterations, where, settings, store, progress)
        static, moving = optimizer.static, optimizer.moving
    else:
        layers = close_gaps(layers, frames)
        static, moving = (lambda: layers.static), layers.moving
    still = static()
    static_rows = to_rows(still)
    files = [f"frame_{number:04d}.ply" for number in range(len(frames))]
    with contextlib.ExitStack() as stack:
        writer = _write_scene(lambda: stack.enter_context(open_container(still))) if open_container else None

        def finish(number: int, file: Future, scene: Future | None) -> int:
            size = file.result()
            if scene:
                scene.result()
            if progress:
                progress("lift", number + 1, len(frames))
            return size

        # Frames are written while the next ones are optimised: files several at a time, into the scene in their order.
        behind, in_order = (stack.enter_context(ThreadPoolExecutor(most)) for most in (_WRITERS, 1))
        written, waiting = 0, []
        for number, name in enumerate(files):
            parts = moving(number)
            rows = [static_rows, to_rows(parts)]
            waiting.append((number, behind.submit(_write, Path(folder), name, rows),
                            in_order.submit(_write_scene, partial(writer.add, parts)) if writer else None))
            if len(waiting) > _WRITERS:
                written += finish(*waiting.pop(0))
        written += sum(finish(*one) for one in waiting)
        if writer:
            told["container_bytes"] = _write_scene(writer.commit)
    if iterations:
        told |= {"rasterizer": optimizer.rasterizer, "psnr_db": round(min(optimizer.psnr_db, default=math.nan), 2)}
    return {
        "gaussians": count, "static": len(layers.static), "moving": len(layers.moving_directions),
        "background": int((layers.kind == BACKGROUND).sum()), "sky": int((layers.kind == SKY).sum()),
        "depth": "prior" if depth is None else "given", "bytes": written, "files": files, **told,
    }


def device_and_steps(settings: LiftSettings) -> tuple[str, int]:
    """Decide where to optimise, and for how many steps.

    Args:
        settings: What was asked for.

    Returns:
        "cpu" or "cuda", and the steps.

    Raises:
        SettingsError: torch or a GPU is needed and is not there, or there is no such device.
    """
    if settings.device in DEVICES and settings.iterations == 0:
        return "cpu", 0
    where = drawing.choose_device(settings.device)
    if settings.iterations is None:
        fast = where == "cuda" and importlib.util.find_spec("gsplat") is not None
        return ("cuda", DEFAULT_ITERATIONS) if fast else ("cpu", 0)
    if not drawing.has_torch():
        raise SettingsError("--iterations needs torch: pip install 'pano4d[lift]', or give --iterations 0.")
    return where, settings.iterations


def _open_optimizer(frames: np.ndarray, mask: np.ndarray, distances: Distances, layers: Layers, iterations: int, where: str,
                    settings: LiftSettings, store: Store | None, progress: Progress | None) -> Any:
    """Import what optimises, and open it: a `SequenceOptimizer`."""
    from pano4d.lifting.optimize.sequence import SequenceOptimizer
    from pano4d.lifting.optimize.settings import OptimizeSettings

    def report(done: int, total: int, psnr: float) -> None:
        if progress:
            progress(f"optimize: {psnr:.1f} dB", done, total)

    return SequenceOptimizer(frames, mask, distances, layers, OptimizeSettings(iterations, seed=settings.seed), where, store,
                             report)


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


def _write_scene(step: Callable[[], Any]) -> Any:
    """Take a step of writing the scene as one file; turn a failing disk into one sentence."""
    try:
        return step()
    except OSError as error:
        raise OutputError(f"The .p4d scene cannot be written ({error.strerror}); free some space or choose another "
                          "--out.") from error


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
    if mask.ndim == 3 and len(mask) not in (1, len(frames)):
        raise InputError(f"There are masks of {len(mask)} frames, and {len(frames)} frames; give one mask for all frames, "
                         "or one for each.")
    for name, shape in (("mask", mask.shape[-2:] if mask.ndim == 3 else mask.shape), ("depth map", _map_shape(depth))):
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


def _check_distances(depth: np.ndarray | Distances | None) -> None:
    """Refuse distances that are not finite and above 0."""
    if depth is None:
        return
    maps = [depth.static] if isinstance(depth, Distances) else depth.reshape(-1, *depth.shape[-2:])
    # A minimum or maximum is NaN where anything is.
    good = all(0 < one.min() and one.max() < np.inf for one in maps)
    if isinstance(depth, Distances):
        good = good and all(np.isfinite(change).all() for change in depth.changes)
    if not good:
        raise InputError("Some distances are zero, negative or not finite; fill them, for instance the sky with its largest "
                         "distance.")


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
