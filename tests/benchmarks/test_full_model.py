"""The full model: true sizes, and weights that float16 survives. Narrow versions have every block of the true one."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from pano4d.benchmarks import full_model  # noqa: E402
from pano4d.build_engines.checkpoint import read_checkpoint  # noqa: E402
from pano4d.runtime.backends.eager import load_part, wrap  # noqa: E402

NARROW = {
    "unet": {"block_out_channels": (64, 64, 128, 128), "num_attention_heads": (1, 1, 2, 2), "cross_attention_dim": 64,
             "addition_time_embed_dim": 32, "projection_class_embeddings_input_dim": 96, "num_frames": 3},
    "vae": {"block_out_channels": (32, 64, 128, 128)},
    "image_encoder": {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 2, "projection_dim": 64},
}


def inputs_of(network, dtype):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator).to(dtype)  # noqa: E731
    return {"unet": lambda: (draw(2, 3, 9, 16, 16), torch.tensor([-1.5, 1.6]), draw(2, 1, 64),
                             torch.tensor([[6.0, 127.0, 0.02]] * 2)),
            "vae_encoder": lambda: (draw(1, 3, 64, 64).tanh(),),
            "vae_decoder": lambda: (5.0 * draw(1, 3, 4, 8, 8),),
            "image_encoder": lambda: (draw(1, 3, 224, 224).tanh(),)}[network]()


def largest_activation(module, arguments):
    found = []

    def record(part, given, result):
        result = result[0] if isinstance(result, tuple) else result
        if isinstance(result, torch.Tensor):
            found.append(result.abs().max())

    for part in module.modules():
        part.register_forward_hook(record)
    with torch.inference_mode():
        result = module(*arguments)
    return float(torch.stack(found).max()), result


def count(part, **changes):
    return sum(weight.numel() for weight in full_model.make_part(part, "meta", **changes).parameters())


def test_the_denoiser_has_the_size_of_the_published_one():
    assert count("unet", in_channels=8) == 1_524_623_082
    assert count("unet") == full_model.UNET_PARAMETERS == 1_524_625_962


def test_the_other_parts_have_theirs():
    assert count("vae") == 97_742_847
    assert count("image_encoder") == 632_076_800


@pytest.mark.parametrize("network, part", [("unet", "unet"), ("vae_encoder", "vae"), ("vae_decoder", "vae"),
                                           ("image_encoder", "image_encoder")])
def test_activations_stay_far_inside_float16_and_matter(network, part):
    module = full_model.make_part(part, dtype=torch.float16, **NARROW[part])
    colours = full_model.PREPROCESSOR["image_mean"], full_model.PREPROCESSOR["image_std"]
    largest, result = largest_activation(wrap(network, module, *colours).half(), inputs_of(network, torch.float16))
    # A NaN fails the first comparison. The second half: a network that damps its input to nothing would pass the first.
    assert largest < 1000.0
    assert 0.05 < float(result.float().std()) < 20.0


def test_the_seed_decides_every_weight():
    first, again, other = (full_model.make_part("image_encoder", seed=seed, num_hidden_layers=1, **NARROW["image_encoder"])
                           for seed in (0, 0, 1))
    pairs = list(zip(first.named_parameters(), again.parameters(), other.parameters()))
    assert all(torch.equal(weight, same) for (_, weight), same, _ in pairs)
    drawn = [name for (name, weight), _, differs in pairs if not torch.equal(weight, differs)]
    assert {name for (name, _), *_ in pairs} - set(drawn) <= {name for (name, _), *_ in pairs if "norm" in name}


def test_mixing_factors_go_where_the_module_goes():
    module = full_model.make_part("unet", dtype=torch.float16, **NARROW["unet"])
    factors = [weight for name, weight in module.named_parameters() if name.endswith("mix_factor")]
    assert factors and all(weight.dtype == torch.float16 for weight in factors)


def test_a_checkpoint_is_written_that_the_build_reads(tmp_path, monkeypatch):
    for part, name in (("unet", "UNET"), ("vae", "VAE"), ("image_encoder", "IMAGE_ENCODER")):
        monkeypatch.setattr(full_model, name, getattr(full_model, name) | NARROW[part])
    folder = full_model.write_checkpoint(tmp_path / "full", seed=3)
    found = read_checkpoint(folder)
    assert (found.name, found.channels, found.frames, found.tile_px, found.weights.variant) == ("full", 9, 14, 512, "fp16")
    assert (found.factor, found.multiple, found.sampler["scaling_factor"]) == (8, 8, 0.18215)
    assert (found.sampler["sigma_min"], found.sampler["sigma_max"]) == (0.002, 700.0)
    written, made = load_part(folder, "unet", "fp16"), full_model.make_part("unet", seed=3)
    assert all(torch.equal(weight, same.float()) for weight, same in zip(written.parameters(), made.parameters()))


@pytest.mark.gpu
def test_a_part_lies_on_the_gpu_whole():
    module = full_model.make_part("unet", "cuda", **NARROW["unet"])
    assert {weight.device.type for weight in module.parameters()} == {"cuda"}
    largest, result = largest_activation(wrap("unet", module), [tensor.cuda() for tensor in inputs_of("unet", torch.float16)])
    assert largest < 1000.0 and bool(torch.isfinite(result).all())
