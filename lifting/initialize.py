"""Place one Gaussian per direction, already close to what is seen.

With D(w) the distance along the unit direction w and g = grad log D its gradient on
the sphere, the surface point is D w and its normal is along w - g. A flat Gaussian
with standard deviation s across the slope and s sqrt(1 + |g|^2) down it looks round, of
radius s, from the centre: the footprint of its sample, whatever the slant.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pano4d.lifting.edges import STEP, Lookup, Surface, find_surface
from pano4d.lifting.gaussians import Gaussians, colors_to_sh
from pano4d.lifting.lattice import lattice_directions, lattice_spacing
from pano4d.lifting.rotations import matrices_to_quats
from pano4d.runtime.parallel import each

SIGMA_PER_SPACING = 0.6
"""Footprint's standard deviation over the lattice spacing. Narrower lets the background
through between samples, wider blurs."""

LARGEST_SLOPE = 6.0
"""Limit of |grad log D|. Steeper surfaces (80 degrees and more away from facing the viewer)
are mostly borders between near and far, where a longer Gaussian would be a streak."""

RIM = 0.6
"""Size of a footprint on the near side of a step, as a share of the others': a wider one would
overhang the far side."""

THICKNESS = 0.1
OPACITY = 0.99

_BLOCK = 1 << 14


@dataclass(frozen=True)
class Placement:
    """Where the Gaussians stand, and where their colours are found.

    Attributes:
        directions: Unit directions from the centre. float64 [N, 3].
        means: Centres, metres. float32 [N, 3].
        quats: Rotations w x y z; the third axis is the normal. float32 [N, 4].
        scales: Standard deviations, metres. float32 [N, 3].
        colors: Pixels that the colours are read from.
    """

    directions: np.ndarray
    means: np.ndarray
    quats: np.ndarray
    scales: np.ndarray
    colors: Lookup


def place(distance: np.ndarray, count: int) -> Placement:
    """Place Gaussians of a lattice on the surface that a distance map describes.

    Args:
        distance: Distance along each pixel's ray, metres, above 0. float32 [H, W].
        count: Number of Gaussians N.

    Returns:
        Their placement, in the order of the lattice.

    Raises:
        SettingsError: The count is too small.
    """
    return place_on(find_surface(distance), lattice_directions(count), lattice_spacing(count))


def place_on(surface: Surface, directions: np.ndarray, spacing: float | np.ndarray, sky_m: float = np.inf) -> Placement:
    """Place Gaussians on a surface, in chosen directions.

    Args:
        surface: What is seen.
        directions: Unit directions. float64 [N, 3].
        spacing: Side of a sample's share of the sphere, radians; one for all, or float64 [N].
        sky_m: Distance from which on there is sky, all of it that far away and facing the viewer.

    Returns:
        Their placement.

    Raises:
        Nothing.
    """
    spacing = np.broadcast_to(np.asarray(spacing, np.float64), len(directions))
    torn = surface.torn_within(math.ceil(0.5 * spacing.max(initial=0.0) * len(surface.torn) / math.pi)).reshape(-1)
    # A block's temporaries fit the cache.
    blocks = [slice(start, start + _BLOCK) for start in range(0, max(1, len(directions)), _BLOCK)]
    parts = each(lambda block: _place_block(surface, torn, directions[block], spacing[block], sky_m), blocks)
    means, quats, scales, pixels, weights = (np.concatenate(columns) for columns in zip(*parts))
    return Placement(directions, means, quats, scales, Lookup(pixels, weights))


def gaussians_at(placement: Placement, frame: np.ndarray, select: np.ndarray) -> Gaussians:
    """Make Gaussians of chosen samples with the colours of one frame.

    Args:
        placement: Where all samples stand.
        frame: Panorama. uint8 [H, W, 3], or float, 0 to 255.
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
        colors_to_sh(placement.colors.take(select).read(frame) / np.float32(255.0)),
    )


