"""A box room with a sphere in it, whose distance along any ray is known in closed form, and errors of an estimator."""

import numpy as np

from pano4d.runtime.sphere import pixel_directions
from pano4d.runtime.tiles import Layout, tile_directions

LOW, HIGH = np.array([-2.6, -1.4, -3.1]), np.array([3.4, 1.3, 2.7])
BALL_RADIUS = 0.6


def ball_centre(frame):
    """Where the ball is: it swings past the camera, ahead of it."""
    return np.array([0.9 * np.sin(0.4 * frame), 0.6, 1.7 + 0.1 * np.cos(0.4 * frame)])


def distance_along(directions, frame=0, ball=True):
    """Distance to the walls or the ball, metres. float64 [...]."""
    with np.errstate(divide="ignore"):
        walls = np.where(directions > 0, HIGH / directions, LOW / directions).min(-1)
    if not ball:
        return walls
    centre = ball_centre(frame)
    along = directions @ centre
    under = along**2 - centre @ centre + BALL_RADIUS**2
    hit = (under > 0) & (along > 0)
    return np.where(hit, along - np.sqrt(np.maximum(under, 0)), walls)


def moving_mask(height, width):
    """Where the ball may be seen, with room around. bool [H, W]."""
    directions, mask = pixel_directions(height, width), np.zeros((height, width), bool)
    for frame in range(16):
        reach = np.linalg.norm(ball_centre(frame))
        mask |= directions @ (ball_centre(frame) / reach) > np.cos(1.5 * np.arcsin(BALL_RADIUS / reach))
    return mask


def tile_truth(layout, size, frames, ball=True):
    """Distance along the rays of all tiles. float32 [T, V, s, s]."""
    result = np.empty((frames, layout.count, size, size), np.float32)
    for v in range(layout.count):
        single = Layout(layout.name, layout.yaw_deg[v:v + 1], layout.pitch_deg[v:v + 1], layout.fov_deg)
        directions = tile_directions(single, size)[0]
        for frame in range(frames):
            result[frame, v] = distance_along(directions, frame, ball)
    return result


def noisy(truth, rng, fine=0.02, bend=0.02):
    """Multiply by noise of pixels, another in each frame, and by a smooth bend, another in each tile."""
    frames, count, size, _ = truth.shape
    axis = np.linspace(-1, 1, size)
    bends = rng.normal(0, bend / 2, (count, 5))
    shapes = np.stack([axis[None] + 0 * axis[:, None], axis[:, None] + 0 * axis[None], axis[None] * axis[:, None],
                       axis[None] ** 2 - 1 / 3 + 0 * axis[:, None], axis[:, None] ** 2 - 1 / 3 + 0 * axis[None]])
    smooth = np.einsum("vk,kyx->vyx", bends, shapes)
    grain = rng.standard_normal(truth.shape, np.float32) * np.float32(fine)
    return (truth * np.exp(smooth + grain)).astype(np.float32)


def as_read(distance, cosines, rng, kind, geometry, spread=0.3, flicker=0.05):
    """Say distances the way an estimator of this kind would: another scale and shift in each tile and frame."""
    frames, count = distance.shape[:2]
    depth = distance * cosines if geometry == "z" else distance
    scale = np.exp(rng.normal(0, spread, (1, count, 1, 1)) + rng.normal(0, flicker, (frames, count, 1, 1)))
    if kind != "affine-inverse":
        return (depth * scale).astype(np.float32)
    shift = rng.normal(0, spread, (1, count, 1, 1)) + rng.normal(0, flicker, (frames, count, 1, 1))
    return (scale * (1 / depth + shift)).astype(np.float32)
