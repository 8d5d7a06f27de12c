"""LoRA: every form of keys is merged as the formula says, and what has no place is refused by name."""

import json

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from pano4d.build_engines.build import build_bundle, describe  # noqa: E402
from pano4d.build_engines.checkpoint import read_checkpoint  # noqa: E402
from pano4d.build_engines.lora import parse_lora  # noqa: E402
from pano4d.build_engines.networks import reference_module, tile_shape  # noqa: E402
from pano4d.runtime.backends import load_engine  # noqa: E402
from pano4d.runtime.bundle import sha256_of_file  # noqa: E402
from pano4d.runtime.errors import BackendError, CheckpointError  # noqa: E402

QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OUTPUT = "mid_block.attentions.0.temporal_transformer_blocks.0.attn2.to_out.0"
KERNEL = "mid_block.resnets.0.temporal_res_block.conv1"
RANK = 3


def factors(name, shapes):
    """Draw down and up for a weight, as kernels where it is one."""
    shape = shapes[f"{name}.weight"]
    generator = torch.Generator().manual_seed(len(name))
    ones = (1,) * (len(shape) - 2)
    return (torch.randn(RANK, *shape[1:], generator=generator), torch.randn(shape[0], RANK, *ones, generator=generator))


FORMS = {
    "kohya": lambda name, down, up: {f"lora_unet_{name.replace('.', '_')}.lora_down.weight": down,
                                     f"lora_unet_{name.replace('.', '_')}.lora_up.weight": up},
    "diffusers": lambda name, down, up: {f"unet.{name}.lora.down.weight": down, f"unet.{name}.lora.up.weight": up},
    "peft": lambda name, down, up: {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up},
    "peft, saved by itself": lambda name, down, up: {f"base_model.model.{name}.lora_A.default.weight": down,
                                                     f"base_model.model.{name}.lora_B.default.weight": up},
    "without a prefix": lambda name, down, up: {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up},
}


@pytest.fixture(scope="module")
def unet(masked):
    """The denoiser as it is, and the shapes of its weights."""
    checkpoint = read_checkpoint(masked)
    return reference_module(checkpoint, "unet").unet, checkpoint.weights.shapes("unet")


def merged(masked, *loras):
    return reference_module(read_checkpoint(masked, loras=loras), "unet").unet


def delta(down, up, factor):
    return factor * torch.einsum("or,r...->o...", up.double().flatten(1), down.double())


@pytest.mark.parametrize("alpha", [None, 1.5])
@pytest.mark.parametrize("form", FORMS)
def test_it_is_merged_as_the_formula_says(masked, unet, tmp_path, form, alpha):
    module, shapes = unet
    held, deltas = {}, {}
    for name in (QUERY, OUTPUT, KERNEL):
        down, up = factors(name, shapes)
        keys = FORMS[form](name, down, up)
        held |= keys
        if alpha is not None:
            held[next(iter(keys)).rpartition(".lora")[0] + ".alpha"] = torch.tensor(alpha)
        deltas[name] = delta(down, up, 0.5 * (1.0 if alpha is None else alpha / RANK))
    save_file(held, tmp_path / "style.safetensors")
    found = merged(masked, f"{tmp_path / 'style.safetensors'}:0.5")
    for name in deltas:
        torch.testing.assert_close(found.get_parameter(f"{name}.weight").double(),
                                   module.get_parameter(f"{name}.weight").double() + deltas[name], rtol=1e-6, atol=1e-6)
    untouched = {name for name, weight in module.state_dict().items() if torch.equal(weight, found.state_dict()[name])}
    assert untouched == set(shapes) - {f"{name}.weight" for name in deltas}


def test_the_oldest_form_leaves_the_list_of_an_output_out(masked, unet, tmp_path):
    module, shapes = unet
    place, side = OUTPUT.removesuffix(".to_out.0"), "to_out"
    down, up = factors(OUTPUT, shapes)
    save_file({f"unet.{place}.processor.{side}_lora.down.weight": down, f"unet.{place}.processor.{side}_lora.up.weight": up},
              tmp_path / "old.safetensors")
    found = merged(masked, str(tmp_path / "old.safetensors"))
    torch.testing.assert_close(found.get_parameter(f"{OUTPUT}.weight").double(),
                               module.get_parameter(f"{OUTPUT}.weight").double() + delta(down, up, 1.0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("beside", [False, True])
def test_alpha_is_read_where_peft_writes_it(masked, unet, tmp_path, beside):
    module, shapes = unet
    down, up = factors(QUERY, shapes)
    metadata = None if beside else {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 6, "unet.r": RANK})}
    if beside:
        (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 6, "r": RANK}))
    save_file(FORMS["peft"](QUERY, down, up), tmp_path / "a.safetensors", metadata)
    found = merged(masked, str(tmp_path / "a.safetensors"))
    torch.testing.assert_close(found.get_parameter(f"{QUERY}.weight").double(),
                               module.get_parameter(f"{QUERY}.weight").double() + delta(down, up, 2.0), rtol=1e-6, atol=1e-6)


