"""Render a scene block by block: what stands once, what moves over it in each frame.

A pixel that nothing moving touches is thus the same in all frames to the last bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pano4d.benchmarks.scene_light import SKY_DISTANCE_M, Stage, colors, sky
from pano4d.benchmarks.scene_rays import Block, Camera, block_rays, blocks
from pano4d.lifting.torch_drawing import one_thread_each

_BLOCK_SIDE = {"cpu": 32, "cuda": 512}


@dataclass(frozen=True)
class Picture:
    """Hold what a camera sees, on the scene's device.

    Attributes:
        rgb: uint8 [H, W, 3].
        distance: Metres along the ray of a pixel's centre. float32 [H, W].
        moving_body: Whether a moving body covers some of the pixel. bool [H, W].
    """

    rgb: torch.Tensor
    distance: torch.Tensor
    moving_body: torch.Tensor


@dataclass(frozen=True)
class Renderer:
    """Draw a still world and what moves in it.

    Attributes:
        still: What stands; it casts the shadows.
        moving: What moves, as it is in each frame.
        paints: Tables of their palette.
        device: Where all this lies.
    """

    still: Stage
    moving: Sequence[Stage]
    paints: dict[str, torch.Tensor]
    device: torch.device

    def render(self, camera: Camera, frames: Sequence[int], samples: int) -> list[Picture]:
        """Draw frames seen from one place.

        Args:
            camera: Where from.
            frames: Their numbers.
            samples: Rays a pixel's colour is averaged over, along each side.

        Returns:
            One picture a frame.

        Raises:
            IndexError: There is no such frame.
        """
        shape = camera.height, camera.width
        drawn = [Picture(torch.empty((*shape, 3), dtype=torch.uint8, device=self.device),
                         torch.empty(shape, device=self.device),
                         torch.zeros(shape, dtype=torch.bool, device=self.device)) for _ in frames]
        with one_thread_each():
            for block in blocks(camera, _BLOCK_SIDE[self.device.type]):
                rays = block_rays(camera, block, samples, self.device)
                self._draw_block(camera, block, rays, samples, list(zip(frames, drawn, strict=True)))
        return drawn

    def _draw_block(self, camera: Camera, block: Block, rays: torch.Tensor, samples: int,
                      wanted: list[tuple[int, Picture]]) -> None:
        """Render what stands, then over it what moves in each frame."""
        origin = torch.from_numpy(camera.origin).to(self.device, torch.float32)[:, None]
        distance, color = self._draw_still(camera, block, origin, rays, samples)
        area = block.rows, block.columns
        size = block.rows.stop - block.rows.start, block.columns.stop - block.columns.start
        for frame, picture in wanted:
            t, shown, body = distance, color, torch.zeros_like(distance, dtype=torch.bool)
            found = self.moving[frame].trace(block, camera.origin, origin, rays)
            if found is not None:
                body = found[0] < distance
                t = torch.where(body, found[0], distance)
                some = body[:color.shape[1]].nonzero()[:, 0]
                shown = color.clone()
                shown[:, some] = self._color(self.moving[frame], camera, origin, rays, some, t, found[1])
            mean = shown.reshape(3, samples**2, *size).mean(1)
            picture.rgb[area] = (mean * 255).round().to(torch.uint8).movedim(0, -1)
            picture.distance[area] = t[-size[0] * size[1]:].reshape(size)
            picture.moving_body[area] = body.reshape(-1, *size).any(0)

    def _draw_still(self, camera: Camera, block: Block, origin: torch.Tensor, rays: torch.Tensor,
                      samples: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the distance along all rays [N] and the colour of all but those for distance alone [3, M]."""
        found = self.still.trace(block, camera.origin, origin, rays)
        # To the shell: |origin + t ray| = SKY_DISTANCE_M.
        along = (origin * rays).sum(0)
        shell = (along * along + SKY_DISTANCE_M**2 - (origin * origin).sum()).sqrt() - along
        met, number = (torch.full_like(shell, torch.inf), None) if found is None else found
        distance = torch.minimum(met, shell)
        count = rays.shape[1] if samples == 1 else rays.shape[1] // (samples**2 + 1) * samples**2
        color = torch.empty((3, count), device=rays.device)
        open_sky = (met[:count] >= shell[:count]).nonzero()[:, 0]
        if len(open_sky):
            points = origin + shell[open_sky] * rays[:, open_sky]
            color[:, open_sky] = sky(self.still, points, camera.pixel_angle)
        some = (met[:count] < shell[:count]).nonzero()[:, 0]
        if len(some):
            color[:, some] = self._color(self.still, camera, origin, rays, some, distance, number)
        return distance, color

    def _color(self, stage: Stage, camera: Camera, origin: torch.Tensor, rays: torch.Tensor, some: torch.Tensor,
               distance: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        """Return the colours of some rays [3, n]."""
        t, ways = distance[some], rays[:, some]
        points = origin + t * ways
        return colors(stage, self.paints, self.still, number[some], points, ways, t * camera.pixel_angle)
