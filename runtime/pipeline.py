"""Animate a panorama: condition its tiles, denoise and fuse them, decode and compose.

The method is that of 4K4DGen (arXiv 2406.13527, section 3.2) with the state kept per tile: what tiles exchange is
gathered from tile to tile, without a picture of the sphere between (``docs/architecture.md``).
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from pano4d.runtime import device_pipeline, noise, schedule, stages, tiles
from pano4d.runtime.backends import Engines, device_of
from pano4d.runtime.bundle import Bundle
from pano4d.runtime.checkpointing import load_state, save_state
from pano4d.runtime.conditions import Conditions, batches, condition_tiles, encode_video
from pano4d.runtime.device import Device
from pano4d.runtime.errors import InputError, SettingsError
from pano4d.runtime.kernels import blend as blending
from pano4d.runtime.kernels import compose as composing
from pano4d.runtime.kernels.detail import keep_detail
from pano4d.runtime.loop import close_loop
from pano4d.runtime.memory_limit import fit_memory
from pano4d.runtime.report import StageTimer
from pano4d.runtime.settings import AnimateSettings

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, what is done of it, and the total."""


@dataclass(frozen=True)
class Animation:
    """A panoramic video and how it came about.

    Attributes:
        frames: uint8 [T, H, W, 3].
        mask: Pixels that may move. bool [H, W].
        layout: Tile layout.
        tiles_total: Tiles of the layout.
        tiles_skipped: Tiles without motion, which were not denoised.
        settings: Settings without a None.
        latents: Last state of each tile, scaled. float32 [V, T, 4, h, w].
        moving_tiles: The tiles that were denoised, in ascending order. int64 [V - tiles_skipped].
        sigmas: Noise levels. float64 [steps + 1].
        coarse: The coarse stage, at its own size; None for a single stage.
    """

    frames: np.ndarray
    mask: np.ndarray
    layout: tiles.Layout
    tiles_total: int
    tiles_skipped: int
    settings: AnimateSettings
    latents: np.ndarray
    moving_tiles: np.ndarray
    sigmas: np.ndarray
    coarse: "Animation | None" = None


