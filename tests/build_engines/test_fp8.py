"""Matrix products in fp8: as exact as their precision lets, and nothing but transformer blocks is touched."""

import pytest

torch = pytest.importorskip("torch")

from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel  # noqa: E402
from torch import nn  # noqa: E402

from pano4d.build_engines import channels_last, fp8  # noqa: E402


def relative(made, true):
    return float((made - true).norm() / true.norm())


@pytest.mark.parametrize("bias", [True, False])
def test_a_product_keeps_the_precision_of_its_type(bias):
    torch.manual_seed(0)
    linear, x = nn.Linear(64, 48, bias=bias).requires_grad_(False), torch.randn(2, 5, 64)
    made = fp8.Fp8Linear(linear)(x)
    assert made.shape == (2, 5, 48) and made.dtype == x.dtype
    # Three bits of mantissa: values are off by 2^-4 at most, 2.6 % as a mean square, and two are multiplied.
    assert 0.01 < relative(made, linear(x)) < 0.045


def test_what_is_too_large_is_clamped_and_what_is_small_kept():
    linear = nn.Linear(16, 16, bias=False).requires_grad_(False)
    linear.weight.copy_(torch.eye(16))
    x = torch.zeros(1, 16)
    x[0, :4] = torch.tensor([1000.0, -1000.0, 2.0**-9, 1.0])
    made = fp8.Fp8Linear(linear)(x)[0, :4]
    torch.testing.assert_close(made, torch.tensor([fp8.HEADROOM, -fp8.HEADROOM, 2.0**-9, 1.0]), rtol=0.07, atol=1e-3)


def test_the_products_of_transformer_blocks_are_replaced_and_no_others():
    torch.manual_seed(0)
    model = TransformerSpatioTemporalModel(2, 32, in_channels=64, num_layers=1, cross_attention_dim=16).eval().requires_grad_(False)
    x, context, still = torch.randn(6, 64, 4, 4), torch.randn(2, 1, 16).repeat_interleave(3, dim=0), torch.zeros(2, 3)
    ours = channels_last.Transformer(model, 3)
    exact = ours(x, context, still)[0]
    kept = {name for name, part in ours.named_modules() if isinstance(part, nn.Linear)}
    made = fp8.use_fp8(ours)(x, context, still)[0]
    left = {name for name, part in ours.named_modules() if isinstance(part, nn.Linear)}
    gone = kept - left
    assert gone and all(name.rsplit(".", 1)[1] in ("enter", "leave", "qkv", "out") for name in gone)
    assert {"proj_in", "proj_out"} <= left and any(".known." in name for name in left)
    assert 1e-4 < relative(made, exact) < 0.05
