"""Draw random motion masks: rectangles, half planes, blobs, ellipses, unions, now and then everything."""

from __future__ import annotations

import torch

from pano4d.examples.demo_model.noise import Draw, fbm

PARTS = 3
CELL_PX = 4


def random_masks(draw: Draw, size_px: int) -> torch.Tensor:
    """Draw masks of a tile, 1 where it moves, with edges a few pixels soft.

    Args:
        draw: Source of B masks.
        size_px: Side of the tile.

    Returns:
        float32 [B, 1, size_px, size_px].
    """
    axis = (torch.arange(size_px, device=draw.device) + 0.5) / size_px * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inside = torch.full((draw.batch, size_px, size_px), -9.0, device=draw.device)
    for part in range(PARTS):
        distance = _part(draw, x, y)
        used = draw.chance((1.0, 0.4, 0.2)[part])[:, None, None] > 0
        inside = torch.where(used, torch.maximum(inside, distance), inside)
    width = draw.uniform(0.01, 0.06)[:, None, None]
    mask = (inside / width + 0.5).clamp(0, 1)
    share = mask.mean(dim=(1, 2), keepdim=True)
    mask = torch.where(share < 0.1, 1 - mask, mask)
    everything = draw.chance(0.08)[:, None, None]
    return torch.maximum(mask, everything)[:, None]


def latent_masks(masks: torch.Tensor, cell_px: int = CELL_PX, soft: bool = False) -> torch.Tensor:
    """Bring masks to latent resolution.

    A latent cell moves if any of its pixels does; `soft` keeps its share instead.

    Args:
        masks: float32 [B, 1, h * cell_px, w * cell_px].
        cell_px: Pixels to a cell, along a side.
        soft: Keep values between 0 and 1.

    Returns:
        float32 [B, 1, h, w].
    """
    share = torch.nn.functional.avg_pool2d(masks, cell_px)
    return share if soft else (share > 0).float()


def _part(draw: Draw, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Draw one shape a scene as a signed distance, positive inside. float32 [B, s, s]."""
    angle = draw.uniform(0, 6.2832)[:, None, None]
    cx, cy = draw.uniform(-0.6, 0.6, 2, 1, 1).unbind(1)
    rx, ry = draw.uniform(0.25, 0.9, 2, 1, 1).unbind(1)
    u = (x - cx) * angle.cos() + (y - cy) * angle.sin()
    v = (y - cy) * angle.cos() - (x - cx) * angle.sin()
    box = torch.minimum(rx - u.abs(), ry - v.abs())
    ellipse = (1 - ((u / rx) ** 2 + (v / ry) ** 2 + 1e-9).sqrt()) * torch.minimum(rx, ry)
    points = torch.stack([x, y, torch.zeros_like(x)], -1).reshape(1, -1, 3)
    points = points * draw.uniform(0.8, 2.5)[:, None, None] + draw.uniform(0, 16, 1, 3)
    blob = fbm(draw.lattice(1), points, 3, draw.uniform(0.3, 0.5)).reshape(box.shape) * 0.25
    choices = torch.stack([box, u, blob, ellipse], 1)
    pick = (draw.uniform(0, 4).long())[:, None, None, None].expand(-1, 1, *box.shape[1:])
    return choices.gather(1, pick)[:, 0]
