"""Hold a set of 3D Gaussians as plain arrays."""

from dataclasses import dataclass

import numpy as np

SH_C0 = 0.28209479177387814
"""Value of the constant spherical harmonic, 1 / (2 sqrt(pi))."""


@dataclass(frozen=True)
class Gaussians:
    """Gaussians in world space: OpenCV axes, metres, the panorama's centre at 0.

    Attributes:
        means: Centres, in metres. float32 [N, 3].
        quats: Rotations, unit quaternions w x y z, Gaussian to world. float32 [N, 4].
        scales: Standard deviations along the Gaussian's own axes, metres. float32 [N, 3].
        opacities: Opacity at the centre, 0 to 1. float32 [N].
        sh: Spherical harmonics of the colour; colour = 0.5 + SH_C0 * sh[:, 0] without
            view dependence. float32 [N, K, 3], K = 1, 4, 9 or 16.
    """

    means: np.ndarray
    quats: np.ndarray
    scales: np.ndarray
    opacities: np.ndarray
    sh: np.ndarray

    def __len__(self) -> int:
        """Return the number of Gaussians N."""
        return len(self.means)


def concatenate(parts: list[Gaussians]) -> Gaussians:
    """Join several sets into one, in the order given.

    Args:
        parts: At least one set; all of the same K.

    Returns:
        One set of all Gaussians.

    Raises:
        ValueError: The list is empty, or K differs.
    """
    names = Gaussians.__dataclass_fields__
    return Gaussians(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))


def colors_to_sh(colors: np.ndarray) -> np.ndarray:
    """Turn colours into spherical harmonics of degree 0.

    Args:
        colors: RGB, 0 to 1. float [N, 3].

    Returns:
        float32 [N, 1, 3].

    Raises:
        Nothing.
    """
    return ((np.asarray(colors, np.float32) - 0.5) / np.float32(SH_C0))[:, None, :]


def sh_to_colors(sh: np.ndarray) -> np.ndarray:
    """Return the colours of the constant harmonic alone.

    Args:
        sh: Spherical harmonics. float32 [N, K, 3].

    Returns:
        RGB, not clipped: 0 to 1 for colours that came from a picture. float32 [N, 3].

    Raises:
        Nothing.
    """
    return 0.5 + np.float32(SH_C0) * sh[:, 0]


def take(gaussians: Gaussians, indices: np.ndarray) -> Gaussians:
    """Pick Gaussians, in the order given.

    Args:
        gaussians: N of them.
        indices: Which ones. int [M].

    Returns:
        M Gaussians.

    Raises:
        IndexError: An index is N or more.
    """
    return Gaussians(*(getattr(gaussians, name)[indices] for name in Gaussians.__dataclass_fields__))
