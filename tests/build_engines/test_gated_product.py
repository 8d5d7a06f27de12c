"""Product and gate in one pass are as exact as their precision, and serve where the table says.

Without a GPU the kernel runs in Triton's interpreter, where Triton is found and TRITON_INTERPRET is 1.
"""

import importlib.util
import os

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from diffusers.models.attention import FeedForward  # noqa: E402

from pano4d.build_engines import channels_last, gated_product  # noqa: E402
from pano4d.build_engines.gated_product import GROUP, TILES, Tile, gate_plain, multiply_and_gate, tile_of  # noqa: E402

TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = TRITON and os.environ.get("TRITON_INTERPRET") == "1"
SMALL = Tile(rows=16, columns=32, depth=16, warps=4, stages=3)


def given(rows, channels, out_channels, device="cpu", gain=3.0):
    """Draw tokens, weights and biases in float16; gates reach from one tail of the error function to the other."""
    generator = torch.Generator().manual_seed(rows)
    x, weight, bias = (torch.randn(shape, generator=generator)
                       for shape in ((rows, channels), (2 * out_channels, channels), (2 * out_channels,)))
    weight *= channels**-0.5
    weight[out_channels:] *= gain
    return [part.to(device, torch.float16) for part in (x, weight, bias)]


def assert_as_exact_as_plain(ours, x, weight, bias):
    exact, plain = (gate_plain(F.linear(*parts)) for parts in ([part.double() for part in (x, weight, bias)],
                                                               [x, weight, bias]))
    assert ours.dtype == torch.float16 and ours.isfinite().all()
    assert (ours - exact).abs().max() <= 2 * (plain - exact).abs().max()
    assert (ours - exact).norm() <= 2 * (plain - exact).norm()


def test_without_a_gpu_it_is_the_feed_forward_of_diffusers():
    torch.manual_seed(0)
    feed, x = FeedForward(16).eval().requires_grad_(False), torch.randn(2, 5, 16)
    torch.testing.assert_close(channels_last.Feed(feed)(x), feed(x))
    enter = feed.net[0].proj
    torch.testing.assert_close(multiply_and_gate(x, enter.weight, enter.bias), feed.net[0](x))


def test_the_table_chooses_by_channels_and_rows(monkeypatch):
    monkeypatch.setattr(gated_product, "triton", object())
    few, many = SMALL, SMALL._replace(rows=64)
    monkeypatch.setattr(gated_product, "TILES", {32: ((100, few), (1000, many))})
    assert [tile_of(rows, 32, 128) for rows in (99, 100, 999, 1000)] == [None, few, few, many]
    assert tile_of(1000, 64, 256) is None, "channels that are not in the table"
    assert tile_of(1000, 32, 48) is None, "columns that the tile does not divide"
    monkeypatch.setattr(gated_product, "triton", None)
    assert tile_of(1000, 32, 128) is None


def test_tiles_fit_the_shapes_that_they_are_for():
    for channels, tiles in TILES.items():
        assert [least for least, _ in tiles] == sorted({least for least, _ in tiles})
        for _, tile in tiles:
            assert 4 * channels % tile.columns == 0 and channels % tile.depth == 0
            assert not any(size & size - 1 for size in tile[:4])


@pytest.mark.skipif(not INTERPRETED, reason="Triton's interpreter is not asked for")
@pytest.mark.parametrize("rows, channels, out_channels", [(1, 16, 32), (37, 48, 64), (16 * (GROUP + 3) - 5, 32, 96)])
@pytest.mark.parametrize("gain", [1.0, 8.0])
def test_the_kernel_interpreted_is_as_exact_as_its_precision(rows, channels, out_channels, gain):
    x, weight, bias = given(rows, channels, out_channels, gain=gain)
    ours = torch.full((rows, out_channels), float("nan"), dtype=torch.float16)
    grid = -(-rows // SMALL.rows) * (out_channels // SMALL.columns)
    gated_product._multiply[(grid,)](x, weight, bias, ours, rows, out_channels, channels, *SMALL[:3], GROUP)
    assert_as_exact_as_plain(ours, x, weight, bias)


@pytest.mark.skipif(not INTERPRETED, reason="Triton's interpreter is not asked for")
def test_the_kernel_keeps_both_tails():
    """With a hidden part of 1 the result is gelu itself, from where it is 0 to where it is its argument."""
    far = [1e-3, 1.0, 3.0, 5.0, 5.5, 8.0, 300.0, 60000.0]
    gate = torch.tensor([-value for value in far] + far)
    x, weight, bias = torch.zeros(1, 16).half(), torch.zeros(64, 16).half(), torch.ones(64).half()
    bias[32:48] = gate.half()
    ours = torch.empty(1, 32).half()
    gated_product._multiply[(1,)](x, weight, bias, ours, 1, 32, 16, *SMALL[:3], GROUP)
    torch.testing.assert_close(ours[0, :16].double(), F.gelu(bias[32:48].double()), rtol=2.0**-11 * 1.05, atol=2.0**-24)


@pytest.mark.gpu
@pytest.mark.skipif(not TRITON, reason="triton is not installed")
@pytest.mark.parametrize("rows", [1, 129, 14 * 64, 14 * 1024 + 3])
@pytest.mark.parametrize("channels", sorted(TILES))
def test_the_kernel_is_as_exact_as_its_precision(rows, channels):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    parts = given(rows, channels, 4 * channels, "cuda")
    tile = tile_of(rows, channels, 4 * channels)
    ours = multiply_and_gate(*parts) if tile is None else torch.ops.pano4d.multiply_and_gate(*parts)
    assert_as_exact_as_plain(ours, *parts)


@pytest.mark.gpu
@pytest.mark.skipif(not TRITON, reason="triton is not installed")
def test_the_kernel_is_packaged(tmp_path, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    monkeypatch.setattr(gated_product, "TILES", {320: ((0, TILES.get(320, ((0, Tile(128, 64, 64, 4, 3)),))[-1][1]),)})
    feed = channels_last.Feed(FeedForward(320)).to("cuda", torch.float16).eval().requires_grad_(False)
    x = torch.randn(2, 200, 320, device="cuda", dtype=torch.float16)
    program = torch.export.export(feed, (x,), strict=False)
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "feed.pt2"))
    made = torch._inductor.aoti_load_package(package)(x)
    exact, plain = feed.double()(x.double()), feed.leave.half()(gate_plain(feed.enter.half()(x)))
    assert (made - exact).abs().max() <= 2 * (plain - exact).abs().max()
