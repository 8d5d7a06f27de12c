"""Export a network to ONNX with fixed shapes, its weights stored as float32 or float16.

float16 here is a way of storing: every large weight is an initialiser of type float16 followed by a Cast to float32,
which onnxruntime folds away when it loads the engine. A CPU then computes in float32, at half the size on disk.
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from pano4d.runtime.backends.base import TensorSpec
from pano4d.runtime.backends.eager import quiet
from pano4d.runtime.errors import BackendError

OPSET = 20
PRECISIONS = {"fp32": {"weights": "float32", "compute": "float32"}, "fp16": {"weights": "float16", "compute": "float32"}}
"""The manifest's ``precision`` block for each value of --precision."""

_SMALL_WEIGHT = 256
_ONE_FILE_BYTES = 1_500_000_000


def export_onnx(module: nn.Module, inputs: dict[str, np.ndarray], outputs: list[TensorSpec], path: Path,
                precision: str = "fp16") -> list[Path]:
    """Export a module.

    Args:
        module: Network in float32.
        inputs: Example inputs by name, in the order of the module's arguments; their shapes become fixed.
        outputs: Its outputs.
        path: The .onnx file to write. Weights of more than 1.5 GB go into a file beside it.
        precision: ``fp32`` or ``fp16``.

    Returns:
        The files written, the .onnx first.

    Raises:
        BackendError: torch cannot export the module.
    """
    model = exported_model(module, inputs, outputs, path.stem)
    if precision == "fp16":
        _store_as_float16(model.graph)
    return save_model(model, path)


def exported_model(module: nn.Module, inputs: dict[str, np.ndarray], outputs: list[TensorSpec], name: str) -> ir.Model:
    """Export a module in the types it has; nothing is written.

    Args:
        module: Network.
        inputs: As for `export_onnx`.
        outputs: Its outputs.
        name: Name of the network.

    Returns:
        The model, without a trace of where it was made.

    Raises:
        BackendError: torch cannot export the module.
    """
    arguments = tuple(torch.from_numpy(array) for array in inputs.values())
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(module, arguments, dynamo=True, opset_version=OPSET, verbose=False,
                                        input_names=list(inputs), output_names=[spec.name for spec in outputs])
    except Exception as error:
        raise BackendError(f"torch {torch.__version__} could not export {name} ({type(error).__name__}): install "
                           "the versions of pano4d[build], or show the trace with --debug.") from error
    _strip(program.model)
    return program.model


def save_model(model: ir.Model, path: Path) -> list[Path]:
    """Write a model.

    Args:
        model: The model.
        path: The .onnx file. Weights of more than 1.5 GB go into a file beside it.

    Returns:
        The files written, the .onnx first.
    """
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    data = f"{path.name}.data" if size > _ONE_FILE_BYTES else None
    ir.save(model, path, external_data=data)
    return [path, *([path.with_name(data)] if data else [])]


def _strip(model: ir.Model) -> None:
    """Remove what the exporter notes for debugging: stack traces with the paths of the building machine."""
    model.metadata_props.clear()
    model.doc_string = None
    model.producer_name, model.producer_version = "pano4d", None
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        graph.metadata_props.clear()
        graph.doc_string = None
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
        for value in (*graph.inputs, *graph.initializers.values()):
            value.metadata_props.clear()


def _store_as_float16(graph: ir.Graph) -> None:
    """Put a Cast behind every large float32 weight, and store the weight as float16."""
    for name, value in sorted(graph.initializers.items()):
        weight = value.const_value
        if value.dtype != ir.DataType.FLOAT or weight.size < _SMALL_WEIGHT or value.is_graph_output():
            continue
        array = weight.numpy()
        # A weight that float16 cannot hold stays as it is.
        if np.abs(array).max() > np.finfo(np.float16).max:
            continue
        half = ir.Tensor(array.astype(np.float16), name=f"{name}.float16")
        stored = ir.Value(name=half.name, const_value=half, type=ir.TensorType(ir.DataType.FLOAT16), shape=value.shape)
        cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT}, name=f"{name}.to_float32")
        cast.outputs[0].name, cast.outputs[0].type, cast.outputs[0].shape = f"{name}.float32", value.type, value.shape
        value.replace_all_uses_with(cast.outputs[0])
        graph.insert_before(graph[0], cast)
        del graph.initializers[name]
        graph.register_initializer(stored)
