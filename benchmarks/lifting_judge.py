"""Judge lifted frames of one scene by views that the scene itself has drawn."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pano4d.benchmarks.lifting_quality import OFFSETS, Renderer, Truth, compare, flicker, judged_views
from pano4d.benchmarks.lifting_runs import Video
from pano4d.benchmarks.scenes import Scene
from pano4d.lifting.gaussians import Gaussians
from pano4d.lifting.rasterize import rasterizer

JUDGED_FRAMES = (0, 7)
SHOWN_VIEW = 2
"""Of the twelve, the one that pictures show: 120 degrees to the right, 25 down."""

_PANEL_PX, _GAP_PX, _LARGEST_BYTES = 480, 6, 150_000


class SceneJudge:
    """Compare lifted frames of one scene with its truth.

    Args:
        scene: The scene.
        video: The same as it is lifted.
        size: Side of the views.
        device: Where.

    Attributes:
        shown: What was rendered of frame 0, and under the name "truth" what it should be, at each offset. uint8
            [size, size, 3].
    """

    def __init__(self, scene: Scene, video: Video, size: int, device: torch.device) -> None:
        self._render, self._views = Renderer(rasterizer(device), device), {}
        self._truths: dict[tuple[str, int], list[Truth]] = {}
        moving = torch.from_numpy(video.moving)
        for name, share in OFFSETS.items():
            views = self._views[name] = judged_views(size, share * video.median_m, device)
            drawn = [scene.views(JUDGED_FRAMES, view.cpu().numpy(), K.cpu().numpy(), size, size)
                     for view, K in zip(views.viewmats, views.Ks)]
            for number, frame in enumerate(JUDGED_FRAMES):
                self._truths[name, frame] = [Truth(pictures[number].rgb.cpu().numpy(), None) for pictures in drawn]
        rays = torch.nn.functional.normalize(self._views["center"].rays().cpu(), dim=-1)
        height, width = moving.shape
        row = ((rays[..., 1].asin() / np.pi + 0.5) * height).long().clamp(0, height - 1)
        column = ((torch.atan2(rays[..., 0], rays[..., 2]) / (2 * np.pi) + 0.5) * width).long() % width
        self._still = ~moving[row, column].numpy()
        self.shown = {("truth", name): self._truths[name, 0][SHOWN_VIEW].rgb for name in OFFSETS}

    def judge(self, run: str, frames: Collection[int], flickering: Sequence[int],
              frame: Callable[[int], Gaussians]) -> dict[str, Any]:
        """Judge one run.

        Args:
            run: Its name, for `shown`.
            frames: Numbers of the frames that there are; those of `JUDGED_FRAMES` are compared.
            flickering: Frames that flicker is taken of, one after another.
            frame: Gives the Gaussians of a frame.

        Returns:
            ``psnr_db``, ``ssim`` and ``holes`` by offset, means over ``judged_frames``; and of more than one frame
            ``flicker``, in grey levels, over ``flicker_frames``.
        """
        figures: dict[str, dict[str, list[float]]] = {name: {} for name in ("psnr_db", "ssim", "holes")}
        judged = [number for number in JUDGED_FRAMES if number in frames]
        for number in judged:
            gaussians = frame(number)
            for name in OFFSETS:
                rendered, opacity = self._render(gaussians, self._views[name])
                for figure, value in compare(rendered, opacity, self._truths[name, number]).items():
                    figures[figure].setdefault(name, []).append(value)
                if number == 0:
                    self.shown[run, name] = rendered[SHOWN_VIEW].round().byte().cpu().numpy()
        found: dict[str, Any] = {figure: {name: float(np.mean(values)) for name, values in by_name.items()}
                                 for figure, by_name in figures.items()} | {"judged_frames": judged}
        if len(flickering) > 1:
            found["flicker"] = flicker(map(frame, flickering), self._views["center"], self._still, self._render)
            found["flicker_frames"] = len(flickering)
        return found

    def write_pictures(self, folder: Path, runs: Sequence[str]) -> list[Path]:
        """Write lifting_centre.jpg and lifting_off10.jpg: the truth and the runs side by side.

        Args:
            folder: Where to.
            runs: Names of runs that were judged.

        Returns:
            The files.
        """
        folder.mkdir(parents=True, exist_ok=True)
        files = {"center": folder / "lifting_centre.jpg", "off10": folder / "lifting_off10.jpg"}
        for name, path in files.items():
            panels = [Image.fromarray(self.shown[run, name]) for run in ("truth", *runs)]
            side = min(_PANEL_PX, panels[0].width)
            whole = Image.new("RGB", (len(panels) * (side + _GAP_PX) - _GAP_PX, side), "white")
            for number, panel in enumerate(panels):
                whole.paste(panel.resize((side, side), Image.Resampling.LANCZOS), (number * (side + _GAP_PX), 0))
            for quality in range(92, 30, -4):
                whole.save(path, quality=quality, optimize=True)
                if path.stat().st_size <= _LARGEST_BYTES:
                    break
        return list(files.values())
