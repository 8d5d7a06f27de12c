"""Run the diffusers modules a bundle was built from: the reference for parity, and the baseline of benchmarks.

The bundle names the checkpoint's weight files by their SHA-256, not by where they lay on some machine: the folder
is given to ``load`` or in the environment variable PANO4D_CHECKPOINT.
"""

import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pano4d.runtime.backends.base import Availability, Engine
from pano4d.runtime.bundle import Bundle, sha256_of_file
from pano4d.runtime.errors import BackendError, CheckpointError

try:
    import torch
    from torch import nn
except ImportError:  # the module must import, so that `doctor` can say what is missing
    torch = None

DEVICE = "cpu"
CHECKPOINT_VARIABLE = "PANO4D_CHECKPOINT"
PART_OF_NETWORK = {"image_encoder": "image_encoder", "vae_encoder": "vae", "unet": "unet", "unet_tail": "unet",
                   "vae_decoder": "vae"}
CLASS_OF_PART = {"image_encoder": "CLIPVisionModelWithProjection", "vae": "AutoencoderKLTemporalDecoder",
                 "unet": "UNetSpatioTemporalConditionModel"}
_INSTALL = "pip install 'pano4d[build]'"

if torch is not None:

    class ImageEncoder(nn.Module):
        """CLIP vision tower with its normalisation: pixels [B, 3, 224, 224] in -1..1 to embeddings [B, 1, D]."""

        def __init__(self, module: nn.Module, mean: list[float], std: list[float]) -> None:
            super().__init__()
            self.clip = module
            self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
            self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1), persistent=False)

        def forward(self, pixels: "torch.Tensor") -> "torch.Tensor":
            normalised = (0.5 * pixels + 0.5 - self.mean) / self.std
            return self.clip(normalised).image_embeds[:, None]

    class VaeEncoder(nn.Module):
        """Encoder of the autoencoder: pixels [B, 3, 8h, 8w] in -1..1 to latents [B, 4, h, w], mode, unscaled."""

        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.encoder, self.quant_conv = module.encoder, module.quant_conv

        def forward(self, pixels: "torch.Tensor") -> "torch.Tensor":
            return self.quant_conv(self.encoder(pixels)).chunk(2, dim=1)[0]

    class Unet(nn.Module):
        """Denoiser: sample [B, T, 9|8, h, w], c_noise [B], embeddings [B, 1, D], ids [B, 3] to v [B, T, 4, h, w]."""

        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.unet = module

        def forward(self, sample: "torch.Tensor", c_noise: "torch.Tensor", embeddings: "torch.Tensor",
                    added_time_ids: "torch.Tensor") -> "torch.Tensor":
            return self.unet(sample, c_noise, embeddings, added_time_ids, return_dict=False)[0]

    class VaeDecoder(nn.Module):
        """Temporal decoder of the autoencoder: latents [B, T, 4, h, w], unscaled, to pixels [B, T, 3, 8h, 8w]."""

        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.decoder = module.decoder

        def forward(self, latents: "torch.Tensor") -> "torch.Tensor":
            batch, frames = latents.shape[:2]
            images_only = torch.zeros(batch, frames, dtype=latents.dtype, device=latents.device)
            pixels = self.decoder(latents.flatten(0, 1), num_frames=frames, image_only_indicator=images_only)
            return pixels.unflatten(0, (batch, frames))


class EagerEngine(Engine):
    """One network as a torch module.

    Args:
        module: The network, in evaluation mode.
        described: Its tensors, as ``Bundle.network`` gives them.
        device: torch name of the device; None for the GPU where torch sees one.
    """

    def __init__(self, module: "nn.Module", described: Any, device: str | None = None) -> None:
        self.inputs, self.outputs = described.inputs, described.outputs
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._module = module.to(self._device)

    def run(self, buffers: Mapping[str, np.ndarray], stream: Any = None) -> None:
        """Compute in float32. See ``Engine.run``.

        Raises:
            BackendError: A buffer is missing or does not fit its spec.
        """
        self.check(buffers)
        with torch.inference_mode():
            result = self._module(*(torch.from_numpy(buffers[spec.name]).to(self._device) for spec in self.inputs))
        buffers[self.outputs[0].name][:] = result.cpu().numpy()

    def close(self) -> None:
        """Release the module."""
        self._module = None


