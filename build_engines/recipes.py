"""Say what differs between the backends that can be built for: options, target, element types, the exporter."""

import importlib.metadata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from pano4d.build_engines.channels_last import keep_channels_last
from pano4d.build_engines.checkpoint import Checkpoint
from pano4d.build_engines.networks import TileShape
from pano4d.build_engines.plan_options import NAMES, PlanOptions
from pano4d.build_engines.shortcuts import simplify
from pano4d.runtime.backends import BACKENDS
from pano4d.runtime.backends.base import TensorSpec
from pano4d.runtime.errors import BackendError

BUILDABLE = ("onnxruntime", "tensorrt", "aotinductor")
PRECISIONS = ("fp32", "fp16", "fp8")
FP8_CAPABILITY = (8, 9)
_NO_FP8 = "The GPU {} computes nothing in fp8: choose --precision fp16, or a GPU of compute capability {}.{} or newer."


Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Recipe:
    """How engines of one backend are built.

    Attributes:
        suffix: Suffix of engine files.
        version: Version of the backend.
        versions: Versions of the packages that decide the result.
        options: Options that decide the result.
        precision: The manifest's ``precision`` block.
        target: The manifest's ``target`` block.
        cheaper: Rewrites a module of diffusers into one that computes the same, given the frames of a clip; in place.
        typed: Gives inputs or outputs of a network their element types.
        export: Called with module, example inputs, outputs, path and a function to tell phase, done and total; writes the
            engine and returns its files, the engine first, its weights next where they have a file of their own. With a
            ``calibrate``, its result is one argument more for the denoiser.
        tail: Whether a denoiser for several tiles gets a second one beside it, for one tile, which shares its weights.
        command: What the command line was given of the options; begins with a space unless it is empty.
        calibrate: Given the denoiser as it will be exported, the checkpoint and the shapes: what its export must know of
            the values that it computes with. None where nothing has to be known.
    """

    suffix: str
    version: str
    versions: Mapping[str, str]
    options: Mapping[str, Any]
    precision: Mapping[str, str]
    target: Mapping[str, Any]
    cheaper: Callable[[nn.Module, int], nn.Module]
    typed: Callable[[list[TensorSpec]], list[TensorSpec]]
    export: Callable[..., list[Path]]
    tail: bool = False
    command: str = ""
    calibrate: Callable[[nn.Module, Checkpoint, TileShape], Any] | None = None


def recipe_of(backend: str, precision: str, device: str | None = None,
              options: Mapping[str, Any] | None = None, calibration: Iterable[str | Path] = ()) -> Recipe:
    """Find the recipe of a backend; only what it needs is imported.

    Args:
        backend: One of ``BUILDABLE``.
        precision: One of ``PRECISIONS``.
        device: For ``aotinductor``, ``cuda`` or ``cpu``; None for the GPU where torch sees one.
        options: For ``aotinductor``, further options of Inductor by its own names; for ``tensorrt``, those of
            ``PlanOptions``.
        calibration: For ``tensorrt`` in ``fp8``, panoramas to find the range of values on; none for one that is drawn.

    Returns:
        The recipe.

    Raises:
        BackendError: There is no such backend, precision, device or option, or nothing to calibrate.
        InputError: A panorama cannot be used.
    """
    if backend not in BUILDABLE:
        known = "there is nothing to build for it" if backend in BACKENDS else "there is no such backend"
        raise BackendError(f"No bundle can be built for the backend {backend!r}, since {known}: choose one of "
                           f"{', '.join(BUILDABLE)} with --backend.")
    if precision not in PRECISIONS:
        raise BackendError(f"There is no precision {precision!r}: choose one of {', '.join(PRECISIONS)} with "
                           "--precision.")
    plan = sorted(NAMES & set(options or {}))
    if plan and backend != "tensorrt":
        raise BackendError(f"--{plan[0].removesuffix('_bytes').replace('_', '-')} is an option of plans, and the backend is "
                           f"{backend!r}: leave it out, or build with --backend tensorrt.")
    calibration = list(calibration)
    if calibration and (backend, precision) != ("tensorrt", "fp8"):
        raise BackendError(f"--calibration finds scales for fp8 of tensorrt, and {precision} of {backend} has none: leave it "
                           "out, or build with --backend tensorrt --fp8.")
    if backend == "aotinductor":
        return _aotinductor(precision, device, options)
    if backend == "tensorrt":
        return _tensorrt(precision, device, options, calibration)
    if precision == "fp8":
        raise BackendError(f"The backend {backend!r} does not compute in fp8: choose --precision fp16, or --backend "
                           "tensorrt or aotinductor with a GPU.")
    if device or options:
        raise BackendError(f"The backend {backend!r} takes neither a device nor options of a compiler: leave them out, or "
                           "build with --backend aotinductor.")
    return _onnxruntime(precision)


