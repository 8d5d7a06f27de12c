"""Prepare what the denoiser is told about each tile: its picture, its mask, its embedding."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from pano4d.runtime import device_conditions, image, tiles
from pano4d.runtime.backends import Engines
from pano4d.runtime.backends.base import Engine
from pano4d.runtime.device import Device, Scope
from pano4d.runtime.device_conditions import CLIP_PX
from pano4d.runtime.device_pipeline import engine_for_host
from pano4d.runtime.kernels.encode_cuda import encode_tiles
from pano4d.runtime.noise import augmentation_stream
from pano4d.runtime.settings import AnimateSettings


@dataclass(frozen=True)
class Conditions:
    """What the denoiser is told, tile by tile.

    Attributes:
        moving: Tiles that see a moving pixel. bool [V].
        masks: Mask channel of the denoiser, 1 = moves. float32 [V, T, h, w].
        latents: Image latents, unscaled. float32 [V, 4, h, w].
        embeddings: CLIP embeddings; zeros for still tiles. float32 [V, 1, D].
        time_ids: fps - 1, motion bucket, noise augmentation. float32 [3].
    """

    moving: np.ndarray
    masks: np.ndarray
    latents: np.ndarray
    embeddings: np.ndarray
    time_ids: np.ndarray


def mask_channel(shares: np.ndarray, frames: int, policy: str) -> np.ndarray:
    """Turn shares of moving pixels into the denoiser's mask channel.

    Args:
        shares: Share of moving pixels in each latent cell. float32 [V, h, w].
        frames: Number of frames T.
        policy: ``soft`` keeps the shares, in the first frame too; ``trained`` and ``freeze`` mark every
            cell that holds a moving pixel, and keep the first frame still, as in training.

    Returns:
        float32 [V, T, h, w].
    """
    channel = shares if policy == "soft" else (shares > 0).astype(np.float32)
    masks = np.repeat(channel[:, None].astype(np.float32), frames, axis=1)
    if policy != "soft":
        masks[:, 0] = 0.0
    return masks


def condition_tiles(engines: Engines, layout: tiles.Layout, panorama: np.ndarray, mask: np.ndarray,
                    settings: AnimateSettings, report=None, device: Device | None = None) -> Conditions:
    """Encode the upright picture of every tile.

    Still tiles keep a clean latent, since it stands in for their denoised estimate; the picture of a
    moving tile gets the noise the model was trained with.

    Args:
        engines: Engines of the bundle.
        layout: Tile layout of V tiles.
        panorama: uint8 [H, W, 3].
        mask: True where the picture may move. bool [H, W].
        settings: Resolved settings.
        report: Called with (done, total) after each tile.
        device: GPU that the engines run on; None for the CPU.

    Returns:
        Conditions of all tiles.

    Raises:
        BackendError: An engine does not load.
    """
    tile, report = engines.bundle.tile, report or (lambda done, total: None)
    if device is not None:
        told = device_conditions.encode(device, engines, layout, panorama, mask, settings, report)
        return _told(tile["frames"], settings, *told)
    pictures = _cut(panorama, layout, tile["px"], None)
    shares = tiles.tile_masks(mask, layout, tile["px"], tile["px"] // tile["latent_px"])
    moving = shares.reshape(layout.count, -1).any(axis=1)
    with engines.use("image_encoder") as engine:
        embeddings = _embed(engine, pictures, moving)
    augmented = pictures.copy()
    augmented[moving] += settings.noise_aug_strength * augmentation_stream(settings.seed).standard_normal(
        augmented[moving].shape, np.float32)
    with engines.use("vae_encoder") as engine:
        latents = _encode(engine, augmented, report)
    return _told(tile["frames"], settings, shares, latents, embeddings)


def _told(frames: int, settings: AnimateSettings, shares: np.ndarray, latents: np.ndarray, embeddings: np.ndarray) \
        -> Conditions:
    time_ids = np.array([settings.fps - 1, settings.motion_bucket_id, settings.noise_aug_strength], np.float32)
    masks = mask_channel(shares, frames, settings.mask_policy)
    return Conditions(shares.any(axis=(1, 2)), masks, latents, embeddings, time_ids)


def encode_video(engines: Engines, layout: tiles.Layout, moving: np.ndarray, frames: np.ndarray,
                 settings: AnimateSettings, report=None, device: Device | None = None) -> np.ndarray:
    """Encode every frame of a coarse panoramic video as the moving tiles see it.

    Args:
        engines: Engines of the bundle.
        layout: Tile layout of V tiles.
        moving: Tiles to encode. bool [V].
        frames: Coarse video of any size. uint8 [T, H, W, 3].
        settings: Give the size that the frames are brought to.
        report: Called with (done, total) tiles' frames.
        device: GPU that the engines run on; None for the CPU.

    Returns:
        Latents, unscaled. float32 [moving, T, 4, h, w].

    Raises:
        BackendError: The encoder does not load.
    """
    part = replace(layout, yaw_deg=layout.yaw_deg[moving], pitch_deg=layout.pitch_deg[moving])
    report, latents = report or (lambda done, total: None), []
    with engine_for_host(engines, "vae_encoder", device) as engine:
        for t, frame in enumerate(frames):
            whole = image.resize_panorama(frame, settings.height, settings.width)
            # One sample a pixel: an enlarged picture holds nothing that could alias.
            latents.append(_encode(engine, _cut(whole, part, engines.bundle.tile["px"], device, 1), lambda *_: None))
            report((t + 1) * part.count, len(frames) * part.count)
    return np.stack(latents, axis=1)


def batches(indices: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut tile indices into groups of at most ``size``."""
    return [indices[start:start + size] for start in range(0, len(indices), size)]