class Animator:
    """Run one engine bundle on panoramas.

    In a ``with`` block the engines and the GPU stay open from one panorama to the next; otherwise each stage loads what
    it needs and closes it again, which takes the least memory.

    Two stages that were asked for become a single one where the tiles are as wide as coarse ones already; ``notes``
    says so.

    Args:
        bundle: Engine bundle, opened and verified.
        settings: What is None is taken from the bundle.
        backend: Backend name; None for the bundle's own.
        device: GPU to run on, for a bundle whose engines do; None takes the first one for as long as it is needed.
        engines: The bundle's engines where several animators share them, closed by the caller; None for own ones.
        vram_limit_bytes: Memory of the GPU that a run may take; None for all there is.

    Raises:
        SettingsError: The bundle cannot do what the settings ask for.
    """

    def __init__(self, bundle: Bundle, settings: AnimateSettings = AnimateSettings(), backend: str | None = None,
                 device: Device | None = None, engines: Engines | None = None, vram_limit_bytes: int | None = None) -> None:
        self.bundle, self.backend, self.device, self.vram_limit_bytes = bundle, backend, device, vram_limit_bytes
        self._engines, self._opened = engines or Engines(bundle, backend), contextlib.ExitStack()
        self.on_device = device is not None or device_of(bundle, backend) == "cuda"
        self.settings = settings.resolved(bundle.sampler)
        if self.on_device and self.settings.fuse == "none":
            raise SettingsError("fuse is 'none', and on a GPU tiles are always fused: use a bundle for the CPU to compare.")
        self.guided = _check_guidance(bundle, self.settings)
        tile_px = bundle.tile["px"]
        self.layout = tiles.chosen(settings.layout, settings.width, tile_px)
        self.coarse, self.notes = self._coarse_animator()
        self.sigmas = stages.sigmas(self.settings, bundle.sampler, refines=self.coarse is not None)

    def _coarse_animator(self) -> tuple["Animator | None", list[str]]:
        """Make what runs the coarse stage, if there is one, and the notes for the report."""
        coarse = stages.coarse_settings(self.settings, self.layout, self.bundle.tile["px"])
        if coarse:
            return Animator(self.bundle, coarse, self.backend, self.device, self._engines), []
        if self.settings.stages == "single":
            return None, []
        self.settings = replace(self.settings, stages="single")
        return None, [f"One stage was run: tiles of {self.layout.fov_deg:g} degrees are as wide as those of a coarse stage."]

    def __enter__(self) -> "Animator":
        self._engines.keep = True
        if self.on_device and self.device is None:
            self.device = self._opened.enter_context(Device())
            self._opened.callback(setattr, self, "device", None)
        self._opened.callback(self._engines.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._engines.keep = False
        self._opened.close()

    def animate(self, panorama: np.ndarray, mask: np.ndarray, progress: Progress | None = None,
                timer: StageTimer | None = None, state_folder: Path | None = None,
                whole: np.ndarray | None = None) -> Animation:
        """Make a panoramic video of a picture.

        Args:
            panorama: The first frame, at the size of the settings. uint8 [H, W, 3].
            mask: True where the picture may move. bool [H, W].
            progress: Told of every tile encoded, step denoised and tile decoded.
            timer: Collects seconds and memory per stage.
            state_folder: Where the state is kept after every step; a state found there that belongs to
                the same run is gone on from. On a GPU, where a run takes seconds, none is kept.
            whole: Pixels all of which may move, for a mask made smaller: motion fades in from the others as from the
                mask's border. bool [H, W]; None for the mask itself.

        Returns:
            The video and its circumstances.

        Raises:
            InputError: Picture or mask of another size.
            SettingsError: The run does not fit into the memory it may take; nothing was loaded.
            BackendError: An engine does not load or run.
        """
        self._check_input(panorama, mask)
        chunk = self._frames_at_a_time(mask)
        progress, timer = progress or (lambda *_: None), timer or StageTimer()
        coarse = video = None
        if self.coarse:
            coarse = self._animate_coarse(panorama, mask, progress, timer, state_folder)
            progress, timer = stages.named("fine", progress), stages.named("fine", timer)
        with self._opened_device() as device:
            with timer("encode"):
                told = condition_tiles(self._engines, self.layout, panorama, mask, self.settings,
                                       lambda done, total: progress("encode", done, total), device)
            if coarse and told.moving.any():
                with timer("start"):
                    video = encode_video(self._engines, self.layout, told.moving, coarse.frames, self.settings,
                                         lambda done, total: progress("start", done, total), device)
            with timer("denoise"):
                if device:
                    x = self._denoise_on(device, told, video, progress)
                else:
                    x = self._denoise(told, video, progress, state_folder, self._key(panorama, mask))
            with timer("decode"):
                if device:
                    frames = self._decode_on(device, x, told, panorama, mask, whole, progress, chunk)
                else:
                    frames = self._decode(x, told, panorama, mask, whole, progress)
        if self.settings.loop:
            close_loop(frames)
        moving_tiles = np.flatnonzero(told.moving)
        return Animation(frames, mask, self.layout, self.layout.count, self.layout.count - len(moving_tiles),
                         self.settings, x, moving_tiles, self.sigmas, coarse)

    def _animate_coarse(self, panorama: np.ndarray, mask: np.ndarray, progress: Progress, timer: StageTimer,
                        state_folder: Path | None) -> Animation:
        """Run the coarse stage, whose state is kept beside that of the fine one."""
        self.coarse.device = self.device
        return self.coarse.animate(*stages.coarse_inputs(panorama, mask, self.coarse.settings),
                                   stages.named("coarse", progress), stages.named("coarse", timer),
                                   state_folder / "coarse" if state_folder else None)

    @contextlib.contextmanager
    def _opened_device(self) -> Iterator[Device | None]:
        """Give the GPU that was given, or one of our own, or None for the CPU."""
        if not self.on_device or self.device is not None:
            yield self.device
            return
        with Device() as device:
            yield device

    def _check_input(self, panorama: np.ndarray, mask: np.ndarray) -> None:
        wanted = (self.settings.height, self.settings.width)
        if panorama.shape != (*wanted, 3) or panorama.dtype != np.uint8:
            raise InputError(f"the panorama is {panorama.dtype} {panorama.shape}, but the settings need uint8 "
                             f"{(*wanted, 3)}: resize it with runtime.image.resize_panorama.")
        if mask.shape != wanted or mask.dtype != bool:
            raise InputError(f"the mask is {mask.dtype} {mask.shape}, but the settings need bool {wanted}: resize "
                             "it with runtime.image.resize_mask.")

    def _frames_at_a_time(self, mask: np.ndarray) -> int | None:
        """Say how many frames to compose at a time within the limit; None for all."""
        if not (self.on_device and self.vram_limit_bytes and mask.any()):
            return None
        pixels, keep = int(mask.sum()), self._engines.keep
        try:
            plan = fit_memory(self.bundle, self.settings, self.vram_limit_bytes, None, pixels, keep)
        except SettingsError:
            # Still tiles need less, but to find them takes as long as to cut them.
            tile = self.bundle.tile
            shares = tiles.tile_masks(mask, self.layout, tile["px"], tile["px"] // tile["latent_px"])
            moving = int(shares.reshape(self.layout.count, -1).any(axis=1).sum())
            plan = fit_memory(self.bundle, self.settings, self.vram_limit_bytes, moving, pixels, keep)
        return plan.compose.chunk

    def _key(self, panorama: np.ndarray, mask: np.ndarray) -> str:
        """Name this run by all that can change its result."""
        digest = hashlib.sha256(json.dumps(asdict(self.settings), sort_keys=True).encode())
        for part in (self.bundle.sha256.encode(), str(self.backend).encode(), panorama.tobytes(), mask.tobytes()):
            digest.update(part)
        return digest.hexdigest()

    def _denoise(self, told: Conditions, video: np.ndarray | None, progress: Progress, state_folder: Path | None,
                 key: str) -> np.ndarray:
        """Take every moving tile from noise to a clean latent, fused with its neighbours at each step."""
        settings, tile, sampler = self.settings, self.bundle.tile, self.bundle.sampler
        sigmas, steps = self.sigmas, len(self.sigmas) - 1
        plan = blending.BlendPlan.build(self.layout, tile["latent_px"])
        guidance = schedule.guidance_scales(tile["frames"], settings.min_guidance_scale,
                                            settings.max_guidance_scale) if self.guided else None
        start, state = load_state(state_folder, key) if state_folder else (0, None)
        extrapolations = schedule.extrapolations(sigmas, settings.solver)
        lands = schedule.landings(sigmas, settings.solver)
        if state is None:
            start, previous, difference, x = 0, None, None, self._first_state(told, video)
        else:
            x, previous, difference = state["x"], state["previous"], state.get("difference")
        progress("denoise", start, steps)
        with self._engines.use("unet") as engine:
            denoiser = Denoiser(engine, told)
            guided = schedule.guided_steps(sigmas, settings.guidance_interval) & self.guided
            reused = schedule.reused_steps(guided, settings.guidance_reuse)
            for i in range(start, steps):
                v, v_uncond = denoiser(x, sigmas[i], guided[i] and not reused[i])
                if reused[i]:
                    v_uncond = v - difference
                elif guided[i] and settings.guidance_reuse:
                    difference = v - v_uncond
                x, previous = blending.blend(
                    plan, x, v, sigmas[i], lands[i], v_uncond=v_uncond, guidance=guidance, static=~told.moving,
                    static_latents=told.latents * sampler["scaling_factor"], fuse=settings.fuse, previous=previous,
                    extrapolation=extrapolations[i])
                if lands[i] < sigmas[i + 1]:
                    x += np.float32(sigmas[i + 1]) * self._unit_noise(i + 1)
                if state_folder:
                    kept = {} if difference is None else {"difference": difference}
                    save_state(state_folder, key, i + 1, {"x": x, "previous": previous, **kept})
                progress("denoise", i + 1, steps)
        return x

    def _first_state(self, told: Conditions, video: np.ndarray | None, device: Device | None = None) -> np.ndarray:
        """Draw the noise, and put it on the coarse video's latents if there are some."""
        scale = np.float32(self.bundle.sampler["scaling_factor"])
        return stages.first_state(self._unit_noise(0, device), self.sigmas, told.latents * scale, told.moving,
                                  None if video is None else video * scale)

    def _unit_noise(self, step: int, device: Device | None = None) -> np.ndarray:
        """Draw the noise that a step starts from. float32 [V, T, 4, h, w]."""
        tile, settings = self.bundle.tile, self.settings
        seed = noise.step_seed(settings.seed, step)
        asked = (self.layout, tile["latent_px"], tile["frames"], 4, seed, settings.shared_noise)
        return device_pipeline.draw_noise(device, *asked) if device else noise.sphere_noise(*asked)

    def _denoise_on(self, device: Device, told: Conditions, video: np.ndarray | None, progress: Progress) -> np.ndarray:
        """Denoise on a GPU."""
        what = device_pipeline.Denoising(self._engines, self.layout, self.settings, self.guided, self.sigmas)
        x, steps = self._first_state(told, video, device), len(self.sigmas) - 1
        if self.settings.solver != "lcm":
            return device_pipeline.denoise(device, what, told, x, lambda done, total: progress("denoise", done, total))
        # Steps to the estimate have no state in common: each is a run of one step, from noise put on the one before.
        with self._engines.kept():
            for i, (sigma, following) in enumerate(zip(self.sigmas[:-1], self.sigmas[1:]), 1):
                x = device_pipeline.denoise(device, replace(what, sigmas=np.array([sigma, 0.0])), told, x)
                if following > 0:
                    x += np.float32(following) * self._unit_noise(i, device)
                progress("denoise", i, steps)
        return x

    def _decode_on(self, device: Device, x: np.ndarray, told: Conditions, panorama: np.ndarray, mask: np.ndarray,
                   whole: np.ndarray | None, progress: Progress, chunk: int | None) -> np.ndarray:
        """Decode and compose on a GPU, ``chunk`` frames at a time."""
        if not told.moving.any():
            return np.repeat(panorama[None], self.bundle.tile["frames"], axis=0)
        frozen = self.settings.mask_policy == "freeze"
        select = mask if frozen else np.ones_like(mask)
        alpha = composing.mask_alpha(mask, self._feather_px(mask), whole) if frozen else None
        pixels = device_pipeline.decode(device, self._engines, x[told.moving],
                                        lambda done, total: progress("decode", done, total))
        try:
            return device_pipeline.compose(device, self.layout, told.moving, pixels, self.bundle.tile["frames"], panorama,
                                           select, alpha,
                                           self._cell_px(mask) if frozen and self.settings.keep_detail else None, chunk)
        finally:
            device.free(pixels)

    def _decode(self, x: np.ndarray, told: Conditions, panorama: np.ndarray, mask: np.ndarray,
                whole: np.ndarray | None, progress: Progress) -> np.ndarray:
        """Decode the moving tiles and compose them onto the panorama."""
        frozen = self.settings.mask_policy == "freeze"
        height, width = mask.shape
        select = mask if frozen else np.ones_like(mask)
        plan = composing.ComposePlan.build(self.layout, self.bundle.tile["px"], height, width, select=select)
        acc = np.zeros((self.bundle.tile["frames"], int(select.sum()), 3), np.float32)
        share = np.zeros((1, acc.shape[1], 3), np.float32)
        moving = np.flatnonzero(told.moving)
        for done, (v, pixels) in enumerate(self.decode_tiles(x, moving), 1):
            composing.accumulate(plan, v, pixels, acc)
            composing.accumulate(plan, v, np.ones_like(pixels[:1]), share)
            progress("decode", done, len(moving))
        alpha = (composing.mask_alpha(mask, self._feather_px(mask), whole) if frozen
                 else share[0, :, 0].reshape(mask.shape))
        acc /= np.maximum(share, 1e-6)
        if frozen and self.settings.keep_detail:
            keep_detail(acc, select, panorama, self._cell_px(mask))
        return composing.compose_frames(acc, plan, panorama, alpha)

    def decode_tiles(self, x: np.ndarray, indices: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Decode tiles one after another.

        Args:
            x: Clean latents, scaled. float32 [V, T, 4, h, w].
            indices: The tiles to decode.

        Yields:
            Tile number and its pixels in grey levels 0..255, float32 [T, 3, s, s]; the array is the
            engine's own and is overwritten by the next batch.

        Raises:
            BackendError: The decoder does not load.
        """
        with self._opened_device() as device, \
                device_pipeline.engine_for_host(self._engines, "vae_decoder", device) as engine:
            buffers = engine.allocate()
            for group in batches(indices, len(buffers["latents"])):
                buffers["latents"][:len(group)] = x[group] / self.bundle.sampler["scaling_factor"]
                engine.run(buffers)
                for v, pixels in zip(group, buffers["pixels"]):
                    yield int(v), np.clip(pixels * 127.5 + 127.5, 0.0, 255.0, out=pixels)

    def _feather_px(self, mask: np.ndarray) -> float:
        return self.settings.feather_deg / 360.0 * mask.shape[1]

    def _cell_px(self, mask: np.ndarray) -> float:
        """Give the width of a latent cell on the panorama."""
        tile = self.bundle.tile
        return tile["px"] / tile["latent_px"] / self.layout.focal(tile["px"]) * mask.shape[1] / (2 * np.pi)


class Denoiser:
    """Evaluate the denoiser for all moving tiles at one noise level."""

    def __init__(self, engine, told: Conditions) -> None:
        self.engine, self.told = engine, told
        self.buffers = engine.allocate()
        self.masked = self.buffers["sample"].shape[2] == 9
        self.buffers["added_time_ids"][:] = told.time_ids
        self.moving = np.flatnonzero(told.moving)

    def __call__(self, x: np.ndarray, sigma: float, guided: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Predict v.

        Args:
            x: Noisy latents. float32 [V, T, 4, h, w].
            sigma: Noise level.
            guided: Whether to predict both guidance halves; without, the engine's rows hold twice as many tiles.

        Returns:
            Conditional and unconditional prediction, float32 [V, T, 4, h, w]; zeros for still tiles. The
            second is None without guidance.
        """
        _, _, c_in, c_noise = schedule.scalings(sigma)
        v = np.zeros_like(x)
        v_uncond = np.zeros_like(x) if guided else None
        self.buffers["c_noise"][:] = c_noise
        batch = len(self.buffers["sample"]) // (2 if guided else 1)
        known_rows = batch if guided else 0
        for group in batches(self.moving, batch):
            self._fill(group, x[group] * np.float32(c_in), known_rows)
            self.engine.run(self.buffers)
            v[group] = self.buffers["v"][known_rows:known_rows + len(group)]
            if guided:
                v_uncond[group] = self.buffers["v"][:len(group)]
        return v, v_uncond

    def _fill(self, group: np.ndarray, scaled: np.ndarray, known_rows: int) -> None:
        """Write one batch in the engine's layout: mask, noisy latent, image latent.

        The conditional half begins at row ``known_rows``, the other one, if that is not 0, at row 0.
        """
        sample, first, count = self.buffers["sample"], 1 if self.masked else 0, len(group)
        for start, known in ((0, 0.0), (known_rows, 1.0)) if known_rows else ((0, 1.0),):
            half = slice(start, start + count)
            if self.masked:
                sample[half, :, 0] = self.told.masks[group]
            sample[half, :, first:first + 4] = scaled
            sample[half, :, first + 4:] = known * self.told.latents[group][:, None]
            self.buffers["embeddings"][half] = known * self.told.embeddings[group]


def _check_guidance(bundle: Bundle, settings: AnimateSettings) -> bool:
    """Say whether the bundle's denoiser takes both guidance halves."""
    guided = bundle.sampler["max_guidance_scale"] > 1.0
    asked = max(settings.min_guidance_scale, settings.max_guidance_scale)
    if asked > 1.0 and not guided:
        raise SettingsError(f"a guidance scale of {asked} was asked for, but this bundle was built without guidance: "
                            "leave the guidance options out or build one with --max-guidance-scale.")
    if (settings.guidance_interval is not None or settings.guidance_reuse) and not guided:
        raise SettingsError("a guidance interval or its reuse was asked for, but this bundle was built without guidance: "
                            "leave it out or build one with --max-guidance-scale.")
    return guided
