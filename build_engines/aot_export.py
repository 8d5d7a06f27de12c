"""Compile a network ahead of time with torch.export and AOTInductor: kernels in a .pt2 package, weights beside it.

Weights outside the package make it small, load quickly, and serve several engines at once. float16 is what a GPU computes
in; on a CPU, as in ``onnx_export``, it is a way of storing, and the backend widens the weights when it reads them.
"""

import difflib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from pano4d.build_engines.fp8 import use_fp8
from pano4d.runtime.backends.aotinductor import STRIDES, Package, this_machine
from pano4d.runtime.backends.base import TensorSpec
from pano4d.runtime.backends.eager import quiet
from pano4d.runtime.errors import BackendError

FLOAT32_ALWAYS = ("c_noise", "added_time_ids")
"""Inputs that stay float32: rounded to float16, a noise level would lose what tells two steps apart."""

HALF = ("fp16", "fp8")
"""Precisions that a GPU computes in float16, but for matrix products in fp8."""

_OUTSIDE = {"aot_inductor.package_constants_in_so": False, "always_keep_tensor_constants": True}


def compile_device(device: str | None = None) -> str:
    """Choose what to compile for.

    Args:
        device: ``cuda`` or ``cpu``; None for the GPU where torch sees one.

    Returns:
        ``cuda`` or ``cpu``.

    Raises:
        BackendError: No such device is here.
    """
    there = torch.cuda.is_available()
    if device not in (None, "cpu", "cuda") or (device == "cuda" and not there):
        raise BackendError(f"Engines for {device!r} were asked for, and torch {torch.__version__} sees "
                           f"{'a GPU' if there else 'no GPU'}: build for {'cuda or cpu' if there else 'cpu'}, or on "
                           "another machine.")
    return device or ("cuda" if there else "cpu")


def computes_in_half(precision: str, device: str) -> bool:
    """Say whether an engine computes in float16, rather than only storing its weights so."""
    return precision in HALF and device == "cuda"


def typed_specs(specs: list[TensorSpec], precision: str, device: str) -> list[TensorSpec]:
    """Give tensors the element types of a compiled engine.

    Args:
        specs: Inputs or outputs of a network, as ``network_specs`` gives them.
        precision: ``fp32`` or ``fp16``.
        device: ``cuda`` or ``cpu``.

    Returns:
        The same tensors; float16 where the engine computes in it, but for noise levels and time ids.
    """
    if not computes_in_half(precision, device):
        return specs
    return [spec if spec.name in FLOAT32_ALWAYS else replace(spec, dtype="float16") for spec in specs]


def precision_block(precision: str, device: str) -> dict[str, str]:
    """Write the manifest's ``precision`` block."""
    return {"weights": {"fp16": "float16", "fp8": "float8"}.get(precision, "float32"),
            "compute": "float16" if computes_in_half(precision, device) else "float32"}


def target_block(device: str) -> dict[str, Any]:
    """Write the manifest's ``target`` block: what decides whether an engine runs, then what was found beside it.

    Args:
        device: ``cuda`` or ``cpu``.

    Returns:
        ``this_machine``, and for a GPU its name, the CUDA of torch and the driver.
    """
    if device == "cpu":
        return this_machine(device)
    return this_machine(device) | {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "driver": driver_version()}


