"""Run `deconvolve` on a GPU by torch."""

import numpy as np
import torch
from torch import Tensor

from pano4d.lifting.deconvolve import deconvolve


def deconvolve_on_gpu(given: np.ndarray, blur_px: float, *lists: list[np.ndarray]) -> np.ndarray:
    """Undo a blur in several maps.

    Args:
        given: Maps, blurred. float32 [B, h, w].
        blur_px: By which standard deviation.
        *lists: Weights, bounds and blurs, as for `deconvolve`.

    Returns:
        float32 [B, h, w].

    Raises:
        RuntimeError: The GPU has not enough memory.
    """
    def there(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).cuda()

    return deconvolve(torch, there(given), blur_px, *([there(array) for array in arrays] for arrays in lists)).cpu().numpy()
