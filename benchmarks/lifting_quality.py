"""Judge lifted frames against a scene whose truth is known: from the centre, off it, and over time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pano4d.lifting.gaussians import Gaussians
from pano4d.lifting.optimize.losses import ssim
from pano4d.lifting.optimize.views import Views, views_towards

OFFSETS = {"center": 0.0, "off5": 0.05, "off10": 0.10}
"""Shares of the scene's median distance that cameras stand off the centre."""

FOV_DEG = 75.0
_YAWS_DEG, _PITCHES_DEG = (0.0, 60.0, 120.0, 180.0, 240.0, 300.0), (-25.0, 25.0)


@dataclass(frozen=True)
class Truth:
    """A view that the scene itself has drawn.

    Attributes:
        rgb: uint8 [h, w, 3].
        still: Where nothing moves in any frame. bool [h, w].
    """

    rgb: np.ndarray
    still: np.ndarray


def judged_views(size: int, offset_m: float, device: torch.device) -> Views:
    """Give twelve views around the viewer, each a step to a side of its own.

    Args:
        size: Side in pixels.
        offset_m: Length of the step, metres.
        device: Where.

    Returns:
        12 views.

    Raises:
        Nothing.
    """
    yaws, pitches = (np.radians(grid.ravel()) for grid in np.meshgrid(_YAWS_DEG, _PITCHES_DEG))
    ahead = np.stack([np.cos(pitches) * np.sin(yaws), -np.sin(pitches), np.cos(pitches) * np.cos(yaws)], -1)
    # To the left, up, to the right and down in turn, and a little forward: every view uncovers something else.
    turns = np.arange(len(ahead)) * np.pi / 2
    right = np.stack([np.cos(yaws), np.zeros_like(yaws), -np.sin(yaws)], -1)
    aside = np.cos(turns)[:, None] * right + np.sin(turns)[:, None] * np.array([0.0, 0.6, 0.0]) + 0.3 * ahead
    positions = offset_m * aside / np.linalg.norm(aside, axis=1, keepdims=True)
    made = (torch.from_numpy(part.astype(np.float32)).to(device) for part in (ahead, positions))
    return views_towards(*made, torch.zeros(len(ahead), device=device), size, FOV_DEG)


class Renderer:
    """Render sets of Gaussians, a view at a time.

    Args:
        rasterization: gsplat's function or one with its signature.
        device: Where.
    """

    def __init__(self, rasterization: Callable, device: torch.device) -> None:
        self._rasterization, self._device = rasterization, device

    @torch.no_grad()
    def __call__(self, gaussians: Gaussians, views: Views) -> tuple[Tensor, Tensor]:
        """Render. Returns grey levels 0 to 255 float32 [C, h, w, 3], and opacities [C, h, w]."""
        parts = [torch.from_numpy(np.ascontiguousarray(part)).to(self._device) for part in (
            gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.sh)]
        degree, pictures, opacities = int(gaussians.sh.shape[1] ** 0.5) - 1, [], []
        for c in range(len(views.Ks)):
            rendered, alpha, _ = self._rasterization(*parts, views.viewmats[c:c + 1], views.Ks[c:c + 1], views.size, views.size,
                                                     sh_degree=degree)
            pictures.append(255 * rendered[0].clamp(0, 1)), opacities.append(alpha[0, ..., 0])
        return torch.stack(pictures), torch.stack(opacities)


def compare(rendered: Tensor, opacity: Tensor, truths: Sequence[Truth]) -> dict[str, float]:
    """Take ``psnr_db`` of all pixels together, mean ``ssim``, and the share of ``holes``, pixels of opacity under 0.5.

    Args:
        rendered: Grey levels. float32 [C, h, w, 3].
        opacity: float32 [C, h, w].
        truths: C views.

    Returns:
        The three.

    Raises:
        Nothing.
    """
    wanted = torch.from_numpy(np.stack([truth.rgb for truth in truths])).to(rendered.device).float()
    squares = ((rendered - wanted) ** 2).mean()
    alike = [ssim(a[None].permute(0, 3, 1, 2) / 255, b[None].permute(0, 3, 1, 2) / 255).mean() for a, b in zip(rendered, wanted)]
    return {"psnr_db": float(10 * torch.log10(255**2 / squares)), "ssim": float(torch.stack(alike).mean()),
            "holes": float((opacity < 0.5).float().mean())}


def flicker(frames: Sequence[Gaussians], views: Views, still: np.ndarray, render: Renderer) -> float:
    """Take the mean difference from frame to frame, in grey levels, where nothing moves in truth.

    Args:
        frames: Gaussians of one frame after another.
        views: C views.
        still: bool [C, h, w].
        render: What renders.

    Returns:
        Grey levels.

    Raises:
        Nothing.
    """
    where = torch.from_numpy(still).to(views.Ks.device)
    total, before = [], None
    for gaussians in frames:
        picture, _ = render(gaussians, views)
        if before is not None:
            total.append((picture - before).abs().mean(-1)[where].mean())
        before = picture
    return float(torch.stack(total).mean()) if total else 0.0
