"""Opening bundles: what is right opens, what is damaged is refused in one sentence."""

import dataclasses
import json

import pytest

from pano4d.runtime.backends.base import NETWORKS, TensorSpec
from pano4d.runtime.backends.fake import FakeBundle, fake_manifest
from pano4d.runtime.bundle import Bundle, default_bundle_path, file_record
from pano4d.runtime.errors import BundleError


@pytest.fixture
def folder(tmp_path):
    """A bundle of four small files, one with a second file of weights."""
    manifest = fake_manifest(64, 4, 9, 1, 1.0, 3)
    for name in NETWORKS:
        (tmp_path / f"{name}.onnx").write_bytes(name.encode() * 3)
        manifest["networks"][name] |= file_record(tmp_path, f"{name}.onnx")
    (tmp_path / "unet.onnx.data").write_bytes(b"weights")
    manifest["networks"]["unet"]["extra_files"] = [file_record(tmp_path, "unet.onnx.data")]
    write(tmp_path, manifest)
    return tmp_path


def write(folder, manifest):
    (folder / "manifest.json").write_text(json.dumps(manifest))


def change(folder, *path, value):
    """Set one entry of the manifest."""
    manifest = block = json.loads((folder / "manifest.json").read_text())
    for name in path[:-1]:
        block = block[name]
    block[path[-1]] = value
    write(folder, manifest)


def refusal(folder, **options):
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder, **options)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_a_whole_bundle_opens(folder):
    bundle = Bundle.open(folder)
    assert bundle.tile == {"px": 64, "latent_px": 8, "frames": 4, "batch": 1}
    assert bundle.sampler["fps"] == 7
    network = bundle.network("vae_encoder")
    assert network.path == folder / "vae_encoder.onnx"
    assert network.inputs == (TensorSpec("pixels", "float32", (1, 3, 64, 64)),)
    assert network.outputs[0].shape == (1, 4, 8, 8)
    assert len(bundle.files()) == 5


@pytest.fixture
def tailed(folder):
    """The same for four tiles at once, with a second denoiser that shares a file with the first."""
    manifest, old = fake_manifest(64, 4, 9, 4, 3.0, 3, tail=True), json.loads((folder / "manifest.json").read_text())
    (folder / "unet_tail.onnx").write_bytes(b"tail")
    for name in NETWORKS:
        manifest["networks"][name] |= {key: old["networks"][name][key] for key in ("file", "sha256", "bytes", "extra_files")}
    manifest["networks"]["unet_tail"] |= file_record(folder, "unet_tail.onnx") | {
        "extra_files": old["networks"]["unet"]["extra_files"]}
    write(folder, manifest)
    return folder


def test_a_second_denoiser_is_optional(folder, tailed):
    bundle = Bundle.open(tailed)
    assert bundle.has_tail and not FakeBundle().has_tail
    assert bundle.network("unet_tail").inputs[0].shape == (2, 4, 9, 8, 8)
    assert [record["file"] for record in bundle.files()].count("unet.onnx.data") == 1 and len(bundle.files()) == 6


@pytest.mark.parametrize("path, value, words", [
    ((), 3, "networks.unet_tail is missing"), (("sha256",), None, "networks.unet_tail.sha256"),
    (("inputs", 0, "shape"), [], "networks.unet_tail.inputs are not those of networks.unet for one tile of 4"),
    (("inputs", 0, "shape"), [8, 4, 9, 8, 8], "networks.unet_tail.inputs"),
    (("outputs", 0, "dtype"), "float16", "networks.unet_tail.outputs"),
    (("outputs", 0, "shape"), [2, 4, 4, 8, 9], "networks.unet_tail.outputs"),
    (("workspace_bytes",), -1, "networks.unet_tail.workspace_bytes"),
], ids=str)
def test_a_second_denoiser_must_be_the_first_one_for_one_tile(tailed, path, value, words):
    change(tailed, "networks", "unet_tail", *path, value=value)
    assert "is incomplete" in refusal(tailed) and words in refusal(tailed)


