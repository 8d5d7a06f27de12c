"""Read Stable Video Diffusion checkpoints in the folder layout of diffusers, stock or masked, of any width."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pano4d.runtime.backends.eager import CLASS_OF_PART
from pano4d.runtime.bundle import sha256_of_file
from pano4d.runtime.errors import CheckpointError

CLIP_PX = 224
KNOWN_CHANNELS = {8: "stock", 9: "masked"}
SVD = {"fps": 7, "motion_bucket_id": 127, "noise_aug_strength": 0.02, "num_frames": 14, "tile_px": 512,
       "num_inference_steps": 7, "solver": "dpmpp-2m", "levels": "aligned", "min_guidance_scale": 1.0,
       "max_guidance_scale": 3.0, "license": "unknown"}
"""What holds without a pano4d.json: what Stable Video Diffusion recommends, but for its 25 Euler steps, which take 3.5 times
as long and move less (``benchmarks/ablate_steps.py``)."""


@dataclass(frozen=True)
class Checkpoint:
    """What the build must know of a checkpoint.

    Attributes:
        folder: Where it lies.
        name: Name of the model.
        license: Its licence; ``unknown`` where it does not say.
        channels: Input channels of the denoiser, 8 or 9.
        embedding: Size D of the image embedding.
        widths: Channels of the first block of ``unet`` and ``vae``.
        factor: Pixels to a latent pixel, along a side.
        multiple: A tile's side in latent pixels must be a multiple of this.
        frames: Recommended frames T.
        tile_px: Recommended side of a tile in pixels.
        image_mean: CLIP's mean colour.
        image_std: CLIP's standard deviation of colour.
        sampler: The ``sampler`` block of a manifest.
        variant: Infix of the weight files, None or ``fp16``.
        files: SHA-256 of every file that decides the result, by its path in the folder.
    """

    folder: Path
    name: str
    license: str
    channels: int
    embedding: int
    widths: Mapping[str, int]
    factor: int
    multiple: int
    frames: int
    tile_px: int
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    sampler: Mapping[str, Any]
    variant: str | None
    files: Mapping[str, str]

    @property
    def weights(self) -> dict[str, str]:
        """SHA-256 of every weight file, by its path in the folder."""
        return {name: digest for name, digest in self.files.items() if name.endswith(".safetensors")}


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint's configuration and check that its parts are there and whole.

    Args:
        folder: Folder with unet/, vae/, image_encoder/, scheduler/, feature_extractor/, and pano4d.json
            where the model recommends other settings than Stable Video Diffusion.

    Returns:
        What the build must know; no weights are held.

    Raises:
        CheckpointError: A part is missing, damaged, or of another kind of model.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder: give the folder of a Stable Video Diffusion checkpoint in the "
                              "layout of diffusers.")
    unet, vae, clip = (_part_config(folder, part) for part in ("unet", "vae", "image_encoder"))
    scheduler = _json(folder, "scheduler/scheduler_config.json")
    colours = _json(folder, "feature_extractor/preprocessor_config.json")
    told = SVD | (_json(folder, "pano4d.json") if (folder / "pano4d.json").exists() else {})
    _check_kind(folder, unet, vae, clip, scheduler)
    variant, weights = _weights(folder)
    configs = [path for path in _CONFIGS if (folder / path).exists()]
    try:
        return Checkpoint(
            folder=folder, name=str(told.get("name") or folder.resolve().name), license=str(told["license"]),
            channels=unet["in_channels"], embedding=clip["projection_dim"],
            widths={part: int(config["block_out_channels"][0]) for part, config in (("unet", unet), ("vae", vae))},
            factor=2 ** (len(vae["block_out_channels"]) - 1), multiple=2 ** (len(unet["block_out_channels"]) - 1),
            frames=int(told["num_frames"]), tile_px=int(told["tile_px"]),
            image_mean=tuple(map(float, colours["image_mean"])), image_std=tuple(map(float, colours["image_std"])),
            sampler=_sampler(scheduler, vae, told), variant=variant,
            files={name: sha256_of_file(folder / name) for name in (*configs, *weights)})
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"The configuration in {folder} cannot be used ({type(error).__name__}: {error}): "
                              "download or save the checkpoint again.") from error


_CONFIGS = ("unet/config.json", "vae/config.json", "image_encoder/config.json", "scheduler/scheduler_config.json",
            "feature_extractor/preprocessor_config.json", "pano4d.json")


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{folder} has no readable {name}: a checkpoint needs unet, vae, image_encoder, scheduler "
                              "and feature_extractor; download or save it again.") from error
    except ValueError as error:
        raise CheckpointError(f"{folder / name} is not valid JSON ({error}): download or save it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{folder / name} holds no JSON object: download or save it again.")
    return value


def _part_config(folder: Path, part: str) -> dict[str, Any]:
    config = _json(folder, f"{part}/config.json")
    found = config.get("_class_name") or (config.get("architectures") or [None])[0]
    if found != CLASS_OF_PART[part]:
        raise CheckpointError(f"{folder / part} is a {found}, and a {CLASS_OF_PART[part]} is needed: give the folder of "
                              "a Stable Video Diffusion checkpoint.")
    return config


def _check_kind(folder: Path, unet: dict, vae: dict, clip: dict, scheduler: dict) -> None:
    """Refuse models whose tensors or noise differ from what the sampler computes."""
    needed = (
        ("unet/config.json", "in_channels", unet.get("in_channels"), tuple(KNOWN_CHANNELS)),
        ("unet/config.json", "out_channels", unet.get("out_channels", 4), (4,)),
        ("unet/config.json", "cross_attention_dim", unet.get("cross_attention_dim"), (clip.get("projection_dim"),)),
        ("vae/config.json", "latent_channels", vae.get("latent_channels", 4), (4,)),
        ("image_encoder/config.json", "image_size", clip.get("image_size", CLIP_PX), (CLIP_PX,)),
        ("scheduler/scheduler_config.json", "prediction_type", scheduler.get("prediction_type"), ("v_prediction",)),
    )
    for file, name, found, known in needed:
        if found not in known:
            raise CheckpointError(f"{folder / file} has {name} {found}, and {' or '.join(map(str, known))} is needed: "
                                  "give the folder of a Stable Video Diffusion checkpoint.")


def _weights(folder: Path) -> tuple[str | None, list[str]]:
    """Find the weight files: full precision where all parts have it, else fp16."""
    absent = ""
    for variant in (None, "fp16"):
        found = {part: _part_weights(folder / part, variant) for part in CLASS_OF_PART}
        if all(found.values()):
            names = [path.relative_to(folder).as_posix() for paths in found.values() for path in paths]
            for name in names:
                _check_whole(folder / name)
            return variant, names
        absent = absent or next(part for part, paths in found.items() if not paths)
    raise CheckpointError(f"{folder / absent} holds no .safetensors weights: download or save this part again, with "
                          "safe serialization.")


def _part_weights(folder: Path, variant: str | None) -> list[Path]:
    paths = sorted(folder.glob("*.safetensors"))
    return [path for path in paths if (".fp16." in path.name) == (variant == "fp16")]


def _check_whole(path: Path) -> None:
    try:
        with safe_open(path, "numpy") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or truncated ({error}): download or save it again.") from error


def _sampler(scheduler: dict, vae: dict, told: dict) -> dict[str, Any]:
    """Write the ``sampler`` block of the manifest; a scheduler that names no sigmas has those of SVD."""
    low, high = scheduler.get("sigma_min"), scheduler.get("sigma_max")
    return {
        "sigma_min": float(0.002 if low is None else low), "sigma_max": float(700.0 if high is None else high),
        "rho": 7.0, "prediction_type": "v_prediction", "scaling_factor": float(vae.get("scaling_factor", 0.18215)),
        "num_inference_steps": int(told["num_inference_steps"]), "solver": str(told["solver"]),
        "levels": str(told["levels"]),
        "min_guidance_scale": float(told["min_guidance_scale"]),
        "max_guidance_scale": float(told["max_guidance_scale"]),
        "fps": int(told["fps"]), "motion_bucket_id": int(told["motion_bucket_id"]),
        "noise_aug_strength": float(told["noise_aug_strength"]),
    }
