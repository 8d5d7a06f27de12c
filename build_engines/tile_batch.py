"""Choose how many tiles run at once from the memory of a GPU, before anything is built.

Working memory was measured in float16, eager, at the full size of Stable Video Diffusion (14 frames, tiles of 512 px):
1.2, 2.2, 4.1 and 8.0 GiB for 1, 2, 4 and 8 rows of the denoiser, and 7.0 GiB for one tile of the decoder, each beyond its
weights; the denoiser at 96x96 and 128x128 latents and the decoder at 1024 px follow the same lines within 6 %:

    denoiser    0.25 GiB + 57 bytes x rows x latent pixels x frames x channels of its first block
    decoder     0.25 GiB + 16 bytes x tiles x pixels x frames x channels of its first block

Guidance doubles the rows of the denoiser. The encoder is taken for a decoder of one frame, which was not measured; the
image encoder's own is small. Compiled engines need less; what they do need is measured once they are built.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from pano4d.build_engines.checkpoint import Checkpoint
from pano4d.build_engines.networks import TileShape, network_specs
from pano4d.runtime.amounts import amount
from pano4d.runtime.backends.base import NETWORKS, TAIL, TensorSpec
from pano4d.runtime.backends.eager import CLASS_OF_PART, PART_OF_NETWORK
from pano4d.runtime.bundle import Bundle
from pano4d.runtime.errors import SettingsError
from pano4d.runtime.memory_plan import plan_memory
from pano4d.runtime.settings import AnimateSettings

BATCHES = (8, 4, 2, 1)
PLANNED_WIDTH = 4096
FIXED_BYTES = 2**28
UNET_BYTES, VAE_BYTES = 57, 16

_OF_THE_OTHER = {"vae_encoder": ("decoder.",), "vae_decoder": ("encoder.", "quant_conv.")}


def fitting_tile(checkpoint: Checkpoint, tile: TileShape, limit_bytes: int, precision: str,
                 typed: Callable[[list[TensorSpec]], list[TensorSpec]], batches: Sequence[int] = BATCHES,
                 tail: bool = False) -> TileShape:
    """Take the first tile batch with which a run fits into the memory of a GPU.

    Args:
        checkpoint: What is to be built.
        tile: Its shapes, but for the batch.
        limit_bytes: Memory of the GPU that a run may take.
        precision: ``fp16`` or ``fp32``.
        typed: Gives inputs or outputs of a network their element types.
        batches: Batches to try, the largest first.
        tail: Whether a denoiser for several tiles gets a second one, for one tile.

    Returns:
        The shapes, with that batch.

    Raises:
        SettingsError: None of them fits.
    """
    settings, needed = planned_run(tile), 0
    for batch in batches:
        tried = replace(tile, batch=batch)
        needed = plan_memory(planned_bundle(checkpoint, tried, precision, typed, tail), settings).in_chunks(1).peak_bytes
        if needed <= limit_bytes:
            return tried
    raise SettingsError(f"{settings.width}x{settings.height} with a tile batch of {batches[-1]} needs about "
                        f"{amount(needed)} of GPU memory, and --vram-limit is {amount(limit_bytes)}: choose a smaller "
                        f"{'--tile-px' if batches[-1] == 1 else '--tile-batch'}, or a larger --vram-limit.")


def planned_run(tile: TileShape) -> AnimateSettings:
    """Say what a bundle is chosen for: 4096x2048, or as much as tiles of this size are made for, all of it moving."""
    width = min(PLANNED_WIDTH, 32 * tile.px)
    return AnimateSettings(width=width, height=width // 2)


def planned_bundle(checkpoint: Checkpoint, tile: TileShape, precision: str,
                   typed: Callable[[list[TensorSpec]], list[TensorSpec]], tail: bool = False) -> Bundle:
    """Describe a bundle that is not built yet, as far as a plan of its memory needs; arguments as of `fitting_tile`.

    Returns:
        A bundle without files, its weights and working memory estimated.
    """
    weights, networks = weight_bytes(checkpoint, precision), {}
    for name, sides in network_specs(checkpoint, tile, tail).items():
        inputs, outputs = ([asdict(spec) for spec in typed(side)] for side in sides)
        networks[name] = {"file": name, "bytes": weights["unet" if name == TAIL else name], "inputs": inputs,
                          "outputs": outputs, "workspace_bytes": workspace_bytes(checkpoint, name, inputs, outputs, precision)}
    manifest = {"networks": networks, "tile": asdict(tile), "sampler": dict(checkpoint.sampler), "build": {}}
    return Bundle(checkpoint.weights.path, manifest, "")


def workspace_bytes(checkpoint: Checkpoint, network: str, inputs: list[dict], outputs: list[dict], precision: str) -> int:
    """Estimate what an engine needs beyond its weights, by the lines above.

    Args:
        checkpoint: Gives the channels of first blocks.
        network: Name of the network.
        inputs: Its inputs, as in a manifest.
        outputs: Its output.
        precision: ``fp16`` or ``fp32``, which takes twice the memory.

    Returns:
        Bytes.
    """
    if network == "image_encoder":
        return FIXED_BYTES
    of_unet = network in ("unet", TAIL)
    *rows, _, height, width = (inputs if network == "vae_encoder" else outputs)[0]["shape"]
    each = (UNET_BYTES if of_unet else VAE_BYTES) * checkpoint.widths["unet" if of_unet else "vae"]
    for size in (*rows, height, width):
        each *= size
    return FIXED_BYTES + each * (2 if precision == "fp32" else 1)


def weight_bytes(checkpoint: Checkpoint, precision: str) -> dict[str, int]:
    """Count the bytes of every network's weights, from the headers of the weight files.

    Args:
        checkpoint: The checkpoint.
        precision: ``fp32``, ``fp16`` or ``fp8``, whose matrices are counted as if they were float16.

    Returns:
        Bytes by network.
    """
    totals, size = dict.fromkeys(NETWORKS, 0), 4 if precision == "fp32" else 2
    for part in CLASS_OF_PART:
        for name, elements in checkpoint.weights.elements(part).items():
            for network in _networks_with(part, name):
                totals[network] += elements * size
    return totals


def _networks_with(part: str, weight: str) -> list[str]:
    """Name the networks that hold a weight."""
    return [network for network in NETWORKS if PART_OF_NETWORK[network] == part
            and not weight.startswith(_OF_THE_OTHER.get(network, "\0"))]
