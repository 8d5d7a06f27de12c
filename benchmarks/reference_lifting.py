"""Lift as the original 4K4DGen (arXiv 2406.13527) does, without the losses that need further networks.

One Gaussian for each panorama pixel, at its distance for good (the original's rate of positions is multiplied by the extent
of its cameras, which all stand at one point: 0). Every frame is a training of its own, of 10,000 steps over 240 views
from the centre (the 20 faces of an icosahedron, turned about the vertical 12 times), one view a step; opacities are reset
three times; spherical harmonics up to degree 3. Losses: 0.8 L1 + 0.2 (1 - SSIM), and 0.1 L1 where something moves. Left out
are the depth and semantic losses on MiDaS and DINOv2, weights 0.0025 and 0.05.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pano4d.benchmarks.reference_sphere import TAN_HALF_FOV, view_rotations
from pano4d.lifting.gaussians import SH_C0, Gaussians
from pano4d.lifting.optimize.losses import ssim
from pano4d.lifting.optimize.sphere_picture import SpherePicture
from pano4d.lifting.optimize.views import Views
from pano4d.runtime.sphere import pixel_directions, rotation

RATES = {"sh0": 2.5e-3, "shN": 2.5e-3 / 20, "logits": 0.05, "log_scales": 5e-3, "quats": 1e-3}
_RESET_LOGIT = -4.59511985  # of an opacity of 0.01


@dataclass(frozen=True)
class ReferenceLifting:
    """The original's settings.

    Attributes:
        iterations: Steps of a frame.
        view_px: Side of a view.
        yaws: Turns of the set of 20 views.
        reset_every: Steps after which opacities are brought down to 0.01.
        degree_every: Steps after which the spherical harmonics gain a degree.
        sh_degree: The largest.
        motion_weight: Weight of the additional L1 where something moves.
    """

    iterations: int = 10_000
    view_px: int = 1024
    yaws: int = 12
    reset_every: int = 3_000
    degree_every: int = 1_000
    sh_degree: int = 3
    motion_weight: float = 0.1

    def shortened(self, iterations: int) -> "ReferenceLifting":
        """The same with fewer steps, what happens at some step moved in proportion."""
        share = iterations / self.iterations
        return replace(self, iterations=iterations, reset_every=max(1, round(self.reset_every * share)),
                       degree_every=max(1, round(self.degree_every * share)))


def neighbour_distances(means: Tensor) -> Tensor:
    """Take the root of the mean square distance to the three nearest among a pixel's eight neighbours.

    Args:
        means: Of the panorama's pixels. float32 [H, W, 3].

    Returns:
        float32 [H, W].

    Raises:
        Nothing.
    """
    half = means.shape[1] // 2
    rows = torch.cat([means[:1].roll(half, 1), means, means[-1:].roll(half, 1)])
    height, squares = len(means), []
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            if down or right:
                neighbour = rows[1 + down:1 + down + height].roll(-right, 1)
                squares.append(((means - neighbour) ** 2).sum(-1))
    nearest = torch.topk(torch.stack(squares), 3, dim=0, largest=False).values
    return nearest.mean(0).clamp(min=1e-14).sqrt()


class ReferenceFrame:
    """One frame's training.

    Args:
        frame: Panorama. uint8 [H, W, 3].
        mask: What moves. bool [H, W].
        distance: Along each pixel's ray, metres. float32 [H, W].
        settings: The original's, or shortened.
        rasterization: gsplat's function or one with its signature.
        device: Where.
        seed: Of the turns and of the order of views.
    """

    def __init__(self, frame: np.ndarray, mask: np.ndarray, distance: np.ndarray, settings: ReferenceLifting,
                 rasterization: Callable, device: torch.device, seed: int = 0) -> None:
        self._settings, self._rasterization, self._device = settings, rasterization, device
        colors = torch.from_numpy(frame).to(device).float() / 255
        moving = torch.from_numpy(mask).to(device).float()
        self._picture = SpherePicture(torch.cat([colors, moving[..., None]], -1).permute(2, 0, 1).contiguous())
        directions = torch.from_numpy(pixel_directions(*distance.shape).astype(np.float32)).to(device)
        means = directions * torch.from_numpy(distance).to(device)[..., None]
        count = distance.size
        scales = neighbour_distances(means).reshape(-1, 1).log().repeat(1, 3)
        self.means = means.reshape(-1, 3)
        quats = torch.zeros(count, 4, device=device)
        quats[:, 0] = 1
        begin = {"sh0": ((colors - 0.5) / SH_C0).reshape(-1, 1, 3),
                 "shN": torch.zeros(count, (settings.sh_degree + 1) ** 2 - 1, 3, device=device),
                 "logits": torch.full((count,), -2.19722458, device=device), "log_scales": scales, "quats": quats}
        self.parameters = {name: value.contiguous().requires_grad_() for name, value in begin.items()}
        self._adam = torch.optim.Adam([{"params": [value], "lr": RATES[name]} for name, value in self.parameters.items()],
                                      eps=1e-15, fused=device.type == "cuda")
        rng = np.random.default_rng(seed)
        turns = np.stack([rotation(yaw, 0.0) for yaw in rng.uniform(0, 360, settings.yaws)])
        self._rotations = torch.from_numpy((turns[:, None] @ view_rotations()[None]).reshape(-1, 3, 3).astype(np.float32))
        self._order, self._rng, self._done = [], rng, 0

    def step(self) -> None:
        """Take one of ``iterations`` steps."""
        settings, p = self._settings, self.parameters
        if not self._order:
            self._order = self._rng.permutation(len(self._rotations)).tolist()
        views = self._view(self._order.pop())
        with torch.no_grad():
            seen = self._picture.at(views.rays())
        wanted, moving = seen[..., :3], seen[..., 3:]
        degree = min(settings.sh_degree, self._done // settings.degree_every)
        rendered, _, _ = self._rasterization(
            self.means, p["quats"], p["log_scales"].exp(), torch.sigmoid(p["logits"]), torch.cat([p["sh0"], p["shN"]], 1),
            views.viewmats, views.Ks, views.size, views.size, sh_degree=degree)
        difference = (rendered - wanted).abs()
        structure = 1 - ssim(rendered.permute(0, 3, 1, 2), wanted.permute(0, 3, 1, 2)).mean()
        loss = 0.8 * difference.mean() + 0.2 * structure + settings.motion_weight * (difference * (moving > 0.5)).mean()
        loss.backward()
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self._done += 1
        if self._done % settings.reset_every == 0 and self._done < settings.iterations:
            self._reset_opacities()

    def gaussians(self) -> Gaussians:
        """Give the Gaussians as they are now."""
        with torch.no_grad():
            p = self.parameters
            parts = (self.means, torch.nn.functional.normalize(p["quats"], dim=-1), p["log_scales"].exp(),
                     torch.sigmoid(p["logits"]), torch.cat([p["sh0"], p["shN"]], 1))
            return Gaussians(*(part.cpu().numpy() for part in parts))

    def _view(self, number: int) -> Views:
        size, viewmat = self._settings.view_px, torch.eye(4)
        viewmat[:3, :3] = self._rotations[number].T
        focal = size / 2 / TAN_HALF_FOV
        K = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
        return Views(viewmat[None].to(self._device), K[None].to(self._device), size)

    @torch.no_grad()
    def _reset_opacities(self) -> None:
        logits = self.parameters["logits"]
        logits.clamp_(max=_RESET_LOGIT)
        state = self._adam.state[logits]
        state["exp_avg"].zero_()
        state["exp_avg_sq"].zero_()
