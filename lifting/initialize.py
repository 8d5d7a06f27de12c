"""Place one Gaussian per direction of the lattice, already close to what is seen.

With D(w) the distance along the unit direction w and g = grad log D its gradient on
the sphere, the surface point is D w and its normal is along w - g. A flat Gaussian
with standard deviation s across the slope and s sqrt(1 + |g|^2) down it looks round, of
radius s, from the centre: the footprint of its sample, whatever the slant.
"""

from dataclasses import dataclass

import numpy as np

from pano4d.lifting.gaussians import Gaussians, colors_to_sh
from pano4d.lifting.lattice import lattice_directions, lattice_spacing
from pano4d.lifting.rotations import matrices_to_quats
from pano4d.runtime.sphere import sample_panorama

SIGMA_PER_SPACING = 0.6
"""Footprint's standard deviation over the lattice spacing. Narrower lets the background
through between samples, wider blurs."""

LARGEST_SLOPE = 6.0
"""Limit of |grad log D|. Steeper surfaces (80 degrees and more away from facing the viewer)
are mostly borders between near and far, where a longer Gaussian would be a streak."""

THICKNESS = 0.1
OPACITY = 0.99


@dataclass(frozen=True)
class Placement:
    """Where the Gaussians stand, without their colours.

    Attributes:
        directions: Unit directions from the centre. float64 [N, 3].
        means: Centres, metres. float32 [N, 3].
        quats: Rotations w x y z; the third axis is the normal. float32 [N, 4].
        scales: Standard deviations, metres. float32 [N, 3].
    """

    directions: np.ndarray
    means: np.ndarray
    quats: np.ndarray
    scales: np.ndarray


def place(distance: np.ndarray, count: int) -> Placement:
    """Place Gaussians on the surface that a distance map describes.

    Args:
        distance: Distance along each pixel's ray, metres, above 0. float32 [H, W].
        count: Number of Gaussians N.

    Returns:
        Their placement, in the order of the lattice.

    Raises:
        SettingsError: The count is too small.
    """
    directions, spacing = lattice_directions(count), lattice_spacing(count)
    log_distance = np.log(np.asarray(distance, np.float32))[..., None]
    reach = np.exp(sample_panorama(log_distance, directions)[..., 0].astype(np.float64))
    along, slope = _steepest(log_distance, directions, spacing)
    secant = np.sqrt(1.0 + slope * slope)
    downhill = (along + slope[:, None] * directions) / secant[:, None]
    normal = (slope[:, None] * along - directions) / secant[:, None]
    axes = np.stack([np.cross(downhill, normal), downhill, normal], axis=-1)
    sigma = SIGMA_PER_SPACING * spacing * reach
    scales = np.stack([sigma, sigma * secant, THICKNESS * sigma], axis=-1)
    return Placement(
        directions,
        (directions * reach[:, None]).astype(np.float32),
        matrices_to_quats(axes).astype(np.float32),
        scales.astype(np.float32),
    )


def split_by_motion(mask: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tell samples that never change from those that may.

    A sample moves if any pixel that its colour is interpolated from moves, so the colour
    of a still sample is the same in every frame.

    Args:
        mask: Non-zero where the picture may move. bool or uint8 [H, W].
        directions: Unit directions. float64 [N, 3].

    Returns:
        Indices of the still and of the moving samples, ascending. int64 [S], [M].

    Raises:
        Nothing.
    """
    share = sample_panorama((np.asarray(mask) != 0).astype(np.float32)[..., None], directions)
    moves = share[..., 0] > 0
    return np.flatnonzero(~moves), np.flatnonzero(moves)


def frame_sh(frame: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Read the colours of samples off one panorama.

    Args:
        frame: Panorama. uint8 [H, W, 3].
        directions: Unit directions. float64 [N, 3].

    Returns:
        Spherical harmonics of degree 0. float32 [N, 1, 3].

    Raises:
        Nothing.
    """
    return colors_to_sh(sample_panorama(frame, directions) / np.float32(255.0))


def gaussians_at(placement: Placement, frame: np.ndarray, select: np.ndarray) -> Gaussians:
    """Make Gaussians of chosen samples with the colours of one frame.

    Args:
        placement: Where all samples stand.
        frame: Panorama. uint8 [H, W, 3].
        select: Indices of the samples wanted. int64 [M].

    Returns:
        M Gaussians.

    Raises:
        Nothing.
    """
    return Gaussians(
        placement.means[select],
        placement.quats[select],
        placement.scales[select],
        np.full(len(select), OPACITY, np.float32),
        frame_sh(frame, placement.directions[select]),
    )


def _steepest(
    log_distance: np.ndarray, directions: np.ndarray, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the tangent direction of steepest rise [N, 3] and the limited slope [N]."""
    # Crossing with the axis that w leans on least keeps the frame sound everywhere, the
    # poles included.
    helper = np.eye(3)[np.argmin(np.abs(directions), axis=1)]
    first = np.cross(directions, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(directions, first)
    rises = [_rise(log_distance, directions, tangent, step) for tangent in (first, second)]
    slope = np.hypot(*rises)
    flat = slope < 1e-9
    unit = [np.where(flat, axis, r / np.where(flat, 1.0, slope)) for r, axis in zip(rises, (1, 0))]
    along = unit[0][:, None] * first + unit[1][:, None] * second
    return along, np.minimum(slope, LARGEST_SLOPE)


def _rise(
    log_distance: np.ndarray, directions: np.ndarray, tangent: np.ndarray, step: float
) -> np.ndarray:
    """Return the central difference of log distance along a tangent, per radian, [N]."""
    offset = np.tan(0.5 * step) * tangent
    ahead, behind = (
        sample_panorama(log_distance, (directions + side) * np.cos(0.5 * step))[..., 0]
        for side in (offset, -offset)
    )
    return (ahead.astype(np.float64) - behind) / step
