"""Shallow evaluations: right where nothing has changed, and as cheap as they are said to be."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from diffusers import UNetSpatioTemporalConditionModel  # noqa: E402

from pano4d.benchmarks import ablate_reuse as ablation  # noqa: E402

SMALL = dict(block_out_channels=(32, 32, 64), num_attention_heads=(2, 2, 4), cross_attention_dim=8, layers_per_block=1, num_frames=3,
             in_channels=9, addition_time_embed_dim=8, projection_class_embeddings_input_dim=24, sample_size=8,
             down_block_types=("DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
             up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"))


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return UNetSpatioTemporalConditionModel(**SMALL).eval().requires_grad_(False)


def given(seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(2, 3, 9, 8, 8, generator=generator), torch.tensor(0.3), torch.randn(2, 1, 8, generator=generator),
            torch.tensor([[6.0, 127.0, 0.02]] * 2))


def test_the_same_input_again_gives_the_same_from_reused_features(unet):
    reusing = ablation.Reusing(unet, reused=2, steps=4)
    first, again = (reusing(*given(0), return_dict=False)[0] for _ in range(2))
    torch.testing.assert_close(again, first)
    other = reusing(*given(1), return_dict=False)[0]
    true = unet(*given(1), return_dict=False)[0]
    assert not torch.allclose(other, true) and not torch.allclose(other, first)


def test_every_run_begins_whole(unet):
    reusing = ablation.Reusing(unet, reused=3, steps=3)
    for seed in range(2):
        torch.testing.assert_close(reusing(*given(seed), return_dict=False)[0], unet(*given(seed), return_dict=False)[0])
        for _ in range(2):
            reusing(*given(5), return_dict=False)


def test_a_shallow_evaluation_costs_what_is_counted(unet):
    share = ablation.shallow_share(unet, 8, 8)
    assert 0.05 < share < 0.95
