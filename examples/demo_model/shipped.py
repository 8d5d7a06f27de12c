"""Offer the engines of a bundle as the networks that the measures take: what is shipped, not what was trained."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch

from pano4d.examples.demo_model.diffusion import CLIP_MEAN, CLIP_STD
from pano4d.runtime.backends import load_engine
from pano4d.runtime.backends.base import Engine
from pano4d.runtime.bundle import Bundle


class ShippedNetworks:
    """The networks of a bundle, with the calls of `networks.Networks` that measuring needs.

    Args:
        bundle: Engine bundle for the CPU.
        backend: Backend name; None for the bundle's own.

    Raises:
        BackendError: An engine does not load.
    """

    def __init__(self, bundle: Bundle, backend: str | None = None) -> None:
        self._engines = {name: load_engine(bundle, name, backend) for name in bundle.manifest["networks"]}
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
        config = SimpleNamespace(scaling_factor=bundle.sampler["scaling_factor"])
        self.unet, self.image_encoder = _Network(self._denoise), _Network(self._embed)
        self.vae = SimpleNamespace(encode=self._encode, decode=self._decode, config=config)

    def _denoise(self, sample, c_noise, embeddings, added_time_ids, return_dict=False):
        given = {"sample": sample, "c_noise": c_noise, "embeddings": embeddings, "added_time_ids": added_time_ids}
        return (run(self._engines["unet"], **given),)

    def _embed(self, normalised):
        pixels = (normalised * self._std + self._mean) * 2 - 1  # the engine normalises by itself
        return SimpleNamespace(image_embeds=run(self._engines["image_encoder"], pixels=pixels)[:, 0])

    def _encode(self, pixels):
        latents = run(self._engines["vae_encoder"], pixels=pixels)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))

    def _decode(self, latents, num_frames):
        pixels = run(self._engines["vae_decoder"], latents=latents.unflatten(0, (-1, num_frames)))
        return SimpleNamespace(sample=pixels.flatten(0, 1))


class _Network:
    """A function that looks like a module in float32."""

    dtype = torch.float32

    def __init__(self, call: Callable) -> None:
        self._call = call

    def __call__(self, *args, **options):
        return self._call(*args, **options)


def run(engine: Engine, **inputs: torch.Tensor) -> torch.Tensor:
    """Run an engine on any number of rows.

    Args:
        engine: Engine for the CPU with one output.
        **inputs: Its inputs by name. float32 [rows, ...] each.

    Returns:
        float32 [rows, ...].

    Raises:
        BackendError: An input is missing or of another shape.
    """
    buffers, (output,) = engine.allocate(), engine.outputs
    size, rows, made = output.shape[0], len(next(iter(inputs.values()))), []
    for start in range(0, rows, size):
        for name, values in inputs.items():
            part = values[start:start + size].numpy()
            buffers[name][:len(part)] = part
        engine.run(buffers)
        made.append(buffers[output.name][:rows - start].astype(np.float32))
    return torch.from_numpy(np.concatenate(made))
