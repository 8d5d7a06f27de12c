"""Q/DQ pairs: scales, rounding, what stays in float16, and the error of a whole denoiser in onnxruntime."""

import ml_dtypes
import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

import onnx_ir as ir  # noqa: E402
from onnx import TensorProto, numpy_helper  # noqa: E402
from parser_list import strange  # noqa: E402
from torch import nn  # noqa: E402

from pano4d.build_engines import calibration as calibrating  # noqa: E402
from pano4d.build_engines import fp8_choice  # noqa: E402
from pano4d.build_engines.aot_export import typed_specs  # noqa: E402
from pano4d.build_engines.calibration import Calibration, Watch  # noqa: E402
from pano4d.build_engines.checkpoint import read_checkpoint  # noqa: E402
from pano4d.build_engines.float8 import (  # noqa: E402
    SMALLEST_SCALE, Range, fits, has_kernel, range_of, scale_of, to_float8, weight_key)
from pano4d.build_engines.fp8_onnx import quantize  # noqa: E402
from pano4d.build_engines.networks import example_inputs, network_specs, reference_module, tile_shape  # noqa: E402
from pano4d.build_engines.onnx_export import exported_model, save_model  # noqa: E402
from pano4d.build_engines.shortcuts import simplify  # noqa: E402
from pano4d.build_engines.typed_onnx import export_typed  # noqa: E402
from pano4d.build_engines.verify import parity  # noqa: E402
from pano4d.runtime.backends.base import TensorSpec  # noqa: E402
from pano4d.runtime.backends.onnxruntime_ import OnnxruntimeEngine  # noqa: E402
from pano4d.runtime.calibration import drawn_panorama  # noqa: E402
from pano4d.runtime.errors import BackendError  # noqa: E402

BOUND = 3e-2
"""Largest relative error of the tiny denoiser on noise; 1.9e-2 and 2.2e-2 were measured on two draws."""


