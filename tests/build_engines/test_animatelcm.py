"""AnimateLCM-SVD: a denoiser in a file of its own, or a folder with its scheduler, and its sampler from files to frames."""

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from pano4d.build_engines.build import build_bundle, describe  # noqa: E402
from pano4d.build_engines.checkpoint import read_checkpoint  # noqa: E402
from pano4d.build_engines.networks import reference_module, tile_shape  # noqa: E402
from pano4d.runtime.backends import load_engine  # noqa: E402
from pano4d.runtime.errors import BackendError, CheckpointError  # noqa: E402
from pano4d.runtime.pipeline import Animator  # noqa: E402
from pano4d.runtime.schedule import consistency_sigmas  # noqa: E402
from pano4d.runtime.settings import AnimateSettings  # noqa: E402

SCHEDULER = {"_class_name": "AnimateLCMSVDStochasticIterativeScheduler", "_diffusers_version": "0.25.1",
             "clip_denoised": False, "num_train_timesteps": 40, "rho": 7, "s_noise": 1.0, "sigma_data": 1.0,
             "sigma_max": 700.0, "sigma_min": 0.002}
LCM = {"solver": "lcm", "levels": "lcm", "trained_steps": 40, "num_inference_steps": 4, "min_guidance_scale": 1.0,
       "max_guidance_scale": 1.2, "sigma_min": 0.002, "sigma_max": 700.0, "rho": 7.0}


@pytest.fixture(scope="module")
def base(written, tmp_path_factory):
    """What AnimateLCM-SVD-xt was tuned from, with the scheduler of that."""
    scheduler = {"_class_name": "EulerDiscreteScheduler", "prediction_type": "v_prediction", "sigma_min": 0.002,
                 "sigma_max": 700.0}
    return written(tmp_path_factory.mktemp("lcm") / "stable-video-diffusion-img2vid-xt", 8, 25, told=None, variant="fp16",
                   scheduler=scheduler)


@pytest.fixture(scope="module")
def denoiser(written, tmp_path_factory):
    """A denoiser alone, with diffusers' names, as AnimateLCM's are published."""
    other = written(tmp_path_factory.mktemp("tuned") / "tuned", 8, 25, told=None, seed=77)
    path = other.parent / "AnimateLCM-SVD-xt-1.1.safetensors"
    shutil.copy(other / "unet" / "diffusion_pytorch_model.safetensors", path)
    return path


@pytest.fixture(scope="module")
def folder(written, tmp_path_factory):
    """A folder saved from a pipeline of AnimateLCM."""
    return written(tmp_path_factory.mktemp("saved") / "saved", 8, 25, told=None, scheduler=SCHEDULER)


def test_the_denoiser_is_taken_from_its_own_file(base, denoiser):
    found = read_checkpoint(base, unet=denoiser)
    assert found.sampler.items() >= LCM.items() and (found.frames, found.name) == (25, base.name)
    assert (found.license, found.license_from) == ("unknown", "nothing")
    ours, theirs = reference_module(found, "unet").unet.state_dict(), load_file(denoiser)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs) and ours.keys() == theirs.keys()
    assert denoiser.name in found.weight_files and not any(name.startswith("unet/") for name in found.weight_files)
    manifest = describe(found, tile_shape(found, 8, 2, 1), "onnxruntime", "fp32")
    assert f"--unet {denoiser.name}" in manifest["build"]["command"]
    assert manifest["key"] != describe(read_checkpoint(base), tile_shape(found, 8, 2, 1), "onnxruntime", "fp32")["key"]


def test_the_card_of_the_base_says_nothing_of_another_denoiser(base, denoiser, tmp_path):
    copied = shutil.copytree(base, tmp_path / base.name)
    (copied / "README.md").write_text("---\nlicense: mit\n---\n")
    assert read_checkpoint(copied).license == "mit" and read_checkpoint(copied, unet=denoiser).license == "unknown"
    mine = shutil.copy(denoiser, tmp_path / "mine.safetensors")
    found = read_checkpoint(copied, unet=mine)
    assert found.license == "unknown" and found.sampler["solver"] != "lcm"


