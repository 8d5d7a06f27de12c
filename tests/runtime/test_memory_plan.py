"""What a run takes of a GPU's memory: planned figures against bytes really taken, limits, and what is said of them."""

import contextlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pano4d.runtime import amounts, backends, device_pipeline, memory_limit, memory_plan, tiles
from pano4d.runtime.backends.fake import FakeBundle, FakeEngine, fake_manifest
from pano4d.runtime.bundle import Bundle
from pano4d.runtime.errors import SettingsError
from pano4d.runtime.kernels.blend import BlendPlan, most_neighbours
from pano4d.runtime.memory_limit import fit_memory
from pano4d.runtime.memory_plan import CONTEXT_BYTES, plan_memory
from pano4d.runtime.pipeline import Animator
from pano4d.runtime.settings import AnimateSettings

SETTINGS = AnimateSettings(width=128, height=64)
GIB = 2**30
PARAMETERS = {"image_encoder": 632_076_800, "vae_encoder": 34_163_664, "unet": 1_524_625_962, "vae_decoder": 63_579_183}
MEASURED = {1: 1.2, 2: 2.2, 4: 4.1, 8: 8.0}


def full_bundle(batch=4, workspace=True, tail=False):
    """What a build of Stable Video Diffusion for a GPU says of itself: 512 px, 14 frames, fp16, guided."""
    manifest = json.loads(json.dumps(fake_manifest(512, 14, 9, batch, 3.0, 25, tail)))
    needs = {"image_encoder": 0.25, "vae_encoder": 0.5 * batch + 0.25, "unet": MEASURED[2 * batch], "vae_decoder": 7.0,
             "unet_tail": MEASURED[2]}
    for name, network in manifest["networks"].items():
        weights = name.removesuffix("_tail")
        network |= {"file": f"{name}.pt2", "extra_files": [
            {"file": f"{weights}.safetensors", "sha256": "", "bytes": 2 * PARAMETERS[weights]}]}
        if workspace:
            network["workspace_bytes"] = int(needs[name] * GIB)
        for spec in (*network["inputs"], *network["outputs"]):
            spec["dtype"] = "float32" if spec["name"] in ("c_noise", "added_time_ids") else "float16"
            if name == "vae_decoder":
                spec["shape"][0] = 1
            if spec["name"] == "embeddings":
                spec["shape"][-1] = 1024
    manifest["target"] = {"device": "cuda", "compute_capability": "9.0"}
    manifest["build"] = {"command": f"pano4d build svd --backend aotinductor --tile-batch {batch}"}
    return Bundle(Path("full"), manifest, "")


