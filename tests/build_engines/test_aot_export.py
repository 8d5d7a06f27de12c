"""From a checkpoint to compiled packages. The denoiser is the true one; stand-ins of one operator save minutes elsewhere."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402

from pano4d.build_engines import aot_export, build, networks, verify  # noqa: E402
from pano4d.build_engines.build import build_bundle, describe  # noqa: E402
from pano4d.build_engines.checkpoint import read_checkpoint  # noqa: E402
from pano4d.build_engines.networks import example_inputs, network_specs, reference_module, tile_shape  # noqa: E402
from pano4d.build_engines.recipes import recipe_of  # noqa: E402
from pano4d.runtime.backends import load_engine  # noqa: E402
from pano4d.runtime.backends.aotinductor import STRIDES  # noqa: E402
from pano4d.runtime.backends.base import NETWORKS, TensorSpec  # noqa: E402
from pano4d.runtime.errors import BackendError, BundleError  # noqa: E402
from pano4d.runtime.inspection import inspect  # noqa: E402
from pano4d.runtime.settings import AnimateSettings  # noqa: E402

OPTIONS = {"layout_optimization": True, "aot_inductor.compile_wrapper_opt_level": "O0"}


class Embed(nn.Module):
    """Stand in for the image encoder: tied weights, a buffer, a value beyond float16, a tensor lifted by the export."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.last = nn.Linear(3, 8)
        self.huge = nn.Parameter(torch.full((3,), 1e5))
        self.register_buffer("shift", torch.ones(3), persistent=False)

    def forward(self, pixels):
        x = self.second(self.first(pixels.mean((2, 3)) + self.shift)) * (self.huge * 1e-5)
        return (self.last(x) + torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])[None])[:, None]


class Encode(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2, stride=2)

    def forward(self, pixels):
        return self.conv(pixels)


class Decode(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.ConvTranspose2d(4, 3, 2, stride=2)

    def forward(self, latents):
        return self.conv(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])


STAND_INS = {"image_encoder": Embed, "vae_encoder": Encode, "vae_decoder": Decode}


