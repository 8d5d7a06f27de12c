"""Cast rays into small rooms whose distances and colours are known in closed form."""

import numpy as np

from pano4d.runtime.sphere import pixel_directions

FLOOR_M = 1.6
HALF_M = np.array([4.0, 1.6, 4.5])
"""Half extents of the box that is the room; the viewer stands in its middle."""

SPHERES = (((-1.2, 0.5, 1.9), 0.55), ((1.6, -0.3, 2.6), 0.5), ((0.4, 0.9, -2.2), 0.6))
POLE = ((0.45, 1.5), 0.035)
"""An upright pole: x and z of its axis, radius."""


def cast(rays, origin=(0.0, 0.0, 0.0), sky=False, spheres=SPHERES, pole=POLE):
    """Find what unit rays meet.

    Args:
        rays: Unit directions. float64 [..., 3].
        origin: Where they start, metres.
        sky: Take the ceiling and the walls away; what is left is at 60 m.
        spheres: Centres and radii, metres.
        pole: See ``POLE``; None for none.

    Returns:
        Distance [...], metres, and colour [..., 3], 0 to 1.
    """
    rays, origin = np.asarray(rays, float), np.asarray(origin, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        exits = (np.where(rays > 0, HALF_M, -HALF_M) - origin) / rays
    exits = np.where(np.abs(rays) < 1e-12, np.inf, exits)
    if sky:
        exits[..., [0, 2]] = np.inf
        exits[..., 1] = np.where(rays[..., 1] > 0, exits[..., 1], np.inf)
    reach, thing = np.minimum(exits.min(-1), 60.0), exits.argmin(-1)
    thing = np.where(reach == 60.0, 3, thing)
    for number, (center, radius) in enumerate(spheres):
        away = np.subtract(center, origin)
        along = rays @ away
        root = along**2 - away @ away + radius**2
        hit = along - np.sqrt(np.maximum(root, 0.0))
        nearer = (root > 0) & (hit > 1e-3) & (hit < reach)
        reach, thing = np.where(nearer, hit, reach), np.where(nearer, 4 + number, thing)
    if pole:
        away = np.subtract(pole[0], origin[[0, 2]])
        flat = rays[..., [0, 2]]
        size = (flat**2).sum(-1)
        along = flat @ away
        root = along**2 - size * (away @ away - pole[1] ** 2)
        hit = (along - np.sqrt(np.maximum(root, 0.0))) / np.maximum(size, 1e-12)
        nearer = (root > 0) & (hit > 1e-3) & (hit < reach)
        reach, thing = np.where(nearer, hit, reach), np.where(nearer, 9, thing)
    return reach, _paint(origin + rays * reach[..., None], thing, rays)


def _paint(points, thing, rays):
    """Give every thing a colour of its own, with a texture of a few waves a metre."""
    tones = np.array([
        (0.75, 0.7, 0.6), (0.45, 0.5, 0.55), (0.6, 0.75, 0.7), (0.5, 0.7, 0.95),
        (0.8, 0.25, 0.2), (0.2, 0.35, 0.8), (0.25, 0.65, 0.25), (0, 0, 0), (0, 0, 0), (0.95, 0.85, 0.2),
    ])
    waves = np.sin(5.0 * points[..., [0, 1, 2]] + 1.3 * points[..., [1, 2, 0]])
    color = tones[thing] + 0.09 * waves + 0.07 * np.sin(11.0 * points[..., [2, 0, 1]])
    far = tones[3] + 0.12 * rays[..., 1:2] + 0.05 * np.sin(7.0 * rays)
    return np.clip(np.where((thing == 3)[..., None], far, color), 0.0, 1.0)


def panorama(height, width, samples=2, **scene):
    """Draw a room from its middle.

    Returns:
        uint8 [height, width, 3], and the distance at pixel centres, float32 [height, width].
    """
    fine = cast(pixel_directions(height * samples, width * samples), **scene)[1]
    color = fine.reshape(height, samples, width, samples, 3).mean((1, 3))
    return _bytes(color), cast(pixel_directions(height, width), **scene)[0].astype(np.float32)


def view(viewmat, K, width, height, samples=2, **scene):
    """Draw a room through a camera. uint8 [height, width, 3]."""
    y, x = (np.mgrid[: height * samples, : width * samples] + 0.5) / samples
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    origin = -viewmat[:3, :3].T @ viewmat[:3, 3]
    color = cast(rays @ viewmat[:3, :3], origin, **scene)[1]
    return _bytes(color.reshape(height, samples, width, samples, 3).mean((1, 3)))


def _bytes(color):
    return np.rint(255.0 * color).astype(np.uint8)