@pytest.fixture(scope="module")
def small(masked, tmp_path_factory):
    """The tiny denoiser with layer norms 1/200 as large and what follows 200 times: the same function, small inputs."""
    source, folder = read_checkpoint(masked), tmp_path_factory.mktemp("fp8")
    tile = tile_shape(source, None, None, 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        module = simplify(reference_module(source, "unet"))
        _shrink(module)
        calibration = Calibration.of([])
        with pytest.MonkeyPatch.context() as patch:
            # Every kind of product is tried in the whole build; here one half of the depth will do.
            patch.setattr(calibrating, "affordable", lambda module, call, ranges: fp8_choice.affordable(
                module, call, {key: one for key, one in ranges.items() if "down_blocks" in one.name}))
            ranges = calibration.ranges(module, source, tile)
        inputs, outputs = (typed_specs(side, "fp16", "cuda") for side in network_specs(source, tile)["unet"])
        buffers = example_inputs(inputs, seed=1)
        with torch.inference_mode():
            reference = module(*(torch.from_numpy(array).float() for array in buffers.values())).numpy()
        half, = export_typed(module, example_inputs(inputs), outputs, folder / "unet.onnx", "fp16")
    finally:
        torch.set_num_threads(threads)

    def error(ranges):
        model = ir.load(half)
        count = quantize(model, ranges)
        path, = save_model(model, folder / "float8.onnx")
        given = buffers | {"v": np.zeros(outputs[0].shape, outputs[0].dtype)}
        with OnnxruntimeEngine(path, tuple(inputs), tuple(outputs)) as engine:
            engine.run(given)
        return parity(given["v"], reference)["relative_error"], count, path

    return half, ranges, error


@pytest.fixture(scope="module")
def quantized(small):
    """Relative error of the calibrated denoiser, its products in fp8, and its model."""
    half, ranges, error = small
    figure, count, path = error(ranges)
    return figure, count, onnx.load(path)


def test_the_denoiser_is_within_its_bound_and_better_than_without_calibration(small, quantized):
    half, ranges, error = small
    assert quantized[0] <= BOUND
    # Those of small inputs: where values lie between 2^-6 and 448, a floating type needs no scale.
    some = {key: one for key, one in ranges.items() if one.typical < 2.0**-6}
    uncalibrated = {key: Range(448.0, 448.0**2, 1) for key in some}
    assert len(some) >= 8 and error(some)[0] < 0.6 * error(uncalibrated)[0]


def test_the_parser_knows_every_operator_and_type(operators, quantized):
    assert strange(quantized[2], *operators) == []


def test_an_operator_that_writes_another_type_is_found(operators, quantized):
    wrong = onnx.ModelProto()
    wrong.CopyFrom(quantized[2])
    zero = next(one for one in wrong.graph.initializer if one.name == "float8_zero")
    zero.CopyFrom(numpy_helper.from_array(np.zeros((), ml_dtypes.float8_e5m2), zero.name))
    with pytest.raises(Exception, match="float8|Type|type|strange"):
        assert strange(wrong, *operators) == [], "strange"


def test_products_of_every_sort_have_both_operands_in_float8(quantized):
    figure, count, model = quantized
    makers = {name: node for node in model.graph.node for name in node.output}
    stored = {one.name: one for one in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")
             and all(name in makers and makers[name].op_type == "DequantizeLinear" for name in node.input[:2])]
    assert len(pairs) == count and {"Conv", "MatMul"} == {node.op_type for node in pairs}
    for node in pairs:
        x, weight = (makers[name] for name in node.input[:2])
        assert makers[x.input[0]].op_type == "QuantizeLinear" and stored[weight.input[0]].data_type == TensorProto.FLOAT8E4M3FN
    assert not {"conv_in", "conv_out"} & {name.split(".")[-2] for node in pairs for name in node.input if "conv_" in name}


def test_weights_are_the_old_ones_to_within_their_rounding_and_a_quarter_of_float32(small, quantized):
    half, ranges, _ = small
    before = {one.name: numpy_helper.to_array(one).astype(np.float64) for one in onnx.load(half).graph.initializer}
    stored = {one.name: one for one in quantized[2].graph.initializer}
    checked = 0
    for node in quantized[2].graph.node:
        name = node.input[0].removesuffix(".float8")
        if node.op_type != "DequantizeLinear" or name == node.input[0] or name not in before:
            continue
        weight, scale = before[name], float(numpy_helper.to_array(stored[node.input[1]]))
        assert scale * 448 >= np.abs(weight).max() > scale * 447 and name not in stored
        assert len(stored[node.input[0]].raw_data) == weight.size
        back = np.asarray(numpy_helper.to_array(stored[node.input[0]]).astype(np.float64)) * scale
        normal = np.abs(weight) >= scale * 2.0**-6
        assert (np.abs(back - weight)[normal] <= 2.0**-4 * np.abs(weight)[normal]).all()
        assert np.abs(back - weight)[~normal].max(initial=0) <= scale * 2.0**-10 * 1.001
        checked += 1
    assert checked >= 15


def test_scales_of_activations_are_those_of_the_calibration(small, quantized):
    half, ranges, _ = small
    before = {one.name: numpy_helper.to_array(one) for one in onnx.load(half).graph.initializer}
    stored = {one.name: numpy_helper.to_array(one) for one in quantized[2].graph.initializer if one.name.endswith(".scale")}
    makers = {name: node for node in quantized[2].graph.node for name in node.output}
    checked = 0
    for node in quantized[2].graph.node:
        x, weight = (makers.get(name) for name in (*node.input, "", "")[:2])
        name = weight.input[0].removesuffix(".float8") if weight and weight.op_type == "DequantizeLinear" else None
        if name in before and node.op_type in ("MatMul", "Conv"):
            seen = ranges[weight_key(before[name] if node.op_type == "Conv" else before[name].T)]
            exact, scale = np.float64(seen.largest) / 448, stored[x.input[1]]
            assert scale.dtype == np.float16 and exact <= np.float64(scale) <= exact * (1 + 2.0**-9)
            checked += 1
    assert checked >= 15


@pytest.mark.parametrize("largest", [448 * SMALLEST_SCALE, 0.1, 1.0, 3.7, 448.0, 65504.0])
def test_a_scale_is_the_next_float16_above_a_448th(largest):
    scale, exact = scale_of(largest), np.float64(largest) / 448
    assert scale.dtype == np.float16 and exact <= np.float64(scale) <= exact * (1 + 2.0**-10)


def test_rounding_is_to_the_nearest_and_never_beyond_the_largest():
    grid = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
    grid = np.unique(grid[np.isfinite(grid)])
    values = np.random.default_rng(0).standard_normal(2000) * 3
    scale = scale_of(4.0)
    nearest = np.abs(values[:, None] / np.float64(scale) - grid).min(axis=1)
    found = to_float8(values, scale).astype(np.float64)
    assert np.allclose(np.abs(found - values / np.float64(scale)), nearest, rtol=1e-4, atol=1e-5)
    assert np.abs(found).max() == 448


def test_a_channel_of_zeros_stays_zero_and_a_tensor_of_zeros_does_not_fit():
    weight = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float16)
    weight[5] = 0
    assert not to_float8(weight, scale_of(range_of(weight).largest)).astype(np.float32)[5].any()
    assert fits(range_of(weight)) and not fits(range_of(np.zeros((16, 16)))) and not fits(Range())


