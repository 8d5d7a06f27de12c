"""Hold a model against the list of what TensorRT's ONNX parser takes."""

import onnx
from onnx import TensorProto

TYPES = {TensorProto.FLOAT: "FP32", TensorProto.FLOAT16: "FP16", TensorProto.INT64: "INT64", TensorProto.INT32: "INT32",
         TensorProto.BOOL: "BOOL", TensorProto.DOUBLE: "FP64", TensorProto.FLOAT8E4M3FN: "FP8"}
RESIZE = {"mode": {"nearest", "linear"}, "keep_aspect_ratio_policy": {"stretch"}, "coordinate_transformation_mode": {
    "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"},
    "nearest_mode": {"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"}}


def types_of(model):
    """Infer the types of all values, and let ONNX check that they fit one another."""
    onnx.checker.check_model(model, full_check=True)
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    kinds |= {value.name: value.data_type for value in graph.initializer}
    return {name: TYPES[kind] for name, kind in kinds.items()}


def strange(model, known, opset):
    """Say what in a model TensorRT's parser does not take."""
    lowest, highest = opset
    found = [f"opset {one.version} is not {lowest} to {highest}" for one in model.opset_import
             if not one.domain and not lowest <= one.version <= highest]
    types = {} if found else types_of(model)
    for node in model.graph.node:
        if node.domain or node.op_type not in known:
            found.append(f"{node.op_type} is not known")
            continue
        # Shapes and indices are INT64 whatever the operator works on.
        worked_on = {types.get(name) for name in (*node.input[:1], *node.output)} - {None}
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            # The list names what is read; what is written is what the other of the two reads, and scales are as wide.
            other = known["DequantizeLinear" if node.op_type == "QuantizeLinear" else "QuantizeLinear"]
            written, wide = types.get(node.output[0]), {types.get(node.input[0]), types.get(node.output[0])} - {"FP8"}
            found += [f"{node.op_type} to {written}"] * (written not in other)
            found += [f"{node.op_type} with scales of {types.get(node.input[1])}"] * ({types.get(node.input[1])} != wide)
            worked_on = {types.get(node.input[0])}
        found += [f"{node.op_type} of {kind}" for kind in sorted(worked_on - known[node.op_type])]
        found += [f"Resize with {one.name} {one.s.decode()}" for one in node.attribute if node.op_type == "Resize"
                  and one.name in RESIZE and one.s.decode() not in RESIZE[one.name]]
        if node.op_type == "LayerNormalization" and len([name for name in node.output if name]) > 1:
            found.append("LayerNormalization with more than its first output")
    return found
