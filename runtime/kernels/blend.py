"""Fuse the denoised estimates of overlapping tiles and take a step of the sampler, on the CPU.

    denoised_j = c_skip x_j + c_out v_j
    fused_i(p) = sum_j w_j(q) denoised_j(q) / sum_j w_j(q),   q = where tile j sees pixel p of tile i
    target_i = fused_i + k (fused_i - previous_i)          k from ``schedule.extrapolations``, 0 for Euler
    x_i <- target_i + sigma_next / sigma (x_i - target_i)

The tile's own value enters exactly, its neighbours' bilinearly. What a pixel gathers depends on the layout alone and
is tabled once. The obvious form is in ``blend_ref``.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pano4d.runtime.schedule import euler_step, scalings
from pano4d.runtime.tiles import Layout, feather_at, project, seen_directions, tile_directions


@dataclass(frozen=True)
class BlendPlan:
    """What every tile pixel gathers, for one layout and latent size.

    Attributes:
        pixels: Pixels that have neighbours. int64 [P], flat in [V, h, w].
        indices: Their sources, the pixel itself first. int64 [P, K], flat in [V, h, w].
        weights: float32 [P, K], each row sums to one; unused places are zero.
    """

    pixels: np.ndarray
    indices: np.ndarray
    weights: np.ndarray

    @property
    def ranks(self) -> int:
        """Most neighbours that a pixel has, 1 at least: places in the tables of `blend.cu`."""
        return max(1, (self.indices.shape[1] - 1) // 4)

    @classmethod
    def build(cls, layout: Layout, size: int) -> "BlendPlan":
        """Table the gather; the last plans are kept, for they are constants of layout and size.

        Args:
            layout: Tile layout of V tiles.
            size: Side of a latent tile.

        Returns:
            The plan, not to be changed.
        """
        return _plan(layout, size)


@lru_cache(maxsize=2)
def _plan(layout: Layout, size: int) -> BlendPlan:
    directions = tile_directions(layout, size).reshape(-1, 3)
    own = np.arange(len(directions))
    y, x = np.divmod(own % (size * size), size)
    indices, weights = [own[:, None]], [feather_at(x, y, size)[:, None].astype(np.float64)]
    slots = _neighbour_slots(layout, directions, size)
    for index, weight in slots:
        indices.append(index)
        weights.append(weight)
    indices, weights = np.concatenate(indices, axis=1), np.concatenate(weights, axis=1)
    pixels = np.flatnonzero(weights[:, 1:].any(axis=1))
    weights = np.take(weights, pixels, axis=0)
    weights /= weights.sum(axis=1, keepdims=True)
    return BlendPlan(pixels, np.take(indices, pixels, axis=0), weights.astype(np.float32))


def fuse(plan: BlendPlan, values: np.ndarray) -> np.ndarray:
    """Average tiles where they overlap.

    Args:
        plan: Plan of the layout and size.
        values: float32 [V, T, C, h, w].

    Returns:
        float32 [V, T, C, h, w].
    """
    tiles, frames, channels, height, width = values.shape
    rows = np.ascontiguousarray(values.reshape(tiles, frames * channels, -1).transpose(0, 2, 1))
    rows = rows.reshape(-1, frames * channels)  # [V h w, T C]
    fused = plan.weights[:, :1] * rows[plan.pixels]
    for k in range(1, plan.indices.shape[1]):
        used = np.flatnonzero(plan.weights[:, k])
        fused[used] += plan.weights[used, k, None] * rows[plan.indices[used, k]]
    rows[plan.pixels] = fused
    return np.ascontiguousarray(rows.reshape(tiles, -1, frames * channels).transpose(0, 2, 1)).reshape(values.shape)


def blend(plan: BlendPlan, x: np.ndarray, v: np.ndarray, sigma: float, sigma_next: float, *,
          v_uncond: np.ndarray | None = None, guidance: np.ndarray | None = None, static: np.ndarray | None = None,
          static_latents: np.ndarray | None = None, fuse: str = "denoised", previous: np.ndarray | None = None,
          extrapolation: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Take all tiles from one noise level to the next.

    Args:
        plan: Plan of the layout and size.
        x: State. float32 [V, T, 4, h, w].
        v: Prediction of the network. float32 [V, T, 4, h, w].
        sigma: Noise level of the state.
        sigma_next: Noise level to reach.
        v_uncond: Unconditional prediction, with ``guidance``. float32 [V, T, 4, h, w].
        guidance: Guidance scale of each frame. float32 [T].
        static: Tiles that were not denoised. bool [V].
        static_latents: What stands in for their denoised estimate in every frame. float32 [V, 4, h, w].
        fuse: ``denoised``: fuse estimates, then step; ``sample``: step, then fuse the samples (MultiDiffusion, arXiv
            2302.08113, eq. 5), tiles that were not denoised only giving; ``none``: leave every tile to itself.
        previous: Estimate that the step before returned, needed where ``extrapolation`` is not 0. float32, as ``x``.
        extrapolation: k of this step.

    Returns:
        The next state, and the estimate of this step. float32 [V, T, 4, h, w] each.
    """
    if v_uncond is not None:
        v = v_uncond + np.asarray(guidance, np.float32)[:, None, None, None] * (v - v_uncond)
    c_skip, c_out, _, _ = scalings(sigma)
    denoised = np.float32(c_skip) * x + np.float32(c_out) * v
    if static is not None and np.any(static):
        denoised[static] = static_latents[static][:, None]
    if fuse == "denoised":
        denoised = _fuse(plan, denoised)
    target = denoised + np.float32(extrapolation) * (denoised - previous) if extrapolation else denoised
    stepped = euler_step(x, target, sigma, sigma_next)
    if fuse == "sample":
        fused = _fuse(plan, stepped)
        stepped = fused if static is None else np.where(static[:, None, None, None, None], stepped, fused)
    return stepped, denoised