def _cut(panorama: np.ndarray, layout: tiles.Layout, size: int, device: Device | None,
         samples: int | None = None) -> np.ndarray:
    """Cut the tiles' pictures. float32 [V, 3, s, s] in -1..1."""
    if device is None:
        pictures = tiles.extract_tiles(panorama, layout, size, samples) / 127.5 - 1.0
        return np.ascontiguousarray(np.moveaxis(pictures, -1, 1), np.float32)
    with Scope(device) as scope:
        return device.download(scope.hold(encode_tiles(device, scope.upload(panorama), layout, size, samples)))


def _embed(engine: Engine, pictures: np.ndarray, moving: np.ndarray) -> np.ndarray:
    buffers = engine.allocate()
    result = np.zeros((len(pictures), *buffers["embeddings"].shape[1:]), np.float32)
    for group in batches(np.flatnonzero(moving), len(buffers["pixels"])):
        buffers["pixels"][:len(group)] = [_clip_picture(pictures[v]) for v in group]
        engine.run(buffers)
        result[group] = buffers["embeddings"][:len(group)]
    return result


def _clip_picture(picture: np.ndarray) -> np.ndarray:
    """Resize a tile's picture, float32 [3, s, s], to CLIP's input with antialiasing."""
    planes = [Image.fromarray(plane, "F").resize((CLIP_PX, CLIP_PX), Image.Resampling.BICUBIC)
              for plane in picture]
    return np.clip(np.stack([np.asarray(plane) for plane in planes]), -1.0, 1.0)


def _encode(engine: Engine, pictures: np.ndarray, report) -> np.ndarray:
    buffers = engine.allocate()
    result = np.zeros((len(pictures), *buffers["latents"].shape[1:]), np.float32)
    for group in batches(np.arange(len(pictures)), len(buffers["pixels"])):
        buffers["pixels"][:len(group)] = pictures[group]
        engine.run(buffers)
        result[group] = buffers["latents"][:len(group)]
        report(int(group[-1]) + 1, len(pictures))
    return result
