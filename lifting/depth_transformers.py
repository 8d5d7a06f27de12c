"""Run a depth model of transformers from a folder on this machine; nothing is fetched."""

import json
from pathlib import Path

import numpy as np

from pano4d.lifting.depth import checked, require_kind
from pano4d.lifting.drawing import choose_device
from pano4d.runtime.errors import BackendError, CheckpointError

_METRIC = ("zoedepth", "depth_pro", "glpn")


class TransformersDepth:
    """A depth model of transformers.

    Attributes:
        name: The model's class.
        kind: As its class and configuration declare, or as given.
        geometry: "z" unless given.
        panoramic: False.
    """

    panoramic = False

    def __init__(self, folder: Path, kind: str | None = None, geometry: str | None = None, device: str = "auto") -> None:
        """Load the model.

        Args:
            folder: Holds config.json, preprocessor_config.json and weights as safetensors.
            kind: Overrules what the model declares.
            geometry: Overrules depth along the axis.
            device: Where to run: "auto", a GPU where torch sees one; "cpu" or "cuda".

        Raises:
            CheckpointError: The folder is incomplete, its weights are pickled, or it is no depth model.
            BackendError: torch or transformers is not installed.
            SettingsError: No such device, or no GPU that torch can use.
        """
        config = _read_config(folder)
        _check_files(folder)
        self._torch, library = _import_libraries()
        family = config.get("model_type")
        if family not in library.models.auto.modeling_auto.MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES \
                or not _is_for_depth(config):
            raise CheckpointError(f"{folder} holds {_class_name(config)}, which is no depth model of transformers; give "
                                  "the folder of a ...ForDepthEstimation model, such as Depth Anything.")
        self.name, self.geometry = _class_name(config), geometry or "z"
        self.kind = require_kind(kind or _declared_kind(config), folder, f"model type {family}")
        self._family, self._device = family, choose_device(device)
        self._load(library, folder)

    def _load(self, library, folder: Path) -> None:
        """Load processor and weights."""
        bars = library.utils.logging
        shown = bars.is_progress_bar_enabled()
        bars.disable_progress_bar()
        try:
            self._processor = library.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
            model = library.AutoModelForDepthEstimation.from_pretrained(folder, local_files_only=True,
                                                                        use_safetensors=True)
        except Exception as error:
            raise CheckpointError(f"{folder} cannot be loaded as a depth model ({_brief(error)}); fetch it again "
                                  "whole.") from error
        finally:
            if shown:
                bars.enable_progress_bar()
        self._model = model.to(self._device).eval()

    def __call__(self, tiles: np.ndarray, fov_deg: float) -> np.ndarray:
        """Tell the depth of tiles.

        Args:
            tiles: uint8 [B, s, s, 3].
            fov_deg: Field of view, which models that must know the focal length are told.

        Returns:
            float32 [B, s, s].

        Raises:
            CheckpointError: The answer is not finite.
        """
        sizes = [tiles.shape[1:3]] * len(tiles)
        inputs = self._processor(images=list(tiles), return_tensors="pt").to(self._device)
        with self._torch.inference_mode():
            outputs = self._run(inputs, tiles)
            if self._family == "depth_pro":
                outputs.field_of_view = self._torch.full((len(tiles),), float(fov_deg), device=self._device)
            more = {"source_sizes": sizes} if self._family == "zoedepth" else {}
            found = self._processor.post_process_depth_estimation(outputs, target_sizes=sizes, **more)
        return checked(np.stack([one["predicted_depth"].float().cpu().numpy() for one in found]), tiles, self.name)


    def _run(self, inputs, tiles: np.ndarray):
        """Run the model; turn what fails in it into one sentence."""
        try:
            return self._model(**inputs)
        except (RuntimeError, ValueError) as error:
            if type(error).__name__ == "OutOfMemoryError":
                raise
            raise CheckpointError(f"The depth model {self.name} failed on pictures of {list(tiles.shape)} "
                                  f"({_brief(error)}); let preprocessor_config.json make a size that it "
                                  "takes.") from error


def _brief(error: Exception) -> str:
    """Give the beginning of a message, in one line."""
    return " ".join(str(error).split())[:160]


def _import_libraries():
    try:
        import torch
        import transformers
    except ImportError as error:
        raise BackendError(f"Depth models of transformers need the package {error.name}, which is not installed: "
                           "pip install 'pano4d[lift]'.") from error
    return torch, transformers


def _read_config(folder: Path) -> dict:
    """Read config.json."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(config, dict):
            return config
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} has no config.json; give --depth-model a folder as save_pretrained of "
                              "transformers writes it.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON; fetch it again.") from error
    raise CheckpointError(f"{path} is not a configuration; fetch it again.")


def _check_files(folder: Path) -> None:
    """Refuse folders without what loading needs, and weights that could run code."""
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
        if pickles:
            raise CheckpointError(f"{folder} holds pickled weights ({pickles[0]}), which could run code when loaded; "
                                  "save them as model.safetensors.")
        raise CheckpointError(f"{folder} holds no weights; put model.safetensors beside config.json.")
    if not (folder / "preprocessor_config.json").is_file() and not (folder / "processor_config.json").is_file():
        raise CheckpointError(f"{folder} has no preprocessor_config.json, which says how pictures are prepared; fetch it "
                              "too.")


def _class_name(config: dict) -> str:
    """Name the model's class, or its family where no class is told."""
    classes = config.get("architectures") or []
    return str(classes[0] if classes else config.get("model_type") or "no model that is named")


def _is_for_depth(config: dict) -> bool:
    """Whether the class that was saved, if it is told, is one for depth."""
    classes = config.get("architectures") or []
    return not classes or str(classes[0]).endswith("ForDepthEstimation")


def _declared_kind(config: dict) -> str | None:
    """Tell the kind from the family and its configuration; None if they do not tell."""
    family = config.get("model_type")
    if family in _METRIC:
        return "metric"
    if family == "dpt":
        return "affine-inverse"
    if family == "depth_anything":
        return "metric" if config.get("depth_estimation_type") == "metric" else "affine-inverse"
    return None
