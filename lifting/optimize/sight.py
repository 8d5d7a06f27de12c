"""Tell which Gaussians any view of some directions can show, so that the others need not be drawn."""

import math

import torch
from torch import Tensor

_CELLS = 16  # to a unit of length: how finely directions are told apart
_REACH_SIGMAS = 4.0  # rasterisers draw 3.33, of a projection that may be an eighth too wide beyond the picture
_MARGIN = math.radians(2.0) + math.asin(0.5 * math.sqrt(3.0) / _CELLS)
_CHUNK = 1 << 14


def in_sight(means: Tensor, extents: Tensor, towards: Tensor, reach_m: float, fov_deg: float) -> Tensor:
    """Tell which Gaussians may be seen by square views, however they are turned about their axes.

    Args:
        means: Centres, metres. float32 [N, 3].
        extents: Largest standard deviations, metres. float32 [N].
        towards: Directions that views look along. Unit, float32 [M, 3].
        reach_m: How far off the centre views stand at most, metres.
        fov_deg: Their field of view over a side.

    Returns:
        False only where no view sees anything. bool [N].

    Raises:
        Nothing.
    """
    # Directions of one cell stand for each other: hundreds to compare with instead of any number.
    cells = torch.nn.functional.normalize(torch.unique((towards * _CELLS).round(), dim=0), dim=-1)
    corner = math.atan(math.sqrt(2.0) * math.tan(math.radians(fov_deg) / 2))
    distance, reach = means.norm(dim=-1), _REACH_SIGMAS * extents
    nearest = torch.cat([(part @ cells.T).amax(1) for part in torch.nn.functional.normalize(means, dim=-1).split(_CHUNK)])
    shift = torch.asin((reach_m / distance).clamp(max=1.0)) + torch.asin((reach / (distance - reach_m)).clamp(0.0, 1.0))
    near = distance <= reach_m + reach
    return near | (nearest.clamp(-1.0, 1.0).acos() <= corner + _MARGIN + shift)
