"""The tile batch that fits, estimated before anything is built, against what was measured."""

from dataclasses import replace
from functools import partial

import pytest

torch = pytest.importorskip("torch")

from pano4d.build_engines import aot_export, build, recipes, tile_batch  # noqa: E402
from pano4d.build_engines.checkpoint import read_checkpoint  # noqa: E402
from pano4d.build_engines.networks import TileShape  # noqa: E402
from pano4d.build_engines.tile_batch import fitting_tile, planned_bundle, weight_bytes, workspace_bytes  # noqa: E402
from pano4d.runtime.errors import SettingsError  # noqa: E402
from pano4d.runtime.memory_plan import CONTEXT_BYTES, plan_memory  # noqa: E402

GIB = 2**30
HALF = partial(aot_export.typed_specs, precision="fp16", device="cuda")


@pytest.fixture
def full(masked, monkeypatch):
    """A checkpoint whose figures are those of Stable Video Diffusion."""
    checkpoint = read_checkpoint(masked)
    weights = {"image_encoder": 1_264_153_600, "vae_encoder": 68_327_328, "unet": 3_049_251_924, "vae_decoder": 127_158_366}
    monkeypatch.setattr(tile_batch, "weight_bytes", lambda *_: weights)
    return replace(checkpoint, widths={"unet": 320, "vae": 128}, embedding=1024, factor=8,
                   sampler=dict(checkpoint.sampler) | {"max_guidance_scale": 3.0})


@pytest.mark.parametrize("rows, cells, measured", [(1, 64, 1.2), (2, 64, 2.2), (4, 64, 4.1), (8, 64, 8.0), (2, 96, 4.4), (2, 128, 7.8)])
def test_the_denoiser_follows_what_was_measured(full, rows, cells, measured):
    outputs = [{"shape": [rows, 14, 4, cells, cells]}]
    assert workspace_bytes(full, "unet", [], outputs, "fp16") / GIB == pytest.approx(measured, rel=0.06)
    assert workspace_bytes(full, "unet", [], outputs, "fp32") > 1.7 * measured * GIB


@pytest.mark.parametrize("px, measured", [(512, 7.0), (1024, 28.0)])
def test_the_decoder_follows_what_was_measured(full, px, measured):
    outputs = [{"shape": [1, 14, 3, px, px]}]
    assert workspace_bytes(full, "vae_decoder", [], outputs, "fp16") / GIB == pytest.approx(measured, rel=0.06)


@pytest.mark.parametrize("gb, batch", [(11, 2), (14, 4), (24, 8), (80, 8)])
def test_the_largest_batch_that_fits_is_taken(full, gb, batch):
    tile = TileShape(512, 64, 14, 1)
    assert fitting_tile(full, tile, gb * 10**9, "fp16", HALF) == replace(tile, batch=batch)


def test_a_second_denoiser_takes_working_memory_of_its_own(full):
    tile, one = TileShape(512, 64, 14, 1), 2.2 * GIB
    for batch in (1, 2, 4, 8):
        plain, more = (plan_memory(planned_bundle(full, replace(tile, batch=batch), "fp16", HALF, tail),
                                   tile_batch.planned_run(tile)).stages[4] for tail in (False, True))
        assert more.weights_bytes == plain.weights_bytes
        assert more.workspace_bytes - plain.workspace_bytes == pytest.approx(one if batch > 1 else 0, rel=0.06)
    assert fitting_tile(full, tile, 14 * 10**9, "fp16", HALF, tail=True).batch == 2


def test_what_does_not_fit_is_refused(full):
    tile = TileShape(512, 64, 14, 1)
    with pytest.raises(SettingsError, match="4096x2048 with a tile batch of 1 needs about 9.* GB .* is 6 GB: choose a smaller --tile-px"):
        fitting_tile(full, tile, 6 * 10**9, "fp16", HALF)
    with pytest.raises(SettingsError, match="a tile batch of 8 .* choose a smaller --tile-batch"):
        fitting_tile(full, tile, 14 * 10**9, "fp16", HALF, (8,))


@pytest.mark.parametrize("px, width", [(512, 4096), (128, 4096), (64, 2048), (8, 256)])
def test_small_tiles_are_planned_for_a_size_that_they_cover(full, px, width):
    tile = TileShape(px, px // 8, 2, 1)
    assert tile_batch.planned_run(tile).width == width
    assert fitting_tile(full, tile, 80 * 10**9, "fp16", HALF).batch == 8


def test_weights_are_counted_by_network(masked):
    checkpoint = read_checkpoint(masked)
    half, single = weight_bytes(checkpoint, "fp16"), weight_bytes(checkpoint, "fp32")
    assert all(single[name] == 2 * half[name] > 0 for name in half)
    for name, part in (("unet", "unet"), ("image_encoder", "image_encoder")):
        (file,) = (masked / part).glob("*.safetensors")
        assert single[name] == pytest.approx(file.stat().st_size, rel=0.1)
    (file,) = (masked / "vae").glob("*.safetensors")
    assert single["vae_encoder"] + single["vae_decoder"] == pytest.approx(file.stat().st_size, rel=0.1)


def test_a_build_takes_the_batch_that_fits(masked, tmp_path, monkeypatch):
    checkpoint, gpu = read_checkpoint(masked), {"device": "cuda", "compute_capability": "9.0"}
    tile = TileShape(16, 8, 2, 1)
    needed = [plan_memory(planned_bundle(checkpoint, replace(tile, batch=batch), "fp16", HALF, True),
                          tile_batch.planned_run(tile)).in_chunks(1).peak_bytes for batch in (1, 2)]
    assert CONTEXT_BYTES < needed[0] < needed[1]
    built = []
    monkeypatch.setattr(aot_export, "compile_device", lambda device: device)
    monkeypatch.setattr(aot_export, "target_block", lambda device: gpu)
    monkeypatch.setattr(build, "_fill", lambda folder, manifest, *_: built.append(manifest["tile"]["batch"]) or 1 / 0)
    for more, batch in (({}, 1), ({"vram_limit_bytes": needed[1] - 1}, 1), ({"vram_limit_bytes": needed[1]}, 2),
                        ({"vram_limit_bytes": needed[1], "tile_batch": 1}, 1), ({"tile_batch": 3}, 3)):
        with pytest.raises(ZeroDivisionError):
            build.build_bundle(masked, tmp_path / "out", "aotinductor", device="cuda", **more)
        assert built.pop() == batch
