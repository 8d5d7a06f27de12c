"""Read Stable Video Diffusion checkpoints, stock or masked, of any width."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pano4d.build_engines.folder import Found, read_folder, refuse_pickle
from pano4d.build_engines.hub import fetch, repository
from pano4d.build_engines.known import LCM, LCM_SCHEDULER, UNKNOWN, Known, card_license, recognise
from pano4d.build_engines.lora import parse_lora, read_lora
from pano4d.build_engines.single_file import read_denoiser, read_file
from pano4d.build_engines.weights import FileWeights, Weights
from pano4d.runtime.backends.eager import CLASS_OF_PART
from pano4d.runtime.bundle import sha256_of_file
from pano4d.runtime.errors import CheckpointError
from pano4d.runtime.settings import LEVELS, SOLVERS, TRAINED_STEPS

CLIP_PX = 224
KNOWN_CHANNELS = {8: "stock", 9: "masked"}
SVD = {"fps": 7, "motion_bucket_id": 127, "noise_aug_strength": 0.02, "num_frames": 14, "tile_px": 512,
       "num_inference_steps": 7, "solver": "dpmpp-2m", "levels": "aligned", "min_guidance_scale": 1.0,
       "max_guidance_scale": 3.0}
"""What holds where a checkpoint does not say: what Stable Video Diffusion recommends, but for its 25 Euler steps, which take
3.5 times as long and move less (``benchmarks/ablate_steps.py``)."""


@dataclass(frozen=True)
class Checkpoint:
    """What the build must know of a checkpoint.

    Attributes:
        source: Where it is from, without naming folders of this machine.
        name: Name of the model.
        license: Its licence; ``unknown`` where neither its files nor a table of known names say.
        license_from: What says so: ``pano4d.json``, ``model card``, ``known name`` or ``nothing``.
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
        weights: Where the weights of each part lie, and how they are read.
        files: SHA-256 of every file that decides the result but for LoRA, by its path in the folder.
    """

    source: str
    name: str
    license: str
    license_from: str
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
    weights: Weights
    files: Mapping[str, str]

    @property
    def weight_files(self) -> dict[str, str]:
        """SHA-256 of every weight file, by its path in the folder."""
        return {name: digest for name, digest in self.files.items() if name.endswith(".safetensors")}

    @property
    def unet_replaced(self) -> bool:
        """Whether the denoiser is another file's."""
        return "unet" in self.weights.inside and self.weights.inside["unet"].path != self.weights.path


def read_checkpoint(source: str | Path, unet: str | Path | None = None, loras: Iterable[str] = ()) -> Checkpoint:
    """Read a checkpoint's configuration and check that its parts are there and whole.

    Args:
        source: Folder in the layout of diffusers, a single .safetensors file in the layout of Stability AI, or a folder
            on the Hugging Face hub as ORG/NAME@COMMIT. Where the model recommends other settings than Stable Video
            Diffusion, pano4d.json in the folder says so, or NAME.pano4d.json beside the file.
        unet: A .safetensors file with a denoiser that takes the place of the checkpoint's, as those of AnimateLCM are
            published; None for the checkpoint's.
        loras: LoRA that are merged into the denoiser, each as FILE or FILE:SCALE.

    Returns:
        What the build must know; no weights are held.

    Raises:
        BackendError: It is on the hub, and huggingface_hub is not installed.
        CheckpointError: A part is missing, damaged, or of another kind of model.
    """
    path, label = _located(source)
    parts = tuple(part for part in CLASS_OF_PART if part != "unet" or unet is None)
    if path.is_file():
        found, taken = read_file(path)
        weights = Weights(path, None, {part: FileWeights(path, found.configs[part], taken[part]) for part in taken})
    else:
        found = read_folder(path, parts)
        found = replace(found, names=(_name(label), *found.names))
        weights = Weights(path, found.variant)
    _check_kind(found)
    if unet is not None:
        denoiser = read_denoiser(Path(unet), found.configs["unet"])
        weights = replace(weights, inside={**weights.inside, "unet": denoiser})
        found = replace(found, files=found.files | {denoiser.path.name: denoiser.path}, names=(denoiser.path.stem,))
    weights.check_channels(found.configs["unet"]["in_channels"])
    merged = [read_lora(*parse_lora(lora), weights.shapes("unet")) for lora in loras]
    try:
        # What lies with the other parts says nothing of the licence of a denoiser from elsewhere.
        card = card_license(path if path.is_dir() else path.parent) if unet is None else None
        return _described(label, card, found, replace(weights, loras=tuple(merged)))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"The configuration in {path} cannot be used ({type(error).__name__}: {error}): "
                              "download or save the checkpoint again.") from error


def _located(source: str | Path) -> tuple[Path, str]:
    """Say where a checkpoint lies, fetched if need be, and what it is called without naming folders of this machine."""
    path = Path(source)
    refuse_pickle(path)
    if path.exists():
        return path, path.resolve().name
    there = repository(str(source))
    if there is None:
        raise CheckpointError(f"{path} is no folder and no file: give the folder of a Stable Video Diffusion checkpoint in "
                              "the layout of diffusers, its single .safetensors file, or ORG/NAME@COMMIT of the Hugging "
                              "Face hub.")
    return fetch(*there), str(source)


