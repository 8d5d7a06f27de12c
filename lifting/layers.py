"""Lay out a scene: the surface seen from the centre, the background behind it, the sky, and what moves."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pano4d.lifting.background import OFFSET, Backdrop, find_backdrop
from pano4d.lifting.density import Seen, share_out
from pano4d.lifting.distances import Distances
from pano4d.lifting.edges import Surface, find_surface
from pano4d.lifting.gaussians import Gaussians, concatenate
from pano4d.lifting.initialize import Placement, gaussians_at, place_on
from pano4d.lifting.lattice import SMALLEST, check_count, lattice_directions, lattice_spacing
from pano4d.lifting.sky import middle_distance, sky_distance
from pano4d.runtime.parallel import each

SURFACE, BACKGROUND, SKY = range(3)
ORDER = 2
"""Number of the rules by which Gaussians are laid out: what was learned of those of other rules is of no use."""

LARGEST_BACKGROUND = 0.15
"""Share of the Gaussians that the background may take."""

WIDER = 1.4
"""Size of a footprint of the background over one of the surface: it has no detail to lose, and nothing lies behind its gaps."""

BACK = 4.0
"""How far the background stands back, in standard deviations of its reach along the ray: a little more than is drawn."""

_MARGIN_PX = 16


@dataclass(frozen=True)
class Layers:
    """A scene before it is optimised.

    Attributes:
        static: What all frames share: surface and sky, denser where there is detail, then background.
        kind: SURFACE, BACKGROUND or SKY of each static Gaussian. uint8 [S].
        static_directions: Their unit directions from the centre. float64 [S, 3].
        moving: Returns the moving Gaussians of frame t; Gaussian i has the same direction in all. M of them.
        moving_directions: Their unit directions. float64 [M, 3].
    """

    static: Gaussians
    kind: np.ndarray
    static_directions: np.ndarray
    moving: Callable[[int], Gaussians]
    moving_directions: np.ndarray


def lay(frames: np.ndarray, mask: np.ndarray, distance: np.ndarray | Distances, count: int) -> Layers:
    """Place Gaussians for a panoramic video.

    Args:
        frames: Panoramas. uint8 [T, H, W, 3].
        mask: Non-zero where the picture may move. bool or uint8 [H, W].
        distance: Metres along each pixel's ray, above 0; for all frames, or for each: what does
            not move is taken from the first. float32 [H, W] or [T, H, W], or `Distances`.
        count: Gaussians per frame, S + M.

    Returns:
        The layers.

    Raises:
        SettingsError: The count is too small.
    """
    mask = np.asarray(mask) != 0
    map_of, count_of_maps = _maps(distance, mask.shape)
    first = map_of(0)
    sky_m = sky_distance(first)
    surfaces = _find_surfaces(map_of, count_of_maps, mask)
    directions, spacing, behind = _share_out(surfaces, frames, mask, first, sky_m, count)
    placement = place_on(surfaces[0], directions, spacing, sky_m)
    moves = _moves(placement, surfaces[0], mask)
    still, moving = np.flatnonzero(~moves), np.flatnonzero(moves)
    parts = [gaussians_at(placement, frames[0], still), *behind[:1]]
    static_directions = np.concatenate([directions[still], *behind[1:]])
    kind = np.full(len(static_directions), BACKGROUND, np.uint8)
    reach = np.linalg.norm(placement.means[still], axis=1)
    kind[: len(still)] = np.where(reach > 0.99999 * sky_m, SKY, SURFACE)

    def moving_at(frame: int) -> Gaussians:
        if len(surfaces) == 1 or not frame:
            return gaussians_at(placement, frames[frame], moving)
        there = place_on(surfaces[frame], directions[moving], spacing[moving], sky_m)
        return gaussians_at(there, frames[frame], np.arange(len(moving)))

    return Layers(concatenate(parts), kind, static_directions, moving_at, directions[moving])


def _share_out(surfaces, frames, mask, distance, sky_m, count):
    """Divide the count between surface and background. Directions, their spacings, and [Gaussians, directions]."""
    check_count(count)
    middle = middle_distance(distance, distance < sky_m)
    backdrop = find_backdrop(surfaces, frames, mask, OFFSET * middle)
    behind = _lay_background(backdrop, surfaces[0], sky_m, count)
    left = count - sum(map(len, behind[1:]))
    return *share_out(Seen(frames[0], np.float32(middle) * surfaces[0].nearness, mask), left), behind


def _lay_background(backdrop, surface, sky_m, count):
    """Place the background, as dense as the surface is on average. [Gaussians, directions]; nothing if there is none."""
    share = backdrop.share()
    if not share:
        return []
    dense = max(SMALLEST, int(min(count / (1.0 + share), LARGEST_BACKGROUND * count / share)))
    rays = lattice_directions(dense)
    rays = rays[backdrop.covers(surface, rays)][: max(0, count - SMALLEST)]
    layer = place_on(backdrop.surface, rays, lattice_spacing(dense), sky_m)
    layer = _behind(replace(layer, scales=layer.scales * np.array([WIDER, WIDER, 1.0], np.float32)))
    return [gaussians_at(layer, backdrop.colors, np.arange(len(rays))), rays]


def _behind(layer: Placement) -> Placement:
    """Move Gaussians back as far as they reach towards the viewer.

    Where what moves is elsewhere, the background lies on the surface that is seen. Gaussians are drawn in the order of their
    centres: of a slanted surface, one from below would otherwise cover what is farther up.
    """
    slope = np.sqrt(np.maximum((layer.scales[:, 1] / layer.scales[:, 0]) ** 2 - 1.0, 0.0))
    reach = layer.scales[:, 0] * slope / np.linalg.norm(layer.means, axis=1)
    farther = (1.0 + BACK * reach)[:, None].astype(np.float32)
    return replace(layer, means=layer.means * farther, scales=layer.scales * farther)


def _moves(placement: Placement, surface: Surface, mask: np.ndarray) -> np.ndarray:
    """Tell which samples touch, or take their colour from, a pixel that moves. bool [N]."""
    return surface.lookup(placement.directions).touches(mask) | placement.colors.touches(mask)


def _maps(distance: np.ndarray | Distances, shape: tuple[int, ...]) -> tuple[Callable[[int], np.ndarray], int]:
    """Say how to get one map [H, W] after another, and how many there are."""
    if isinstance(distance, Distances):
        return distance.frame, len(distance.changes) if distance.changing else 1
    maps = distance.reshape(-1, *shape)
    return maps.__getitem__, len(maps)


def _find_surfaces(map_of: Callable[[int], np.ndarray], count: int, mask: np.ndarray) -> list[Surface]:
    """Return one surface of each map; the later ones differ from the first in rows that move."""
    surfaces = [find_surface(map_of(0))]
    moving = np.flatnonzero(mask.any(1))
    if len(moving):
        rows = slice(max(0, moving[0] - _MARGIN_PX), moving[-1] + 1 + _MARGIN_PX)
        surfaces += each(lambda number: surfaces[0].with_rows(map_of(number), rows), range(1, count))
    return surfaces