def load(bundle: Bundle, network: str, checkpoint: str | Path | None = None,
         device: str | None = None) -> EagerEngine:
    """Load one network from the checkpoint that a bundle was built from.

    Args:
        bundle: The bundle: gives tensors, and the SHA-256 of the weights.
        network: Name of the network.
        checkpoint: Folder of the checkpoint; None for the environment variable PANO4D_CHECKPOINT.
        device: torch name of the device; None for the GPU where torch sees one.

    Returns:
        The engine.

    Raises:
        BackendError: No checkpoint was named, or its weights are others.
        BundleError: The bundle has no such network.
        CheckpointError: The checkpoint cannot be read.
    """
    described, part = bundle.network(network), PART_OF_NETWORK[network]
    source = bundle.manifest["model"].get("source", "")
    weights = {name: digest for name, digest in bundle.manifest["weights"].items() if name.startswith(f"{part}/")}
    if not weights or bundle.manifest["model"].get("loras"):
        raise BackendError(f"This bundle was built from {source!r}, and the backend 'eager' runs folders in the layout of "
                           "diffusers alone: run its own backend.")
    folder = checkpoint or os.environ.get(CHECKPOINT_VARIABLE)
    if not folder:
        raise BackendError(f"The backend 'eager' runs the checkpoint itself: set {CHECKPOINT_VARIABLE} to the folder "
                           f"{source!r} that this bundle was built from.")
    for name, digest in weights.items():
        if not (Path(folder) / name).is_file() or sha256_of_file(Path(folder) / name) != digest:
            raise BackendError(f"{Path(folder) / name} is not the file this bundle was built from: set "
                               f"{CHECKPOINT_VARIABLE} to the folder {source!r}.")
    model = bundle.manifest["model"]
    module = load_part(Path(folder), part, "fp16" if any(".fp16." in name for name in weights) else None)
    return EagerEngine(wrap(network, module, model.get("image_mean"), model.get("image_std")), described, device)


def available() -> Availability:
    """Say whether torch, diffusers and transformers are installed."""
    absent = [] if torch is not None else ["torch"]
    # Found, not imported: that takes seconds.
    absent += [name for name in ("diffusers", "transformers") if importlib.util.find_spec(name) is None]
    if absent:
        return Availability(False, f"{' and '.join(absent)} {'are' if absent[1:] else 'is'} not installed", _INSTALL)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return Availability(True, f"torch {torch.__version__}, diffusers {importlib.metadata.version('diffusers')} on "
                              f"{device}; needs {CHECKPOINT_VARIABLE}")


def wrap(network: str, module: "nn.Module", mean: list[float] | None = None,
         std: list[float] | None = None) -> "nn.Module":
    """Give a part of a checkpoint the tensors of a network.

    Args:
        network: Name of the network.
        module: The part it belongs to, as ``load_part`` returns it.
        mean: CLIP's mean colour, needed for ``image_encoder``.
        std: CLIP's standard deviation.

    Returns:
        A module whose forward takes the network's inputs in order.
    """
    if network == "image_encoder":
        return ImageEncoder(module, mean, std).eval()
    return {"vae_encoder": VaeEncoder, "unet": Unet, "unet_tail": Unet, "vae_decoder": VaeDecoder}[network](module).eval()


def load_part(folder: Path, part: str, variant: str | None = None) -> "nn.Module":
    """Read a part of a checkpoint as float32, ready for inference.

    Args:
        folder: Folder of the checkpoint, in the layout of diffusers.
        part: ``image_encoder``, ``vae`` or ``unet``.
        variant: Infix of the weight files, such as ``fp16``.

    Returns:
        The module of transformers or diffusers.

    Raises:
        CheckpointError: Weights are missing, damaged, or do not fit the configuration.
    """
    import diffusers
    import transformers

    name = CLASS_OF_PART[part]
    kind = getattr(transformers if part == "image_encoder" else diffusers, name)
    options = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    options |= {"variant": variant} if variant else {}
    try:
        with _quiet_loaders():
            module, info = kind.from_pretrained(folder / part, **options)
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise CheckpointError(f"{folder / part} does not load as a {name} ({reason[0][:200] if reason else error!r}): "
                              "download or save this part again.") from error
    missing = sorted(str(key) for fault in ("missing_keys", "mismatched_keys") for key in info.get(fault, ()))
    if missing:
        raise CheckpointError(f"{folder / part} lacks {len(missing)} weights of a {name}, such as {missing[0]}: "
                              "download or save this part again.")
    return module.float().eval().requires_grad_(False)


@contextlib.contextmanager
def quiet(level: int = logging.WARNING) -> Iterator[None]:
    """Keep the chatter of frameworks from a terminal that shows a progress bar, or one sentence per error.

    Args:
        level: Highest level of log messages to drop; warnings are dropped too.
    """
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _quiet_loaders() -> Iterator[None]:
    """Keep the loaders' warnings and bars from the terminal."""
    from transformers.utils import logging as loader

    bars = loader.is_progress_bar_enabled()
    loader.disable_progress_bar()
    try:
        with quiet(logging.ERROR):
            yield
    finally:
        if bars:
            loader.enable_progress_bar()
