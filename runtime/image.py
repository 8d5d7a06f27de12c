"""Read panoramas and masks, resize them on the sphere, write frames."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pano4d.runtime.errors import InputError
from pano4d.runtime.files import atomic_file, sha256_of
from pano4d.runtime.picture import brightest, describe, opened, read_bytes, to_rgb, upright

MAX_PIXELS = 16384 * 8192
MIN_HEIGHT_PX = 32
MASK_THRESHOLD = 127
_ANIMATED = ("GIF", "PNG", "WEBP")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class Panorama:
    """A panorama as read.

    Attributes:
        pixels: uint8 [H, W, 3].
        notes: What was converted on the way, one sentence each.
        sha256: Digest of the file.
    """

    pixels: np.ndarray
    notes: tuple[str, ...]
    sha256: str


@dataclass(frozen=True)
class Mask:
    """A motion mask as read, in its own size.

    Attributes:
        moving: Where the picture may move. bool [h, w].
        notes: What was converted on the way, one sentence each.
        sha256: Digest of the file.
    """

    moving: np.ndarray
    notes: tuple[str, ...]
    sha256: str


def read_panorama(path: str | Path, *, allow_aspect: bool = False, max_pixels: int = MAX_PIXELS) -> Panorama:
    """Read an equirectangular panorama as 8-bit RGB, upright.

    Args:
        path: The picture: anything Pillow reads.
        allow_aspect: Take pictures that are not 2:1; they are stretched over the whole sphere.
        max_pixels: Largest picture to read, in pixels.

    Returns:
        The panorama, and notes on whatever had to be converted.

    Raises:
        InputError: Missing, not a picture, truncated, too large or too small, or not 2:1.
    """
    path = Path(path)
    data = read_bytes(path, "a panorama")
    with opened(path, data, max_pixels) as image:
        notes = describe(path, image, data)
        image = upright(path, image)
        width, height = image.size
        # Checked before decoding: a refusal should not cost the memory of the whole picture.
        _check_panorama_size(path, height, width, allow_aspect)
        if abs(width - 2 * height) > 2:
            notes.append(f"not 2:1 ({width}x{height}): stretched over the whole sphere")
        pixels = to_rgb(path, image)
    return Panorama(pixels, tuple(f"{path.name}: {note}" for note in notes), sha256_of(data))


def find_mask(panorama_path: str | Path) -> Path | None:
    """Find the mask that belongs to a panorama.

    Args:
        panorama_path: The panorama, say `set/scene.jpg`.

    Returns:
        `set_mask/scene.png` beside its folder, else `set/scene_mask.png`, else None.
    """
    path = Path(panorama_path).absolute()
    folder = path.parent
    candidates = (folder.with_name(f"{folder.name}_mask") / f"{path.stem}.png" if folder.name else None,
                  folder / f"{path.stem}_mask.png")
    return next((mask for mask in candidates if mask is not None and mask.is_file()), None)


def list_panoramas(folder: str | Path) -> list[Path]:
    """List the panoramas of a folder, in order of name, masks left out.

    Args:
        folder: The folder of a batch.

    Raises:
        InputError: The folder holds no picture.
    """
    folder = Path(folder)
    found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")
                   and path.suffix.lower() in PICTURE_SUFFIXES and not path.stem.endswith("_mask"))
    if not found:
        raise InputError(f"{folder} holds no picture; a batch needs files ending in "
                         f"{', '.join(PICTURE_SUFFIXES)}.")
    return found


def read_mask(path: str | Path, panorama_shape: tuple[int, ...], *, max_pixels: int = MAX_PIXELS) -> Mask:
    """Read a motion mask: any pixel that is not black may move.

    JPEG turns black into nearly black, so there a pixel must exceed half of the range.

    Args:
        path: The mask picture.
        panorama_shape: Shape of the panorama, [H, W] or [H, W, 3]; the mask needs its aspect.
        max_pixels: Largest mask to read, in pixels.

    Raises:
        InputError: Missing, not a picture or several, truncated, of another aspect, or empty.
    """
    path = Path(path)
    data = read_bytes(path, "a mask")
    with opened(path, data, max_pixels) as image:
        if getattr(image, "is_animated", False) and image.format in _ANIMATED:
            raise InputError(f"{path} holds {image.n_frames} pictures, and a mask is one; save the one that is meant.")
        lossy = image.format == "JPEG"
        image = upright(path, image)
        width, height = image.size
        check_mask_shape(path, height, width, panorama_shape)
        threshold = MASK_THRESHOLD if lossy else 0
        moving = brightest(path, image) > threshold
    return checked_mask(path, moving, threshold, panorama_shape, sha256_of(data), "JPEG mask", "panorama")


def checked_mask(path: Path, moving: np.ndarray, threshold: int, panorama_shape: tuple[int, ...], sha256: str, lossy: str,
                 resized_to: str) -> Mask:
    """Refuse a mask in which nothing moves; note what was done to it.

    Args:
        path: Its name, for messages.
        moving: Where it says that the picture may move. bool [H, W].
        threshold: Grey level that its pixels had to exceed; above 0 it is noted.
        panorama_shape: Shape of the panorama, [H, W] or [H, W, 3].
        sha256: Digest of what was read.
        lossy: What a note calls a mask with a threshold.
        resized_to: What a note calls the panorama.

    Returns:
        The mask.

    Raises:
        InputError: Nothing moves.
    """
    if not moving.any():
        above = f"brighter than {threshold}" if threshold else "that is not black"
        raise InputError(f"{path} has no pixel {above}, so nothing would move; paint white what may move, "
                         "or leave --mask out to let everything move.")
    notes = []
    if threshold:
        notes.append(f"{path.name}: {lossy}, pixels above {threshold} move")
    if moving.shape != tuple(panorama_shape[:2]):
        notes.append(f"{path.name}: {moving.shape[1]}x{moving.shape[0]}, resized to the {resized_to}")
    return Mask(moving, tuple(notes), sha256)


def check_mask_shape(path: Path, height: int, width: int, panorama_shape: tuple[int, ...]) -> None:
    """Refuse a mask whose aspect is not the panorama's.

    Args:
        path: Its name, for the message.
        height: Rows of the mask.
        width: Columns of the mask.
        panorama_shape: Shape of the panorama, [H, W] or [H, W, 3].

    Raises:
        InputError: The aspect is another one.
    """
    rows, columns = panorama_shape[:2]
    if abs(width - height * columns / rows) > max(2, width * 0.002):
        raise InputError(f"{path} is {width}x{height} and the panorama {columns}x{rows}; "
                         "give a mask with the panorama's aspect.")


def resize_panorama(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize with antialiasing as on the sphere: round the seam and over the poles.

    Args:
        pixels: Panorama. uint8 [H, W, 3].
        height: New height, in pixels.
        width: New width, in pixels.

    Returns:
        uint8 [height, width, 3]; the same bytes if the size is the same already.
    """
    rows, columns = pixels.shape[:2]
    if (rows, columns) == (height, width):
        return pixels.copy()
    # Lanczos reaches three output pixels, or three input pixels when enlarging.
    pad_rows = min(rows, int(np.ceil(3 * max(1, rows / height))) + 1)
    pad_columns = min(columns, int(np.ceil(3 * max(1, columns / width))) + 1)
    over = np.roll(pixels, columns // 2, axis=1)
    tall = np.concatenate([over[pad_rows - 1::-1], pixels, over[rows - pad_rows:][::-1]])
    wide = np.concatenate([tall[:, -pad_columns:], tall, tall[:, :pad_columns]], axis=1)
    box = (pad_columns, pad_rows, pad_columns + columns, pad_rows + rows)
    return np.asarray(Image.fromarray(wide).resize((width, height), Image.Resampling.LANCZOS, box=box)).copy()


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a mask by area: a pixel moves if at least half of it does.

    Args:
        mask: bool or uint8 [H, W], non-zero moves.
        height: New height, in pixels.
        width: New width, in pixels.

    Returns:
        bool [height, width].

    Raises:
        InputError: Something moves in the mask and nothing does at the new size.
    """
    resized = _covered(mask, height, width, 0.5)
    if np.any(mask) and not resized.any():
        raise InputError(f"What moves in the mask is smaller than a pixel at {width}x{height}; "
                         "paint larger areas or choose a larger --size.")
    return resized


def resize_whole(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Find the pixels of a resized mask all of which moves: a still line thinner than a pixel is not lost.

    Args:
        mask: bool or uint8 [H, W], non-zero moves.
        height: New height, in pixels.
        width: New width, in pixels.

    Returns:
        bool [height, width].
    """
    return _covered(mask, height, width, 1.0)


def _covered(mask: np.ndarray, height: int, width: int, least: float) -> np.ndarray:
    """Find the pixels of which at least a share moves. bool [height, width]."""
    moving = np.asarray(mask) != 0
    if moving.shape == (height, width):
        return moving.copy()
    covered = np.empty((height, width), bool)
    edges = np.linspace(0, moving.shape[0], height + 1)
    for row in range(height):
        share = _column_shares(_row_mean(moving, edges[row], edges[row + 1]), width)
        covered[row] = share >= least - 1e-9
    return covered


def write_png(path: str | Path, pixels: np.ndarray) -> None:
    """Write a picture as PNG, whole or not at all.

    Args:
        path: The file to write.
        pixels: uint8 [H, W, 3] or [H, W].

    Raises:
        OutputError: The file system refuses the write.
    """
    with atomic_file(path) as temporary:
        # Level 4 is twice as fast as the default and a few percent larger.
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG", compress_level=4)


def _check_panorama_size(path: Path, height: int, width: int, allow_aspect: bool) -> None:
    if height < MIN_HEIGHT_PX or width < MIN_HEIGHT_PX:
        raise InputError(f"{path} is {width}x{height} pixels; at least {2 * MIN_HEIGHT_PX}x{MIN_HEIGHT_PX} are needed.")
    if abs(width - 2 * height) > 2 and not allow_aspect:
        raise InputError(f"{path} is {width}x{height}, and an equirectangular panorama is twice as wide as high; "
                         "add --allow-aspect to stretch it over the sphere all the same.")


def _row_mean(moving: np.ndarray, begin: float, end: float) -> np.ndarray:
    first, last = int(begin), min(int(np.ceil(end)), len(moving))
    weights = np.minimum(np.arange(first, last) + 1, end) - np.maximum(np.arange(first, last), begin)
    return weights @ moving[first:last] / (end - begin)


def _column_shares(row: np.ndarray, width: int) -> np.ndarray:
    integral = np.concatenate([[0.0], np.cumsum(row)])
    edges = np.interp(np.linspace(0, len(row), width + 1), np.arange(len(row) + 1), integral)
    return np.diff(edges) * (width / len(row))