def test_a_shared_file_of_another_digest_is_refused(tailed):
    change(tailed, "networks", "unet_tail", "extra_files", 0, "sha256", value="0" * 64)
    assert "unet.onnx.data is not the file that was built" in refusal(tailed)


def test_a_bundle_cannot_be_changed(folder):
    with pytest.raises(dataclasses.FrozenInstanceError):
        Bundle.open(folder).sha256 = ""


def test_the_digest_is_that_of_the_manifest(folder):
    first = Bundle.open(folder).sha256
    change(folder, "model", "name", value="other")
    assert Bundle.open(folder).sha256 != first


@pytest.mark.parametrize("name", ["unet.onnx", "unet.onnx.data", "vae_decoder.onnx"])
def test_one_changed_byte_is_refused(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[1] ^= 1
    (folder / name).write_bytes(content)
    assert name in refusal(folder) and "--force" in refusal(folder)
    Bundle.open(folder, verify=False)


def test_a_truncated_file_is_refused_even_unverified(folder):
    (folder / "unet.onnx").write_bytes(b"")
    assert "unet.onnx" in refusal(folder, verify=False)


def test_a_missing_file_is_refused(folder):
    (folder / "unet.onnx.data").unlink()
    assert "unet.onnx.data is missing" in refusal(folder)


def test_a_folder_without_manifest_is_refused(tmp_path):
    assert "pano4d build" in refusal(tmp_path)
    assert "pano4d build" in refusal(tmp_path / "nowhere")


def test_a_manifest_cut_anywhere_is_refused(folder):
    content = (folder / "manifest.json").read_bytes()
    for end in range(0, len(content), 97):
        (folder / "manifest.json").write_bytes(content[:end])
        assert "not valid JSON" in refusal(folder)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"', "{}"])
def test_another_kind_of_json_is_refused(folder, content):
    (folder / "manifest.json").write_text(content)
    assert "schema version" in refusal(folder)


def test_bytes_that_are_no_text_are_refused(folder):
    (folder / "manifest.json").write_bytes(b"\xff\xfe\x00{")
    assert "not valid JSON" in refusal(folder)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_schema_is_refused(folder, version):
    change(folder, "schema_version", value=version)
    message = refusal(folder)
    assert f"version {version}" in message and "reads version 1" in message


@pytest.mark.parametrize("path, value", [
    (("key",), None), (("model",), []), (("model", "masked"), 1), (("tile", "px"), "64"), (("tile", "frames"), True),
    (("sampler", "sigma_max"), None), (("backend", "name"), 3), (("networks", "unet"), {}), (("networks", "unet"), 3),
    (("networks", "unet", "sha256"), 3), (("networks", "unet", "inputs"), []), (("networks", "unet", "inputs"), [{}]),
    (("networks", "unet", "outputs", 0, "shape"), [1, "T"]), (("networks", "unet", "outputs", 0, "shape"), [0]),
    (("networks", "unet", "extra_files"), {"file": "x"}), (("parity",), 1),
    (("networks", "unet", "workspace_bytes"), "3"), (("networks", "unet", "workspace_bytes"), -1),
], ids=str)
def test_an_entry_of_the_wrong_type_is_refused(folder, path, value):
    change(folder, *path, value=value)
    assert "is incomplete" in refusal(folder) and str(path[0]) in refusal(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..\\x", ".."])
def test_a_file_outside_the_bundle_is_never_opened(folder, name):
    change(folder, "networks", "unet", "file", value=name)
    assert "not a plain file name" in refusal(folder) or "missing" in refusal(folder)


def test_an_unknown_network_is_refused(folder):
    with pytest.raises(BundleError, match="no network 'text_encoder'"):
        Bundle.open(folder).network("text_encoder")


def test_the_demo_comes_with_the_package(root):
    assert default_bundle_path().resolve() == root / "runtime" / "demo"
