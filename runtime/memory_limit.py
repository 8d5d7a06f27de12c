"""Keep a run within a limit of GPU memory, or refuse it before anything is loaded and say what would fit."""

from collections.abc import Mapping
from dataclasses import replace

from pano4d.runtime.amounts import amount
from pano4d.runtime.backends.base import TAIL
from pano4d.runtime.bundle import Bundle
from pano4d.runtime.errors import SettingsError
from pano4d.runtime.memory_plan import MemoryPlan, plan_memory
from pano4d.runtime.settings import AnimateSettings

LOWEST = 256
"""Height of the smallest panorama that is offered in place of one that does not fit."""


def fit_memory(bundle: Bundle, settings: AnimateSettings, limit_bytes: int, moving_tiles: int | None = None,
               pixels: int | None = None, keep: bool = False) -> MemoryPlan:
    """Plan a run within a limit, composing as few frames at a time as that takes.

    Args:
        bundle: Engine bundle; only its manifest is read.
        settings: How to animate; what is None is taken from the bundle.
        limit_bytes: Memory of the GPU that may be used.
        moving_tiles: Tiles that see motion; None for all.
        pixels: Pixels that may move; None for all.
        keep: Whether engines stay loaded from stage to stage.

    Returns:
        The plan; ``compose.chunk`` says how many frames to compose at a time.

    Raises:
        SettingsError: It does not fit; says what would.
    """
    plan = plan_memory(bundle, settings, moving_tiles, pixels, keep)
    least = plan.in_chunks(1)
    if least.peak_bytes > limit_bytes:
        raise SettingsError(_refusal(bundle, settings, limit_bytes, least))
    return next(fitting for fitting in map(plan.in_chunks, range(plan.compose.frames, 0, -1))
                if fitting.peak_bytes <= limit_bytes)


def fits(bundle: Bundle, settings: AnimateSettings, limit_bytes: int, keep: bool = False) -> bool:
    """Say whether a run in which everything moves fits; arguments as of `fit_memory`."""
    return plan_memory(bundle, settings, keep=keep).in_chunks(1).peak_bytes <= limit_bytes


def with_tile_batch(bundle: Bundle, batch: int) -> Bundle:
    """Describe the bundle that a build with another tile batch would make, its working memory in proportion.

    Args:
        bundle: The bundle.
        batch: Tiles run at once.

    Returns:
        A bundle to plan with; there are no files.
    """
    def scaled(size: int) -> int:
        return max(1, size * batch // bundle.tile["batch"])

    def resized(name: str, network: Mapping) -> dict:
        if name == TAIL or network["inputs"][0]["shape"][0] % bundle.tile["batch"]:
            return dict(network)  # it takes one tile at a time, whatever the batch, as the decoder does
        sides = {side: [spec | {"shape": [scaled(spec["shape"][0]), *spec["shape"][1:]]} for spec in network[side]]
                 for side in ("inputs", "outputs")}
        known = network.get("workspace_bytes")
        return {**network, **sides, **({} if known is None else {"workspace_bytes": scaled(known)})}

    networks = {name: resized(name, network) for name, network in bundle.manifest["networks"].items()
                if name != TAIL or batch > 1}
    manifest = {**bundle.manifest, "networks": networks, "tile": {**bundle.tile, "batch": batch}}
    return Bundle(bundle.path, manifest, bundle.sha256)


def _refusal(bundle: Bundle, settings: AnimateSettings, limit_bytes: int, plan: MemoryPlan) -> str:
    """Say in one sentence by how much a run is too large, and what would fit."""
    worst = max(plan.stages, key=lambda stage: stage.total_bytes)
    offers = [offer for find in (_smaller_size, _smaller_batch) for offer in find(bundle, settings, limit_bytes, plan.keep)]
    return (f"{plan.width}x{plan.height} needs {'at least ' if plan.unknown else ''}{amount(plan.peak_bytes)} of GPU memory "
            f"with this bundle, most of it to {worst.name}, and --vram-limit is {amount(limit_bytes)}: "
            + (" or ".join(offers) if offers else "no smaller size or tile batch fits, so raise --vram-limit") + ".")


def _smaller_size(bundle: Bundle, settings: AnimateSettings, limit_bytes: int, keep: bool) -> list[str]:
    height = settings.height // 2
    while height >= LOWEST:
        if fits(bundle, replace(settings, width=2 * height, height=height), limit_bytes, keep):
            return [f"use --size {2 * height}x{height}"]
        height //= 2
    return []


def _smaller_batch(bundle: Bundle, settings: AnimateSettings, limit_bytes: int, keep: bool) -> list[str]:
    for batch in (4, 2, 1):
        if batch < bundle.tile["batch"] and fits(with_tile_batch(bundle, batch), settings, limit_bytes, keep):
            command = bundle.manifest["build"].get("command") or "pano4d build CHECKPOINT"
            return [f"build a bundle with `{command.partition(' --tile-batch')[0]} --tile-batch {batch} --out DIR`"]
    return []
