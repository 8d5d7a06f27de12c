"""Draw batches of pinhole cameras that look out from the panorama's centre or from near it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FOV_DEG = 75.0
_MULTIPLE_PX = 16  # of the side of a view: what rasterisers work on at a time


@dataclass(frozen=True)
class Views:
    """A batch of square views, or a series of batches, which an index cuts into its steps.

    Attributes:
        viewmats: World to camera. float32 [..., C, 4, 4], or of a series [S, ..., C, 4, 4].
        Ks: Intrinsics, pixels. float32 [..., C, 3, 3]; the same in all steps.
        size: Side in pixels.
    """

    viewmats: Tensor
    Ks: Tensor
    size: int

    def __getitem__(self, step: int) -> "Views":
        """Give the batch of one step of a series."""
        return Views(self.viewmats[step], self.Ks, self.size)

    @property
    def positions(self) -> Tensor:
        """Where the cameras stand, metres. float32 [C, 3]."""
        return -(self.viewmats[:, :3, :3].transpose(1, 2) @ self.viewmats[:, :3, 3:])[..., 0]

    def rays(self) -> Tensor:
        """Give what each pixel sees: in the world, one long along the camera's axis. float32 [C, size, size, 3]."""
        at = torch.arange(self.size, device=self.Ks.device) + 0.5
        x = (at - self.Ks[:, 0, 2, None]) / self.Ks[:, 0, 0, None]
        y = (at - self.Ks[:, 1, 2, None]) / self.Ks[:, 1, 1, None]
        right, down, ahead = (self.viewmats[:, None, None, axis, :3] for axis in range(3))
        return x[:, None, :, None] * right + (y[:, :, None, None] * down + ahead)


def view_size(width: int, fov_deg: float = FOV_DEG) -> int:
    """Choose the side of a view that shows a panorama at its own density in the middle.

    Args:
        width: Width of the panorama in pixels.
        fov_deg: Field of view.

    Returns:
        Pixels, a multiple of 16.

    Raises:
        Nothing.
    """
    side = 2 * math.tan(math.radians(fov_deg) / 2) * width / (2 * math.pi)
    return max(_MULTIPLE_PX, round(side / _MULTIPLE_PX) * _MULTIPLE_PX)


def views_towards(directions: Tensor, positions: Tensor, rolls: Tensor, size: int, fov_deg: float = FOV_DEG) -> Views:
    """Make views that look along directions.

    Args:
        directions: Unit. float32 [C, 3].
        positions: Metres. float32 [C, 3].
        rolls: Turn about the axis, in radians. float32 [C].
        size: Side in pixels.
        fov_deg: Field of view.

    Returns:
        C views.

    Raises:
        Nothing.
    """
    helper = torch.eye(3, device=directions.device)[directions.abs().argmin(-1)]
    right = torch.nn.functional.normalize(torch.linalg.cross(helper, directions), dim=-1)
    down = torch.linalg.cross(directions, right)
    cosine, sine = rolls.cos()[:, None], rolls.sin()[:, None]
    rotations = torch.stack([cosine * right + sine * down, cosine * down - sine * right, directions], 1)
    viewmats = torch.eye(4, device=directions.device).repeat(len(directions), 1, 1)
    viewmats[:, :3, :3] = rotations
    viewmats[:, :3, 3] = -(rotations @ positions[..., None])[..., 0]
    focal = size / 2 / math.tan(math.radians(fov_deg) / 2)
    K = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]], device=directions.device)
    return Views(viewmats, K.repeat(len(directions), 1, 1), size)


def side_by_side(series: Sequence[Views]) -> Views:
    """Put series of as many steps each together, each step's batches beside each other: [S, B, C, ...]."""
    return Views(torch.stack([views.viewmats for views in series], 1), torch.stack([views.Ks for views in series]),
                 series[0].size)


class PixelRays:
    """Hold the rays of a view's pixels in the camera's axes, one long along its axis: the same in all views of a run.

    Args:
        size: Side of the views in pixels.
        fov_deg: Their field of view.
        device: Where.

    Raises:
        Nothing.
    """

    def __init__(self, size: int, fov_deg: float, device: torch.device) -> None:
        at = (2 * torch.arange(size, device=device) + 1 - size) * (math.tan(math.radians(fov_deg) / 2) / size)
        rays = torch.stack([at.expand(size, size), at[:, None].expand(size, size), torch.ones(size, size, device=device)], -1)
        self._rays, self._squares = rays.reshape(-1, 3), rays.square().sum(-1)  # [P, 3], [size, size]

    def points(self, viewmats: Tensor, depth: Tensor) -> Tensor:
        """Place what is seen in the world.

        Args:
            viewmats: World to camera. float32 [..., C, 4, 4].
            depth: Along the axis, metres. float32 [..., C, size, size].

        Returns:
            Metres. float32 [..., C, size, size, 3].

        Raises:
            Nothing.
        """
        ahead = torch.addcmul(-viewmats[..., None, :3, 3], self._rays, depth.flatten(-2)[..., None])
        return (ahead @ viewmats[..., :3, :3]).unflatten(-2, depth.shape[-2:])

    def squared_ranges(self, viewmats: Tensor, depth: Tensor) -> Tensor:
        """Take the squares of the same points' distances from the centre, m^2. float32 [..., C, size, size]"""
        shift = viewmats[..., :3, 3]
        along = (shift @ self._rays.T).mul_(2).unflatten(-1, self._squares.shape)
        constant = shift.square().sum(-1)[..., None, None]
        return constant + depth * (depth * self._squares - along)


class ViewSampler:
    """Draw views, the same ones for the same seed.

    Args:
        size: Side in pixels.
        reach: Largest distance of a view off the centre, metres.
        seed: Of the random numbers, which are drawn on the CPU.
        device: Where the views are wanted.
        towards: Directions to choose from; None: the whole sphere. Unit, float32 [M, 3].
        fov_deg: Field of view.

    Raises:
        Nothing.
    """

    def __init__(self, size: int, reach: float, seed: int, device: torch.device, towards: Tensor | None = None,
                 fov_deg: float = FOV_DEG) -> None:
        self.size, self.fov_deg = size, fov_deg
        self._reach, self._device = reach, device
        self._towards = None if towards is None else towards.cpu()
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, centred: int, off: int) -> Views:
        """Draw so many views from the centre, and after them so many from anywhere within reach of it."""
        return self.series(1, centred, off)[0]

    def series(self, steps: int, centred: int, off: int) -> Views:
        """Draw what as many calls of `draw` would, and move it to the device at once."""
        drawn = [self._draw(centred, off) for _ in range(steps)]
        made = (torch.cat(parts).to(self._device) for parts in zip(*drawn))
        views = views_towards(*made, self.size, self.fov_deg)
        return Views(views.viewmats.unflatten(0, (steps, centred + off)), views.Ks[:centred + off], self.size)

    def _draw(self, centred: int, off: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw directions [C, 3], positions [C, 3] and rolls [C]."""
        count = centred + off
        directions = self._unit(count) if self._towards is None else self._towards[
            torch.randint(len(self._towards), (count,), generator=self._generator)]
        share = torch.rand(count, 1, generator=self._generator) ** (1 / 3)
        positions = self._unit(count) * share * self._reach
        positions[:centred] = 0.0
        return directions, positions, 2 * math.pi * torch.rand(count, generator=self._generator)

    def _unit(self, count: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(count, 3, generator=self._generator), dim=-1)
