"""Decode picture files of any kind Pillow reads, and say what had to be converted."""

import contextlib
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pano4d.runtime.errors import InputError

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
_ORIENTATION = 0x0112
_open_lock = threading.Lock()


def read_bytes(path: Path, wanted: str) -> bytes:
    """Return the bytes of a file that the user named.

    Args:
        path: The file.
        wanted: What it should be, for the message: "a panorama".

    Raises:
        InputError: Missing, a folder, or not to be read.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder where {wanted} is needed; name a picture file.")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {wanted} is needed there.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


@contextlib.contextmanager
def opened(path: Path, data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Open a picture without decoding it yet.

    Args:
        path: Its name, for messages.
        data: The bytes of the file.
        max_pixels: Largest picture to accept, in pixels.

    Yields:
        The Pillow image.

    Raises:
        InputError: Not a picture, damaged, or over the limit.
    """
    with _open_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Pillow's own limit is global; ours is stated, and the user can raise it.
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(io.BytesIO(data))
        except UnidentifiedImageError:
            raise InputError(f"{path} is not a picture that can be read; give a JPEG, PNG, WebP or TIFF.") from None
        except _DAMAGE as error:
            raise _damaged(path, error) from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        if image.width * image.height > max_pixels:
            raise InputError(f"{path} has {image.width}x{image.height} = {image.width * image.height} pixels, over the "
                             f"limit of {max_pixels}; shrink it or raise the limit with --max-pixels.")
        yield image


def describe(path: Path, image: Image.Image, data: bytes) -> list[str]:
    """Say what has to be converted to get upright 8-bit RGB.

    Args:
        path: Its name, for messages.
        image: The picture as opened.
        data: The bytes of the file.

    Returns:
        Short notes; none for a plain upright 8-bit RGB picture.

    Raises:
        InputError: Damaged.
    """
    notes = []
    if getattr(image, "n_frames", 1) > 1:
        notes.append("several pictures in one file: the first is used")
    if _orientation(path, image) not in (0, 1):
        notes.append("turned upright as its EXIF orientation says")
    if image.mode.startswith("I") or _sixteen_bit(image, data):
        notes.append("16 bits a channel: reduced to 8")
    if image.mode == "CMYK":
        notes.append("CMYK: converted to RGB")
    elif image.mode.startswith("P"):
        notes.append("palette: converted to RGB")
    elif image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I"):
        notes.append("gray: converted to RGB")
    elif image.mode not in ("RGB", "RGBA", "RGBa", "RGBX"):
        notes.append(f"{image.mode}: converted to RGB")
    if image.has_transparency_data:
        notes.append("alpha: laid over black")
    return notes


def _sixteen_bit(image: Image.Image, data: bytes) -> bool:
    # Pillow decodes 16-bit RGB straight to 8 bits; only the headers still tell.
    if image.format == "PNG":
        return data[24] == 16
    bits = getattr(image, "tag_v2", {}).get(258, 8)
    return max(bits if isinstance(bits, tuple) else (bits,)) == 16


def _orientation(path: Path, image: Image.Image) -> int:
    # A PNG is decoded here, since its EXIF may come last.
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def upright(path: Path, image: Image.Image) -> Image.Image:
    """Turn a picture upright as its EXIF orientation says.

    Args:
        path: Its name, for messages.
        image: The picture as opened; returned as it is, still undecoded, if it is upright.

    Raises:
        InputError: Damaged.
    """
    if _orientation(path, image) in (0, 1):
        return image
    try:
        return ImageOps.exif_transpose(image)
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def to_rgb(path: Path, image: Image.Image) -> np.ndarray:
    """Decode to 8-bit RGB, transparency laid over black.

    Args:
        path: Its name, for messages.
        image: The picture.

    Returns:
        uint8 [H, W, 3].

    Raises:
        InputError: Damaged, truncated, or in floating point.
    """
    if image.mode == "F":
        raise InputError(f"{path} holds floating point light values; save it as 8-bit or 16-bit PNG first.")
    try:
        if image.mode.startswith("I"):
            gray = _sixteen_to_eight(np.asarray(image))
            return np.repeat(gray[..., None], 3, axis=2)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
        return np.array(image.convert("RGB"))
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _sixteen_to_eight(values: np.ndarray) -> np.ndarray:
    return ((np.clip(values, 0, 65535).astype(np.uint32) + 128) // 257).astype(np.uint8)


def brightest(path: Path, image: Image.Image) -> np.ndarray:
    """Decode to the largest colour channel, zero where fully transparent.

    Args:
        path: Its name, for messages.
        image: The picture.

    Returns:
        [H, W] in the range of the file, 8-bit, 16-bit or floating point.

    Raises:
        InputError: Damaged or truncated.
    """
    try:
        if image.mode.startswith("I") or image.mode == "F":
            return np.asarray(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            return np.asarray(image)[..., :3].max(axis=2) * (np.asarray(image)[..., 3] > 0)
        if image.mode in ("1", "L"):
            return np.asarray(image.convert("L"))
        return np.asarray(image.convert("RGB")).max(axis=2)
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> InputError:
    return InputError(f"{path} is damaged or incomplete ({error}); save or copy it again.")
