"""Plan the memory of a GPU before anything is loaded: what every stage of a run holds there, and the most at once.

Arrays are planned by the same lists of shapes by which `device_pipeline` takes them. What an engine needs beyond its
weights was measured when it was built (``workspace_bytes`` in the manifest); where it was not, it is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pano4d.runtime import schedule, tiles
from pano4d.runtime.backends import Engines
from pano4d.runtime.backends.base import TAIL, TensorSpec
from pano4d.runtime.bundle import Bundle
from pano4d.runtime.device import Arrays, total_bytes
from pano4d.runtime.device_conditions import embed_arrays, latent_arrays
from pano4d.runtime.device_pipeline import Denoising, decode_arrays, denoisers, fixed_arrays
from pano4d.runtime.errors import SettingsError
from pano4d.runtime.kernels.blend import most_neighbours
from pano4d.runtime.kernels.blend_cuda import StateShape
from pano4d.runtime.kernels.compose_cuda import ComposeShape, tiles_of_patches
from pano4d.runtime.kernels.encode_cuda import encode_arrays
from pano4d.runtime.kernels.noise_cuda import noise_arrays
from pano4d.runtime.settings import AnimateSettings

CONTEXT_BYTES = 768 * 2**20
"""What a process holds on a GPU whatever it computes: the driver's context, the kernels of torch, what its libraries keep.
An allowance, not measured, since it differs between GPUs and versions."""

@dataclass(frozen=True)
class StagePlan:
    """What one stage holds on the GPU.

    Attributes:
        name: Name of the stage.
        network: The engine that is loaded; None where there is none.
        weights_bytes: Its weights.
        workspace_bytes: What it needs beyond them, and a second engine of the same weights; None where that is unknown.
        parts: Bytes of the arrays of the pipeline, by what they are.
    """

    name: str
    network: str | None
    weights_bytes: int
    workspace_bytes: int | None
    parts: Mapping[str, int]

    @property
    def arrays_bytes(self) -> int:
        """All arrays of the pipeline."""
        return sum(self.parts.values())

    @property
    def engine_bytes(self) -> int:
        """The engine, as far as it is known."""
        return self.weights_bytes + (self.workspace_bytes or 0)

    @property
    def total_bytes(self) -> int:
        """Everything that is known."""
        return self.engine_bytes + self.arrays_bytes


@dataclass(frozen=True)
class MemoryPlan:
    """What a run holds on the GPU, stage by stage.

    Attributes:
        width: Width of the panorama.
        height: Height of the panorama.
        tiles: Tiles of the layout, V.
        moving_tiles: Tiles that are denoised.
        stages: In the order in which they run; one is over before the next begins.
        compose: Sizes of the last one.
        keep: Whether engines stay loaded from stage to stage, as in a ``with`` block of an Animator.
    """

    width: int
    height: int
    tiles: int
    moving_tiles: int
    stages: tuple[StagePlan, ...]
    compose: ComposeShape
    keep: bool = False

    @property
    def peak_bytes(self) -> int:
        """The most at once, the context included."""
        if self.keep:
            return CONTEXT_BYTES + sum(stage.engine_bytes for stage in self.stages) + max(
                stage.arrays_bytes for stage in self.stages)
        return CONTEXT_BYTES + max(stage.total_bytes for stage in self.stages)

    @property
    def unknown(self) -> list[str]:
        """Networks whose working memory was not measured."""
        return [stage.network for stage in self.stages if stage.network and stage.workspace_bytes is None]

    def in_chunks(self, chunk: int) -> MemoryPlan:
        """Plan to compose ``chunk`` frames at a time."""
        shape, last = replace(self.compose, chunk=chunk), self.stages[-1]
        return replace(self, stages=(*self.stages[:-1], replace(last, parts={**last.parts, **_compose_parts(shape)})),
                       compose=shape)

    def figures(self) -> dict:
        """Say it in plain figures, ready for JSON."""
        notes = [f"the working memory of {', '.join(self.unknown)} is unknown and not counted: a build on the GPU "
                 "measures it"] if self.unknown else []
        return {
            "size": f"{self.width}x{self.height}", "tiles": self.tiles, "moving_tiles": self.moving_tiles,
            "frames_at_a_time": self.compose.chunk, "context_bytes": CONTEXT_BYTES, "peak_bytes": self.peak_bytes,
            "notes": notes,
            "stages": [{"stage": stage.name, "network": stage.network, "weights_bytes": stage.weights_bytes,
                        "workspace_bytes": stage.workspace_bytes if stage.network else 0,
                        "arrays_bytes": stage.arrays_bytes, "total_bytes": stage.total_bytes} for stage in self.stages],
            "arrays": [{"stage": stage.name, "array": name, "size_bytes": size} for stage in self.stages
                       for name, size in stage.parts.items()],
        }


def plan_memory(bundle: Bundle, settings: AnimateSettings, moving_tiles: int | None = None, pixels: int | None = None,
                keep: bool = False) -> MemoryPlan:
    """Plan a run; nothing is loaded.

    Args:
        bundle: Engine bundle; only its manifest is read.
        settings: How to animate; what is None is taken from the bundle.
        moving_tiles: Tiles that see motion; None for all.
        pixels: Pixels that may move; None for all. With another mask policy than ``freeze`` all are composed.
        keep: Whether engines stay loaded from stage to stage.

    Returns:
        The plan; all frames are composed at once.

    Raises:
        SettingsError: There are not so many tiles or pixels, or no such layout.
        BundleError: The bundle has not all networks.
    """
    settings = settings.resolved(bundle.sampler)
    layout = tiles.chosen(settings.layout, settings.width, bundle.tile["px"])
    slots, height, width = layout.count if moving_tiles is None else moving_tiles, settings.height, settings.width
    if not 1 <= slots <= layout.count:
        raise SettingsError(f"{slots} moving tiles were asked for, and {width}x{height} has {layout.count} tiles of "
                            f"{bundle.tile['px']} px: give 1 to {layout.count}.")
    frozen = settings.mask_policy == "freeze"
    count = height * width if pixels is None or not frozen else max(1, pixels)
    decoding = decode_arrays(*_both(bundle, "vae_decoder"), slots)
    frames, listed = bundle.tile["frames"], len(tiles_of_patches(layout, height, width)[1])
    shape = ComposeShape(layout.count, listed, frames, height, width, count, frames)
    pixels_of_tiles = {"pixels": decoding.pop("pixels")}
    laid = {"decoded tiles": pixels_of_tiles, "panorama": {"panorama": ((height, width, 3), "uint8")}}
    if frozen:
        laid["weights of motion"] = {"weights": ((count,), "float32")}
    state = _state_shape(bundle, settings, layout, slots)
    # Which tiles move decides whether the second denoiser runs; one that was kept may be of another run.
    engines = ["unet", TAIL] if bundle.has_tail and (moving_tiles is None or keep) else denoisers(state)
    stages = (
        StagePlan("cut", None, 0, 0, _parts({"panorama and tiles": encode_arrays(
            layout.count, bundle.tile["px"], height, width)})),
        _stage(bundle, "embed", ["image_encoder"], {"tiles and buffers": embed_arrays(
            *_both(bundle, "image_encoder"), layout.count, slots, bundle.tile["px"])}),
        _stage(bundle, "encode", ["vae_encoder"], {"tiles and buffers": latent_arrays(
            *_both(bundle, "vae_encoder"), layout.count, bundle.tile["px"])}),
        StagePlan("noise", None, 0, 0, _parts({"noise": noise_arrays(
            layout, bundle.tile["latent_px"], frames, 4, settings.shared_noise)})),
        _stage(bundle, "denoise", engines, {"tile state": state.arrays(), "conditions": fixed_arrays(
            bundle.network("unet").inputs, settings.steps, state)}),
        _stage(bundle, "decode", ["vae_decoder"], {"decoded tiles": pixels_of_tiles, "buffers": decoding}),
        StagePlan("compose", None, 0, 0, {**_parts(laid), **_compose_parts(shape)}))
    return MemoryPlan(width, height, layout.count, slots, stages, shape, keep)


def _stage(bundle: Bundle, name: str, networks: Sequence[str], arrays: Mapping[str, Arrays]) -> StagePlan:
    """Plan a stage of one or more engines with the weights of the first."""
    record = bundle.manifest["networks"][networks[0]]
    # Kernels are small beside weights, where these lie in files of their own; else they are in the engine.
    beside = (".safetensors", ".onnx", ".data")
    files = [extra for extra in record.get("extra_files", ()) if extra["file"].endswith(beside)] or [record]
    # Engines share the memory of their graphs, but each first runs without one, beside the graph of the other.
    needs = [bundle.manifest["networks"][network].get("workspace_bytes") for network in networks]
    return StagePlan(name, networks[0], sum(file["bytes"] for file in files), None if None in needs else sum(needs),
                     _parts(arrays))


def _state_shape(bundle: Bundle, settings: AnimateSettings, layout: tiles.Layout, slots: int) -> StateShape:
    guided = bundle.sampler["max_guidance_scale"] > 1.0
    what = Denoising(Engines(bundle), layout, settings, guided,
                     schedule.noise_levels(settings.levels, settings.steps, bundle.sampler))
    return what.shape(np.arange(layout.count) < slots, max(1, most_neighbours(layout, bundle.tile["latent_px"])))


def _both(bundle: Bundle, network: str) -> tuple[TensorSpec, TensorSpec]:
    """Give the one input and the one output."""
    (source,), (target,) = bundle.network(network).inputs, bundle.network(network).outputs
    return source, target


def _compose_parts(shape: ComposeShape) -> dict[str, int]:
    arrays = shape.arrays()
    return _parts({"frames": {"frames": arrays.pop("frames")}, "compose buffers": arrays})


def _parts(arrays: Mapping[str, Arrays]) -> dict[str, int]:
    return {part: total_bytes(listed) for part, listed in arrays.items()}
