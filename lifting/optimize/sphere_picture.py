"""Look panoramas up along directions, differentiably and on any device."""

import math

import torch
from torch import Tensor
from torch.nn import functional


class SpherePicture:
    """Hold panoramas for looking them up, across the seam and over the poles.

    Args:
        picture: Any channels. float32 [C, H, W], or of B panoramas [B, C, H, W]; W even.

    Raises:
        Nothing.
    """

    def __init__(self, picture: Tensor) -> None:
        self.height, self.width = picture.shape[-2:]
        pictures, half = picture.reshape(-1, *picture.shape[-3:]), self.width // 2
        over, under = (pictures[:, :, row:row + 1].roll(half, 3) for row in (0, self.height - 1))
        rows = torch.cat([over, pictures, under], 2)
        self._padded = torch.cat([rows[..., -1:], rows, rows[..., :1]], 3)
        # Pixel centres lie half a pixel inside of the picture and of what is added around it: both leave 0 at 0.
        scale = [self.width / (self.width + 1) / math.pi, 2 * self.height / (self.height + 1) / math.pi]
        self._scale = torch.tensor(scale, device=picture.device)

    def at(self, directions: Tensor, mode: str = "bilinear") -> Tensor:
        """Look one panorama up.

        Args:
            directions: Of any length above 0. float32 [..., 3].
            mode: ``bilinear`` or ``nearest``.

        Returns:
            float32 [..., C].

        Raises:
            Nothing.
        """
        return self.planes(self.places(directions[None]), mode)[0].movedim(0, -1)

    def places(self, directions: Tensor) -> Tensor:
        """Turn directions float32 [..., 3] into what `planes` takes, the same for all panoramas of one size. [..., 2]"""
        x, y, z = directions.unbind(-1)
        return torch.stack([torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))], -1).mul(self._scale)

    def planes(self, places: Tensor, mode: str = "bilinear") -> Tensor:
        """Look each panorama up at its own places, float32 [B, ..., 2]; channels come first. float32 [B, C, ...]"""
        grid = places.reshape(len(places), 1, -1, 2)
        found = functional.grid_sample(self._padded, grid, mode=mode, padding_mode="border", align_corners=True)
        return found.reshape(*found.shape[:2], *places.shape[1:-1])