def _name(source: str) -> str:
    """Take the name out of a folder's, a file's or an id."""
    return (source.partition("@")[0] if "/" in source else source).rpartition("/")[2].removesuffix(".safetensors")


def _described(source: str, card: str | None, found: Found, weights: Weights) -> Checkpoint:
    unet, vae, clip = (found.configs[part] for part in ("unet", "vae", "image_encoder"))
    known = recognise(found.names, unet["in_channels"])
    own = {"num_frames": unet["num_frames"]} if unet.get("num_frames") else {}
    distilled = LCM if found.configs["scheduler"].get("_class_name") == LCM_SCHEDULER else {}
    # A pipeline with this scheduler that keeps another model's name was distilled from that one.
    known = None if distilled and known and known.recommends.get("solver") != "lcm" else known
    told = SVD | (dict(known.recommends) if known else {}) | distilled | own | found.told
    license, license_from = _license(found, card, known)
    colours = found.configs["feature_extractor"]
    return Checkpoint(
        source=source, name=str(told.get("name") or _name(source)), license=license,
        license_from=license_from, channels=unet["in_channels"], embedding=clip["projection_dim"],
        widths={part: int(config["block_out_channels"][0]) for part, config in (("unet", unet), ("vae", vae))},
        factor=2 ** (len(vae["block_out_channels"]) - 1), multiple=2 ** (len(unet["block_out_channels"]) - 1),
        frames=int(told["num_frames"]), tile_px=int(told["tile_px"]),
        image_mean=tuple(map(float, colours["image_mean"])), image_std=tuple(map(float, colours["image_std"])),
        sampler=_sampler(found.configs["scheduler"], vae, told), weights=weights,
        files={name: sha256_of_file(file) for name, file in found.files.items()})


def _license(found: Found, card: str | None, known: Known | None) -> tuple[str, str]:
    """Say the licence, and what names it."""
    says = {"pano4d.json": found.told.get("license"), "model card": card,
            "known name": known.license if known and known.license != UNKNOWN else None}
    return next(((str(license), by) for by, license in says.items() if license), (UNKNOWN, "nothing"))


def _check_kind(found: Found) -> None:
    """Refuse models whose tensors or noise differ from what the sampler computes."""
    unet, vae, clip, scheduler = (found.configs[part] for part in ("unet", "vae", "image_encoder", "scheduler"))
    needed = (
        ("unet", "in_channels", unet.get("in_channels"), tuple(KNOWN_CHANNELS)),
        ("unet", "out_channels", unet.get("out_channels", 4), (4,)),
        ("unet", "cross_attention_dim", unet.get("cross_attention_dim"), (clip.get("projection_dim"),)),
        ("unet", "projection_class_embeddings_input_dim", unet.get("projection_class_embeddings_input_dim", 768),
         (3 * unet.get("addition_time_embed_dim", 256),)),
        ("vae", "latent_channels", vae.get("latent_channels", 4), (4,)),
        ("image_encoder", "image_size", clip.get("image_size", CLIP_PX), (CLIP_PX,)),
        *((("scheduler", "sigma_data", scheduler.get("sigma_data"), (1.0,)),
           ("scheduler", "clip_denoised", scheduler.get("clip_denoised"), (False,)))
          if scheduler.get("_class_name") == LCM_SCHEDULER else
          (("scheduler", "prediction_type", scheduler.get("prediction_type"), ("v_prediction",)),)),
    )
    for part, name, value, known in needed:
        if value not in known:
            needs = " or ".join(map(str, known))
            raise CheckpointError(f"{found.where[part]} has {name} {value}, and {needs} is needed: give a Stable Video Diffusion checkpoint.")


def _sampler(scheduler: dict, vae: dict, told: dict) -> dict[str, Any]:
    """Write the ``sampler`` block of the manifest; a scheduler that names no sigmas has those of SVD."""
    low, high = scheduler.get("sigma_min"), scheduler.get("sigma_max")
    for name, known in (("solver", SOLVERS), ("levels", LEVELS)):
        if told[name] not in known:
            raise CheckpointError(f"The checkpoint recommends the {name} {told[name]!r}, and {', '.join(known)} are known: "
                                  "correct its pano4d.json.")
    trained = {"trained_steps": int(scheduler.get("num_train_timesteps", TRAINED_STEPS)
                                    if scheduler.get("_class_name") == LCM_SCHEDULER else TRAINED_STEPS)}
    return {
        "sigma_min": float(0.002 if low is None else low), "sigma_max": float(700.0 if high is None else high),
        "rho": float(scheduler.get("rho", 7.0)), "prediction_type": "v_prediction",
        "scaling_factor": float(vae.get("scaling_factor", 0.18215)),
        "num_inference_steps": int(told["num_inference_steps"]), "solver": str(told["solver"]),
        "levels": str(told["levels"]),
        "min_guidance_scale": float(told["min_guidance_scale"]),
        "max_guidance_scale": float(told["max_guidance_scale"]),
        "fps": int(told["fps"]), "motion_bucket_id": int(told["motion_bucket_id"]),
        "noise_aug_strength": float(told["noise_aug_strength"]),
        **(trained if told["levels"] == "lcm" else {}),
    }