def _onnxruntime(precision: str) -> Recipe:
    from pano4d.build_engines.onnx_export import OPSET, export_onnx
    from pano4d.build_engines.onnx_export import PRECISIONS as BLOCKS
    from pano4d.runtime.backends.onnxruntime_ import import_onnxruntime

    versions = _versions("torch", "diffusers", "transformers", "onnx", "onnxscript", "onnx-ir")
    # The package for the GPU takes the other's place, under a name of its own.
    versions["onnxruntime"] = import_onnxruntime().__version__

    def export(module: nn.Module, inputs: dict[str, np.ndarray], outputs: list[TensorSpec], path: Path,
               progress: Progress) -> list[Path]:
        return export_onnx(module, inputs, outputs, path, precision)

    return Recipe(".onnx", versions["onnxruntime"], versions, {"opset": OPSET}, BLOCKS[precision],
                  {"device": "any", "opset": OPSET}, _simplify, lambda specs: specs, export)


def _tensorrt(precision: str, device: str | None, options: Mapping[str, Any] | None, pictures: list[str | Path]) -> Recipe:
    from pano4d.build_engines.aot_export import driver_version, precision_block, typed_specs
    from pano4d.build_engines.onnx_export import OPSET
    from pano4d.build_engines.tensorrt_build import build_plan
    from pano4d.build_engines.typed_onnx import export_typed
    from pano4d.runtime.backends.tensorrt_bindings import find
    from pano4d.runtime.backends.tensorrt_target import this_machine

    if device == "cpu":
        raise BackendError("Plans of TensorRT are for a GPU: leave --device out, or build with --backend onnxruntime.")
    chosen, version, machine = PlanOptions.of(options or {}), find().__version__, this_machine()
    calibration = None
    if precision == "fp8":
        from pano4d.build_engines.calibration import Calibration

        capability = machine["compute_capability"]
        if tuple(map(int, capability.split("."))) < FP8_CAPABILITY:
            raise BackendError(_NO_FP8.format(machine["gpu"], *FP8_CAPABILITY))
        calibration = Calibration.of(pictures)

    def export(module: nn.Module, inputs: dict[str, np.ndarray], outputs: list[TensorSpec], path: Path,
               progress: Progress, ranges: Any = None) -> list[Path]:
        stored = "fp16" if precision == "fp8" else precision
        files = export_typed(module, inputs, outputs, path.with_suffix(".onnx"), stored, ranges)
        build_plan(files[0], path, chosen, precision == "fp32", machine["gpu"], progress)
        if chosen.strip:
            return [path, *files]
        for file in files:
            file.unlink()
        return [path]

    versions = _versions("torch", "diffusers", "transformers", "onnx", "onnxscript", "onnx-ir")
    # The same plans come of another card of the same kind, and of another driver.
    decisive = {"opset": OPSET, "plan": asdict(chosen), "compute_capability": machine["compute_capability"],
                "tensorrt": version, **({"calibration": calibration.block()} if calibration else {})}
    given = "".join(f" --calibration {picture['name']}" for picture in calibration.named) if pictures else ""
    # A plan holds its weights: a second denoiser would hold them twice on the GPU, so there is none.
    return Recipe(".plan", version, versions, decisive, precision_block(precision, "cuda"),
                  machine | {"driver": driver_version(), "plan": chosen.block()}, _simplify,
                  partial(typed_specs, precision=precision, device="cuda"), export, command=chosen.command() + given, calibrate=calibration.ranges if calibration else None)


def _aotinductor(precision: str, device: str | None, options: Mapping[str, Any] | None) -> Recipe:
    import torch

    from pano4d.build_engines import aot_export

    device = aot_export.compile_device(device)
    chosen = aot_export.inductor_options(device, options=options)
    if precision == "fp8" and device != "cuda":
        raise BackendError("Products in fp8 were asked for, and engines for a CPU: choose --precision fp16, or build on a "
                           "machine with a GPU.")
    if precision == "fp8" and torch.cuda.get_device_capability() < FP8_CAPABILITY:
        raise BackendError(_NO_FP8.format(torch.cuda.get_device_name(), *FP8_CAPABILITY))

    def export(module: nn.Module, inputs: dict[str, np.ndarray], outputs: list[TensorSpec], path: Path,
               progress: Progress) -> list[Path]:
        return aot_export.export_aot(module, inputs, path, precision, device, chosen)

    versions = _versions("torch", "diffusers", "transformers")
    target = aot_export.target_block(device)
    # The same engines come of another card of the same kind, and of another driver.
    decisive = {"inductor": chosen, "target": {name: target[name] for name in target if name not in ("gpu", "driver")}}
    return Recipe(".pt2", versions["torch"], versions, decisive, aot_export.precision_block(precision, device), target,
                  keep_channels_last if device == "cuda" else _simplify,
                  partial(aot_export.typed_specs, precision=precision, device=device), export, tail=device == "cuda")


def _simplify(module: nn.Module, frames: int) -> nn.Module:
    return simplify(module)


def _versions(*names: str) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in names}
