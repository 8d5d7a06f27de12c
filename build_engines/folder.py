"""Read the files of a checkpoint in the folder layout of diffusers, and check that they are whole."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pano4d.runtime.backends.eager import CLASS_OF_PART
from pano4d.runtime.errors import CheckpointError

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
"""Files that run code when they are read."""

_CONFIGS = {"unet": "unet/config.json", "vae": "vae/config.json", "image_encoder": "image_encoder/config.json",
            "scheduler": "scheduler/scheduler_config.json",
            "feature_extractor": "feature_extractor/preprocessor_config.json"}
TOLD = "pano4d.json"


@dataclass(frozen=True)
class Found:
    """What the files of a checkpoint say.

    Attributes:
        configs: Configurations of ``unet``, ``vae``, ``image_encoder``, ``scheduler`` and ``feature_extractor``.
        told: Entries of pano4d.json.
        where: File that holds each of the configurations, for messages.
        files: All files that decide the result, by the name that a manifest gives them.
        variant: Infix of the weight files, None or ``fp16``.
        names: Names that the checkpoint goes by.
    """

    configs: dict[str, dict[str, Any]]
    told: dict[str, Any]
    where: dict[str, Path]
    files: dict[str, Path]
    variant: str | None = None
    names: tuple[str, ...] = ()


def read_folder(folder: Path, parts: tuple[str, ...] = tuple(CLASS_OF_PART)) -> Found:
    """Read the configurations of a folder and find its weights.

    Args:
        folder: Folder with unet/, vae/, image_encoder/, scheduler/, feature_extractor/ and perhaps pano4d.json.
        parts: Parts whose weights must be there.

    Returns:
        What the files say; no weights are held.

    Raises:
        CheckpointError: A part is missing, damaged, or of another class.
    """
    configs = {}
    for name, file in _CONFIGS.items():
        configs[name] = _read_json(folder, file)
        if name in CLASS_OF_PART:
            _check_class(folder, name, configs[name])
    told = _read_json(folder, TOLD) if (folder / TOLD).exists() else {}
    variant, weights = _weights(folder, parts)
    # The cache of huggingface_hub calls a folder by its revision and the folder above by the name.
    whole = folder.resolve()
    named = (whole.name, *([whole.parent.parent.name] if whole.parent.name == "snapshots" else []))
    files = {name: folder / name for name in (*_CONFIGS.values(), *([TOLD] if told else []), *weights)}
    return Found(configs, told, {name: folder / file for name, file in _CONFIGS.items()}, files, variant,
                 tuple(name.rpartition("--")[2] for name in named) + _previous_names(folder, configs["unet"]))


def check_whole(path: Path) -> None:
    """Check that a weight file is as long as its header says.

    Args:
        path: A .safetensors file.

    Raises:
        CheckpointError: It is not.
    """
    try:
        with safe_open(path, "numpy") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or truncated ({error}): download or save it again.") from error


def refuse_pickle(path: Path) -> None:
    """Refuse files that run code when they are read.

    Args:
        path: A file, by whose suffix it is judged.

    Raises:
        CheckpointError: It is one of them.
    """
    if path.suffix.lower() in PICKLES:
        raise CheckpointError(f"{path} is a pickle, which may run any code when it is read, and a .safetensors file is "
                              "needed: download the checkpoint in that format.")


def read_told(path: Path) -> dict[str, Any]:
    """Read a file like pano4d.json.

    Args:
        path: The file; it may be absent.

    Returns:
        Its entries.

    Raises:
        CheckpointError: It is damaged.
    """
    return _read_json(path.parent, path.name) if path.exists() else {}


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{folder} has no readable {name}: a checkpoint needs unet, vae, image_encoder, scheduler "
                              f"and feature_extractor; download or save it again{_other_layout(folder)}.") from error
    except ValueError as error:
        raise CheckpointError(f"{folder / name} is not valid JSON ({error}): download or save it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{folder / name} holds no JSON object: download or save it again.")
    return value


def _other_layout(folder: Path) -> str:
    """Name a single file that lies where a folder was given."""
    single = sorted(folder.glob("*.safetensors"))
    return f", or give the single file {single[0]} itself" if single else ""


def _check_class(folder: Path, part: str, config: dict[str, Any]) -> None:
    found = config.get("_class_name") or (config.get("architectures") or [None])[0]
    if found != CLASS_OF_PART[part]:
        # AnimateAnything offers two archives, and the wrong one is often taken.
        hint = ", of AnimateAnything animate_anything_svd_v1.0" if found == "UNet3DConditionModel" else ""
        raise CheckpointError(f"{folder / part} is a {found}, and a {CLASS_OF_PART[part]} is needed: give the folder of "
                              f"a Stable Video Diffusion checkpoint{hint}.")


def _weights(folder: Path, parts: tuple[str, ...]) -> tuple[str | None, list[str]]:
    """Find the weight files: full precision where all parts have it, else fp16."""
    lacking = []
    for variant in (None, "fp16"):
        found = {part: _part_weights(folder / part, variant) for part in parts}
        if all(found.values()):
            names = [path.relative_to(folder).as_posix() for paths in found.values() for path in paths]
            for name in names:
                check_whole(folder / name)
            return variant, names
        lacking.append([part for part, paths in found.items() if not paths])
    absent = min(lacking, key=len)[0]
    pickles = sorted(path.name for path in (folder / absent).iterdir() if path.suffix.lower() in PICKLES)
    held = f", only {pickles[0]}, a pickle, which may run any code when it is read" if pickles else ""
    raise CheckpointError(f"{folder / absent} holds no .safetensors weights{held}: download or save this part again, "
                          "with safe serialization.")


def _part_weights(folder: Path, variant: str | None) -> list[Path]:
    paths = sorted(folder.glob("*.safetensors"))
    return [path for path in paths if (".fp16." in path.name) == (variant == "fp16")]


def _previous_names(folder: Path, unet: dict[str, Any]) -> tuple[str, ...]:
    """Give the names that a folder had when it was saved: the last part of a path or of an id."""
    index = folder / "model_index.json"
    kept = (unet.get("_name_or_path"), (_read_json(folder, index.name) if index.exists() else {}).get("_name_or_path"))
    return tuple(Path(name).name for name in kept if isinstance(name, str) and name)
