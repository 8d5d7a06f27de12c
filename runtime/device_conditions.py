"""Prepare on a GPU what the denoiser is told about each tile: what `conditions` does on the CPU, with the pictures there.

The host draws the noise for the pictures meanwhile, one tile after another from one stream.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pano4d.runtime.backends import Engines
from pano4d.runtime.backends.base import Engine, TensorSpec
from pano4d.runtime.device import Arrays, Device, DeviceArray, Scope
from pano4d.runtime.kernels import compiler
from pano4d.runtime.kernels.compiler import THREADS, blocks
from pano4d.runtime.kernels.encode_cuda import encode_tiles
from pano4d.runtime.kernels.masks_cuda import tile_masks
from pano4d.runtime.kernels.resize_cuda import Resizer, resize_arrays
from pano4d.runtime.noise import augmentation_stream
from pano4d.runtime.settings import AnimateSettings
from pano4d.runtime.tiles import Layout

CLIP_PX = 224


def encode(device: Device, engines: Engines, layout: Layout, panorama: np.ndarray, mask: np.ndarray,
           settings: AnimateSettings, report: Callable[[int, int], None]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Encode the upright picture of every tile.

    Args:
        device: Where.
        engines: Engines of the bundle.
        layout: Tile layout of V tiles.
        panorama: uint8 [H, W, 3].
        mask: True where the picture may move. bool [H, W].
        settings: Resolved settings.
        report: Called with (done, total) after each engine call's tiles.

    Returns:
        Share of moving pixels in each latent cell, float32 [V, h, w]; image latents, unscaled, of noisy pictures where
        tiles move, float32 [V, 4, h, w]; CLIP embeddings, zeros for still tiles, float32 [V, 1, D].

    Raises:
        BackendError: An engine or a kernel does not load, or the GPU fails.
    """
    tile = engines.bundle.tile
    with Scope(device) as scope, contextlib.ExitStack() as stack:
        shares = _shares(device, layout, mask, tile["px"], tile["px"] // tile["latent_px"])
        moving = np.flatnonzero(shares.any(axis=(1, 2)))
        noise = stack.enter_context(_drawn_ahead(settings.seed, len(moving), (3, tile["px"], tile["px"])))
        pictures = scope.hold(_cut(device, layout, panorama, tile["px"]))
        with engines.use("image_encoder") as engine:
            embeddings = _embed(device, engine, pictures, moving)
        with engines.use("vae_encoder") as engine:
            latents = _encode(device, engine, pictures, dict(zip(moving.tolist(), noise)), settings.noise_aug_strength,
                              report)
    return shares, latents, embeddings


def embed_arrays(source: TensorSpec, target: TensorSpec, tiles: int, slots: int, size: int) -> Arrays:
    """List the arrays it takes to embed the pictures of moving tiles.

    Args:
        source: Input of the image encoder.
        target: Its output.
        tiles: Tiles of the layout, V.
        slots: Tiles that move.
        size: Side of a tile.

    Returns:
        The arrays by name.
    """
    return {"tiles": ((tiles, 3, size, size), "float32"), **resize_arrays(size, CLIP_PX),
            "pixels": (source.shape, source.dtype),
            "embeddings": ((-(-slots // source.shape[0]), *target.shape), target.dtype)}


def latent_arrays(source: TensorSpec, target: TensorSpec, tiles: int, size: int) -> Arrays:
    """List the arrays it takes to encode all pictures. As `embed_arrays`, for the image latents."""
    return {"tiles": ((tiles, 3, size, size), "float32"), "noise": ((3, size, size), "float32"),
            "pixels": (source.shape, source.dtype), "latents": ((-(-tiles // source.shape[0]), *target.shape), target.dtype)}


def _shares(device: Device, layout: Layout, mask: np.ndarray, size: int, factor: int) -> np.ndarray:
    """Find the share of moving pixels in each latent cell. float32 [V, h, w]."""
    with Scope(device) as scope:
        return device.download(scope.hold(tile_masks(device, scope.upload(mask), layout, size, factor)))


def _cut(device: Device, layout: Layout, panorama: np.ndarray, size: int) -> DeviceArray:
    """Cut the tiles' pictures. float32 [V, 3, s, s] in -1..1."""
    with Scope(device) as scope:
        return encode_tiles(device, scope.upload(panorama), layout, size)


@contextlib.contextmanager
def _drawn_ahead(seed: int, count: int, shape: tuple[int, ...]) -> Iterator[list[Future]]:
    """Draw the tiles' noise in a thread of its own, in order: the numbers of one draw for all."""
    stream = augmentation_stream(seed)
    with ThreadPoolExecutor(1) as pool:
        try:
            yield [pool.submit(stream.standard_normal, shape, np.float32) for _ in range(count)]
        finally:
            pool.shutdown(cancel_futures=True)


def _embed(device: Device, engine: Engine, pictures: DeviceArray, moving: np.ndarray) -> np.ndarray:
    """Embed the pictures of moving tiles. float32 [V, 1, D]."""
    (source,), (target,) = engine.inputs, engine.outputs
    batch, count, size = source.shape[0], len(moving), pictures.shape[-1]
    result = np.zeros((pictures.shape[0], *target.shape[1:]), np.float32)
    if not count:
        return result
    with Scope(device) as scope, contextlib.ExitStack() as stack:
        arrays = embed_arrays(source, target, pictures.shape[0], count, size)
        resize = Resizer(device, size, CLIP_PX, source.dtype)
        stack.callback(resize.free)
        pixels, embeddings = scope.zeros(*arrays["pixels"]), scope.empty(*arrays["embeddings"])
        for g in range(embeddings.shape[0]):
            for i, v in enumerate(moving[g * batch:(g + 1) * batch]):
                resize(pictures[v], pixels[i])
            engine.run({source.name: pixels, target.name: embeddings[g]}, device.stream)
        result[moving] = device.download(embeddings).reshape(-1, *target.shape[1:])[:count]
    return result


def _encode(device: Device, engine: Engine, pictures: DeviceArray, noise: dict[int, Future], strength: float,
            report: Callable[[int, int], None]) -> np.ndarray:
    """Encode all pictures, those of moving tiles with their noise. float32 [V, 4, h, w]."""
    (source,), (target,), count = engine.inputs, engine.outputs, pictures.shape[0]
    batch = source.shape[0]
    with Scope(device) as scope:
        arrays = latent_arrays(source, target, count, pictures.shape[-1])
        noisy = _Noisy(scope, pictures, source.dtype)
        pixels, latents, events = scope.zeros(*arrays["pixels"]), scope.empty(*arrays["latents"]), []
        for g in range(latents.shape[0]):
            for i, v in enumerate(range(g * batch, min((g + 1) * batch, count))):
                noisy(v, noise.pop(v, None), strength, pixels[i])
            engine.run({source.name: pixels, target.name: latents[g]}, device.stream)
            events.append(device.event())
        for g, event in enumerate(events):
            device.wait(event)
            report(min((g + 1) * batch, count), count)
        return device.download(latents).reshape(-1, *target.shape[1:])[:count].astype(np.float32)


class _Noisy:
    """Write pictures into an engine's input, with noise or without."""

    def __init__(self, scope: Scope, pictures: DeviceArray, element: str) -> None:
        self._scale_into, self._add_noise = compiler.load_kernels(
            scope.device, "convert.cu", ("scale_into", "add_noise"), compiler.definitions(np.dtype(element).itemsize))
        self._device, self._pictures = scope.device, pictures
        self._noise = scope.empty(pictures.shape[1:], "float32")

    def __call__(self, v: int, drawn: Future | None, strength: float, target: DeviceArray) -> None:
        """Write tile v; enqueued, not waited for, but for the numbers to be drawn."""
        picture, grid = self._pictures[v], (blocks(target.size),)
        if drawn is None:
            self._scale_into(grid, THREADS, picture, target, np.int64(target.size), np.float32(1))
            return
        self._device.upload(drawn.result(), self._noise)
        self._add_noise(grid, THREADS, picture, self._noise, target, np.int64(target.size), np.float32(strength))