def stand_in(network):
    torch.manual_seed(7)
    return STAND_INS[network]().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def built(masked, tmp_path_factory):
    """The masked checkpoint as a bundle for the CPU with a tail, as one for a GPU has; only its denoisers are true."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "recipe_of", lambda *asked: replace(recipe_of(*asked), tail=True))
        for module in (build, verify):
            patch.setattr(module, "reference_module", lambda checkpoint, network:
                          stand_in(network) if network in STAND_INS else networks.reference_module(checkpoint, network))
        return build_bundle(masked, tmp_path_factory.mktemp("bundles") / "masked", "aotinductor", tile_batch=2,
                            device="cpu", options=OPTIONS)


def test_a_bundle_says_what_it_is(built):
    manifest = built.manifest
    assert manifest["backend"] == {"name": "aotinductor", "version": manifest["build"]["versions"]["torch"]}
    assert manifest["precision"] == {"weights": "float16", "compute": "float32"}
    assert manifest["target"]["device"] == "cpu" and manifest["target"]["machine"]
    assert " --backend aotinductor --precision fp16 --device cpu --tile-px" in manifest["build"]["command"]
    assert not any("workspace_bytes" in network for network in manifest["networks"].values())
    assert OPTIONS.items() <= manifest["build"]["options"]["inductor"].items()
    assert {path.name for path in built.path.iterdir()} == {
        "manifest.json", "unet_tail.pt2", *(f"{name}{suffix}" for name in NETWORKS for suffix in (".pt2", ".safetensors"))}
    for name in NETWORKS:
        assert [extra["file"] for extra in manifest["networks"][name]["extra_files"]] == [f"{name}.safetensors"]
    assert manifest["parity"].keys() == {*NETWORKS, "unet_tail"}
    assert all(figures["relative_error"] <= 1e-2 for figures in manifest["parity"].values())


def test_a_second_denoiser_for_one_tile_shares_the_weights_of_the_first(built):
    unet, tail = (built.manifest["networks"][name] for name in ("unet", "unet_tail"))
    assert tail["extra_files"] == unet["extra_files"] and len(built.files()) == 9
    assert [spec["shape"][0] for spec in (*unet["inputs"], *tail["inputs"])] == [2] * 4 + [1] * 4
    inputs = example_inputs(list(built.network("unet").inputs), seed=3)
    with load_engine(built, "unet") as engine, load_engine(built, "unet_tail") as single:
        assert single._weights is engine._weights
        both = verify.run_engine(engine, inputs)
        each = [verify.run_engine(single, {name: array[i:i + 1] for name, array in inputs.items()}) for i in range(2)]
    assert verify.parity(np.concatenate(each), both)["relative_error"] < 1e-5


@pytest.mark.parametrize("change, words", [
    (dict(name="other"), "'other' is missing there"), (dict(turned=True), "'weight' has other strides there"),
    (dict(value=2.0), "'weight' has other bytes there"), (dict(shape=(1, 1, 4, 2)), "'weight' has other bytes there"),
    (dict(dtype=torch.int32), "'weight' has other bytes there"),
    (dict(name="other", also="weight"), "'other' is missing there"),
], ids=str)
def test_weights_that_differ_are_not_shared(tmp_path, monkeypatch, change, words):
    def packed(name="weight", value=1.0, shape=(1, 2, 2, 2), dtype=torch.float32, turned=False, also=None):
        held = torch.full(shape, value, dtype=dtype)
        held = held.contiguous(memory_format=torch.channels_last) if turned else held
        return {name: held, **({also: torch.ones(1, 2, 2, 2)} if also else {}), "bias": torch.ones(())}

    def export(held, path):
        monkeypatch.setattr(aot_export, "Package", lambda path: SimpleNamespace(names=list(held)))
        monkeypatch.setattr(aot_export, "compile_package", lambda *_: SimpleNamespace(state_dict=held, constants={}))
        return aot_export.export_aot(nn.Identity(), {}, tmp_path / path, "fp16", "cpu")[1]

    weights = export(packed(also="unused"), "unet.pt2")
    assert aot_export.share_weights(export(packed(), "unet_tail.pt2"), weights) == weights
    assert [path.name for path in tmp_path.iterdir()] == ["unet.safetensors"]
    with pytest.raises(BackendError, match=f"^unet_tail cannot share unet.safetensors, since {words}: build with"):
        aot_export.share_weights(export(packed(**change), "unet_tail.pt2"), weights)


def test_only_engines_for_a_gpu_get_a_second_denoiser(masked, monkeypatch):
    assert not recipe_of("onnxruntime", "fp16").tail and not recipe_of("aotinductor", "fp16", "cpu").tail
    monkeypatch.setattr(aot_export, "compile_device", lambda device: "cuda")
    monkeypatch.setattr(aot_export, "target_block", lambda device: {"device": "cuda"})
    assert recipe_of("aotinductor", "fp16").tail
    checkpoint = read_checkpoint(masked)
    for batch, tail, named in ((1, True, 4), (2, False, 4), (2, True, 5)):
        assert len(network_specs(checkpoint, tile_shape(checkpoint, None, None, batch), tail)) == named


def test_weights_lie_beside_the_package(built):
    package, weights = built.path / "unet.pt2", built.path / "unet.safetensors"
    stored = load_file(weights)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    weight = next(tensor for name, tensor in stored.items() if name.endswith("conv_in.weight"))
    assert weight.float().numpy().tobytes() not in package.read_bytes()
    with safe_open(weights, "pt") as file:
        strides = json.loads(file.metadata()[STRIDES])
    assert strides["unet.conv_in.weight"] == [81, 1, 27, 9], "channels do not lie last"
    assert {stored[name].dim() for name in strides} == {4}, "kernels over time are not stored as they are used"


def test_the_denoiser_computes_what_the_rounded_weights_say(built, masked):
    module = reference_module(read_checkpoint(masked), "unet").half().float()
    inputs = example_inputs(list(built.network("unet").inputs), seed=5)
    with load_engine(built, "unet") as engine:
        output = verify.run_engine(engine, inputs)
    with torch.inference_mode():
        expected = module(*(torch.from_numpy(array) for array in inputs.values())).numpy()
    # What is left comes of weights that the export folds together before it rounds them.
    assert verify.parity(output, expected)["relative_error"] < 1e-3


def test_tied_lifted_and_huge_constants_are_all_there(built):
    stored = load_file(built.path / "image_encoder.safetensors")
    assert len({"first.weight", "second.weight"} & stored.keys()) == 1
    assert len(stored) == 8 and "shift" in stored, sorted(stored)
    assert stored["huge"].dtype == torch.float32 and float(stored["huge"][0]) == 1e5


def test_a_key_that_is_there_is_not_built_again(built, masked, monkeypatch):
    monkeypatch.setattr(build, "_fill", None)
    assert build_bundle(masked, built.path, "aotinductor", tile_batch=2, device="cpu", options=OPTIONS) == built
    for more in ({"tile_batch": 1}, {"options": OPTIONS | {"max_autotune": True}}):
        with pytest.raises(BundleError, match="holds another bundle"):
            build_bundle(masked, built.path, "aotinductor", **dict(tile_batch=2, device="cpu", options=OPTIONS) | more)


def test_the_target_decides_the_key_but_not_the_driver(masked, monkeypatch):
    checkpoint = read_checkpoint(masked)
    tile = tile_shape(checkpoint, None, None, 1)
    monkeypatch.setattr(aot_export, "compile_device", lambda device: "cuda")

    def described(**target):
        gpu = {"device": "cuda", "compute_capability": "9.0", "gpu": "H200", "cuda": "13.0", "driver": "580"} | target
        monkeypatch.setattr(aot_export, "target_block", lambda device: gpu)
        return describe(checkpoint, tile, "aotinductor", "fp16", recipe_of("aotinductor", "fp16"))

    first = described()
    assert first["precision"] == {"weights": "float16", "compute": "float16"}
    assert first["build"]["options"]["inductor"] == {"freezing": False, "max_autotune": False,
                                                     "coordinate_descent_tuning": False, "layout_optimization": True}
    assert described(driver="590")["key"] == first["key"]
    assert described(compute_capability="10.0")["key"] != first["key"] != described(cuda="12.8")["key"]


def test_a_gpu_computes_in_float16_but_for_noise_levels_and_ids(masked):
    checkpoint = read_checkpoint(masked)
    for inputs, outputs in network_specs(checkpoint, tile_shape(checkpoint, None, None, 1)).values():
        for spec in aot_export.typed_specs([*inputs, *outputs], "fp16", "cuda"):
            assert spec.dtype == ("float32" if spec.name in ("c_noise", "added_time_ids") else "float16")
        assert aot_export.typed_specs(inputs, "fp32", "cuda") == aot_export.typed_specs(inputs, "fp16", "cpu") == inputs


@pytest.mark.parametrize("options, word", [({"freezing": True}, "freezing"),
                                           ({"always_keep_tensor_constants": False}, "always_keep_tensor_constants")])
def test_options_that_put_weights_into_the_package_are_refused(masked, tmp_path, options, word):
    with pytest.raises(BackendError, match=f"option '{word}' would put weights into the package"):
        build_bundle(masked, tmp_path / "out", "aotinductor", device="cpu", options=options)


@pytest.mark.parametrize("name, words", [("max_autotun", "did you mean 'max_autotune'"), ("?", "see torch._inductor.list_options")])
def test_an_option_that_does_not_exist_is_refused(name, words):
    with pytest.raises(BackendError, match=f"no option of Inductor named '{re.escape(name)}': {words}"):
        aot_export.inductor_options("cpu", options={name: True})


@pytest.mark.parametrize("more", [{"device": "cpu"}, {"options": {"max_autotune": True}}], ids=str)
def test_other_backends_take_no_options_of_a_compiler(masked, tmp_path, more):
    with pytest.raises(BackendError, match="'onnxruntime' takes neither a device nor options"):
        build_bundle(masked, tmp_path / "out", "onnxruntime", **more)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert aot_export.compile_device() == "cpu"
    for device in ("cuda", "tpu"):
        with pytest.raises(BackendError, match=f"'{device}' were asked for, and torch .* sees no GPU: build for cpu"):
            aot_export.compile_device(device)


def test_a_module_that_cannot_be_exported_is_refused(tmp_path):
    class Branches(nn.Module):
        def forward(self, x):
            return x if bool(x.sum() > 0) else -x

    inputs = example_inputs([TensorSpec("x", "float32", (2,))])
    with pytest.raises(BackendError, match="could not compile unet") as caught:
        aot_export.export_aot(Branches(), inputs, tmp_path / "unet.pt2", "fp32")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.gpu
@pytest.mark.parametrize("tile_batch, guidance, tail", [(1, 1.0, []), (2, 3.0, ["unet_tail"])])
def test_every_true_network_runs_on_the_gpu_in_half(masked, tmp_path, tile_batch, guidance, tail):
    bundle = build_bundle(masked, tmp_path / "out", "aotinductor", "fp16", device="cuda", tile_batch=tile_batch,
                          max_guidance_scale=guidance)
    assert sorted(bundle.manifest["networks"]) == sorted([*NETWORKS, *tail])
    assert bundle.manifest["target"].keys() == {"device", "compute_capability", "gpu", "cuda", "driver"}
    assert all(network["workspace_bytes"] > 0 for network in bundle.manifest["networks"].values())
    plan = inspect(bundle.path, AnimateSettings(width=64, height=32))["memory"]
    assert not plan["notes"] and plan["peak_bytes"] > plan["context_bytes"]
    for name in bundle.manifest["networks"]:
        assert bundle.manifest["parity"][name]["relative_error"] <= verify.BOUNDS["fp16"]
        inputs = example_inputs(list(bundle.network(name).inputs), seed=2)
        with load_engine(bundle, name) as engine:
            first, again = verify.run_engine(engine, inputs), verify.run_engine(engine, inputs)
        assert first.tobytes() == again.tobytes()
