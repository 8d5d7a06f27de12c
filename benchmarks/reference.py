"""Run the animating schedule of the original 4K4DGen (arXiv 2406.13527), call for call: the baseline of benchmarks.

A low-resolution pass of 25 steps denoises a panorama latent: five steps on 20 sphere views that are fused on the
sphere, then on windows of the panorama. Its result, enlarged and noised to the level of step 5, is denoised by a second
pass on windows. Every view and window is one UNet call of both guidance halves; the frames are decoded one at a time.

Where the original wastes time without changing the result, the baseline is spared: one candidate instead of five, no
neighbour search on the CPU, no noise drawn that is multiplied by 0, nothing encoded again for decoding, no video file.
The state stays in the networks' dtype, as the original's float16 does.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from pano4d.benchmarks import reference_conditions as conditions
from pano4d.benchmarks import reference_sphere as sphere
from pano4d.benchmarks.reference_timing import Meter
from pano4d.runtime import schedule as noise_levels
from pano4d.runtime.errors import SettingsError
from pano4d.runtime.sphere import pixel_directions


@dataclass(frozen=True)
class ReferenceSchedule:
    """Hold the original's settings. Sizes are in latent pixels, 8 px each for SVD; panoramas are twice as wide as high.

    Attributes:
        lr_height: Height of the low-resolution pass (1024 px).
        lr_window: Side of its windows.
        lr_stride: Step from window to window.
        hr_height: Height of the high-resolution pass (2048 px).
        hr_window: Side of its windows.
        hr_stride: Step from window to window.
        view_size: Side of the 20 sphere views.
        steps: Noise levels above 0.
        sphere_steps: Steps of the first pass taken on sphere views.
        hr_start: Step at which the second pass starts.
        frames: Number of frames T.
        guidance: Scale of the first and of the last frame.
        fps_id: Frame rate the UNet is told: that of the video less 1.
        motion_bucket_id: Amount of motion the UNet is told.
        noise_aug_strength: Standard deviation of the noise on the picture, which is in -1..1.
        sigma_min: Last noise level above 0.
        sigma_max: First noise level.
        lattice: Points of the dense and of the sparse lattice, before each is cut to its zone.
    """

    lr_height: int = 128
    lr_window: int = 64
    lr_stride: int = 32
    hr_height: int = 256
    hr_window: int = 128
    hr_stride: int = 64
    view_size: int = 128
    steps: int = 25
    sphere_steps: int = 5
    hr_start: int = 5
    frames: int = 14
    guidance: tuple[float, float] = (1.0, 3.0)
    fps_id: int = 6
    motion_bucket_id: int = 127
    noise_aug_strength: float = 0.02
    sigma_min: float = 0.002
    sigma_max: float = 700.0
    lattice: tuple[int, int] = (200_000_000, 20_000_000)

    def scaled(self, divisor: int) -> "ReferenceSchedule":
        """Make everything smaller, with as many calls: sizes by the divisor, the lattices by its square.

        Args:
            divisor: 1, 2, 4, 8, 16 or 32 for the default sizes.

        Returns:
            The smaller schedule.

        Raises:
            SettingsError: The divisor is below 1 or does not divide all sizes, or views become smaller than 4.
        """
        names = ("lr_height", "lr_window", "lr_stride", "hr_height", "hr_window", "hr_stride", "view_size")
        if divisor < 1 or any(getattr(self, name) % divisor for name in names) or self.view_size < 4 * divisor:
            raise SettingsError(f"the schedule was to be made {divisor} times smaller; the divisor must be positive, "
                                f"divide {', '.join(names)}, and leave views of at least 4 latent pixels.")
        dense, sparse = (count // divisor**2 for count in self.lattice)
        return replace(self, lattice=(dense, sparse), **{name: getattr(self, name) // divisor for name in names})


@dataclass(frozen=True)
class ReferenceModels:
    """Hold the networks, in evaluation mode, on one device and in one dtype.

    Attributes:
        unet: ``UNetSpatioTemporalConditionModel`` with 9 input channels.
        vae: ``AutoencoderKLTemporalDecoder``; turned to float32 and back while it encodes.
        image_encoder: ``CLIPVisionModelWithProjection``.
    """

    unet: nn.Module
    vae: nn.Module
    image_encoder: nn.Module


@dataclass(frozen=True)
class _Conditions:
    """What the UNet is told in one pass; picture and mask are on the panorama."""

    embeddings: torch.Tensor  # [2, 1, D]
    image: torch.Tensor  # [4, h, w]
    mask: torch.Tensor  # [1, h, w]


@torch.no_grad()
def run(models: ReferenceModels, schedule: ReferenceSchedule, panorama: np.ndarray, mask: np.ndarray, seed: int = 0,
        sample: int | None = None) -> tuple[dict, np.ndarray | None]:
    """Animate one candidate, or measure how long that takes.

    Args:
        models: The networks.
        schedule: The settings.
        panorama: Picture, uint8 [H, W, 3].
        mask: True where it may move, bool [H, W].
        seed: Decides the noise.
        sample: Calls of each kind to make after a warm-up; those left out are counted with their median time. None
            makes all of them, without a warm-up.

    Returns:
        Times as ``Meter.report`` gives them, and the frames, uint8 [T, H', W', 3]; None with ``sample``.

    Raises:
        SettingsError: ``sample`` is below 1.
    """
    meter = Meter(next(models.unet.parameters()).device, sample)
    candidate = _Candidate(models, schedule, meter, panorama, mask, seed)
    frames = candidate.decode(candidate.second_pass(candidate.first_pass()))
    return meter.report(), frames if sample is None else None


def windows(height: int, size: int, stride: int) -> list[tuple[int, int]]:
    """List the top left corners of the windows of a panorama; those at its right edge go on at the left.

    Args:
        height: Height of the panorama, half its width.
        size: Side of a window.
        stride: Step from window to window.

    Returns:
        Row and column of each.

    Raises:
        ValueError: The stride is 0.
    """
    return [(row, column) for row in range(0, height - size + 1, stride) for column in range(0, 2 * height, stride)]


class _Candidate:
    """Take one candidate from noise to frames."""

    def __init__(self, models: ReferenceModels, schedule: ReferenceSchedule, meter: Meter, panorama: np.ndarray,
                 mask: np.ndarray, seed: int) -> None:
        self._models, self._schedule, self._meter = models, schedule, meter
        self._panorama, self._mask = panorama, mask
        # Drawn on the CPU, the noise is the same on every device.
        self._generator = torch.Generator().manual_seed(seed)
        parameter = next(models.unet.parameters())
        self._placed = {"device": parameter.device, "dtype": parameter.dtype}
        self._sigmas = noise_levels.karras_sigmas(schedule.steps, schedule.sigma_min, schedule.sigma_max)
        scales = noise_levels.guidance_scales(schedule.frames, *schedule.guidance)
        self._guidance = torch.tensor(scales, **self._placed).reshape(1, -1, 1, 1, 1)
        ids = (schedule.fps_id, schedule.motion_bucket_id, schedule.noise_aug_strength)
        self._ids = torch.tensor((ids, ids), **self._placed)

    def first_pass(self) -> torch.Tensor:
        """Denoise pure noise on the sphere's views, then on windows. Latents [1, T, 4, h, w]."""
        schedule = self._schedule
        told = self._conditions("lr", schedule.lr_height)
        latents = self._noise(schedule.lr_height) * noise_levels.init_noise_sigma(self._sigmas)
        if schedule.sphere_steps:
            latents = self._view_steps(latents, told)
        corners = windows(schedule.lr_height, schedule.lr_window, schedule.lr_stride)
        return self._window_steps("lr window", latents, told, corners, schedule.lr_window, schedule.sphere_steps)

    def second_pass(self, low: torch.Tensor) -> torch.Tensor:
        """Enlarge the first pass's latents, noise them, and denoise them on windows. Latents [1, T, 4, h, w]."""
        schedule = self._schedule
        told = self._conditions("hr", schedule.hr_height)
        size = (schedule.hr_height, 2 * schedule.hr_height)
        latents = nn.functional.interpolate(low[0], size, mode="bilinear", align_corners=False)[None]
        latents = latents + float(self._sigmas[schedule.hr_start]) * self._noise(schedule.hr_height)
        corners = windows(schedule.hr_height, schedule.hr_window, schedule.hr_stride)
        return self._window_steps("hr window", latents, told, corners, schedule.hr_window, schedule.hr_start)

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Decode the frames of a whole panorama one at a time. uint8 [T, H, W, 3]."""
        unscaled = latents[0] / self._models.vae.config.scaling_factor
        return np.stack([self._meter.call("decode", self._decode_frame, frame[None]) for frame in unscaled])

    def _decode_frame(self, latent: torch.Tensor) -> np.ndarray:
        pixels = self._models.vae.decode(latent, num_frames=1).sample[0].float()
        return ((pixels + 1) * 127.5).clamp(0, 255).round().byte().permute(1, 2, 0).cpu().numpy()

    def _conditions(self, name: str, height: int) -> _Conditions:
        models, schedule = self._models, self._schedule
        embeddings = self._meter.call("clip", conditions.embed, models.image_encoder, self._panorama)
        image = self._meter.call(f"{name} encode", conditions.encode, models.vae, self._panorama, height,
                                 schedule.noise_aug_strength, self._generator)
        mask = conditions.latent_mask(self._mask, self._panorama.shape[:2], height)
        return _Conditions(*(field.to(**self._placed) for field in (embeddings, image, mask)))

    def _noise(self, height: int) -> torch.Tensor:
        shape = (1, self._schedule.frames, 4, height, 2 * height)
        return torch.randn(shape, generator=self._generator).to(**self._placed)

    def _view_steps(self, latents: torch.Tensor, told: _Conditions) -> torch.Tensor:
        """Denoise on the sphere's views and fuse them after every step, last onto the panorama. [1, T, 4, h, w]."""
        schedule, height = self._schedule, latents.shape[-2]
        grid = sphere.view_grid(schedule.view_size).to(self._placed["device"])
        views = sphere.sample_views(latents[0].flatten(0, 1), grid).unflatten(1, latents.shape[1:3])
        image, mask = (sphere.sample_views(field, grid) for field in (told.image, told.mask))
        to_views, to_panorama = self._meter.call("sphere operators", self._operators, height)
        for i in range(schedule.sphere_steps):
            views = torch.cat([self._meter.call("view", self._step, views[v:v + 1], told.embeddings, image[v],
                                                mask[v], i) for v in range(len(views))])
            if i < schedule.sphere_steps - 1:
                shape = (len(views), *views.shape[-2:])
                views = self._meter.call("views to views", _fused, to_views, views, shape)
        return self._meter.call("views to panorama", _fused, to_panorama, views, (1, height, 2 * height))

    def _operators(self, height: int) -> tuple[sphere.Fusion, sphere.Fusion]:
        schedule, device = self._schedule, self._placed["device"]
        targets = sphere.view_directions(schedule.view_size), pixel_directions(height, 2 * height)
        return tuple(sphere.fusion(torch.from_numpy(directions.reshape(-1, 3)).to(device), schedule.lattice,
                                   schedule.view_size) for directions in targets)

    def _window_steps(self, name: str, latents: torch.Tensor, told: _Conditions, corners: list[tuple[int, int]],
                      size: int, start: int) -> torch.Tensor:
        """Take the mean of the windows' steps, as in MultiDiffusion (arXiv 2302.08113). [1, T, 4, h, w]."""
        side = torch.arange(size, device=latents.device)
        crops = [(..., slice(row, row + size), (column + side) % latents.shape[-1]) for row, column in corners]
        for i in range(start, self._schedule.steps):
            total, count = torch.zeros_like(latents), torch.zeros_like(latents[0, 0, 0])
            for crop in crops:
                total[crop] += self._meter.call(name, self._step, latents[crop], told.embeddings,
                                                told.image[crop], told.mask[crop], i)
                count[crop] += 1
            latents = torch.where(count > 0, total / count, total)
        return latents

    def _step(self, x: torch.Tensor, embeddings: torch.Tensor, image: torch.Tensor, mask: torch.Tensor,
              i: int) -> torch.Tensor:
        """Take Euler step i of one view or window, in the dtype of the state as the original. [1, T, 4, h, w]."""
        sigma, following = float(self._sigmas[i]), float(self._sigmas[i + 1])
        c_skip, c_out, c_in, c_noise = noise_levels.scalings(sigma)
        inputs = _unet_input(x * c_in, image, mask)
        timestep = torch.tensor(c_noise, dtype=torch.float32, device=x.device)
        v = self._models.unet(inputs, timestep, embeddings, added_time_ids=self._ids, return_dict=False)[0]
        unconditional, conditional = v.chunk(2)
        denoised = c_skip * x + c_out * (unconditional + self._guidance * (conditional - unconditional))
        return x + (x - denoised) / sigma * (following - sigma)


def _unet_input(scaled: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Stack mask, noisy latent and picture for both guidance halves; the first sees no picture. [2, T, 9, h, w]."""
    frames = scaled.shape[1]
    pictures = torch.stack([torch.zeros_like(image), image])[:, None].expand(-1, frames, -1, -1, -1)
    masks = mask.expand(2, frames, -1, -1, -1)
    return torch.cat([masks, scaled.expand(2, -1, -1, -1, -1), pictures], dim=2)


def _fused(operator: sphere.Fusion, views: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Apply an operator to views [V, T, C, s, s]; its targets as pictures of a shape (N, h, w), [N, T, C, h, w]."""
    values = operator(views.permute(0, 3, 4, 1, 2).flatten(0, 2).flatten(1))
    return values.reshape(*shape, *views.shape[1:3]).permute(0, 3, 4, 1, 2)
