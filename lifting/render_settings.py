"""Hold what the rendering of a scene can be told."""

from dataclasses import dataclass

from pano4d.runtime.errors import SettingsError
from pano4d.runtime.video import VideoSettings

PROJECTIONS = ("perspective", "equirectangular")
PATHS = ("orbit", "dolly", "still")
SIZES = {"perspective": (1280, 720), "equirectangular": (2048, 1024)}
SCENE_FPS = 7.0
"""Frames per second of a scene that does not name its own."""

_SECONDS = 6.0
_LARGEST_SIDE = 16384


@dataclass(frozen=True)
class RenderSettings:
    """How to render a scene.

    Attributes:
        path: "orbit", "dolly", "still", or a JSON file of keyframes.
        frames: Length of the video in frames; None: `seconds` say.
        seconds: Length of the video; None: 6, or what the path file takes.
        fps: Frames per second of the video; None: 24.
        fov_deg: Field of view over the width, degrees.
        size: Width and height in pixels, of one eye; None: 1280x720, or 2048x1024 for a panorama.
        projection: "perspective" or "equirectangular".
        stereo: Draw a pair side by side, left eye left.
        ipd_m: Distance between the eyes, metres.
        radius: How far the built-in paths go from the centre, as a share of the distance of what is near.
        device: "auto", "cpu" or "cuda".
        codec: "h264" or "h265".
        bits: 8 or 10.
    """

    path: str = "orbit"
    frames: int | None = None
    seconds: float | None = None
    fps: float | None = None
    fov_deg: float = 75.0
    size: tuple[int, int] | None = None
    projection: str = "perspective"
    stereo: bool = False
    ipd_m: float = 0.063
    radius: float = 0.25
    device: str = "auto"
    codec: str = "h264"
    bits: int = 8

    def __post_init__(self) -> None:
        """Fill in what depends on something else, and check all.

        Raises:
            SettingsError: A value lies out of its range or does not fit the others.
        """
        _check(self.projection in PROJECTIONS, f"--projection is {self.projection!r}; use {' or '.join(PROJECTIONS)}.")
        object.__setattr__(self, "size", tuple(self.size or SIZES[self.projection]))
        object.__setattr__(self, "fps", 24.0 if self.fps is None else self.fps)
        width, height = self.size
        _check(min(width, height) >= 1 and max(width, height) <= _LARGEST_SIDE,
               f"--size {width}x{height} is out of range; give 1 to {_LARGEST_SIDE} pixels a side.")
        _check(1.0 <= self.fov_deg <= 170.0, f"--fov {self.fov_deg:g} is out of range; give 1 to 170 degrees.")
        _check(0.0 <= self.radius <= 0.9, f"--radius {self.radius:g} is out of range; give 0 to 0.9 of the distance of "
                                          "what is near, beyond which the camera leaves what the scene shows.")
        _check(0.0 < self.ipd_m <= 1.0, f"--ipd {self.ipd_m:g} is out of range; give metres above 0, at most 1.")
        _check(0.0 < self.fps <= 240.0, f"--fps {self.fps:g} is out of range; give a number above 0, at most 240.")
        _check(self.frames is None or self.seconds is None, "--frames and --seconds exclude each other; give one.")
        _check(self.seconds is None or 0.0 < self.seconds <= 86400.0,
               f"--seconds {self.seconds} is out of range; give a number above 0, at most 86400.")
        VideoSettings(self.codec, self.bits)
        _check(self.count >= 1, "The video would have no frame; give a longer --seconds or --frames.")
        if self.projection == "equirectangular":
            _check(width == 2 * height, f"--size {width}x{height} is no panorama's; give twice as wide as high, such as "
                                        "2048x1024.")
            _check(not self.stereo, "--stereo needs --projection perspective: a pair of panoramas has no one direction "
                                    "to set the eyes apart in.")

    @property
    def count(self) -> int:
        """Frames of the video, unless the path file decides."""
        return self.frames if self.frames is not None else round((self.seconds or _SECONDS) * self.fps)

    @property
    def video_size(self) -> tuple[int, int]:
        """Width and height of the video, pixels."""
        return self.size[0] * (2 if self.stereo else 1), self.size[1]


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise SettingsError(message)
