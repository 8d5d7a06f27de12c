"""Put a denoiser's products into fp8 by Q/DQ pairs, as strongly typed engines of TensorRT read them.

    activation  float16 -> QuantizeLinear -> DequantizeLinear -> float16 \\
                                                                          MatMul, Gemm or Conv
    weight                        float8  -> DequantizeLinear -> float16 /

Both are FLOAT8E4M3FN, of 3 bits, from 2^-6 to 448 at full precision. A tensor has one scale, its largest value over 448,
rounded up to float16, the type that a Q/DQ pair between float16 must have for a scale (ONNX, and TensorRT's strong types).
One scale is enough for a weight too: e4m3 is a floating type, so a channel loses nothing unless it is 2^-14 of the largest
one, and per-channel scales are known to TensorRT for products on some GPUs only. No scale is so
small that its reciprocal overflows.

What stays in float16:
    attention's own products, neither of whose operands is constant;
    what all pixels share: [N, C] or [N, 1, C], of noise levels, frame numbers and the picture's embedding. Little work,
    and an error there moves every pixel alike;
    sizes for which TensorRT has no kernel in fp8: channels that are not a multiple of 16 (the first convolution, from the
    latents, and the last one, to them), more than 32 taps, groups;
    tensors that e4m3 does not fit: never other than zero, or of which the typical value is below 1/4096 of the largest
    one, so that much of it would be subnormal, of less than 3 bits;
    what has no range in ``ranges``: the products that would cost too much (``fp8_choice``).
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from pano4d.build_engines.float8 import ALIGNMENT, E4M3, Range, fits, has_kernel, range_of, scale_of, to_float8, weight_key
from pano4d.runtime.errors import BackendError

def quantize(model: ir.Model, ranges: Mapping[str, Range]) -> int:
    """Put the products that fit into fp8, in place.

    Args:
        model: A network with its products in float16, opset 19 or newer.
        ranges: Of every weight, by ``weight_key``, the range of what it is multiplied with.

    Returns:
        How many products there are in fp8 now.

    Raises:
        BackendError: None fits, or a weight is not finite.
    """
    graph, pairs, done = model.graph, {}, 0
    zero = _stored(graph, "float8_zero", np.zeros((), E4M3))
    for node in list(graph):
        weight = _weight(node)
        if weight is None or node.inputs[0].shape is None or not has_kernel(
                node.op_type == "Conv", list(node.inputs[0].shape), weight.shape):
            continue
        if not np.isfinite(weight).all():
            raise BackendError(f"The weight {node.inputs[1].name} of {graph.name} is not finite in float16: download or save "
                               "the checkpoint again.")
        own, seen = range_of(weight), ranges.get(weight_key(weight), Range())
        if not (fits(own) and fits(seen)):
            continue
        _quantize_weight(graph, node, own, zero, pairs)
        _quantize_input(graph, node, seen, zero, pairs)
        done += 1
    if not done:
        raise BackendError(f"No product of {graph.name} can be in fp8, since none has channels that are a multiple of "
                           f"{ALIGNMENT} and values that fit: build with --precision fp16.")
    return done


def _weight(node: ir.Node) -> np.ndarray | None:
    """Give the constant weight of a product of float16 as torch holds it, [C', C, ...]; None for anything else."""
    if node.op_type not in ("MatMul", "Gemm", "Conv") or node.inputs[0].dtype != ir.DataType.FLOAT16:
        return None
    array = _constant(node.inputs[1])
    if array is None or array.ndim < 2 or node.op_type == "Conv":
        return array
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0)
    return array if transposed else array.T


def _constant(value: ir.Value) -> np.ndarray | None:
    """Compute what exporters leave between a stored weight and its product: a transposition."""
    found = ir.convenience.get_const_tensor(value)
    if found is not None:
        return found.numpy()
    node = value.producer()
    array = _constant(node.inputs[0]) if node is not None and node.op_type == "Transpose" else None
    return None if array is None else array.transpose(node.attributes.get_ints("perm", None))


def _quantize_weight(graph: ir.Graph, node: ir.Node, own: Range, zero: ir.Value, pairs: dict[str, ir.Value]) -> None:
    """Store a weight in float8, in the layout that the product takes, and drop it in float16 where nobody else needs it."""
    value = node.inputs[1]
    if value.name not in pairs:
        scale = scale_of(own.largest)
        stored = _stored(graph, f"{value.name}.float8", to_float8(_constant(value), scale))
        scales = _stored(graph, f"{value.name}.scale", np.asarray(scale))
        pairs[value.name] = _node(graph, node, "DequantizeLinear", [stored, scales, zero], ir.DataType.FLOAT16, value.shape)
    node.replace_input_with(1, pairs[value.name])
    _drop(graph, value)


def _quantize_input(graph: ir.Graph, node: ir.Node, seen: Range, zero: ir.Value,
                    pairs: dict[str, ir.Value]) -> None:
    """Put a pair before a product; products of the same tensor share it, for they have all seen its largest value."""
    value = node.inputs[0]
    if value.name not in pairs:
        scales = _stored(graph, f"{value.name}.scale", np.asarray(scale_of(seen.largest)))
        small = _node(graph, node, "QuantizeLinear", [value, scales, zero], ir.DataType.FLOAT8E4M3FN, value.shape)
        pairs[value.name] = _node(graph, node, "DequantizeLinear", [small, scales, zero], ir.DataType.FLOAT16, value.shape)
    node.replace_input_with(0, pairs[value.name])


def _stored(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    graph.register_initializer(value)
    return value


def _node(graph: ir.Graph, before: ir.Node, operator: str, inputs: list[ir.Value], dtype: ir.DataType,
          shape: ir.Shape | None) -> ir.Value:
    name = f"{inputs[0].name}.{operator}"
    made = ir.node(operator, inputs, name=name)
    made.outputs[0].name, made.outputs[0].type, made.outputs[0].shape = name, ir.TensorType(dtype), shape
    graph.insert_before(before, made)
    return made.outputs[0]


def _drop(graph: ir.Graph, value: ir.Value) -> None:
    """Remove a constant that nothing uses any more, and what it was computed from."""
    if value.uses() or value.is_graph_output():
        return
    node = value.producer()
    if node is None:
        graph.initializers.pop(value.name, None)
        return
    inputs = list(node.inputs)
    graph.remove(node, safe=True)
    for one in inputs:
        _drop(graph, one)
