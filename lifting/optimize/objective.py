"""Say how far rendered views are from what a panorama shows."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pano4d.lifting.optimize.losses import SSIM_SHARE, smoothness, structure
from pano4d.lifting.optimize.settings import OptimizeSettings
from pano4d.lifting.optimize.sphere_picture import SpherePicture
from pano4d.lifting.optimize.views import PixelRays

_SAME_PLACE = 0.03  # of log distance: closer than this, a rendered surface is the one that the panorama shows
_LARGEST_ERROR = 0.5  # of log distance: beyond it there is no pull
_NEAREST_M = 1e-3


class Target:
    """What the sphere shows in each of B frames: colours, distances, and where they count.

    Args:
        frames: Colours 0 to 1, float32 [H, W, 3] each, or grey levels, uint8.
        distances: Along each pixel's ray, metres. float32 [H, W] each.
        weight: What counts, 0 to 1. float32 [H, W].
        device: Where.
    """

    def __init__(self, frames: Sequence[np.ndarray], distances: Sequence[np.ndarray], weight: np.ndarray,
                 device: torch.device) -> None:
        def there(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        colors = torch.stack([there(frame).permute(2, 0, 1) for frame in frames])
        if colors.dtype == torch.uint8:
            colors = colors.float() / 255
        weight = there(np.asarray(weight, np.float32))
        rest = torch.stack([torch.stack([there(np.asarray(one, np.float32)).log() * 2, weight]) for one in distances])
        self._colors, self._rest = SpherePicture(colors), SpherePicture(rest)

    @torch.no_grad()
    def at(self, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Look each frame up along directions of its own.

        Args:
            directions: Of any length above 0. float32 [B, ..., 3].

        Returns:
            Colours [B, 3, ...]; and of the nearest pixel, logs of squared distances [B, ...] and weights [B, ...].

        Raises:
            Nothing.
        """
        places = self._colors.places(directions)
        logs, weight = self._rest.planes(places, "nearest").unbind(1)
        return self._colors.planes(places), logs, weight


class Objective:
    """Compare batches of views with targets.

    Args:
        target: What B frames should show.
        rays: Of the pixels of each view.
        settings: How many views there are, and how much what counts.
        device: Where.
    """

    def __init__(self, target: Target, rays: PixelRays, settings: OptimizeSettings, device: torch.device) -> None:
        self._target, self._rays, self._settings = target, rays, settings
        self._centred = settings.centred_views

        def of_views(centred: float, off: float) -> Tensor:
            return torch.tensor([centred] * settings.centred_views + [off] * settings.off_views, device=device)

        # Errors are of logs of squared distances: twice those of distances.
        self._limit, self._least_alpha = of_views(math.inf, 2 * _SAME_PLACE), of_views(-1.0, 0.5)
        self._off = of_views(0.0, 1.0)
        self._fellows = (self._off == self._off[:, None]).float()
        colors = of_views(1.0, settings.off_weight)
        shares = [(1 - SSIM_SHARE) / 3 * colors, torch.full_like(colors, settings.depth_weight / 2),
                  torch.full_like(colors, settings.opaque_weight)]
        self._shares = torch.stack(shares)[:, None]  # [3, 1, C]
        self._structure_shares = SSIM_SHARE * colors[:self._centred + 1:self._centred]

    def __call__(self, rendered: Tensor, alphas: Tensor, viewmats: Tensor, measured: bool) -> tuple[Tensor, Tensor | None]:
        """Take the loss: of each frame what it would be alone, summed.

        Args:
            rendered: Colours, and depth along the axis summed with the weights of Gaussians. float32 [B, C, h, h, 4].
            alphas: Opacity. float32 [B, C, h, h, 1].
            viewmats: World to camera, views from the centre first. float32 [B, C, 4, 4].
            measured: Whether to take the PSNR.

        Returns:
            The loss, and each frame's PSNR from the centre in dB, float32 [B], or None.

        Raises:
            Nothing.
        """
        # Splitting, squeezing and adding have cheap gradients: those of slices and clamps take several launches each.
        colors, summed = rendered.movedim(-1, 1).contiguous().split([3, 1], 1)
        alpha = alphas.squeeze(-1)
        depth = (summed.squeeze(1) / (alpha + 1e-10)).clamp_min(_NEAREST_M)
        wanted, logs, weight = self._target.at(self._rays.points(viewmats, depth.detach()))
        error = (self._rays.squared_ranges(viewmats, depth).log() - logs).abs()
        with torch.no_grad():
            known = weight * ((error < self._limit[:, None, None]) & (alpha > self._least_alpha[:, None, None]))
            # Where each of colour, distance and opacity counts; views off the centre are to be opaque everywhere.
            weights = torch.stack([known, known * (alpha > 0.5), weight.maximum(self._off[:, None, None])])  # [3, B, C, h, w]
            totals = (weights.sum((-2, -1)) @ self._fellows).clamp_(min=1.0)
        difference = colors - wanted
        terms = (difference.abs().sum(1), error.clamp(max=2 * _LARGEST_ERROR), 1 - alpha)
        sums = torch.stack([(term * where).sum((-2, -1)) for term, where in zip(terms, weights)])  # [3, B, C]
        loss = (sums * (self._shares / totals)).sum() + self._structure(colors, wanted, known)
        if self._settings.off_views:
            part = slice(self._centred, None)
            curved = smoothness(depth[:, part], colors[:, :, part].detach(), known[:, part])
            loss = loss + self._settings.smooth_weight * curved.sum()
        return loss, self._psnr(difference.detach(), known, totals[0]) if measured else None

    def _structure(self, colors: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
        """Compare the structure of the first view from the centre and of the first one off it.

        It costs more than the rest. Views are drawn at random, so the first one stands for all.
        """
        first = slice(0, self._centred + 1, self._centred)
        return (structure(colors[:, :, first], wanted[:, :, first], weight[:, first]) * self._structure_shares).sum()

    def _psnr(self, difference: Tensor, weight: Tensor, totals: Tensor) -> Tensor:
        squares = (difference[:, :, :self._centred].square().mean(1) * weight[:, :self._centred]).sum((-3, -2, -1))
        return -10 * torch.log10((squares / totals[:, 0]).clamp(min=1e-10))
