"""Write panoramic videos as H.264, and read videos, animated pictures and frame folders."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import imageio_ffmpeg
import numpy as np

from pano4d.runtime import spherical as spherical_metadata
from pano4d.runtime.errors import InputError, OutputError, SettingsError
from pano4d.runtime.files import atomic_file
from pano4d.runtime.image import PICTURE_SUFFIXES
from pano4d.runtime.picture import opened, read_bytes, to_rgb, upright

MAX_VIDEO_BYTES = 4 << 30


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float, *, spherical: bool = True,
                quality: int = 18) -> None:
    """Write an MP4: H.264, 4:2:0, BT.709, constant frame rate, header first.

    Args:
        path: The file to write, ending in .mp4; replaced as a whole.
        frames: Frames in order. uint8 [T, H, W, 3], or any iterable of [H, W, 3].
        fps: Frames per second.
        spherical: Mark it as an equirectangular 360° video.
        quality: Constant rate factor of x264, 0 (lossless) to 51; 18 looks like the frames.

    Raises:
        SettingsError: Odd width or height, or no frame at all.
        OutputError: The encoder failed or the file system refuses the write.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise SettingsError("A video needs at least one frame.")
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise SettingsError(f"A video of {width}x{height} cannot be written as 4:2:0; choose an even --size.")
    with atomic_file(path) as temporary:
        _encode(temporary, first, frames, _encoder_options(height, width, fps, quality))
        if spherical:
            spherical_metadata.inject(temporary)


def read_video(path: str | Path, *, max_bytes: int = MAX_VIDEO_BYTES) -> np.ndarray:
    """Read all frames of a video file, an animated GIF, or a folder of pictures.

    Args:
        path: Video file, or folder whose pictures are the frames in order of name.
        max_bytes: Most memory for the decoded frames, in bytes.

    Returns:
        uint8 [T, H, W, 3].

    Raises:
        InputError: Missing, damaged, without frames, frames of several sizes, or too large.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; a video or a folder of frames is needed there.")
    frames: list[np.ndarray] = []
    held = 0
    for frame in _read_folder(path, max_bytes) if path.is_dir() else _decode(path):
        if frames and frame.shape != frames[0].shape:
            raise InputError(f"{path} has frames of {_size(frames[0])} and of {_size(frame)}; "
                             "all frames must have one size.")
        frames.append(frame)
        held += frame.nbytes
        if held > max_bytes:
            raise InputError(f"{path} takes more than {max_bytes / 2**30:.1f} GiB when decoded; "
                             "cut it shorter or scale it down.")
    if not frames:
        raise InputError(f"{path} holds no frame; give a video or a folder of PNG frames.")
    return np.stack(frames)


def read_fps(path: str | Path) -> float | None:
    """Read how fast a video plays.

    Args:
        path: Video file, animated GIF, or folder of pictures.

    Returns:
        Frames per second; None where nothing says so.

    Raises:
        Nothing.
    """
    if Path(path).is_dir():
        return None
    try:
        reader = imageio_ffmpeg.read_frames(str(path))
        try:
            fps = float(next(reader)["fps"])
        finally:
            reader.close()
    except (OSError, RuntimeError, ValueError, KeyError, StopIteration):
        return None
    return fps if 0 < fps <= 1000 else None


def _encoder_options(height: int, width: int, fps: float, quality: int) -> list[str]:
    # Without the matrix option swscale writes BT.601 colours, which players take for BT.709.
    return ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-framerate", f"{fps:g}", "-i", "-",
            "-an", "-vf", "scale=out_color_matrix=bt709:out_range=tv", "-c:v", "libx264", "-preset", "medium",
            "-crf", str(quality), "-pix_fmt", "yuv420p", "-colorspace", "bt709", "-color_primaries", "bt709",
            "-color_trc", "bt709", "-color_range", "tv", "-movflags", "+faststart", "-fflags", "+bitexact",
            "-flags:v", "+bitexact", "-f", "mp4", "-y"]


def _encode(path: Path, first: np.ndarray, rest: Iterator[np.ndarray], options: list[str]) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *options, str(path)]
    with tempfile.TemporaryFile() as log:
        # Its own session: Ctrl-C in the terminal must reach us first, not kill the encoder.
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log,
                              start_new_session=True) as process:
            try:
                process.stdin.write(np.ascontiguousarray(first).data)
                for frame in rest:
                    assert frame.shape == first.shape and frame.dtype == np.uint8
                    process.stdin.write(np.ascontiguousarray(frame).data)
                process.stdin.close()
            except BrokenPipeError:
                # The encoder died and its log says why; what is still buffered goes nowhere.
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise OutputError(f"{path.name} could not be encoded: {_last_line(log)}.")


def _decode(path: Path) -> Iterator[np.ndarray]:
    # PPM frames carry their own size, so nothing has to be guessed from ffmpeg's log.
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-xerror", "-i", str(path), "-an",
               "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm", "-"]
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                              start_new_session=True) as process:
            try:
                while (frame := _next_ppm(process.stdout)) is not None:
                    yield frame
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise InputError(f"{path} is damaged or not a video ({_last_line(log)}); export it again as MP4.")


def _next_ppm(pipe: IO[bytes]) -> np.ndarray | None:
    if pipe.readline() != b"P6\n":
        return None
    width, height = map(int, pipe.readline().split())
    pipe.readline()
    data = pipe.read(width * height * 3)
    if len(data) < width * height * 3:
        return None
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


def _read_folder(folder: Path, max_bytes: int) -> Iterator[np.ndarray]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith("."):
            with opened(path, read_bytes(path, "a frame"), max_bytes // 3) as image:
                yield to_rgb(path, upright(path, image))


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].rstrip(".") if lines else "the encoder gave no reason"


def _size(frame: np.ndarray) -> str:
    return f"{frame.shape[1]}x{frame.shape[0]}"
