"""State the networks of a bundle: tensor names, fixed shapes, example inputs, modules to export."""

from dataclasses import dataclass

import numpy as np
from torch import nn

from pano4d.build_engines.checkpoint import CLIP_PX, Checkpoint
from pano4d.runtime.backends.base import TAIL, TensorSpec
from pano4d.runtime.backends.eager import PART_OF_NETWORK, wrap
from pano4d.runtime.errors import CheckpointError


@dataclass(frozen=True)
class TileShape:
    """Fix every shape of a bundle.

    Attributes:
        px: Side of a tile in pixels.
        latent_px: Side of a tile's latent.
        frames: Frames T.
        batch: Tiles run at once; the decoder takes one.
    """

    px: int
    latent_px: int
    frames: int
    batch: int


def tile_shape(checkpoint: Checkpoint, tile_px: int | None, frames: int | None, batch: int) -> TileShape:
    """Choose the shapes of a bundle.

    Args:
        checkpoint: Gives what is None.
        tile_px: Side of a tile in pixels.
        frames: Frames T.
        batch: Tiles run at once.

    Returns:
        The shapes.

    Raises:
        CheckpointError: The networks cannot run at this size.
    """
    px, frames = tile_px or checkpoint.tile_px, frames or checkpoint.frames
    step = checkpoint.factor * checkpoint.multiple
    if px < step or px % step:
        raise CheckpointError(f"Tiles of {px} px do not fit this model, whose tiles are a multiple of {step} px: try "
                              f"--tile-px {max(step, px // step * step)}.")
    if frames < 1 or batch < 1:
        raise CheckpointError(f"{frames} frames in batches of {batch} were asked for: both must be at least 1.")
    return TileShape(px, px // checkpoint.factor, frames, batch)


def network_specs(checkpoint: Checkpoint, tile: TileShape, tail: bool = False) \
        -> dict[str, tuple[list[TensorSpec], list[TensorSpec]]]:
    """Name the tensors of every network.

    Args:
        checkpoint: Gives channels, the size of the embedding, and whether guidance doubles the batch.
        tile: Gives the shapes.
        tail: Whether a denoiser for several tiles gets a second one, for one tile, after it.

    Returns:
        Inputs and outputs of each network, in the order of its module's arguments.
    """
    px, cells, frames, batch = tile.px, tile.latent_px, tile.frames, tile.batch
    halves, size = 2 if checkpoint.sampler["max_guidance_scale"] > 1.0 else 1, checkpoint.embedding
    denoisers = {"unet": batch * halves} | ({TAIL: halves} if tail and batch > 1 else {})
    return {
        "image_encoder": ([_spec("pixels", batch, 3, CLIP_PX, CLIP_PX)], [_spec("embeddings", batch, 1, size)]),
        "vae_encoder": ([_spec("pixels", batch, 3, px, px)], [_spec("latents", batch, 4, cells, cells)]),
        **{name: ([_spec("sample", rows, frames, checkpoint.channels, cells, cells), _spec("c_noise", rows),
                   _spec("embeddings", rows, 1, size), _spec("added_time_ids", rows, 3)],
                  [_spec("v", rows, frames, 4, cells, cells)]) for name, rows in denoisers.items()},
        # The clip of one tile fills a GPU, and each one more would take another 7 GiB.
        "vae_decoder": ([_spec("latents", 1, frames, 4, cells, cells)], [_spec("pixels", 1, frames, 3, px, px)]),
    }


def example_inputs(specs: list[TensorSpec], seed: int = 0) -> dict[str, np.ndarray]:
    """Draw inputs of the size that a network sees in use.

    Args:
        specs: Inputs of one network.
        seed: Seed of the draw.

    Returns:
        One array per input, by name.
    """
    generator = np.random.default_rng(seed)
    draw = {
        "pixels": lambda shape: np.tanh(generator.standard_normal(shape)),
        "c_noise": lambda shape: np.linspace(-0.5, 1.0, *shape),
        "added_time_ids": lambda shape: np.tile([6.0, 127.0, 0.02], (shape[0], 1)),
    }
    return {spec.name: draw.get(spec.name, generator.standard_normal)(spec.shape).astype(spec.dtype) for spec in specs}


def reference_module(checkpoint: Checkpoint, network: str) -> nn.Module:
    """Load a network as diffusers computes it.

    Args:
        checkpoint: Where its weights lie.
        network: Name of the network.

    Returns:
        Module in float32 whose forward takes the network's inputs in order.

    Raises:
        CheckpointError: Its part does not load.
    """
    assert network in PART_OF_NETWORK
    part = checkpoint.weights.module(PART_OF_NETWORK[network])
    return wrap(network, part, list(checkpoint.image_mean), list(checkpoint.image_std))


def _spec(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, "float32", shape)