def test_two_are_added_up_and_half_precision_is_read(masked, unet, tmp_path):
    module, shapes = unet
    down, up = (tensor.half() for tensor in factors(QUERY, shapes))
    save_file(FORMS["peft"](QUERY, down, up), tmp_path / "a.safetensors")
    found = merged(masked, f"{tmp_path / 'a.safetensors'}:2", f"{tmp_path / 'a.safetensors'}:-1")
    torch.testing.assert_close(found.get_parameter(f"{QUERY}.weight").double(),
                               module.get_parameter(f"{QUERY}.weight").double() + delta(down, up, 1.0), rtol=1e-5, atol=1e-6)


def test_file_and_scale_are_in_the_manifest_and_in_the_key(masked, unet, tmp_path):
    path = tmp_path / "style.safetensors"
    save_file(FORMS["kohya"](QUERY, *factors(QUERY, unet[1])), path)
    keys = set()
    for loras in ((), (str(path),), (f"{path}:0.5",)):
        checkpoint = read_checkpoint(masked, loras=loras)
        manifest = describe(checkpoint, tile_shape(checkpoint, 8, 2, 1), "onnxruntime", "fp32")
        keys.add(manifest["key"])
    assert len(keys) == 3
    assert manifest["model"]["loras"] == [{"file": "style.safetensors", "sha256": sha256_of_file(path), "scale": 0.5}]
    assert "--lora style.safetensors:0.5 " in manifest["build"]["command"]


def test_a_bundle_is_built_of_it(masked, unet, tmp_path):
    path = tmp_path / "style.safetensors"
    save_file(FORMS["kohya"](QUERY, *factors(QUERY, unet[1])), path)
    bundle = build_bundle(masked, tmp_path / "engines", tile_px=8, loras=[f"{path}:0.1"])
    assert bundle.manifest["parity"]["unet"]["relative_error"] <= 1e-2
    with pytest.raises(BackendError, match="'eager' runs folders"):
        load_engine(bundle, "unet", "eager")


@pytest.mark.parametrize("text, path, scale", [
    ("a.safetensors", "a.safetensors", 1.0), ("a.safetensors:0.5", "a.safetensors", 0.5), ("a:-1", "a", -1.0),
    ("C:a.safetensors", "C:a.safetensors", 1.0)])
def test_scales_are_split_off(text, path, scale):
    assert (str(parse_lora(text)[0]), parse_lora(text)[1]) == (path, scale)


def test_a_file_whose_name_has_a_colon_is_found(tmp_path):
    (tmp_path / "a:2").touch()
    assert parse_lora(f"{tmp_path}/a:2") == (tmp_path / "a:2", 1.0)


def refusal(masked, lora):
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(masked, loras=[lora])
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


@pytest.mark.parametrize("extra, words", [
    ({"lora_unet_nowhere_to_q.lora_down.weight": (3, 32)}, "1 of 3 tensors .* such as lora_unet_nowhere_to_q.lora_down.weight"),
    ({"lora_te_text_model.lora_up.weight": (3, 32)}, "such as lora_te_text_model"),
    ({f"lora_unet_{QUERY.replace('.', '_')}.hada_w1_a": (3, 3)}, "hada_w1_a"),
    ({f"unet.{OUTPUT}.lora_A.weight": (3, 64)}, "has but down for"),
    ({f"unet.{OUTPUT}.lora_A.weight": (3, 7), f"unet.{OUTPUT}.lora_B.weight": (64, 3)}, "made for another model"),
])
def test_what_has_no_place_is_refused(masked, unet, tmp_path, extra, words):
    import re
    held = FORMS["kohya"](QUERY, *factors(QUERY, unet[1])) | {key: torch.zeros(shape) for key, shape in extra.items()}
    save_file(held, tmp_path / "a.safetensors")
    assert re.search(words, refusal(masked, str(tmp_path / "a.safetensors")))


@pytest.mark.parametrize("told, words", [("{", "cannot be read"), ('{"use_rslora": true}', "use_rslora"),
                                         ('{"lora_alpha": "x"}', "cannot be read")])
def test_adapters_of_another_formula_are_refused(masked, unet, tmp_path, told, words):
    save_file(FORMS["peft"](QUERY, *factors(QUERY, unet[1])), tmp_path / "a.safetensors")
    (tmp_path / "adapter_config.json").write_text(told)
    assert words in refusal(masked, str(tmp_path / "a.safetensors"))


def test_files_that_are_none_are_refused(masked, tmp_path):
    assert "There is no LoRA" in refusal(masked, str(tmp_path / "a.safetensors"))
    (tmp_path / "a.safetensors").write_bytes(b"short")
    assert "damaged or truncated" in refusal(masked, str(tmp_path / "a.safetensors"))
    assert "is a pickle" in refusal(masked, str(tmp_path / "a.ckpt"))
    assert "a number is needed" in refusal(masked, "a:much") and "a number is needed" in refusal(masked, "a:nan")
    save_file({}, tmp_path / "none.safetensors")
    assert "0 of 0 tensors" in refusal(masked, str(tmp_path / "none.safetensors"))
