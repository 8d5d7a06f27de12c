"""Choose what draws views of a scene: gsplat on a GPU, torch, or NumPy where neither is installed."""

import importlib.util
from typing import Protocol

import numpy as np

from pano4d.lifting.gaussians import Gaussians
from pano4d.lifting.render import coverage, splat
from pano4d.runtime.errors import SettingsError
from pano4d.runtime.parallel import MOST, each

DEVICES = ("auto", "cpu", "cuda")


class Renderer(Protocol):
    """What draws.

    Attributes:
        name: "gsplat", "torch" or "numpy".
        together: Views that are best drawn in one call.
    """

    name: str
    together: int

    def show(self, gaussians: Gaussians) -> None:
        """Take the scene that the following views are of."""

    def draw(self, viewmats: np.ndarray, K: np.ndarray, width: int, height: int) -> np.ndarray:
        """Draw views, float64 [C, 4, 4], through one K, float64 [3, 3]: uint8 [C, height, width, 3]."""

    def cover(self, viewmats: np.ndarray, K: np.ndarray, width: int, height: int) -> np.ndarray:
        """Draw how much of each view is covered: float32 [C, height, width], 0 in a hole."""


class NumpyRenderer:
    """Draws with NumPy; colours do not depend on the direction of view."""

    name = "numpy"
    together = MOST

    def show(self, gaussians: Gaussians) -> None:
        """Take the scene that the following views are of."""
        self._gaussians = gaussians

    def draw(self, viewmats: np.ndarray, K: np.ndarray, width: int, height: int) -> np.ndarray:
        """Draw views; see `Renderer`."""
        return np.stack(each(lambda view: splat(self._gaussians, view, K, width, height), viewmats))

    def cover(self, viewmats: np.ndarray, K: np.ndarray, width: int, height: int) -> np.ndarray:
        """Draw coverage; see `Renderer`."""
        return np.stack(each(lambda view: coverage(self._gaussians, view, K, width, height), viewmats))


def choose_device(device: str = "auto") -> str:
    """Decide where torch works on a scene.

    Args:
        device: "auto", "cpu" or "cuda".

    Returns:
        "cuda" where torch sees a GPU, unless the CPU was asked for; else "cpu".

    Raises:
        SettingsError: No such device, or no GPU that torch can use.
    """
    if device not in DEVICES:
        raise SettingsError(f"--device is {device!r}; use {', '.join(DEVICES)}.")
    if device != "cpu" and has_torch():
        from pano4d.lifting.torch_drawing import sees_gpu

        if sees_gpu():
            return "cuda"
    if device == "cuda":
        raise SettingsError("--device cuda needs an NVIDIA GPU and a torch that sees it; give --device cpu or install "
                            "pano4d[lift] on a machine with a GPU.")
    return "cpu"


def has_torch() -> bool:
    """Tell whether torch is installed."""
    return importlib.util.find_spec("torch") is not None


def open_renderer(device: str = "auto") -> Renderer:
    """Choose the fastest renderer that this machine has.

    Args:
        device: "auto", "cpu" or "cuda".

    Returns:
        A renderer.

    Raises:
        SettingsError: No such device, or no GPU that torch can use.
    """
    where = choose_device(device)
    if not has_torch():
        return NumpyRenderer()
    from pano4d.lifting.torch_drawing import TorchRenderer

    return TorchRenderer(where)
