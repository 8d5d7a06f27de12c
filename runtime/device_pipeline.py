"""Run the pipeline's stages on a GPU: what `pipeline` does on the CPU, with the state, the tiles and the panorama there.

Inside the denoising loop nothing is allocated and nothing waits: every step is enqueued, and events tell afterwards how
far the GPU has come.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pano4d.runtime import schedule
from pano4d.runtime.backends import Engines
from pano4d.runtime.backends.base import TAIL, Engine, TensorSpec
from pano4d.runtime.bundle import Bundle
from pano4d.runtime.device import Arrays, Device, DeviceArray, Scope
from pano4d.runtime.kernels import compiler
from pano4d.runtime.kernels.blend import BlendPlan
from pano4d.runtime.kernels.blend_cuda import StateShape, TileState
from pano4d.runtime.kernels.compiler import THREADS, blocks
from pano4d.runtime.kernels.compose_cuda import Composer, PixelMajor, pixel_major_shape
from pano4d.runtime.kernels.noise_cuda import sphere_noise
from pano4d.runtime.settings import AnimateSettings
from pano4d.runtime.tiles import Layout

if TYPE_CHECKING:
    from pano4d.runtime.conditions import Conditions


class HostSide(Engine):
    """Offer an engine of the GPU to code that holds its tensors in host memory.

    Args:
        engine: The engine; not closed with this object.
        device: Where it runs.

    Raises:
        BackendError: The GPU has not enough memory.
    """

    def __init__(self, engine: Engine, device: Device) -> None:
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self._engine, self._device = engine, device
        with Scope(device) as scope:
            self._arrays = {name: scope.empty(*spec) for name, spec in
                            engine_arrays((*self.inputs, *self.outputs)).items()}
            scope.keep()

    def run(self, buffers: Mapping[str, np.ndarray], stream: Any = None) -> None:
        """Copy the inputs over, run, and copy the outputs back. See ``Engine.run``.

        Raises:
            BackendError: A buffer is missing or does not fit its spec, or the GPU fails.
        """
        self.check(buffers)
        for spec in self.inputs:
            self._device.upload(buffers[spec.name], self._arrays[spec.name])
        self._engine.run(self._arrays, self._device.stream)
        for spec in self.outputs:
            self._device.download(self._arrays[spec.name], buffers[spec.name])

    def close(self) -> None:
        """Release the memory."""
        self._device.free(*self._arrays.values())


def engine_arrays(specs: Iterable[TensorSpec]) -> Arrays:
    """List the arrays of an engine's inputs or outputs."""
    return {spec.name: (spec.shape, spec.dtype) for spec in specs}


@contextlib.contextmanager
def engine_for_host(engines: Engines, network: str, device: Device | None) -> Iterator[Engine]:
    """Give an engine that takes NumPy arrays, wherever it runs.

    Args:
        engines: Where it is from.
        network: Name of the network.
        device: Where its engines run; None for the CPU.

    Raises:
        BackendError: The engine does not load.
    """
    with engines.use(network) as engine:
        if device is None:
            yield engine
            return
        with HostSide(engine, device) as offered:
            yield offered


@dataclass(frozen=True)
class Denoising:
    """What the denoising loop needs besides the conditions.

    Attributes:
        engines: Engines of the bundle.
        layout: Tile layout of V tiles.
        settings: Resolved settings; ``fuse`` is ``denoised`` or ``sample``.
        guided: Whether the engine computes both guidance halves.
        sigmas: Noise levels. float64 [steps + 1].
    """

    engines: Engines
    layout: Layout
    settings: AnimateSettings
    guided: bool
    sigmas: np.ndarray

    @property
    def bundle(self) -> Bundle:
        """The engines' bundle."""
        return self.engines.bundle

    def guided_steps(self) -> tuple[list[bool], list[bool]]:
        """Say which steps evaluate both guidance halves, and which reuse their difference."""
        guided = schedule.guided_steps(self.sigmas, self.settings.guidance_interval) & self.guided
        reused = schedule.reused_steps(guided, self.settings.guidance_reuse)
        return (guided & ~reused).tolist(), reused.tolist()

    def shape(self, moving: np.ndarray, ranks: int) -> StateShape:
        """Say how large the state is for these moving tiles."""
        (sample, *_), tile = self.bundle.network("unet").inputs, self.bundle.tile
        batch, (guided, reused) = sample.shape[0] // (2 if self.guided else 1), self.guided_steps()
        return StateShape(self.layout.count, int(moving.sum()), tile["frames"], tile["latent_px"], batch, sample.shape[2],
                          ranks, self.guided, self.settings.solver == "dpmpp-2m", self.settings.fuse == "sample", sample.dtype,
                          self.guided and not all(guided), any(reused), self.bundle.has_tail)


