"""Export a network to ONNX that says by its types what is computed in float16, as strongly typed engines need it.

Products, convolutions and attention are float16. Normalisations are float32, since they add up whole pictures, and so are
the waves of noise levels and time ids, which the modules of diffusers compute so themselves.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pano4d.build_engines.float8 import Range
from pano4d.build_engines.fp8_onnx import quantize
from pano4d.build_engines.onnx_export import exported_model, save_model
from pano4d.build_engines.shortcuts import GroupNorm
from pano4d.runtime.backends.base import TensorSpec
from pano4d.runtime.errors import BackendError

NORMS = (GroupNorm, nn.GroupNorm, nn.LayerNorm)


class InFloat32(nn.Module):
    """Compute a module in float32, between neighbours in another type."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.float()

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.float()).to(x.dtype)


def export_typed(module: nn.Module, inputs: dict[str, np.ndarray], outputs: list[TensorSpec], path: Path,
                 precision: str, ranges: Mapping[str, Range] | None = None) -> list[Path]:
    """Export a module.

    Args:
        module: Network in float32; changed in place.
        inputs: Example inputs by name, in the order of the module's arguments and of the dtypes of ``typed_specs``; their
            shapes become fixed.
        outputs: Its outputs.
        path: The .onnx file to write. Weights of more than 1.5 GB go into a file beside it.
        precision: ``fp16`` or ``fp32``.
        ranges: What each weight is multiplied with, to put products of float16 into fp8; None leaves them.

    Returns:
        The files written, the .onnx first.

    Raises:
        BackendError: torch cannot export the module, float16 cannot hold a weight, or no product can be in fp8.
    """
    if precision == "fp16":
        _refuse_overflow(module, path.stem)
        module = norms_in_float32(module.half())
    model = exported_model(module, inputs, outputs, path.stem)
    if ranges is not None:
        model.graph.name = path.stem
        quantize(model, ranges)
    return save_model(model, path)


def norms_in_float32(module: nn.Module) -> nn.Module:
    """Let normalisations compute in float32, in place.

    Args:
        module: A network in float16.

    Returns:
        The same module.
    """
    for name, child in list(module.named_children()):
        if isinstance(child, NORMS):
            setattr(module, name, InFloat32(child))
        else:
            norms_in_float32(child)
    return module


def _refuse_overflow(module: nn.Module, network: str) -> None:
    for name, weight in module.named_parameters():
        largest = float(weight.detach().abs().max())
        if not largest <= torch.finfo(torch.float16).max:
            raise BackendError(f"The weight {name} of {network} reaches {largest:.3g}, and float16 ends at 65504: build with "
                               "--precision fp32.")