def test_one_value_far_beyond_the_others_does_not_fit():
    values = np.full(2**26 // 2**10, 1e-3)
    assert fits(range_of(np.append(values, 0.1))) and not fits(Range(100.0, 1e-6 * 2**20, 2**20))


@pytest.mark.parametrize("x, weight, convolves, has", [
    ((2, 32, 8, 8), (32, 32, 3, 3), True, True), ((2, 9, 8, 8), (32, 9, 3, 3), True, False),
    ((2, 32, 8, 8), (4, 32, 3, 3), True, False), ((2, 32, 8, 8), (32, 32, 7, 7), True, False),
    ((2, 64, 8, 8), (64, 32, 3, 3), True, False), ((2, 5, 32), (64, 32), False, True), ((2, 32), (64, 32), False, False),
    ((2, 1, 32), (64, 32), False, False), ((2, 5, 8), (64, 8), False, False)])
def test_what_has_no_kernel_or_no_work_stays(x, weight, convolves, has):
    assert has_kernel(convolves, x, weight) is has


@pytest.mark.parametrize("fault, said", [(np.nan, "nan"), (np.inf, "inf"), (1e6, r"1e\+06")])
def test_an_activation_that_float16_cannot_hold_is_refused(fault, said):
    layer, x = nn.Linear(16, 16), torch.ones(1, 4, 16)
    x[0, 1, 2] = fault
    with pytest.raises(BackendError, match=f"What weight is multiplied with reaches {said} .*: build with --precision fp32"), \
            Watch(layer):
        layer(x)


def test_ranges_are_those_of_float64(tmp_path):
    layer, rows = nn.Linear(16, 16), np.random.default_rng(1).standard_normal((3, 2, 5, 16)).astype(np.float32)
    watch = Watch(layer)
    with watch:
        for x in rows:
            layer(torch.from_numpy(x))
    seen, = watch.ranges.values()
    wide = rows.astype(np.float64)
    assert seen.largest == np.abs(wide).max() and seen.typical == pytest.approx(np.sqrt((wide**2).mean()), rel=1e-6)


def test_a_weight_that_lies_where_another_lay_is_another(tmp_path):
    """A module that goes to a GPU again finds itself in other memory."""
    layer, watch = nn.Linear(16, 16), Watch(None)
    watch._name = lambda weight: "weight"
    for size in (1.0, 2.0):
        with watch:
            layer(torch.full((1, 4, 16), size))
        layer.weight.data *= 3.0
    assert [one.largest for one in watch.ranges.values()] == [1.0, 2.0]


def test_the_call_kept_is_that_at_the_level_closest_to_one():
    watch = Watch(None)
    for c_noise in (1.5, 0.3, -0.1, -1.2):
        watch.keep(None, (torch.full((2,), c_noise), torch.full((2,), c_noise)))
    assert [float(one[0]) for one in watch.call] == [pytest.approx(-0.1)] * 2


def test_a_weight_of_two_products_is_stored_once(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 16, bias=False)

        def forward(self, x):
            return self.layer(torch.sigmoid(self.layer(x)))

    module, x, watch = Twice(), torch.randn(1, 4, 16), Watch(None)
    watch._name = lambda weight: "weight"
    with watch:
        module(x)
    model = exported_model(module.half(), {"x": x.half().numpy()}, [TensorSpec("y", "float16", (1, 4, 16))], "twice")
    assert quantize(model, watch.ranges) == 2
    path, = save_model(model, tmp_path / "twice.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    stored = [one.data_type for one in onnx.load(path).graph.initializer if one.dims]
    assert stored == [TensorProto.FLOAT8E4M3FN]


@pytest.mark.parametrize("fault, said", [
    (None, "No product of layer can be in fp8"), (np.nan, "is not finite in float16: download or save")])
def test_a_network_without_a_product_that_fits_is_refused(tmp_path, fault, said):
    layer = nn.Linear(16, 16).half()
    if fault:
        layer.weight.data[3, 4] = fault
    spec = TensorSpec("y", "float16", (1, 4, 16))
    model = exported_model(layer, {"x": np.ones((1, 4, 16), np.float16)}, [spec], "layer")
    model.graph.name = "layer"
    with pytest.raises(BackendError, match=said):
        quantize(model, {})


@pytest.mark.parametrize("shares, kept", [((1.0, 0.01), {"second.weight"}), ((0.01, 0.01), {"first.weight", "second.weight"})])
def test_kinds_that_cost_too_much_are_left_out(monkeypatch, shares, kept):
    monkeypatch.setattr(fp8_choice, "BUDGET", 0.01)
    module, call, ranges = _watched(shares)
    assert {one.name for one in ranges.values()} == {"first.weight", "second.weight"}
    assert {one.name for one in fp8_choice.affordable(module, call, ranges).values()} == kept


def test_a_network_that_can_afford_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(fp8_choice, "BUDGET", 0.001)
    with pytest.raises(BackendError, match=r"moves its output by more than 0\.1% in fp8: build with --precision fp16"):
        fp8_choice.affordable(*_watched((1.0, 1.0)))


def test_kinds_are_names_without_the_numbers_of_blocks():
    assert fp8_choice.kind_of("unet.down_blocks.0.resnets.12.conv1.weight") == "unet.down_blocks.resnets.conv1.weight"


def test_a_drawn_panorama_is_always_the_same_and_full_of_detail():
    drawn = drawn_panorama(64)
    assert drawn.shape == (64, 128, 3) and (drawn == drawn_panorama(64)).all()
    assert drawn.std(axis=(0, 1)).min() > 20
    steps = np.abs(np.diff(drawn.astype(int), axis=1, append=drawn[:, :1].astype(int))).mean(axis=(0, 2))
    assert steps[-1] < 3 * np.median(steps), "there is a seam"


class _Shares(nn.Module):
    """Add shares of two products to what they start from, once both are as large as it."""

    def __init__(self, shares):
        super().__init__()
        self.first, self.second, self.shares = nn.Linear(16, 16), nn.Linear(16, 16), shares

    def forward(self, x):
        return 0.5 * x + self.shares[0] * self.first(x) + self.shares[1] * self.second(x)


def _watched(shares):
    """A network of two products, what it was called with, and the ranges of their inputs."""
    torch.manual_seed(0)
    module, call = _Shares(shares), (torch.randn(1, 9, 16),)
    watch = Watch(module)
    with watch:
        module(*call)
    return module, call, watch.ranges


def _shrink(module, factor=200.0):
    for block in module.modules():
        if type(block).__name__ in ("BasicTransformerBlock", "TemporalBasicTransformerBlock"):
            for norm, products in (("norm1", [block.attn1.to_q, block.attn1.to_k, block.attn1.to_v]), ("norm3", [block.ff])):
                for weight in getattr(block, norm).parameters():
                    weight.data /= factor
                for product in products:
                    for name, weight in product.named_parameters():
                        if name.startswith(("weight", "net.0.hidden_weight", "net.0.gate_weight")):
                            weight.data *= factor
