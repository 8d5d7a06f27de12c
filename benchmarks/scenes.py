"""Render worlds whose truth is known: panoramas and perspective views, distances, what moves, off the centre as well.

    scene = open_scene("courtyard", "cuda")
    picture = scene.panorama(frame=0, height=2048)
    beside = scene.view(0, viewmat(40.0, 0.0, (0.2, 0.0, 0.1)), perspective_K(90.0, 640, 480), 640, 480)

The family ``TUNING`` is for choosing settings, ``REPORTING`` for figures that are published: no setting is chosen by
looking at the latter. The sky is painted on a shell of radius ``SKY_DISTANCE_M`` around the centre. Colours are averaged
over a pixel as displayed, in sRGB. A pixel's distance is that along the ray of its centre.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch

from pano4d.benchmarks import scene_cloister, scene_courtyard, scene_gallery, scene_hollow, scene_workshop
from pano4d.benchmarks.scene_light import SKY_DISTANCE_M, Stage
from pano4d.benchmarks.scene_rays import PanoramaCamera, PerspectiveCamera
from pano4d.benchmarks.scene_render import Picture, Renderer
from pano4d.benchmarks.scene_shapes import World
from pano4d.benchmarks.scene_textures import Palette
from pano4d.runtime.errors import SettingsError

__all__ = ["REPORTING", "SKY_DISTANCE_M", "TUNING", "Picture", "Scene", "open_scene"]

TUNING = ("workshop", "hollow")
REPORTING = ("cloister", "gallery", "courtyard")
FRAMES = 14
_MAKERS: dict[str, tuple[Callable[[Palette], World], Callable[[Palette, float], World]]] = {
    "workshop": (scene_workshop.workshop, scene_workshop.workshop_moves),
    "hollow": (scene_hollow.hollow, scene_hollow.hollow_moves),
    "cloister": (scene_cloister.cloister, scene_cloister.cloister_moves),
    "gallery": (scene_gallery.gallery, scene_gallery.gallery_moves),
    "courtyard": (scene_courtyard.courtyard, scene_courtyard.courtyard_moves),
}
_MEDIAN_HEIGHT = 64
_DILATION_PX = 2


class Scene:
    """Show one world at 14 moments.

    Attributes:
        name: What ``open_scene`` was asked for.
        frames: How many moments there are.
    """

    def __init__(self, name: str, still: World, moving: Sequence[World], device: torch.device | str):
        """Move a world to a device.

        Args:
            name: How it is called.
            still: What stands.
            moving: What moves, as it is in each frame.
            device: Where it is rendered.

        Raises:
            RuntimeError: The device is not there.
        """
        self.name, self.frames, self._worlds = name, len(moving), (still, *moving)
        first, *others = (Stage.of(world, device) for world in self._worlds)
        self._renderer = Renderer(first, others, still.palette.tables(device), torch.device(device))

    @cached_property
    def median_distance(self) -> float:
        """Median of frame 0's distances over the pixels of a small panorama, metres."""
        return float(self._renderer.render(PanoramaCamera(_MEDIAN_HEIGHT), [0], 1)[0].distance.median())

    def panorama(self, frame: int, height: int, samples: int = 2) -> Picture:
        """Render a panorama.

        Args:
            frame: 0 to 13.
            height: Rows; there are twice as many columns.
            samples: Rays a pixel's colour is averaged over, along each side.

        Returns:
            What is seen from the centre.

        Raises:
            IndexError: There is no such frame.
        """
        return self._renderer.render(PanoramaCamera(height), [frame], samples)[0]

    def panoramas(self, height: int, samples: int = 2) -> list[Picture]:
        """Render the panoramas of all frames, what stands only once; the same as ``panorama`` gives one by one."""
        return self._renderer.render(PanoramaCamera(height), range(self.frames), samples)

    def view(self, frame: int, viewmat: np.ndarray, K: np.ndarray, width: int, height: int,
             samples: int = 2) -> Picture:
        """Render a perspective view.

        Args:
            frame: 0 to 13.
            viewmat: World to camera. [4, 4]
            K: Intrinsic matrix, pixels; no skew. [3, 3]
            width: Columns.
            height: Rows.
            samples: As in ``panorama``.

        Returns:
            What is seen from where the camera stands.

        Raises:
            IndexError: There is no such frame.
        """
        return self.views([frame], viewmat, K, width, height, samples)[0]

    def views(self, frames: Sequence[int], viewmat: np.ndarray, K: np.ndarray, width: int, height: int,
              samples: int = 2) -> list[Picture]:
        """Render a perspective view of several frames, what stands only once; the same as ``view`` gives one by one."""
        viewmat, K = (np.asarray(torch.as_tensor(m).cpu(), np.float64) for m in (viewmat, K))
        return self._renderer.render(PerspectiveCamera(viewmat, K, width, height), frames, samples)

    def moving(self, height: int, samples: int = 2, pictures: Sequence[Picture] | None = None) -> torch.Tensor:
        """Tell where a panorama changes.

        Args:
            height: Rows; there are twice as many columns.
            samples: As in ``panorama``.
            pictures: What `panoramas` gave for these, to save its time.

        Returns:
            True where any frame differs from frame 0 or shows a moving body, and 2 pixels around. bool [H, W].

        Raises:
            ValueError: The height is not above 0.
        """
        pictures = pictures or self.panoramas(height, samples)
        touched = torch.stack([p.moving_body for p in pictures]).any(0)
        for picture in pictures[1:]:
            touched |= (picture.rgb != pictures[0].rgb).any(-1) | (picture.distance != pictures[0].distance)
        return _dilated(touched)

    def occupied(self, points: np.ndarray, frame: int, margin_m: float = 0.0) -> np.ndarray:
        """Tell where no viewer can be.

        Args:
            points: float64 [N, 3].
            frame: 0 to 13.
            margin_m: How near a surface is too near, metres.

        Returns:
            True inside an object or within the margin of one. bool [N].

        Raises:
            IndexError: There is no such frame.
        """
        still, *moving = self._worlds
        return still.hold(points, margin_m) | moving[frame].hold(points, margin_m)


def open_scene(name: str, device: torch.device | str = "cpu") -> Scene:
    """Build a scene.

    Args:
        name: One of ``TUNING`` or ``REPORTING``.
        device: Where it is rendered: "cpu" or "cuda".

    Returns:
        The scene; the same name gives the same one anywhere.

    Raises:
        SettingsError: There is no such scene.
    """
    if name not in _MAKERS:
        raise SettingsError(f"There is no scene {name!r}; give one of {', '.join(_MAKERS)}.")
    make_still, make_moving = _MAKERS[name]
    palette = Palette(1 + list(_MAKERS).index(name))
    still = make_still(palette)
    return Scene(name, still, [make_moving(palette, frame / FRAMES) for frame in range(FRAMES)], device)


def _dilated(mask: torch.Tensor) -> torch.Tensor:
    """Grow what is true by a square, around the seam and over the poles. bool [H, W]."""
    beyond = mask.roll(mask.shape[1] // 2, 1)
    size = _DILATION_PX
    tall = torch.cat([beyond[:size].flip(0), mask, beyond[-size:].flip(0)])
    wide = torch.cat([tall[:, -size:], tall, tall[:, :size]], 1).float()
    return torch.nn.functional.max_pool2d(wide[None, None], 2 * size + 1, stride=1)[0, 0] > 0