def tangents(directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give two unit vectors that stand upright on each direction and on each other, the poles included.

    Args:
        directions: Unit directions. float64 [N, 3].

    Returns:
        float64 [N, 3] each.

    Raises:
        Nothing.
    """
    # Crossing with the axis that a direction leans on least.
    first = np.cross(directions, np.eye(3)[np.argmin(np.abs(directions), axis=1)])
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return first, np.cross(directions, first)


def _place_block(
    surface: Surface, torn: np.ndarray, directions: np.ndarray, spacing: np.ndarray, sky_m: float
) -> tuple[np.ndarray, ...]:
    """Return means, quats, scales, and pixels and weights of the colours of some Gaussians."""
    lookup = surface.lookup(directions)
    nearness = lookup.read(surface.nearness).astype(np.float64)
    sky = nearness * sky_m <= 1.0
    probe = _Probe(surface, torn, nearness, torn[lookup.pixels[:, 0]], 0.5 * spacing)
    along, slope, rim = _steepest(probe, directions)
    slope[sky] = 0.0
    reach = np.where(sky, sky_m if np.isfinite(sky_m) else 0.0, 1.0 / nearness)
    secant = np.sqrt(1.0 + slope * slope)
    downhill = (along + slope[:, None] * directions) / secant[:, None]
    normal = (slope[:, None] * along - directions) / secant[:, None]
    axes = np.stack([np.cross(downhill, normal), downhill, normal], axis=-1)
    sigma = SIGMA_PER_SPACING * spacing * reach * np.where(rim, RIM, 1.0)
    scales = np.stack([sigma, sigma * secant, THICKNESS * sigma], axis=-1)
    colors = surface.colors(lookup)
    return (
        (directions * reach[:, None]).astype(np.float32), matrices_to_quats(axes).astype(np.float32),
        scales.astype(np.float32), colors.pixels, colors.weights,
    )


class _Probe(NamedTuple):
    surface: Surface
    torn: np.ndarray
    nearness: np.ndarray
    here: np.ndarray
    reach: np.ndarray


def _steepest(probe: _Probe, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the tangent direction of steepest rise [N, 3], the limited slope [N], and where a surface ends [N]."""
    first, second = tangents(directions)
    rises, ends = zip(*(_rise(probe, directions, tangent) for tangent in (first, second)))
    slope = np.hypot(*rises)
    flat = slope < 1e-9
    unit = [np.where(flat, axis, r / np.where(flat, 1.0, slope)) for r, axis in zip(rises, (1, 0))]
    along = unit[0][:, None] * first + unit[1][:, None] * second
    return along, np.minimum(slope, LARGEST_SLOPE), ends[0] | ends[1]


def _rise(probe: _Probe, directions: np.ndarray, tangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the change of log distance along a tangent, per radian, and where something farther begins. [N] each.

    On a plane nearness is a linear function of the vector w, so both halves of the
    difference agree. Where they do not and a step is near, the flatter half is the sample's
    own surface, and between two steps there is none to be seen.
    """
    tan, cos = np.tan(probe.reach), np.cos(probe.reach)
    halves, torn = [], probe.here
    for side in (1.0, -1.0):
        lookup = probe.surface.lookup((directions + side * tan[:, None] * tangent) * cos[:, None])
        halves.append(side * (lookup.read(probe.surface.nearness) / cos - probe.nearness))
        torn = torn | probe.torn[lookup.pixels[:, 0]]
    ahead, behind = halves
    torn &= np.abs(ahead - behind) > 0.5 * STEP * probe.nearness
    ends = torn & (np.minimum(ahead, -behind) < -STEP * probe.nearness)
    flatter = np.where(np.abs(ahead) < np.abs(behind), ahead, behind)
    one_sided = np.where(ahead * behind > 0, flatter, 0.0)
    return -np.where(torn, one_sided, 0.5 * (ahead + behind)) / (tan * probe.nearness), ends
