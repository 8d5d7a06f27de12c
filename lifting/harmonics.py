"""Evaluate real spherical harmonics up to degree 3 in torch, as Gaussian splats store colour.

Basis and order are those of 3D Gaussian Splatting (Kerbl et al., 2023), which drop out of Sloan, "Efficient Spherical
Harmonic Evaluation" (JCGT 2013) up to signs.
"""

import torch
from torch import Tensor

from pano4d.runtime.errors import SettingsError

LARGEST_DEGREE = 3


def sh_colors(degree: int, directions: Tensor, coefficients: Tensor) -> Tensor:
    """Return the colours that coefficients give in some directions.

    Args:
        degree: Highest degree to use, 0 to 3; coefficients beyond it are left alone.
        directions: From the camera to each Gaussian, of any length above 0. float [N, 3].
        coefficients: float [N, K, 3], K at least (degree + 1)^2.

    Returns:
        Colours, 0.5 added and clamped from below at 0 as in 3DGS. float [N, 3].

    Raises:
        SettingsError: The degree is out of range, or there are too few coefficients.
    """
    count = (degree + 1) ** 2
    if not 0 <= degree <= LARGEST_DEGREE or coefficients.shape[-2] < count:
        raise SettingsError(f"Degree {degree} with {coefficients.shape[-2]} coefficients; spherical harmonics of degree "
                            f"0 to {LARGEST_DEGREE} with at least (degree + 1)^2 coefficients are needed.")
    bases = _bases(degree, torch.nn.functional.normalize(directions, dim=-1))
    return ((bases[..., None] * coefficients[..., :count, :]).sum(-2) + 0.5).clamp_min(0.0)


def _bases(degree: int, unit: Tensor) -> Tensor:
    """Evaluate the (degree + 1)^2 basis functions. float [N, (degree + 1)^2]."""
    x, y, z = unit.unbind(-1)
    found = [torch.full_like(x, 0.2820947917738781)]
    if degree > 0:
        found += [-0.48860251190292 * y, 0.48860251190292 * z, -0.48860251190292 * x]
    if degree > 1:
        xx, yy, zz = x * x, y * y, z * z
        found += [1.092548430592079 * x * y, -1.092548430592079 * y * z,
                  0.9461746957575601 * zz - 0.3153915652525201, -1.092548430592079 * x * z,
                  0.5462742152960395 * (xx - yy)]
    if degree > 2:
        found += [-0.5900435899266435 * y * (3 * xx - yy), 2.890611442640554 * x * y * z,
                  y * (0.4570457994644658 - 2.285228997322329 * zz), z * (1.865881662950577 * zz - 1.119528997770346),
                  x * (0.4570457994644658 - 2.285228997322329 * zz), 1.445305721320277 * z * (xx - yy),
                  -0.5900435899266435 * x * (xx - 3 * yy)]
    return torch.stack(found, -1)
