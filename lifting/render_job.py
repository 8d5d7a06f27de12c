"""Draw a scene frame by frame while a camera moves through it."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pano4d.lifting.camera_path import Pose, dolly, orbit, still, through_keyframes
from pano4d.lifting.cameras import perspective_K
from pano4d.lifting.cube import CubeView
from pano4d.lifting.drawing import Renderer
from pano4d.lifting.gaussians import Gaussians
from pano4d.lifting.path_file import read_path
from pano4d.lifting.render_settings import RenderSettings
from pano4d.lifting.scene_files import SceneFrames

Progress = Callable[[str, int, int], None]
NEAR_QUANTILE = 0.05


def near_distance(gaussians: Gaussians) -> float:
    """Return how far the nearest things are from the centre, metres; a few strays do not count.

    Args:
        gaussians: N Gaussians.

    Returns:
        The quantile NEAR_QUANTILE of their distances; 0 if there are none.

    Raises:
        Nothing.
    """
    distances = np.linalg.norm(gaussians.means, axis=1)
    return float(np.quantile(distances, NEAR_QUANTILE)) if len(distances) else 0.0


def plan(settings: RenderSettings, first: Gaussians) -> list[Pose]:
    """Lay the camera's path.

    Args:
        settings: What to draw; `fps` is set.
        first: The scene's first frame.

    Returns:
        One pose for each frame of the video.

    Raises:
        InputError: The path file cannot be used.
    """
    fov_deg, radius_m = settings.fov_deg, settings.radius * near_distance(first)
    if settings.path == "still":
        return still(settings.count, fov_deg)
    if settings.path in ("orbit", "dolly"):
        return (orbit if settings.path == "orbit" else dolly)(settings.count, fov_deg, radius_m)
    times, keyframes = read_path(Path(settings.path), fov_deg)
    own = settings.frames is None and settings.seconds is None
    count = max(1, round((times[-1] - times[0]) * settings.fps) + 1) if own else settings.count
    return through_keyframes(times, keyframes, times[0] + np.arange(count) / settings.fps)


def render_frames(scene: SceneFrames, poses: list[Pose], settings: RenderSettings, renderer: Renderer,
                  scene_fps: float, progress: Progress | None = None, closed: bool = False) -> Iterator[np.ndarray]:
    """Draw the video.

    Args:
        scene: The frames of the scene.
        poses: One for each frame of the video.
        settings: What to draw; `fps` is set.
        renderer: What draws.
        scene_fps: Frames per second of the scene.
        progress: Called as progress("render", frames done, frames in all).
        closed: Whether the scene closes on itself.

    Yields:
        uint8 [height, width, 3]; twice as wide for stereo.

    Raises:
        InputError: A file holds no Gaussians.
    """
    width, height = settings.size
    cube = CubeView(width, height) if settings.projection == "equirectangular" else None
    eyes = (-0.5, 0.5) if settings.stereo else (0.0,)

    def draw(run: list[Pose]) -> list[np.ndarray]:
        if cube:
            return [cube.draw(renderer, pose.position) for pose in run]
        views = np.stack([pose.viewmat(eye * settings.ipd_m) for pose in run for eye in eyes])
        drawn = renderer.draw(views, perspective_K(run[0].fov_deg, width, height), width, height)
        return [np.concatenate(pair, 1) for pair in drawn.reshape(len(run), len(eyes), height, width, 3)]

    frames = [scene_frame(number, len(scene), scene_fps / settings.fps, closed) for number in range(len(poses))]
    shown, done = None, 0
    for index, run in _runs(frames, poses, 1 if cube else max(1, renderer.together // len(eyes))):
        if index != shown:
            renderer.show(scene.frame(index))
            shown = index
        for picture in draw(run):
            yield picture
            done += 1
            if progress:
                progress("render", done, len(poses))


def _runs(frames: list[int], poses: list[Pose], most: int) -> Iterator[tuple[int, list[Pose]]]:
    """Cut a video into runs of so many frames at most that show one frame of the scene through one field of view."""
    for (index, _), run in itertools.groupby(zip(frames, poses), key=lambda pair: (pair[0], pair[1].fov_deg)):
        alike = [pose for _, pose in run]
        yield from ((index, alike[start:start + most]) for start in range(0, len(alike), most))


def scene_frame(number: int, count: int, pace: float, closed: bool = False) -> int:
    """Tell which frame of a scene a frame of the video shows: forth, back, forth again; round and round if it closes.

    Args:
        number: Frame of the video.
        count: Frames of the scene.
        pace: Frames of the scene for each of the video.
        closed: Whether the scene closes on itself.

    Returns:
        0 to count - 1.

    Raises:
        Nothing.
    """
    if count == 1:
        return 0
    # The small addend keeps a pace such as 7/24 from falling below a whole number that it reaches.
    passed = int(number * pace + 1e-6)
    if closed:
        return passed % count
    turn = passed % (2 * count - 2)
    return min(turn, 2 * count - 2 - turn)