def inductor_options(device: str, max_autotune: bool = False, coordinate_descent_tuning: bool = False,
                     options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Choose Inductor's options.

    Args:
        device: ``cuda`` or ``cpu``.
        max_autotune: Try several kernels for each product and convolution; many minutes for a large network.
        coordinate_descent_tuning: Search block sizes of generated kernels.
        options: Options by Inductor's own names; they win over all others.

    Returns:
        Options to compile with, JSON types only. Where ``layout_optimization`` is on, weights of convolutions are
        stored with their channels last, so that no run has to turn them.

    Raises:
        BackendError: There is no such option, or it would put the weights back into the package.
    """
    known = torch._inductor.list_options()
    for name in options or {}:
        if name not in known and name not in _OUTSIDE:
            close = difflib.get_close_matches(name, known, 1)
            raise BackendError(f"torch {torch.__version__} has no option of Inductor named {name!r}: "
                               + (f"did you mean {close[0]!r}?" if close else "see torch._inductor.list_options()."))
    chosen = {"freezing": False, "max_autotune": max_autotune, "coordinate_descent_tuning": coordinate_descent_tuning}
    chosen |= {"layout_optimization": device == "cuda"} | dict(options or {})
    wrong = sorted(name for name in _OUTSIDE if name in chosen) + ["freezing"] * bool(chosen["freezing"])
    if wrong:
        raise BackendError(f"The option {wrong[0]!r} would put weights into the package, and they are kept beside it: "
                           "leave it out.")
    return chosen


def export_aot(module: nn.Module, inputs: dict[str, np.ndarray], path: Path, precision: str = "fp16",
               device: str = "cpu", options: Mapping[str, Any] | None = None) -> list[Path]:
    """Compile a module.

    Args:
        module: Network in float32; changed in place.
        inputs: Example inputs by name, in the order of the module's arguments and of the dtypes of ``typed_specs``;
            their shapes become fixed.
        path: The .pt2 file to write; the weights go to a .safetensors file beside it.
        precision: ``fp32``, ``fp16`` or ``fp8``.
        device: ``cuda`` or ``cpu``.
        options: As ``inductor_options`` gives them; None for its defaults.

    Returns:
        The package and the weights.

    Raises:
        BackendError: torch cannot export or compile the module, or leaves a weight in the package.
    """
    options = inductor_options(device) if options is None else dict(options)
    module = module.to(device, torch.float16 if computes_in_half(precision, device) else torch.float32)
    if precision == "fp8":
        use_fp8(module)  # last: a change of dtype would undo it
    if options["layout_optimization"]:
        turn_convolutions(module)
    arguments = [torch.from_numpy(array).to(device) for array in inputs.values()]
    program = compile_package(module, arguments, path, options)
    return [path, _save_weights(program, path, precision)]


def share_weights(own: Path, other: Path) -> Path:
    """Let an engine read the weights of another, which hold all it needs, and delete its own.

    Args:
        own: Weights as ``export_aot`` wrote them.
        other: Those of the other engine.

    Returns:
        The other file.

    Raises:
        BackendError: A weight is missing there, has other bytes, or is to lie in another order.
    """
    with safe_open(own, "pt") as file, safe_open(other, "pt") as there:
        strides, others = (json.loads(opened.metadata()[STRIDES]) for opened in (file, there))
        names = set(there.keys())
        for name in file.keys():
            fault = ("is missing there" if name not in names else
                     "has other strides there" if others.get(name) != strides.get(name) else
                     "has other bytes there" if not _same_bytes(there.get_tensor(name), file.get_tensor(name)) else None)
            if fault:
                raise BackendError(f"{own.stem} cannot share {other.name}, since {name!r} {fault}: build with the versions "
                                   "of pano4d[build], or with --tile-batch 1.")
    own.unlink()
    return other


def compile_package(module: nn.Module, arguments: Sequence[torch.Tensor], path: Path,
                    options: Mapping[str, Any]) -> ExportedProgram:
    """Export a module and compile it into a package without its weights.

    Args:
        module: The network, where and in what it is to compute.
        arguments: Example inputs, there too; their shapes become fixed.
        path: The .pt2 file to write.
        options: As ``inductor_options`` gives them.

    Returns:
        The exported program, which holds the weights.

    Raises:
        BackendError: torch cannot export or compile the module.
    """
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(module, tuple(arguments), strict=False)
            _name_constants(program)
            torch._inductor.aoti_compile_and_package(program, package_path=str(path),
                                                     inductor_configs=dict(options) | _OUTSIDE)
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise BackendError(f"torch {torch.__version__} could not compile {path.stem} "
                           f"({reason[0][:200] if reason else type(error).__name__}): check the C++ compiler and the "
                           "options, or show the trace with --debug.") from error
    return program


def turn_convolutions(module: nn.Module) -> None:
    """Lay weights of convolutions out channels last, in place."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for weight in module.parameters():
        if weight.dim() in formats:
            weight.data = weight.data.contiguous(memory_format=formats[weight.dim()])


def _name_constants(program: ExportedProgram) -> None:
    """Let tensors that are neither parameter nor buffer keep their names: Inductor numbers them anew otherwise."""
    for spec in program.graph_signature.input_specs:
        if spec.kind == InputKind.CONSTANT_TENSOR:
            spec.kind, spec.persistent = InputKind.BUFFER, False


def _save_weights(program: ExportedProgram, path: Path, precision: str) -> Path:
    """Write what the package asks for: it has dropped what the graph does not use, and merged what is tied."""
    needed = sorted(Package(path).names)
    held = {**program.state_dict, **program.constants}
    absent = [name for name in needed if name not in held]
    if absent:
        raise BackendError(f"torch {torch.__version__} compiled a constant {absent[0]!r} into {path.stem} that its module "
                           "does not hold: build with the versions of pano4d[build].")
    # Copied, since tensors that share memory cannot be saved.
    stored = {name: _stored(held[name].detach().to("cpu", copy=True), precision).contiguous() for name in needed}
    # A file holds every tensor in C order, and kernels were compiled for the order in memory.
    strides = {name: list(held[name].stride()) for name in needed if not held[name].is_contiguous()}
    weights = path.with_suffix(".safetensors")
    save_file(stored, weights, metadata={STRIDES: json.dumps(strides)})
    return weights


def _same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    return (one.dtype, one.shape) == (other.dtype, other.shape) and torch.equal(
        one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def _stored(tensor: torch.Tensor, precision: str) -> torch.Tensor:
    """Round to float16, unless it cannot hold the value."""
    if precision != "fp16" or tensor.dtype != torch.float32 or tensor.abs().max() > torch.finfo(torch.float16).max:
        return tensor
    return tensor.half()


def driver_version() -> str:
    """Name the NVIDIA driver, such as 580.159.03; "unknown" where nvidia-smi does not tell."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.split()[0]