def denoisers(shape: StateShape) -> tuple[str, ...]:
    """Name the denoisers of a run, in the order of `StateShape.first_rows`."""
    return ("unet", TAIL) if shape.tail_tiles(shape.guided) else ("unet",)


def draw_noise(device: Device, *asked: Any) -> np.ndarray:
    """Draw unit noise for every tile.

    Args:
        device: Where.
        *asked: As ``noise.sphere_noise`` takes it.

    Returns:
        The same bytes. float32 [V, T, C, s, s].

    Raises:
        BackendError: The GPU has not enough memory, or the kernel does not compile.
    """
    with Scope(device) as scope:
        return device.download(scope.hold(sphere_noise(device, *asked)))


def denoise(device: Device, what: Denoising, told: Conditions, x: np.ndarray,
            progress: Callable[[int, int], None] = lambda done, total: None) -> np.ndarray:
    """Take every moving tile from noise to a clean latent, fused with its neighbours at each step.

    Args:
        device: Where.
        what: Bundle, layout and settings.
        told: Conditions of all tiles.
        x: First state. float32 [V, T, 4, h, w].
        progress: Called with steps done and all steps.

    Returns:
        The last state; still tiles hold their own latent in every frame. float32 [V, T, 4, h, w].

    Raises:
        BackendError: The engine or a kernel does not load, or the GPU fails.
    """
    latents = told.latents * np.float32(what.bundle.sampler["scaling_factor"])
    result = np.repeat(latents[:, None], x.shape[1], axis=1)
    if not told.moving.any():
        return result
    plan = BlendPlan.build(what.layout, what.bundle.tile["latent_px"])
    shape = what.shape(told.moving, plan.ranks)
    with contextlib.ExitStack() as stack:
        engines = [stack.enter_context(what.engines.use(name)) for name in denoisers(shape)]
        state = TileState(device, what.layout, told.moving, shape, plan)
        try:
            _run_steps(device, what, told, x, state, engines, latents, progress)
            moved = device.download(state.x)
        finally:
            state.free()
    result[told.moving] = moved.reshape(-1, *x.shape[1:])
    return result


