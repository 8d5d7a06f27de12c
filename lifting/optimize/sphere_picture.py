"""Look panoramas up along directions, differentiably and on any device."""

import math

import torch
from torch import Tensor
from torch.nn import functional


class SpherePicture:
    """Hold a panorama for looking it up, across the seam and over the poles.

    Args:
        picture: Any channels. float32 [C, H, W], W even.

    Raises:
        Nothing.
    """

    def __init__(self, picture: Tensor) -> None:
        self.height, self.width = picture.shape[1:]
        half = self.width // 2
        over, under = (picture[:, row:row + 1].roll(half, 2) for row in (0, self.height - 1))
        rows = torch.cat([over, picture, under], 1)
        self._padded = torch.cat([rows[:, :, -1:], rows, rows[:, :, :1]], 2)[None]

    def at(self, directions: Tensor, mode: str = "bilinear") -> Tensor:
        """Look up.

        Args:
            directions: Of any length above 0. float32 [..., 3].
            mode: ``bilinear`` or ``nearest``.

        Returns:
            float32 [..., C].

        Raises:
            Nothing.
        """
        x, y, z = directions.reshape(-1, 3).unbind(-1)
        column = (torch.atan2(x, z) / (2 * math.pi) + 0.5) * self.width - 0.5
        row = (torch.atan2(y, torch.hypot(x, z)) / math.pi + 0.5) * self.height - 0.5
        grid = torch.stack([(column + 1) * (2 / (self.width + 1)) - 1, (row + 1) * (2 / (self.height + 1)) - 1], -1)
        found = functional.grid_sample(self._padded, grid[None, None], mode=mode, padding_mode="border", align_corners=True)
        return found[0, :, 0].T.reshape(*directions.shape[:-1], -1)
