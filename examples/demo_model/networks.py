"""Build the demo model's networks and keep them in a diffusers pipeline folder.

Command line: write the shipped architecture as it is before training,

    python -m pano4d.examples.demo_model.networks --random OUT_DIR [--seed 0] [--dtype float32]
"""

from __future__ import annotations

import argparse
import copy
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from pano4d.examples.demo_model.autoencoder import make_autoencoder
from pano4d.examples.demo_model.denoiser import EMBED_DIM, NUM_FRAMES, make_denoiser

TILE_PX = 128
CLIP_PX = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

RECOMMENDED = {
    "name": "demo",
    "license": "Apache-2.0",
    "fps": 7,
    "motion_bucket_id": 48,
    "noise_aug_strength": 0.02,
    "num_frames": NUM_FRAMES,
    "tile_px": TILE_PX,
    "num_inference_steps": 10,
    "solver": "dpmpp-2m",
    "levels": "karras",
    "min_guidance_scale": 1.0,
    "max_guidance_scale": 1.0,
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "sigma_min": 0.01,
    "sigma_max": 80.0,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}
PARTS = {
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
    "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
}


@dataclass
class Networks:
    """Hold the three trained networks of the demo model."""

    vae: AutoencoderKLTemporalDecoder
    unet: UNetSpatioTemporalConditionModel
    image_encoder: CLIPVisionModelWithProjection

    def modules(self) -> dict[str, nn.Module]:
        """Name the networks as their folders are named."""
        return {"vae": self.vae, "unet": self.unet, "image_encoder": self.image_encoder}

    def to(self, *args) -> "Networks":
        """Move or cast every network in place, and return self."""
        for module in self.modules().values():
            module.to(*args)
        return self

    def eval(self) -> "Networks":
        """Set every network to inference, and return self."""
        for module in self.modules().values():
            module.eval().requires_grad_(False)
        return self


def build_image_encoder() -> CLIPVisionModelWithProjection:
    """Build the small CLIP vision tower; its projection is the UNet's cross-attention context."""
    config = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=3,
        image_size=CLIP_PX,
        patch_size=32,
        projection_dim=EMBED_DIM,
    )
    return CLIPVisionModelWithProjection(config)


def build(seed: int) -> Networks:
    """Build all networks: linear autoencoder, denoiser that repeats its picture, the rest drawn from one seed."""
    torch.manual_seed(seed)
    return Networks(make_autoencoder(), make_denoiser(), build_image_encoder())


def write_json(path: Path, value: dict) -> None:
    """Write indented JSON with a final newline, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def save(nets: Networks, folder: Path, dtype: torch.dtype, recommended: dict, scheduler: dict) -> None:
    """Write a `StableVideoDiffusionPipeline` folder with a `pano4d.json` beside it.

    The networks themselves stay as they are.
    """
    folder = Path(folder)
    for name, module in nets.modules().items():
        copy.deepcopy(module).to("cpu", dtype).save_pretrained(folder / name)
    EulerDiscreteScheduler(**scheduler).save_pretrained(folder / "scheduler")
    write_json(folder / "feature_extractor" / "preprocessor_config.json", _preprocessor())
    index = {"_class_name": "StableVideoDiffusionPipeline", "_diffusers_version": "0.42.1", **PARTS}
    write_json(folder / "model_index.json", index)
    write_json(folder / "pano4d.json", recommended)


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Networks:
    """Read the networks of a pipeline folder."""
    folder = Path(folder)
    vae = AutoencoderKLTemporalDecoder.from_pretrained(folder / "vae")
    unet = UNetSpatioTemporalConditionModel.from_pretrained(folder / "unet")
    clip = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder")
    return Networks(vae, unet, clip).to(dtype).eval()


def _preprocessor() -> dict:
    return {
        "crop_size": {"height": CLIP_PX, "width": CLIP_PX},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": list(CLIP_MEAN),
        "image_processor_type": "CLIPImageProcessor",
        "image_std": list(CLIP_STD),
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": CLIP_PX},
    }


def main() -> None:
    """Write a checkpoint folder with the weights that training begins from."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--random", type=Path, required=True, metavar="OUT_DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32")
    args = parser.parse_args()
    save(build(args.seed), args.random, getattr(torch, args.dtype), RECOMMENDED, SCHEDULER)


if __name__ == "__main__":
    main()
