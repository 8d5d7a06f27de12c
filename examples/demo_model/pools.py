"""Keep pools of training clips on the device, renewed while training runs."""

from __future__ import annotations

import time

import torch

from pano4d.examples.demo_model.autoencoder import encode_cells
from pano4d.examples.demo_model.clips import motion_bucket, motion_levels, sample_clips
from pano4d.examples.demo_model.masks import latent_masks


class Ring:
    """Hold the newest rows of named tensors, up to a capacity."""

    def __init__(self, capacity: int):
        self.capacity, self.count, self.cursor = capacity, 0, 0
        self.rows: dict[str, torch.Tensor] = {}

    def add(self, **values: torch.Tensor) -> None:
        """Append rows, each [n, ...], over the oldest ones once full."""
        for name, value in values.items():
            if name not in self.rows:
                self.rows[name] = torch.empty(self.capacity, *value.shape[1:], dtype=value.dtype, device=value.device)
        added = len(next(iter(values.values())))
        where = torch.arange(self.cursor, self.cursor + added) % self.capacity
        for name, value in values.items():
            self.rows[name][where.to(value.device)] = value
        self.cursor = (self.cursor + added) % self.capacity
        self.count = min(self.capacity, self.count + added)

    def pick(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Choose rows at random. int64 [count], on the generator's device."""
        return torch.randint(self.count, (count,), generator=generator, device=generator.device)


class Source:
    """Render new clips whenever less than a share of the time went into it.

    Args:
        seed: Seed of the first batch; each batch takes the next one.
        device: Where to render.
        batch: Clips at a time.
        size_px: Side of a clip.
        share: Share of the wall time to spend.
        use: Called with clips float32 [B, T, 3, s, s] and masks float32 [B, 1, s, s].
    """

    def __init__(self, seed: int, device, batch: int, size_px: int, share: float, use):
        self.seed, self.device, self.batch, self.size_px = seed, device, batch, size_px
        self.share, self.use = share, use
        self.spent, self.started, self.batches = 0.0, time.monotonic(), 0

    def due(self) -> bool:
        """Say whether it is time to render again."""
        return self.spent < self.share * (time.monotonic() - self.started)

    def render(self) -> None:
        """Render a batch and hand it on; count the time of both, but not of the work queued before."""
        self._settle()
        begun = time.monotonic()
        clips, masks, _ = sample_clips(self.batch, self.seed + self.batches, self.device, self.size_px)
        self.use(clips, masks)
        self._settle()
        self.batches += 1
        self.spent += time.monotonic() - begun

    def _settle(self) -> None:
        if torch.device(self.device).type == "cuda":
            torch.cuda.synchronize()


@torch.no_grad()
def latent_rows(clips, masks, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Turn clips with 2 pixels a cell into rows of the latent pool.

    Args:
        clips: float32 [B, T, 3, 2h, 2w] in [0, 1].
        masks: float32 [B, 1, 2h, 2w].
        generator: Source of the augmentation noise, on the clips' device.

    Returns:
        latents, image (of the noised first frame), share (of a cell that moves), aug (noise strength),
        bucket, and picture (uint8, for the image encoder).
    """
    batch, device = len(clips), clips.device
    usual = torch.rand(batch, generator=generator, device=device) < 0.7
    aug = torch.where(usual, 0.02, 0.1 * torch.rand(batch, generator=generator, device=device))
    noise = torch.randn(clips[:, 0].shape, generator=generator, device=device)
    # A pixel here stands for four, so their noise is half as strong; and 1 in [0, 1] is 2 in [-1, 1].
    noised = clips[:, 0] + aug[:, None, None, None] / 4 * noise
    return {
        "latents": encode_cells(clips).half(),
        "image": encode_cells(noised).half(),
        "share": latent_masks(masks, 2, soft=True).half(),
        "aug": aug,
        "bucket": motion_bucket(motion_levels(clips, masks)),
        "picture": (clips[:, 0] * 255).round().byte(),
    }
