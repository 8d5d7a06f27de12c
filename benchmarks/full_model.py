"""Make the `full` model: Stable Video Diffusion at its true size, with a mask channel and seeded random weights.

    python -m pano4d.benchmarks.full_model FOLDER --device cuda

Speed and memory are those of the real model; the pictures are noise. Sizes are those of the published configuration of
stable-video-diffusion-img2vid, whose weights cannot be shipped.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

STOCK_UNET_PARAMETERS = 1_524_623_082
"""Parameters of the published denoiser, which has eight input channels; the ninth adds one kernel to each of 320."""
UNET_PARAMETERS = STOCK_UNET_PARAMETERS + 320 * 3 * 3

UNET = {
    "sample_size": 96, "in_channels": 9, "out_channels": 4, "num_frames": 14, "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280), "num_attention_heads": (5, 10, 20, 20), "cross_attention_dim": 1024,
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 768, "transformer_layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal",) * 3 + ("DownBlockSpatioTemporal",),
    "up_block_types": ("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * 3,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4, "sample_size": 768,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "scaling_factor": 0.18215, "force_upcast": True,
}
IMAGE_ENCODER = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16, "patch_size": 14,
    "image_size": 224, "projection_dim": 1024, "hidden_act": "gelu",
}
SCHEDULER = {
    "prediction_type": "v_prediction", "timestep_type": "continuous", "timestep_spacing": "leading", "steps_offset": 1,
    "use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 700.0, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "beta_end": 0.012, "interpolation_type": "linear",
}
PREPROCESSOR = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
                "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}
RECOMMENDED = {"name": "full", "license": "Apache-2.0", "num_frames": 14, "tile_px": 512, "min_guidance_scale": 1.0,
               "max_guidance_scale": 3.0}

PARTS = ("unet", "vae", "image_encoder")
BRANCH_GAIN = 0.3

_LAST_OF_BRANCH = ("conv2", "to_out.0", "ff.net.2", "ff_in.net.2", "proj_out", "out_proj", "fc2")


def make_part(part: str, device: str = "cpu", dtype: torch.dtype = torch.float16, seed: int = 0,
              **changes: Any) -> nn.Module:
    """Make one part of the model in memory.

    Args:
        part: ``unet``, ``vae`` or ``image_encoder``.
        device: torch name of the device; the same seed gives other weights on a GPU than on a CPU. ``meta`` gives
            shapes without weights.
        dtype: Element type of the weights.
        seed: Decides the weights.
        **changes: Replace entries of the part's configuration, for smaller models.

    Returns:
        The module of diffusers or transformers, in evaluation mode.

    Raises:
        KeyError: There is no such part.
    """
    kind, config = {
        "unet": (UNetSpatioTemporalConditionModel, UNET), "vae": (AutoencoderKLTemporalDecoder, VAE),
        "image_encoder": (_clip, IMAGE_ENCODER)}[part]
    with torch.device(device):
        module = kind(**(config | changes))
    # Mixing factors are made on the CPU whatever the device asked for. The method of diffusers warns of float32 modules
    # even where it names none.
    module = nn.Module.to(module, device, dtype)
    if device != "meta":
        initialise(module, seed + PARTS.index(part))
    return module.eval().requires_grad_(False)


def make_model(device: str = "cpu", dtype: torch.dtype = torch.float16, seed: int = 0) -> dict[str, nn.Module]:
    """Make all parts in memory, without writing anything.

    Args:
        device: torch name of the device.
        dtype: Element type of the weights.
        seed: Decides the weights.

    Returns:
        ``unet``, ``vae`` and ``image_encoder``; 4.4 GB as float16.

    Raises:
        RuntimeError: torch has no such device, or it has no room.
    """
    return {part: make_part(part, device, dtype, seed) for part in PARTS}


def initialise(module: nn.Module, seed: int) -> None:
    """Draw weights anew, so that activations stay far inside the range of float16 at any depth.

    A matrix or kernel keeps the variance of its input (normal, standard deviation 1 / sqrt(fan in)); what a residual
    branch adds is scaled down by its last layer, so that the sum over all branches stays near 1.

    Args:
        module: The module, changed in place.
        seed: Decides the weights.
    """
    device = next(module.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    for name, weight in module.named_parameters():
        spread = _spread(name, weight)
        if spread is not None:
            drawn = torch.randn(weight.shape, generator=generator, device=device, dtype=torch.float32)
            weight.data.copy_(drawn.mul_(spread))


def _spread(name: str, weight: torch.Tensor) -> float | None:
    """Give the standard deviation of a weight; None for scales of norms and mixing factors, which are constant."""
    if name.endswith("bias"):
        return 0.1
    if weight.dim() < 2 and not name.endswith("class_embedding"):
        return None
    gain = BRANCH_GAIN if any(f".{last}." in f".{name}" for last in _LAST_OF_BRANCH) else 1.0
    return gain / (weight[0].numel() if weight.dim() > 1 else weight.numel()) ** 0.5


def write_checkpoint(folder: Path, device: str = "cpu", seed: int = 0) -> Path:
    """Write the model as a checkpoint in the layout of diffusers, float16.

    Args:
        folder: Where to; made if it is not there.
        device: torch name of the device that draws the weights.
        seed: Decides the weights.

    Returns:
        The folder.

    Raises:
        OSError: The folder cannot be written.
    """
    folder = Path(folder)
    for part in PARTS:
        make_part(part, device, torch.float16, seed).save_pretrained(folder / part, variant="fp16")
    EulerDiscreteScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    (folder / "feature_extractor").mkdir(exist_ok=True)
    for name, content in (("feature_extractor/preprocessor_config.json", PREPROCESSOR), ("pano4d.json", RECOMMENDED)):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return folder


def _clip(**config: Any) -> nn.Module:
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**config))


def main() -> None:
    """Parse the command line, make, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(write_checkpoint(args.folder, args.device, args.seed))


if __name__ == "__main__":
    main()
