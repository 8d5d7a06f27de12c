"""Write panoramic videos as H.264 or H.265, and read videos, animated pictures and frame folders."""

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import imageio_ffmpeg
import numpy as np

from pano4d.runtime import spherical as spherical_metadata
from pano4d.runtime.errors import InputError, OutputError, SettingsError
from pano4d.runtime.exr import read_exr_picture
from pano4d.runtime.files import atomic_file
from pano4d.runtime.image import PICTURE_SUFFIXES
from pano4d.runtime.picture import opened, read_bytes, to_rgb, upright

MAX_VIDEO_BYTES = 4 << 30
CODECS = ("h264", "h265")
BITS = (8, 10)
FRAME_FORMATS = ("png", "exr")

# x265 has a log of its own. hvc1, unlike hev1, is what players of Apple's take.
_ENCODERS = {"h264": ["libx264"], "h265": ["libx265", "-x265-params", "log-level=error", "-tag:v", "hvc1"]}
_PIXELS = {8: "yuv420p", 10: "yuv420p10le"}


@dataclass(frozen=True)
class VideoSettings:
    """Say how a video and its frames are written.

    Attributes:
        codec: "h264", which plays everywhere, or "h265", which is smaller.
        bits: 8, or 10: the frames' 256 levels are then rounded once less, and steps between them show less.
        frames: Files of the single frames: "png", or "exr": halves in linear light.
    """

    codec: str = "h264"
    bits: int = 8
    frames: str = "png"

    def __post_init__(self) -> None:
        """Check all.

        Raises:
            SettingsError: There is no such codec, depth or file.
        """
        for option, found, choices in (("codec", self.codec, CODECS), ("bits", self.bits, BITS),
                                       ("frames", self.frames, FRAME_FORMATS)):
            if found not in choices:
                raise SettingsError(f"--{option} is {found}; use {' or '.join(map(str, choices))}.")


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float, *, spherical: bool = True,
                quality: int = 18, settings: VideoSettings = VideoSettings()) -> None:
    """Write an MP4: H.264 or H.265, 4:2:0, BT.709, constant frame rate, header first.

    Args:
        path: The file to write, ending in .mp4; replaced as a whole.
        frames: Frames in order. uint8 [T, H, W, 3], or any iterable of [H, W, 3].
        fps: Frames per second.
        spherical: Mark it as an equirectangular 360° video.
        quality: Constant rate factor of x264 or x265, 0 (best) to 51; 18 looks like the frames.
        settings: Codec and bits.

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
        _encode(temporary, first, frames, _encoder_options(height, width, fps, quality, settings))
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


def _encoder_options(height: int, width: int, fps: float, quality: int, settings: VideoSettings) -> list[str]:
    # Without the matrix option swscale writes BT.601 colours, which players take for BT.709. Newer encoders take what
    # they tell of colours from the frames alone, older ones from the options alone.
    colors = "scale=out_color_matrix=bt709:out_range=tv,setparams=color_primaries=bt709:color_trc=bt709"
    return ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-framerate", f"{fps:g}", "-i", "-",
            "-an", "-vf", colors, "-c:v", *_ENCODERS[settings.codec], "-preset", "medium",
            "-crf", str(quality), "-pix_fmt", _PIXELS[settings.bits], "-colorspace", "bt709", "-color_primaries", "bt709",
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
    # PPM frames carry their own size, so nothing has to be guessed from ffmpeg's log. Without the flag swscale takes
    # a shortcut that darkens videos of 10 bits by 1.6 of 255 levels; those of 8 bits stay as they are.
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-xerror", "-i", str(path), "-an", "-map", "0:v:0",
               "-vf", "scale=flags=full_chroma_int", "-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "image2pipe",
               "-c:v", "ppm", "-"]
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
        if path.name.startswith("."):
            continue
        if path.suffix.lower() == ".exr":
            yield read_exr_picture(path, max_bytes // 3)
        elif path.suffix.lower() in PICTURE_SUFFIXES:
            with opened(path, read_bytes(path, "a frame"), max_bytes // 3) as image:
                yield to_rgb(path, upright(path, image))


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    # ffmpeg begins lines with what speaks, and where that lies in memory.
    return re.sub(r"^(\[[^]]*\] )+", "", lines[-1]).rstrip(".") if lines else "the encoder gave no reason"


def _size(frame: np.ndarray) -> str:
    return f"{frame.shape[1]}x{frame.shape[0]}"