def _run_steps(device: Device, what: Denoising, told: Conditions, x: np.ndarray, state: TileState, engines: list[Engine],
               latents: np.ndarray, progress: Callable[[int, int], None]) -> None:
    """Enqueue every step, then follow the events."""
    settings, sigmas, moving = what.settings, what.sigmas, told.moving
    scalings = [schedule.scalings(sigma) for sigma in sigmas[:-1]] + [(0.0, 0.0, 0.0, 0.0)]
    guidance = schedule.guidance_scales(state.shape.frames, settings.min_guidance_scale,
                                        settings.max_guidance_scale) if what.guided else None
    rest = (x[~moving] - latents[~moving][:, None]) / np.float32(sigmas[0])
    with Scope(device) as scope:
        fixed = _fixed_inputs(scope, engines[0], told, scalings, state.shape)
        state.begin(x[moving], told.masks[moving], told.latents[moving], latents, scalings[0][2], guidance, rest)
        device.synchronize()
        events, (guided, reused) = [], what.guided_steps()
        for i, k in enumerate(schedule.extrapolations(sigmas, settings.solver)):
            sample = state.sample_of(guided[i])
            embeddings = fixed["embeddings" if guided[i] == what.guided else "unguided"]
            for engine, rows in zip(engines, state.shape.first_rows(guided[i])):
                for row in rows:
                    # Levels and time ids are the same for every row: an engine with fewer reads the first of them.
                    buffers = {"sample": sample[row], "v": state.v[row], "c_noise": fixed["c_noise"][i],
                               "embeddings": embeddings[row], "added_time_ids": fixed["added_time_ids"]}
                    engine.run({spec.name: _as(buffers[spec.name], spec.shape)
                                for spec in (*engine.inputs, *engine.outputs)}, device.stream)
            c_skip, c_out, _, _ = scalings[i]
            state.step(c_skip, c_out, sigmas[i], sigmas[i + 1], scalings[i + 1][2], k, guided[i],
                       guided[min(i + 1, len(guided) - 1)], reused[i])
            events.append(device.event())
        for i, event in enumerate(events):
            device.wait(event)
            progress(i + 1, len(events))


def _as(array: DeviceArray, shape: tuple[int, ...]) -> DeviceArray:
    return DeviceArray(array.pointer, shape, array.dtype, array.owner)


def fixed_arrays(inputs: Iterable[TensorSpec], steps: int, shape: StateShape) -> Arrays:
    """List the arrays of what does not change from step to step, and of the noise conditions of all steps.

    Args:
        inputs: Inputs of the denoiser.
        steps: Denoising steps.
        shape: Sizes of the state.

    Returns:
        The arrays by name; ``unguided`` are the embeddings of steps without guidance, where there are any.
    """
    specs = engine_arrays(inputs)
    (_, *embedding), dtype = specs["embeddings"]
    arrays = {"c_noise": ((steps + 1, *specs["c_noise"][0]), specs["c_noise"][1]),
              "embeddings": ((shape.rows(shape.guided), *embedding), dtype), "added_time_ids": specs["added_time_ids"]}
    if shape.unguided_steps:
        arrays["unguided"] = ((shape.rows(False), *embedding), dtype)
    return arrays


def _fixed_inputs(scope: Scope, engine: Engine, told: Conditions, scalings: list, shape: StateShape) \
        -> dict[str, DeviceArray]:
    """Upload what `fixed_arrays` lists."""
    arrays = fixed_arrays(engine.inputs, len(scalings) - 1, shape)
    values = {"c_noise": np.array([c_noise for _, _, _, c_noise in scalings])[:, None],
              "embeddings": _embedding_rows(told, shape, shape.guided), "added_time_ids": told.time_ids}
    if shape.unguided_steps:
        values["unguided"] = _embedding_rows(told, shape, False)
    return {name: scope.upload(np.broadcast_to(values[name], size).astype(dtype)) for name, (size, dtype) in arrays.items()}


def _embedding_rows(told: Conditions, shape: StateShape, guided: bool) -> np.ndarray:
    """Lay the moving tiles' embeddings out as the rows of the engines' calls. float32 [R, 1, D]."""
    laid = np.zeros((shape.rows(guided), *told.embeddings.shape[1:]), np.float32)
    laid[shape.rows_of_slots(guided)[-1]] = told.embeddings[told.moving]  # the other half knows nothing
    return laid


