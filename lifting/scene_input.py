"""Read what is lifted: a panoramic video, and the mask that says where it moves."""

from pathlib import Path

import numpy as np

from pano4d.runtime import image
from pano4d.runtime.errors import InputError
from pano4d.runtime.files import sha256_of
from pano4d.runtime.video import read_video

_VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif")


def read_video_and_mask(video: Path, mask: str | Path | None) -> tuple[np.ndarray, np.ndarray, dict]:
    """Read a panoramic video, and its mask at the video's size.

    Args:
        video: Video, GIF, or folder of frames.
        mask: Picture, or video, GIF or folder of one mask for each frame: what moves in any of them moves. None:
            everything moves.

    Returns:
        Frames, uint8 [T, H, W, 3]; where the picture may move, bool [H, W]; and the report's ``inputs``.

    Raises:
        InputError: Either cannot be read, the video is not 2:1, or the mask is of another aspect or length.
    """
    frames = read_video(video)
    count, height, width, _ = frames.shape
    if width != 2 * height:
        raise InputError(f"{video} is {width}x{height}, but a panoramic video is twice as wide as high.")
    inputs = {"video": video.name, "frames_sha256": sha256_of(np.ascontiguousarray(frames).data), "mask": None,
              "mask_sha256": None, "notes": []}
    if mask is None:
        return frames, np.ones((height, width), bool), inputs
    path = Path(mask)
    read = _read_masks(path, count, frames.shape[1:3]) if _is_sequence(path) else image.read_mask(path, (height, width))
    inputs |= {"mask": path.name, "mask_sha256": read.sha256, "notes": list(read.notes)}
    return frames, image.resize_mask(read.moving, height, width), inputs


def _is_sequence(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() in _VIDEO_SUFFIXES


def _read_masks(path: Path, count: int, size: tuple[int, int]) -> image.Mask:
    """Read one mask for each frame, and put all of them into one."""
    masks = read_video(path)
    if len(masks) not in (1, count):
        raise InputError(f"{path} holds {len(masks)} masks, the video has {count} frames; give one mask for each frame, or "
                         "one picture for all.")
    image.check_mask_shape(path, *masks.shape[1:3], size)
    lossless = path.suffix.lower() == ".gif" or path.is_dir() and not _jpegs(path)
    threshold = 0 if lossless else image.MASK_THRESHOLD
    moving = np.zeros(masks.shape[1:3], bool)
    for one in masks:
        moving |= one.max(axis=-1) > threshold
    return image.checked_mask(path, moving, threshold, size, sha256_of(masks.data), "lossy masks", "video")


def _jpegs(folder: Path) -> bool:
    return any(path.suffix.lower() in (".jpg", ".jpeg") for path in folder.iterdir())
