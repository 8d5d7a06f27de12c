"""Draw views of a scene with torch, on a GPU by gsplat where that is installed."""

import contextlib
import threading
from collections.abc import Iterator

import numpy as np
import torch

from pano4d.lifting.gaussians import Gaussians
from pano4d.lifting.rasterize import rasterization, rasterizer
from pano4d.lifting.render import NEAREST_M
from pano4d.runtime.parallel import MOST, each

_one_at_a_time = threading.Lock()
_DEGREES = {1: 0, 4: 1, 9: 2, 16: 3}


def sees_gpu() -> bool:
    """Tell whether torch can use a GPU."""
    return torch.cuda.is_available()


class TorchRenderer:
    """Draws on one device.

    Attributes:
        name: "gsplat" or "torch".
        together: Views that are best drawn in one call: on a CPU several, each by a thread; on a GPU they would take memory.
    """

    def __init__(self, device: str) -> None:
        """Choose the rasteriser.

        Args:
            device: "cpu" or "cuda".
        """
        self._device = device
        self._rasterize = rasterizer(device)
        self.name = "torch" if self._rasterize is rasterization else "gsplat"
        self.together = MOST if device == "cpu" else 1

    def show(self, gaussians: Gaussians) -> None:
        """Take the scene that the following views are of."""
        names = ("means", "quats", "scales", "opacities", "sh")
        self._scene = [self._tensor(getattr(gaussians, name)) for name in names]

    def draw(self, viewmats: np.ndarray, K: np.ndarray, width: int, height: int) -> np.ndarray:
        """Draw views; see `drawing.Renderer`."""
        pictures, _ = self._render(viewmats, K, width, height)
        return (255.0 * pictures.clamp(0.0, 1.0)).round().to(torch.uint8).cpu().numpy()

    def cover(self, viewmats: np.ndarray, K: np.ndarray, width: int, height: int) -> np.ndarray:
        """Draw coverage; see `drawing.Renderer`."""
        _, coverages = self._render(viewmats, K, width, height)
        return coverages[..., 0].cpu().numpy()

    def _render(self, viewmats: np.ndarray, K: np.ndarray, width: int, height: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw pictures, float [C, height, width, 3], and coverages, float [C, height, width, 1]."""
        if self._device != "cpu":
            return self._views_of(viewmats, K, width, height)
        with one_thread_each():
            parts = each(lambda view: self._views_of(view[None], K, width, height), viewmats)
        pictures, coverages = zip(*parts)
        return torch.cat(pictures), torch.cat(coverages)

    @torch.no_grad()
    def _views_of(self, viewmats: np.ndarray, K: np.ndarray, width: int, height: int) -> tuple[torch.Tensor, torch.Tensor]:
        Ks = self._tensor(K).expand(len(viewmats), 3, 3).contiguous()
        return self._rasterize(*self._scene, self._tensor(viewmats), Ks, width, height, near_plane=NEAREST_M,
                               sh_degree=_DEGREES[self._scene[-1].shape[1]])[:2]

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(values, np.float32), device=self._device)


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Keep operations on a CPU, where they are small, from waiting for threads that other programs hold up.

    One block at a time; threads that begin in it have one thread each too. Afterwards torch has as many as before.
    """
    with _one_at_a_time:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