def decode_arrays(source: TensorSpec, target: TensorSpec, slots: int) -> Arrays:
    """List the arrays it takes to decode tiles; the pixels stay.

    Args:
        source: Input of the decoder.
        target: Its output.
        slots: Tiles to decode.

    Returns:
        ``clean``, ``latents``, ``decoded``, which is what one call of the engine writes, and ``pixels``.
    """
    calls, batch = -(-slots // source.shape[0]), source.shape[0]
    return {"clean": ((calls * batch, *source.shape[1:]), "float32"), "latents": ((calls, *source.shape), source.dtype),
            "decoded": (target.shape, target.dtype),
            "pixels": (pixel_major_shape(calls * batch, target.shape[1], target.shape[-1]), target.dtype)}


def decode(device: Device, engines: Engines, x: np.ndarray,
           progress: Callable[[int, int], None] = lambda done, total: None) -> DeviceArray:
    """Decode tiles and leave them on the GPU, laid out pixel by pixel.

    Args:
        device: Where.
        engines: Engines of the bundle.
        x: Clean latents of the tiles to decode, scaled. float32 [slots, T, 4, h, w].
        progress: Called with tiles done and all tiles.

    Returns:
        Pixels in -1..1, in the decoder's element type. Of the shape that `pixel_major_shape` gives for ``slots`` or more.

    Raises:
        BackendError: The engine does not load, or the GPU fails.
    """
    with engines.use("vae_decoder") as engine, Scope(device) as scope:
        (source,), (target,) = engine.inputs, engine.outputs
        arrays, batch = decode_arrays(source, target, len(x)), source.shape[0]
        (scale_into,) = compiler.load_kernels(device, "convert.cu", ("scale_into",),
                                              compiler.definitions(np.dtype(source.dtype).itemsize))
        padded = np.zeros(*arrays["clean"])
        padded[:len(x)] = x
        clean = scope.upload(padded)
        latents, decoded, pixels = (scope.empty(*arrays[name]) for name in ("latents", "decoded", "pixels"))
        lay_out = PixelMajor(device, target.shape[1], target.shape[-1], target.dtype)
        scale_into((blocks(clean.size),), THREADS, clean, latents, np.int64(clean.size),
                   np.float32(1 / engines.bundle.sampler["scaling_factor"]))
        events = []
        for g in range(latents.shape[0]):
            engine.run({source.name: latents[g], target.name: decoded}, device.stream)
            lay_out(decoded, _part(pixels, g * batch, batch))
            events.append(device.event())
        for g, event in enumerate(events):
            device.wait(event)
            progress(min((g + 1) * batch, len(x)), len(x))
        scope.keep(pixels)
    return pixels


def _part(array: DeviceArray, begin: int, count: int) -> DeviceArray:
    """View some entries of the first axis."""
    return _as(array[begin], (count, *array.shape[1:]))


def compose(device: Device, layout: Layout, moving: np.ndarray, pixels: DeviceArray, frames: int, panorama: np.ndarray,
            select: np.ndarray, alpha: np.ndarray | None, cell_px: float | None, chunk: int | None = None) -> np.ndarray:
    """Compose decoded tiles onto the panorama.

    Args:
        device: Where.
        layout: Tile layout of V tiles.
        moving: Tiles that were decoded. bool [V].
        pixels: As `decode` returns them.
        frames: T.
        panorama: Input picture. uint8 [H, W, 3].
        select: Pixels to compose. bool [H, W].
        alpha: Weight of the composed pixels against the input, float32 [H, W]; None for the share of decoded tiles.
        cell_px: Width of a latent cell on the panorama, in pixels, to keep the input's detail; None to leave it.
        chunk: Frames finished and brought back at a time; None for all.

    Returns:
        uint8 [T, H, W, 3].

    Raises:
        BackendError: The GPU has not enough memory, or a kernel does not compile.
    """
    if not (moving.any() and select.any()):
        return np.repeat(panorama[None], frames, axis=0)
    made, done = np.empty((frames, *panorama.shape), np.uint8), 0
    with Scope(device) as scope, contextlib.ExitStack() as stack:
        composer = Composer(device, layout, moving, select, frames, pixels.shape[2], chunk, pixels.dtype.name)
        stack.callback(composer.free)
        picture = scope.upload(panorama)
        weights = None if alpha is None else scope.upload(alpha[select].astype(np.float32))
        for part in composer.run(pixels, picture, weights, cell_px):
            device.download(part, made[done:done + part.shape[0]])
            done += part.shape[0]
    return made