def test_a_folder_with_its_scheduler_is_sampled_by_it(folder):
    found = read_checkpoint(folder)
    assert found.sampler.items() >= LCM.items() and found.license == "unknown"
    assert read_checkpoint(folder).frames == 25


def test_a_distilled_model_has_not_the_licence_of_the_name_it_keeps(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "copied")
    config = json.loads((copied / "unet/config.json").read_text())
    config["_name_or_path"] = "stabilityai/stable-video-diffusion-img2vid-xt"
    (copied / "unet/config.json").write_text(json.dumps(config))
    assert read_checkpoint(copied).license == "unknown" and read_checkpoint(copied).sampler["solver"] == "lcm"


def test_it_is_built_and_moves_only_where_it_may(base, denoiser, exports_once, tmp_path):
    bundle = build_bundle(base, tmp_path / "engines", tile_px=16, frames=2, max_guidance_scale=1.0, unet=denoiser)
    animator = Animator(bundle, AnimateSettings(width=64, height=32))
    np.testing.assert_array_equal(animator.sigmas, consistency_sigmas(4, 0.002, 700.0))
    panorama = np.random.default_rng(0).integers(0, 255, (32, 64, 3)).astype(np.uint8)
    mask = np.zeros((32, 64), bool)
    mask[8:24, 8:24] = True
    made = animator.animate(panorama, mask)
    assert (made.frames[:, ~mask] == panorama[~mask]).all() and (made.frames[:, mask] != panorama[mask]).any()
    assert np.isfinite(made.latents).all()
    with pytest.raises(BackendError, match="'eager' runs folders"):
        load_engine(bundle, "unet", "eager")


def test_the_folders_own_denoiser_need_not_be_there(base, denoiser, tmp_path):
    copied = shutil.copytree(base, tmp_path / "copied")
    next((copied / "unet").glob("*.safetensors")).unlink()
    assert read_checkpoint(copied, unet=denoiser).sampler["solver"] == "lcm"
    with pytest.raises(CheckpointError, match="unet holds no .safetensors weights"):
        read_checkpoint(copied)


@pytest.mark.parametrize("entries, words", [({"sigma_data": 0.5}, "sigma_data 0.5, and 1.0 is needed"),
                                            ({"clip_denoised": True}, "clip_denoised True")])
def test_another_scheduler_of_that_class_is_refused(folder, tmp_path, entries, words):
    copied = shutil.copytree(folder, tmp_path / "copied")
    (copied / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER | entries))
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(copied)


def test_fewer_levels_of_training_are_told_to_the_sampler(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "copied")
    (copied / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER | {"num_train_timesteps": 20}))
    assert read_checkpoint(copied).sampler["trained_steps"] == 20


def refusal(base, unet):
    with pytest.raises(CheckpointError) as caught:
        reference_module(read_checkpoint(base, unet=unet), "unet")
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_a_file_that_is_no_denoiser_for_it_is_refused(base, denoiser, masked, tmp_path):
    assert "There is no denoiser" in refusal(base, tmp_path / "none.safetensors")
    assert "is a pickle" in refusal(base, tmp_path / "none.pt")
    (tmp_path / "short.safetensors").write_bytes(denoiser.read_bytes()[:-1])
    assert "damaged or truncated" in refusal(base, tmp_path / "short.safetensors")
    assert "take 9 input channels" in refusal(base, masked / "unet/diffusion_pytorch_model.safetensors")
    assert "holds no model.diffusion_model." in refusal(base, base / "image_encoder/model.fp16.safetensors")
    held = load_file(denoiser)
    save_file({name: weight for name, weight in held.items() if name != "conv_out.bias"}, tmp_path / "less.safetensors")
    assert "1 of its weights are missing or of another shape, such as conv_out.bias" in (
        refusal(base, tmp_path / "less.safetensors"))


@pytest.mark.parametrize("entries, words", [({"solver": "heun"}, "recommends the solver 'heun'"),
                                            ({"levels": "even"}, "recommends the levels 'even'")])
def test_a_sampler_that_does_not_exist_is_refused(folder, tmp_path, entries, words):
    copied = shutil.copytree(folder, tmp_path / "copied")
    (copied / "pano4d.json").write_text(json.dumps(entries))
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(copied)
