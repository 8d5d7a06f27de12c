"""ONNX for strongly typed engines: what is float16, what is float32, and that TensorRT's parser knows every operator."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402
from parser_list import strange, types_of  # noqa: E402

from pano4d.build_engines.aot_export import typed_specs  # noqa: E402
from pano4d.build_engines.checkpoint import read_checkpoint  # noqa: E402
from pano4d.build_engines.networks import example_inputs, network_specs, reference_module, tile_shape  # noqa: E402
from pano4d.build_engines.shortcuts import simplify  # noqa: E402
from pano4d.build_engines.typed_onnx import export_typed  # noqa: E402
from pano4d.build_engines.verify import parity  # noqa: E402
from pano4d.runtime.backends.base import NETWORKS, TensorSpec  # noqa: E402
from pano4d.runtime.backends.onnxruntime_ import OnnxruntimeEngine  # noqa: E402
from pano4d.runtime.errors import BackendError  # noqa: E402

NORMS = ("LayerNormalization", "InstanceNormalization", "BatchNormalization", "GroupNormalization")


@pytest.fixture(scope="module")
def exported(masked, tmp_path_factory):
    """Every network of the tiny checkpoint: path of its file, inputs and outputs."""
    source, folder = read_checkpoint(masked), tmp_path_factory.mktemp("typed")
    made = {}
    for name, sides in network_specs(source, tile_shape(source, None, None, 1)).items():
        inputs, outputs = (typed_specs(side, "fp16", "cuda") for side in sides)
        module = simplify(reference_module(source, name))
        path, = export_typed(module, example_inputs(inputs), outputs, folder / f"{name}.onnx", "fp16")
        made[name] = path, inputs, outputs
    return made


def test_all_networks_are_here(exported):
    assert set(exported) == set(NETWORKS)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_operator_is_known_to_the_parser(exported, operators, network):
    assert strange(onnx.load(exported[network][0]), *operators) == []


@pytest.mark.parametrize("network", NETWORKS)
def test_normalisations_are_float32_and_products_float16(exported, network):
    model = onnx.load(exported[network][0])
    types = types_of(model)
    norms = [node for node in model.graph.node if node.op_type in NORMS]
    assert norms and all(types[name] == "FP32" for node in norms for name in (*node.input, *node.output))
    heavy = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul", "Gemm", "Softmax")]
    assert heavy and all(types[name] == "FP16" for node in heavy for name in (*node.input, *node.output) if name)
    # One before each normalisation and one after it, and those of noise levels and time ids.
    assert len([node for node in model.graph.node if node.op_type == "Cast"]) <= 2 * len(norms) + 8


@pytest.mark.parametrize("network", NETWORKS)
def test_kernels_are_stored_as_they_are_used_and_none_has_three_dimensions(exported, network):
    """A kernel that is computed is no constant to TensorRT's parser, and convolutions of pictures have the faster kernels."""
    graph = onnx.load(exported[network][0]).graph
    stored = {one.name: len(one.dims) for one in graph.initializer}
    kernels = [stored.get(node.input[1]) for node in graph.node if node.op_type == "Conv"]
    assert kernels and set(kernels) == {4}


def test_waves_of_noise_levels_are_float32(exported):
    model = onnx.load(exported["unet"][0])
    types = types_of(model)
    waves = [node for node in model.graph.node if node.op_type in ("Sin", "Cos")]
    assert len(waves) >= 4 and all(types[node.input[0]] == "FP32" for node in waves)


@pytest.mark.parametrize("network", NETWORKS)
def test_scales_of_normalisations_are_stored_and_not_cast(exported, network):
    """TensorRT's refitter finds weights by the names they are stored under."""
    model = onnx.load(exported[network][0])
    stored = {one.name for one in model.graph.initializer}
    assert all(name in stored for node in model.graph.node if node.op_type in NORMS for name in node.input[1:] if name)


@pytest.mark.parametrize("network", NETWORKS)
def test_it_computes_the_same(exported, masked, network):
    path, inputs, outputs = exported[network]
    buffers = example_inputs(inputs, seed=1)
    module = reference_module(read_checkpoint(masked), network)
    reference = module(*(torch.from_numpy(array).float() for array in buffers.values())).numpy()
    buffers[outputs[0].name] = np.zeros(outputs[0].shape, outputs[0].dtype)
    with OnnxruntimeEngine(path, tuple(inputs), tuple(outputs)) as engine:
        engine.run(buffers)
    assert parity(buffers[outputs[0].name], reference)["relative_error"] < 3e-3


def test_float32_stays(tmp_path):
    spec = TensorSpec("y", "float32", (3, 4))
    path, = export_typed(torch.nn.LayerNorm(4), {"x": np.ones((3, 4), np.float32)}, [spec], tmp_path / "norm.onnx", "fp32")
    assert "Cast" not in [node.op_type for node in onnx.load(path).graph.node]


def test_a_weight_that_float16_cannot_hold_is_refused(tmp_path):
    module = torch.nn.Linear(4, 4)
    module.weight.data[1, 2] = -1e6
    with pytest.raises(BackendError, match=r"The weight weight of layer reaches 1e\+06, and .* build with --precision fp32"):
        export_typed(module, {"x": np.ones((1, 4), np.float16)}, [], tmp_path / "layer.onnx", "fp16")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("operator, kind, said", [
    ("Det", TensorProto.FLOAT, "Det is not known"), ("Sin", TensorProto.DOUBLE, "Sin of FP64"),
    ("Not", TensorProto.BOOL, None), ("Sin", TensorProto.FLOAT16, None)])
def test_an_operator_that_the_parser_does_not_know_is_found(operators, operator, kind, said):
    shape = [2, 2]
    x = helper.make_tensor_value_info("x", kind, shape)
    y = helper.make_tensor_value_info("y", kind, [] if operator == "Det" else shape)
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "one", [x], [y])
    found = strange(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), *operators)
    assert found == ([said] if said else [])


def test_a_resize_and_an_opset_that_the_parser_does_not_know_are_found(operators):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, size, size]) for name, size in (("x", 2), ("y", 4)))
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [4], [1, 1, 4, 4])
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="cubic")
    model = helper.make_model(helper.make_graph([node], "one", [x], [y], [sizes]), opset_imports=[helper.make_opsetid("", 25)])
    assert strange(model, *operators) == ["opset 25 is not 9 to 24", "Resize with mode cubic"]
