"""Look for holes in a scene from places beside its centre."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pano4d.lifting.cameras import perspective_K, viewmat
from pano4d.lifting.cube import FACES
from pano4d.lifting.drawing import Renderer
from pano4d.lifting.formats.ply import read_ply
from pano4d.lifting.gaussians import Gaussians

Progress = Callable[[str, int, int], None]
STEP_SHARE = 0.05
"""How far aside a camera stands, over the median distance of the Gaussians."""

OPEN_BELOW = 0.5
"""Coverage below which a pixel is a hole."""

# The corners of a tetrahedron: a step to every side.
PLACES = np.array([[1, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]]) / np.sqrt(3)
_LEAST_SIDE_PX, _LARGEST_SIDE_PX = 64, 384


@dataclass(frozen=True)
class Holes:
    """What of a scene is open.

    Attributes:
        frames: The frames that were looked at. int64 [4], fewer of a shorter scene.
        percent: Of each of them, the open share of the sphere around its place, in percent. float64, of that length.
        picture: The view with most of it, holes painted over. uint8 [s, s, 3].
        view: What that is, in words.
    """

    frames: np.ndarray
    percent: np.ndarray
    picture: np.ndarray
    view: str


def find_holes(files: Sequence[Path], renderer: Renderer, progress: Progress | None = None) -> Holes:
    """Draw a scene from beside the centre, and measure what is not covered.

    Frames spread over the video are each drawn from another one of PLACES, STEP_SHARE of the median distance off the
    centre, to six sides. With A the coverage of a pixel and w its solid angle, a frame has

        100 sum w [A < OPEN_BELOW] / sum w

    Args:
        files: One PLY file a frame, at least one.
        renderer: What draws.
        progress: Called as progress("holes", frames done, frames in all).

    Returns:
        The figures and the worst view.

    Raises:
        InputError: A file holds no Gaussians.
    """
    chosen = np.unique(np.linspace(0, len(files) - 1, len(PLACES)).round().astype(int))
    percent, worst, picture, view = [], -1.0, None, ""
    for number, frame in enumerate(chosen):
        gaussians, place = read_ply(files[frame]), PLACES[number]
        renderer.show(gaussians)
        shares = _open_shares(renderer, gaussians, place)
        percent.append(100.0 * shares.mean())
        if shares.max() > worst:
            worst, face = shares.max(), int(shares.argmax())
            picture, view = _picture(renderer, gaussians, place, face), f"frame {frame}, {_words(place, face)}"
        if progress:
            progress("holes", number + 1, len(chosen))
    return Holes(chosen, np.array(percent), picture, view)


def _open_shares(renderer: Renderer, gaussians: Gaussians, place: np.ndarray) -> np.ndarray:
    """Return the open share of each face, by solid angle. float64 [6]."""
    K, side = _camera(gaussians)
    axis = (np.arange(side) + 0.5) / side * 2.0 - 1.0
    angles = (1.0 + axis[:, None] ** 2 + axis**2) ** -1.5
    covered = renderer.cover(_views(gaussians, place), K, side, side)
    return ((covered < OPEN_BELOW) * angles).sum(axis=(1, 2)) / angles.sum()


def _picture(renderer: Renderer, gaussians: Gaussians, place: np.ndarray, face: int) -> np.ndarray:
    """Draw a view, holes magenta."""
    K, side = _camera(gaussians)
    view = _views(gaussians, place)[face:face + 1]
    picture = renderer.draw(view, K, side, side)[0].copy()
    picture[renderer.cover(view, K, side, side)[0] < OPEN_BELOW] = (255, 0, 255)
    return picture


def _camera(gaussians: Gaussians) -> tuple[np.ndarray, int]:
    """Choose the side of a face, in pixels: about as dense as a panorama of four pixels a Gaussian."""
    side = int(np.clip(round((4 * len(gaussians.means) / 6) ** 0.5), _LEAST_SIDE_PX, _LARGEST_SIDE_PX))
    return perspective_K(90.0, side, side), side


def _views(gaussians: Gaussians, place: np.ndarray) -> np.ndarray:
    """Look to all sides from a place. float64 [6, 4, 4]."""
    step = STEP_SHARE * np.median(np.linalg.norm(gaussians.means, axis=1))
    return np.stack([viewmat(yaw, pitch, place * step) for yaw, pitch in FACES])


def _words(place: np.ndarray, face: int) -> str:
    yaw, pitch = FACES[face]
    axes = (("left", "right"), ("up", "down"), ("back", "ahead"))
    aside = ", ".join(names[int(part > 0)] for part, names in zip(place, axes))
    return f"from a step {aside}, looking {yaw:+.0f}° to the right and {pitch:+.0f}° up"
