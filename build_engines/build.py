"""Build an engine bundle from a checkpoint."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pano4d.build_engines.checkpoint import Checkpoint, read_checkpoint
from pano4d.build_engines.networks import TileShape, example_inputs, network_specs, reference_module, tile_shape
from pano4d.build_engines.publish import built_already, staged, write_manifest
from pano4d.build_engines.recipes import Progress, Recipe, recipe_of
from pano4d.build_engines.tile_batch import BATCHES, fitting_tile
from pano4d.build_engines.verify import verify_network
from pano4d.runtime.backends.base import TAIL, TensorSpec
from pano4d.runtime.bundle import SCHEMA_VERSION, Bundle, file_record
from pano4d.runtime.errors import SettingsError

DENOISERS = ("unet", TAIL)
RECIPE = 7
"""Raised whenever this code builds other engines from the same input."""

Exporter = Callable[[list[str], Path, Checkpoint, TileShape], Iterator[tuple[str, list[Path]]]]
"""Writes networks into a folder, and gives the name and the files of each as they are done."""


def build_bundle(checkpoint: str | Path, out: str | Path, backend: str = "onnxruntime", precision: str = "fp16",
                 tile_px: int | None = None, frames: int | None = None, tile_batch: int | None = None, force: bool = False,
                 max_guidance_scale: float | None = None, progress: Progress | None = None, device: str | None = None,
                 options: Mapping[str, Any] | None = None, vram_limit_bytes: int | None = None,
                 jobs: int = 1, unet: str | Path | None = None, loras: Iterable[str] = (),
                 calibration: Iterable[str | Path] = ()) -> Bundle:
    """Export the networks of a checkpoint, compare them with it, and put the bundle in its place.

    On a GPU a denoiser for several tiles gets a second one beside it, for one tile and with the same weights.
    The same input and versions give the same key; a folder that already holds this key is left as it is.

    Args:
        checkpoint: Folder in the layout of diffusers, or a single .safetensors file in the layout of Stability AI.
        out: Folder of the bundle.
        backend: What will run the engines.
        precision: ``fp16`` or ``fp32``: how the weights are stored, and what a GPU computes in; ``fp8``: as ``fp16``, but
            for the denoiser's matrix products, for ``aotinductor`` and ``tensorrt`` on a GPU that has them; of ``tensorrt``
            its convolutions too.
        tile_px: Side of a tile in pixels; None for the checkpoint's.
        frames: Frames T; None for the checkpoint's.
        tile_batch: Tiles run at once; guidance doubles it. None for 1, or with a limit for as many as fit.
        force: Replace another bundle in ``out``.
        max_guidance_scale: Recommended guidance of the last frame; at most 1 builds a denoiser without the
            unconditional half. None for the checkpoint's.
        progress: Called with stage, done, total.
        device: What ``aotinductor`` compiles for, ``cuda`` or ``cpu``; None for the GPU where torch sees one.
        options: Options of Inductor for ``aotinductor``, by its own names, such as ``max_autotune``; for ``tensorrt``
            those of ``PlanOptions``, such as ``strip``.
        vram_limit_bytes: Memory of the GPU that a run at 4096x2048 may take; None for all there is.
        jobs: Networks exported at once, each by a process of its own, which takes the memory of its network.
        unet: A .safetensors file with a denoiser that takes the place of the checkpoint's, such as AnimateLCM's.
        loras: LoRA that are merged into the denoiser, each as FILE or FILE:SCALE.
        calibration: Panoramas on which ``tensorrt`` finds the scales of ``fp8``; none for one that is drawn.

    Returns:
        The bundle, opened.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        BackendError: No such backend, or an engine differs from the checkpoint.
        BundleError: Something else lies in ``out``, or it cannot be written.
        InputError: A panorama of the calibration cannot be used.
        SettingsError: No tile batch fits into the limit, or the engines do not run on a GPU, or must be built one by one.
    """
    recipe = recipe_of(backend, precision, device, options, calibration)
    if jobs > 1 and backend == "tensorrt":
        raise SettingsError(f"--jobs {jobs} would time plans of TensorRT while others run on the same GPU: leave --jobs out.")
    source = read_checkpoint(checkpoint, unet, loras)
    if max_guidance_scale is not None:
        source = _guided(source, max_guidance_scale)
    tile = tile_shape(source, tile_px, frames, 1 if tile_batch is None else tile_batch)
    if vram_limit_bytes is not None:
        if recipe.target["device"] != "cuda":
            raise SettingsError("--vram-limit plans engines for a GPU, and these run elsewhere: leave it out, or build with "
                                "--backend aotinductor --device cuda.")
        tile = fitting_tile(source, tile, vram_limit_bytes, precision, recipe.typed,
                            BATCHES if tile_batch is None else (tile_batch,), recipe.tail)
    manifest = describe(source, tile, backend, precision, recipe)
    out = Path(out)
    there = built_already(out, manifest["key"], force)
    if there is None:
        with staged(out) as folder:
            tell = progress or _silent
            _fill(folder, manifest, source, tile, recipe,
                  _exporter(recipe, (backend, precision, device, options), jobs, tell), tell)
        there = Bundle.open(out)
    return there


def describe(source: Checkpoint, tile: TileShape, backend: str, precision: str,
             recipe: Recipe | None = None) -> dict[str, Any]:
    """Write all of a manifest that is known before the engines are built.

    Args:
        source: The checkpoint.
        tile: The shapes.
        backend: What will run the engines.
        precision: ``fp16`` or ``fp32``.
        recipe: How they are built; None for the backend's recipe on this machine.

    Returns:
        A manifest whose ``networks`` and ``parity`` are empty. Nothing in it says where or when it was made.

    Raises:
        BackendError: There is no such backend or precision.
    """
    recipe = recipe or recipe_of(backend, precision)
    merged = [lora.record for lora in source.weights.loras]
    options = {"backend": backend, "precision": precision, "tile": asdict(tile), "recipe": RECIPE,
               "sampler": source.sampler, **recipe.options, **({"loras": merged} if merged else {})}
    decisive = json.dumps({"files": source.files, "options": options, "versions": recipe.versions}, sort_keys=True)
    more = [f"--unet {source.weights.inside['unet'].path.name} "] if source.unet_replaced else []
    more += [f"--lora {lora['file']}:{lora['scale']:g} " for lora in merged]
    command = (f"pano4d build {source.source} {''.join(more)}--backend {backend} --precision {precision} "
               f"{'--device ' + recipe.target['device'] + ' ' if backend == 'aotinductor' else ''}"
               f"--tile-px {tile.px} --frames {tile.frames} --tile-batch {tile.batch}{recipe.command}")
    return {
        "schema_version": SCHEMA_VERSION, "key": hashlib.sha256(decisive.encode()).hexdigest(),
        "model": {"name": source.name, "source": source.source, "license": source.license,
                  "license_from": source.license_from, "masked": source.channels == 9, "image_mean": source.image_mean, "image_std": source.image_std,
                  **({"loras": merged} if merged else {})},
        "weights": source.weight_files, "networks": {}, "tile": asdict(tile), "sampler": dict(source.sampler),
        "precision": dict(recipe.precision),
        "backend": {"name": backend, "version": recipe.version},
        "target": dict(recipe.target),
        "build": {"options": options, "versions": dict(recipe.versions), "command": command},
        "parity": {},
    }


def _guided(source: Checkpoint, highest: float) -> Checkpoint:
    lowest = min(source.sampler["min_guidance_scale"], highest)
    return replace(source, sampler=dict(source.sampler) | {"min_guidance_scale": float(lowest),
                                                           "max_guidance_scale": float(highest)})


def _fill(folder: Path, manifest: dict[str, Any], source: Checkpoint, tile: TileShape, recipe: Recipe,
          export: Exporter, progress: Progress) -> None:
    """Write engines and manifest into an empty folder."""
    specs, files = network_specs(source, tile, recipe.tail), {}
    progress("export", 0, len(specs))
    for name, written in export(list(specs), folder, source, tile):
        files[name] = written
        progress("export", len(files), len(specs))
    if TAIL in specs:
        from pano4d.build_engines.aot_export import share_weights

        files[TAIL][1] = share_weights(files[TAIL][1], files["unet"][1])
    for name in specs:
        records = [file_record(folder, path.name) for path in files[name]]
        inputs, outputs = map(recipe.typed, specs[name])
        manifest["networks"][name] = {**records[0], "extra_files": records[1:], "inputs": _records(inputs),
                                      "outputs": _records(outputs)}
    bundle = write_manifest(folder, manifest)
    for done, name in enumerate(specs):
        progress("verify", done, len(specs))
        precision = manifest["build"]["options"]["precision"]
        # No other network has anything in fp8.
        figures = verify_network(bundle, source, name, "fp16" if precision == "fp8" and name not in DENOISERS else precision)
        if "workspace_bytes" in figures:
            manifest["networks"][name]["workspace_bytes"] = figures.pop("workspace_bytes")
        manifest["parity"][name] = figures
    progress("verify", len(specs), len(specs))
    write_manifest(folder, manifest)


def _silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


def _exporter(recipe: Recipe, asked: tuple, jobs: int, progress: Progress = _silent) -> Exporter:
    """Say how networks are exported: here, or by so many processes that find the recipe again."""
    def here(names: list[str], folder: Path, source: Checkpoint, tile: TileShape) -> Iterator[tuple[str, list[Path]]]:
        for name in names:
            yield name, _export(recipe, name, folder, source, tile, progress)

    def elsewhere(names: list[str], folder: Path, source: Checkpoint, tile: TileShape) -> Iterator[tuple[str, list[Path]]]:
        with ProcessPoolExecutor(min(jobs, len(names)), get_context("spawn")) as pool:
            waiting = {pool.submit(_export_asked, asked, name, folder, source, tile): name for name in names}
            try:
                for done in as_completed(waiting):
                    yield waiting[done], done.result()
            finally:
                pool.shutdown(cancel_futures=True)

    return here if jobs == 1 else elsewhere


def _export(recipe: Recipe, name: str, folder: Path, source: Checkpoint, tile: TileShape,
            progress: Progress = _silent) -> list[Path]:
    inputs, outputs = map(recipe.typed, network_specs(source, tile, recipe.tail)[name])
    module = recipe.cheaper(reference_module(source, name), tile.frames)
    known = [recipe.calibrate(module, source, tile)] if recipe.calibrate and name == "unet" else []
    return recipe.export(module, example_inputs(inputs), outputs, folder / f"{name}{recipe.suffix}", progress, *known)


def _export_asked(asked: tuple, *what: Any) -> list[Path]:
    return _export(recipe_of(*asked), *what)


def _records(specs: list[TensorSpec]) -> list[dict[str, Any]]:
    return [asdict(spec) | {"shape": list(spec.shape)} for spec in specs]
