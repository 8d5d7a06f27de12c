"""Read the depth map that belongs to a panorama, or one for each frame of a video."""

from pathlib import Path

import numpy as np
from PIL import Image

from pano4d.runtime.errors import InputError
from pano4d.runtime.exr import read_exr_channel
from pano4d.runtime.sphere import pixel_directions, sample_panorama

MAX_PIXELS = 16384 * 8192
"""Largest depth map that is read, in pixels."""

_METRES_PER_UNIT = {".png": 0.001, ".npy": 1.0, ".exr": 1.0}


def read_depth(path: Path, height: int, width: int, scale: float | None = None) -> np.ndarray:
    """Read distances along the rays of a panorama's pixels.

    The map is equirectangular like the panorama and holds distance from the centre (not
    depth along an axis). A map of another size is resampled.

    Args:
        path: 16-bit grey PNG, NPY or EXR.
        height: Rows wanted.
        width: Columns wanted.
        scale: Metres per stored unit. None: 0.001 for PNG (millimetres), 1 for NPY and EXR.

    Returns:
        Metres. float32 [height, width].

    Raises:
        InputError: The file cannot be read, is of another kind or aspect, or holds values
            that are not finite and above 0.
    """
    path = Path(path)
    readers = {".png": _read_png, ".npy": _read_npy, ".exr": _read_exr}
    kind = path.suffix.lower()
    if kind == ".onnx":
        raise InputError(f"{path} is a model, not a depth map; give it as --depth-model.")
    if kind not in readers:
        raise InputError(f"{path} is not a 16-bit PNG, NPY or EXR file; give --depth one of these.")
    scale = _check_scale(_METRES_PER_UNIT[kind] if scale is None else scale)
    return _to_metres(str(path), readers[kind](path), height, width, scale)


def _check_scale(scale: float) -> float:
    """Refuse scales that are no length."""
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"A depth scale of {scale} is no length; give --depth-scale above 0.")
    return scale


def _to_metres(path: str, stored: np.ndarray, height: int, width: int, scale: float) -> np.ndarray:
    """Check stored numbers and bring them to metres and to the size wanted. float32 [height, width]."""
    _check_shape(path, stored.shape, height, width)
    _check_values(path, stored)
    metres = stored.astype(np.float32) * np.float32(scale)
    # The scale may have carried a stored number out of float32.
    _check_values(path, metres)
    if metres.shape == (height, width):
        return metres
    return sample_panorama(metres[..., None], pixel_directions(height, width))[..., 0]


def read_depths(path: Path, height: int, width: int, frames: int, scale: float | None = None) -> np.ndarray:
    """Read the distances of a video: a file for all frames, or one for each.

    Args:
        path: A file as for `read_depth`, or a folder of as many such files, in the order of their names; or an NPY
            file of all frames [T, H, W].
        height: Rows wanted.
        width: Columns wanted.
        frames: Number of frames, T.
        scale: Metres per stored unit; None: as for `read_depth`.

    Returns:
        Metres. float32 [1, height, width] of a file for all frames, else [T, height, width].

    Raises:
        InputError: A file cannot be used, or there are not as many as frames.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, height, width, frames, scale)
    stack = _open_stack(path)
    if stack is None:
        return read_depth(path, height, width, scale)[None]
    _check_count(path, len(stack), frames)
    factor = _check_scale(1.0 if scale is None else scale)
    return np.stack([_to_metres(f"{path}, frame {number},", np.asarray(one), height, width, factor)
                     for number, one in enumerate(stack)])


def _read_folder(folder: Path, height: int, width: int, frames: int, scale: float | None) -> np.ndarray:
    """Read a file for each frame."""
    if (folder / "config.json").is_file():
        raise InputError(f"{folder} is a model, not a folder of depth maps; give it as --depth-model.")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _METRES_PER_UNIT)
    _check_count(folder, len(files), frames)
    maps = np.empty((frames, height, width), np.float32)
    for one, path in zip(maps, files):
        one[:] = read_depth(path, height, width, scale)
    return maps


def _open_stack(path: Path) -> np.ndarray | None:
    """Map an NPY file that holds several frames [T, H, W]; None if it is another file."""
    if path.suffix.lower() != ".npy":
        return None
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(stored, np.ndarray) or stored.ndim != 3 or stored.shape[2] == 1 or stored.dtype.kind not in "fiu":
        return None
    return stored


def _check_count(path: Path, found: int, frames: int) -> None:
    """Refuse another number of maps than frames."""
    if found != frames:
        raise InputError(f"{path} holds {found} depth maps (PNG, NPY or EXR), the video has {frames} frames; give one "
                         "map for each frame, or one file for all.")


def _read_png(path: Path) -> np.ndarray:
    """Return the samples of a 16-bit grey PNG."""
    try:
        with Image.open(path) as picture:
            if picture.format != "PNG" or not picture.mode.startswith("I"):
                raise InputError(
                    f"{path} is a {picture.format} picture of mode {picture.mode}; depth needs a "
                    "16-bit grey PNG, NPY or EXR."
                )
            _check_pixels(path, (picture.height, picture.width))
            return np.asarray(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a picture; save it again.") from error


def _read_npy(path: Path) -> np.ndarray:
    """Return the numbers of an NPY file, its last axis dropped if it is 1 long."""
    try:
        # Mapped: the size is known before anything is read. Pickles could run code.
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as an NPY array; save it again.") from error
    if not isinstance(stored, np.ndarray):
        raise InputError(f"{path} holds several arrays; save the depth alone with numpy.save.")
    stored = stored[..., 0] if stored.ndim == 3 and stored.shape[2] == 1 else stored
    if stored.ndim != 2 or stored.dtype.kind not in "fiu":
        raise InputError(
            f"{path} holds {stored.dtype} of shape {list(stored.shape)}; depth needs real numbers "
            "of shape [height, width]."
        )
    _check_pixels(path, stored.shape)
    return np.asarray(stored)


def _read_exr(path: Path) -> np.ndarray:
    """Return the depth channel of an EXR file."""
    return read_exr_channel(path, MAX_PIXELS)


def _check_pixels(path: Path, shape: tuple[int, ...]) -> None:
    """Refuse maps too large to be meant."""
    if shape[0] * shape[1] > MAX_PIXELS:
        raise InputError(f"{path} is {shape[1]}x{shape[0]}; at most {MAX_PIXELS} pixels are read.")


def _check_shape(path: str, shape: tuple[int, ...], height: int, width: int) -> None:
    """Refuse a map whose aspect is not the panorama's."""
    if shape[0] < 2 or abs(shape[1] * height - shape[0] * width) > max(height, width):
        raise InputError(
            f"{path} is {shape[1]}x{shape[0]}, the panorama {width}x{height}; give a depth map "
            "of the same aspect."
        )


def _check_values(path: str, depth: np.ndarray) -> None:
    """Refuse distances that are not finite and above 0."""
    bad = int(np.count_nonzero(~(np.isfinite(depth) & (depth > 0))))
    if bad:
        raise InputError(
            f"{path} has {bad} of {depth.size} pixels that are zero, negative or not finite; "
            "fill them, for instance the sky with its largest distance."
        )