_fuse = fuse  # ``blend`` has an argument of this name


def _neighbour_slots(layout: Layout, directions: np.ndarray, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Put each pixel's r-th neighbour into slot r: four taps each. Lists of (int64 [Q, 4], float64 [Q, 4])."""
    count, owner = len(directions), np.arange(len(directions)) // (size * size)
    filled = np.zeros(count, np.int64)
    slots: list[tuple[np.ndarray, np.ndarray]] = []
    for j in range(layout.count):
        seen, x, y = seen_directions(layout, j, directions, size)
        others = owner[seen] != j
        seen, x, y = seen[others], x[others], y[others]
        taps, shares = bilinear_taps(x, y, size)
        shares *= feather_at(x, y, size)[:, None]
        ranks = filled[seen]
        for rank in range(int(ranks.max(initial=-1)) + 1):
            if rank == len(slots):
                slots.append((np.zeros((count, 4), np.int64), np.zeros((count, 4))))
            at = ranks == rank
            slots[rank][0][seen[at]] = taps[at] + j * size * size
            slots[rank][1][seen[at]] = shares[at]
        filled[seen] += 1
    return slots


def most_neighbours(layout: Layout, size: int) -> int:
    """Count the other tiles that see a tile's pixel, where they are most, without tabling them.

    Args:
        layout: Tile layout of V tiles.
        size: Side of a latent tile.

    Returns:
        The slots that ``BlendPlan.build`` fills, 0 where no tiles overlap.
    """
    directions, centres = tile_directions(layout, size).reshape(layout.count, -1, 3), layout.rotations[:, :, 2]
    reach = 2 * layout.corner
    near = centres @ centres.T >= np.cos(min(reach, np.pi)) - 1e-9
    seen = np.zeros(directions.shape[:2], np.int64)
    for j in range(layout.count):
        others = np.flatnonzero(near[j] & (np.arange(layout.count) != j))
        seen[others] += project(layout, j, directions[others], size)[2]
    return int(seen.max())


def bilinear_taps(x: np.ndarray, y: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """List the four pixels and shares of bilinear samples, clamped to the outermost pixel centres.

    Args:
        x: Continuous column. float64 [Q].
        y: Continuous row. float64 [Q].
        size: Side of the tile.

    Returns:
        Flat pixels, int64 [Q, 4], and shares that sum to one, float64 [Q, 4].
    """
    x, y = np.clip(x, 0, size - 1), np.clip(y, 0, size - 1)
    left, top = np.minimum(x.astype(np.int64), size - 2), np.minimum(y.astype(np.int64), size - 2)
    fx, fy = x - left, y - top
    first = top * size + left
    taps = np.stack([first, first + 1, first + size, first + size + 1], axis=-1)
    return taps, np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy], axis=-1)