def at(width):
    return AnimateSettings(width=width, height=width // 2)


@pytest.fixture
def counted(device, monkeypatch):
    """The stand-in for a GPU, with the stand-in for a model in host memory."""
    if not hasattr(device, "blocks"):
        pytest.skip("counted on the host only")

    class Engine(FakeEngine):
        def run(self, buffers, stream=None):
            values = {name: device.download(array) for name, array in buffers.items()}
            super().run(values)
            for spec in self.outputs:
                device.upload(values[spec.name], buffers[spec.name])

    monkeypatch.setattr(backends, "load_engine", lambda bundle, network, backend: Engine(bundle, network))
    return device


@pytest.mark.parametrize("bundle, settings", [
    (dict(), dict()), (dict(batch=3, max_guidance_scale=3.0), dict(solver="dpmpp-2m")), (dict(channels=8), dict(fuse="denoised")),
    (dict(), dict(mask_policy="soft", layout="rings-62")), (dict(batch=4, max_guidance_scale=3.0, tail=True), dict()),
    (dict(batch=4, max_guidance_scale=3.0, tail=True), dict(guidance_interval=(1.0, 100.0), guidance_reuse=1))], ids=str)
def test_planned_bytes_are_those_taken(counted, panorama_pixels, bundle, settings):
    bundle, settings = FakeBundle(**bundle), replace(SETTINGS, **settings)
    mask = np.zeros((64, 128), bool)
    mask[20:40, :30] = True
    peaks = {}

    @contextlib.contextmanager
    def timer(name):
        counted.peak_bytes = 0
        yield
        peaks[name] = counted.peak_bytes

    decoded = []
    kept = device_pipeline.compose
    with pytest.MonkeyPatch.context() as patch:
        def compose(*args):
            decoded.append(counted.peak_bytes)
            counted.peak_bytes = 0
            return kept(*args)
        patch.setattr(device_pipeline, "compose", compose)
        animation = Animator(bundle, settings, device=counted).animate(panorama_pixels, mask, timer=timer)
    moving, frozen = len(animation.moving_tiles), settings.mask_policy == "freeze"
    assert moving < animation.tiles_total and (not bundle.has_tail or moving % 4 == 1)
    planned = {stage.name: stage.arrays_bytes for stage in plan_memory(bundle, settings, moving, int(mask.sum())).stages}
    assert peaks["encode"] == max(planned[name] for name in ("cut", "embed", "encode"))
    assert peaks["denoise"] == max(planned["noise"], planned["denoise"])
    assert (decoded[0], peaks["decode"]) == (planned["decode"], planned["compose"])
    assert frozen or planned["compose"] > plan_memory(bundle, SETTINGS, moving, int(mask.sum())).stages[-1].arrays_bytes


def test_a_run_under_a_limit_composes_in_chunks_and_gives_the_same_frames(counted, panorama_pixels):
    bundle, mask = FakeBundle(frames=6), np.ones((64, 128), bool)
    plan = plan_memory(bundle, SETTINGS)
    limit = plan.in_chunks(2).peak_bytes
    assert plan.peak_bytes > plan.in_chunks(3).peak_bytes > limit >= plan.in_chunks(1).peak_bytes
    whole = Animator(bundle, SETTINGS, device=counted).animate(panorama_pixels, mask).frames
    whole_bytes, counted.peak_bytes = counted.peak_bytes, 0
    frames = Animator(bundle, SETTINGS, device=counted, vram_limit_bytes=limit).animate(panorama_pixels, mask).frames
    assert CONTEXT_BYTES + counted.peak_bytes == limit and whole_bytes > counted.peak_bytes
    assert (frames == whole).all()


def test_a_run_that_does_not_fit_is_refused_before_anything_is_loaded(counted, panorama_pixels, monkeypatch):
    monkeypatch.setattr(backends, "load_engine", None)
    animator = Animator(FakeBundle(), SETTINGS, device=counted, vram_limit_bytes=CONTEXT_BYTES)
    with pytest.raises(SettingsError, match="128x64 needs at least .* and --vram-limit is 805 MB: no smaller"):
        animator.animate(panorama_pixels, np.ones((64, 128), bool))
    assert counted.peak_bytes == 0


def test_still_tiles_are_not_counted_where_they_decide(counted, panorama_pixels):
    mask = np.zeros((64, 128), bool)
    mask[20:30, :9] = True
    moving = len(Animator(FakeBundle(), SETTINGS, device=counted).animate(panorama_pixels, mask).moving_tiles)
    limit = plan_memory(FakeBundle(), SETTINGS, moving, int(mask.sum())).peak_bytes
    assert limit < plan_memory(FakeBundle(), SETTINGS, None, int(mask.sum())).in_chunks(1).peak_bytes
    Animator(FakeBundle(), SETTINGS, device=counted, vram_limit_bytes=limit).animate(panorama_pixels, mask)


@pytest.mark.parametrize("layout, size", [(tiles.icosahedron_vertices(), 8), (tiles.icosahedron_faces(), 9),
                                          (tiles.rings(42.9), 16), (tiles.rings(62), 13)], ids=lambda one: getattr(one, "name", one))
def test_neighbours_are_counted_without_a_table(layout, size):
    assert most_neighbours(layout, size) == (BlendPlan.build(layout, size).indices.shape[1] - 1) // 4


@pytest.mark.parametrize("width, limit, peak", [(4096, "24GB", 12.6), (8192, "40GB", 13.0)])
def test_the_full_model_stays_within_the_memory_it_is_meant_for(width, limit, peak):
    plan = fit_memory(full_bundle(), at(width), amounts.parse_bytes(limit))
    assert plan.compose.chunk == 14 and plan.peak_bytes / 1e9 == pytest.approx(peak, abs=0.05)
    by_name = {stage.name: stage for stage in plan.stages}
    assert by_name["denoise"].weights_bytes == 2 * PARAMETERS["unet"] and not plan.unknown
    assert by_name["decode"].parts["decoded tiles"] == plan.tiles * 2 * 24 * 512 * 512 * 2
    assert by_name["compose"].parts["frames"] == 14 * width * width // 2 * 3


def test_little_memory_is_met_by_fewer_frames_at_a_time_then_by_offers():
    small = full_bundle(workspace=False)
    assert plan_memory(small, at(8192)).peak_bytes > 9e9
    assert fit_memory(small, at(8192), 9 * 10**9).compose.chunk in range(2, 14)
    with pytest.raises(SettingsError) as refused:
        fit_memory(full_bundle(), at(4096), 10 * 10**9)
    assert str(refused.value) == (
        "4096x2048 needs 12.6 GB of GPU memory with this bundle, most of it to denoise, and --vram-limit is 10 GB: build a "
        "bundle with `pano4d build svd --backend aotinductor --tile-batch 2 --out DIR`.")
    with pytest.raises(SettingsError, match="use --size 4096x2048"):
        fit_memory(full_bundle(batch=1), at(8192), int(9.3e9))
    with pytest.raises(SettingsError, match="needs at least .*raise --vram-limit"):
        fit_memory(full_bundle(workspace=False), at(4096), 10**9)


def test_engines_that_are_kept_are_all_counted(counted, panorama_pixels):
    kept, each = plan_memory(full_bundle(), at(4096), keep=True), plan_memory(full_bundle(), at(4096))
    engines = sum(stage.weights_bytes + stage.workspace_bytes for stage in each.stages)
    assert kept.peak_bytes == CONTEXT_BYTES + engines + max(stage.arrays_bytes for stage in each.stages)
    assert 26e9 < kept.peak_bytes < 28e9
    with pytest.raises(SettingsError, match="--tile-batch 2"):
        fit_memory(full_bundle(), at(4096), 24 * 10**9, keep=True)


def test_a_second_denoiser_takes_working_memory_where_it_may_run_and_no_weights():
    plain, more = full_bundle(), full_bundle(tail=True)
    needs = int(MEASURED[2] * GIB)
    for moving, keep, runs in ((None, False, True), (28, False, False), (27, False, False), (26, False, True),
                               (1, False, True), (28, True, True)):
        ours, without = plan_memory(more, at(4096), moving, keep=keep), plan_memory(plain, at(4096), moving, keep=keep)
        for one, other in zip(ours.stages, without.stages):
            assert one.weights_bytes == other.weights_bytes
            assert one.workspace_bytes == other.workspace_bytes + (needs if runs and one.name == "denoise" else 0)
            assert one.arrays_bytes <= other.arrays_bytes
        assert ours.peak_bytes <= plan_memory(more, at(4096), keep=keep).peak_bytes
    assert not plan_memory(more, at(4096), 25).unknown
    assert plan_memory(full_bundle(workspace=False, tail=True), at(4096), 25).unknown[2] == "unet"


@pytest.mark.parametrize("batch, networks", [(2, 5), (1, 4)])
def test_another_tile_batch_leaves_the_second_denoiser_as_it_is(batch, networks):
    made, before = memory_limit.with_tile_batch(full_bundle(tail=True), batch), full_bundle(tail=True)
    assert len(made.manifest["networks"]) == networks and made.has_tail == (batch > 1)
    assert batch == 1 or made.network("unet_tail") == before.network("unet_tail")


@pytest.mark.parametrize("count", [0, 99])
def test_there_are_not_so_many_tiles(count):
    with pytest.raises(SettingsError, match="give 1 to 28"):
        plan_memory(full_bundle(), at(4096), count)


def test_figures_are_ready_for_json_and_say_what_is_unknown():
    figures = plan_memory(full_bundle(workspace=False), at(2048), 3).figures()
    assert json.loads(json.dumps(figures)) == figures and figures["moving_tiles"] == 3
    assert [row["workspace_bytes"] for row in figures["stages"]] == [0, None, None, 0, None, None, 0]
    assert "image_encoder, vae_encoder, unet, vae_decoder is unknown" in figures["notes"][0]
    assert sum(row["size_bytes"] for row in figures["arrays"]) == sum(row["arrays_bytes"] for row in figures["stages"])
    assert not plan_memory(full_bundle(), at(2048)).figures()["notes"]


def test_another_tile_batch_scales_what_depends_on_it():
    made = memory_limit.with_tile_batch(full_bundle(4), 2)
    assert made.tile["batch"] == 2 and made.network("unet").inputs[0].shape[0] == 4
    assert made.network("vae_decoder").outputs[0].shape[0] == 1
    known = {name: network["workspace_bytes"] / GIB for name, network in made.manifest["networks"].items()}
    assert known["unet"] == 4.0 and known["vae_decoder"] == 7.0


@pytest.mark.parametrize("text, size", [("24GB", 24 * 10**9), ("24GiB", 24 * GIB), ("1.5 gib", 3 * GIB // 2),
                                        ("800MiB", 800 * 2**20), ("800mb", 800 * 10**6)])
def test_amounts_are_read(text, size):
    assert amounts.parse_bytes(text) == size


@pytest.mark.parametrize("text", ["24", "GB", "-1GB", "0GB", "nanGB", "infGB", "24 TB", "24 GB!", ""])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(SettingsError, match="no amount of memory: write for instance 24GB"):
        amounts.parse_bytes(text)


@pytest.mark.parametrize("size, text", [(0, "0 B"), (999, "999 B"), (36_700_160, "36.7 MB"), (12.84e9, "12.8 GB"),
                                        (805_306_368, "805 MB"), (240e9, "240 GB"), (1500, "1.5 kB")])
def test_amounts_are_written(size, text):
    assert amounts.amount(size) == text
    assert math.isclose(memory_plan.CONTEXT_BYTES, 805_306_368)
