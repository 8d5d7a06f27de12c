"""Write the model card from the figures of an evaluation, which hold the record of the training."""

from __future__ import annotations

import json
from pathlib import Path

from pano4d.examples.demo_model.motions import FLOWS, WEIGHTS
from pano4d.examples.demo_model.train_unet import STILL_WEIGHT

HERE = Path(__file__).parent

TEXT = """# Model card: demo

A small masked image-to-video model with the architecture of Stable Video Diffusion: one picture and a mask
in, 14 frames out. It exists so that the whole of pano4d can be tried on a CPU without any download. It is
not a replacement for a real checkpoint. Licence: Apache-2.0, weights and code; every training picture is
procedural, no photograph or third-party data was used.

## Architecture

| part | class | parameters | one call |
| --- | --- | --- | --- |
| denoiser | `UNetSpatioTemporalConditionModel`, 9 channels in, 4 out, widths 96, 96, 128, one layer a level, attention at the middle level, cross-attention 96 | {unet_params_m:.2f} M | 14 frames of 32x32 latents: {unet_gflop:.0f} GFLOP |
| autoencoder | `AutoencoderKLTemporalDecoder`, widths 96, 64, 96, factor 4, 4 latent channels | {vae_params_m:.2f} M | decoding 14 frames of 128 px: {vae_decode_gflop:.0f} GFLOP |
| image encoder | `CLIPVisionModelWithProjection`, width 96, 3 layers, 224 px | {image_encoder_params_m:.2f} M | |

Denoiser input order: mask 1 (0 on the first frame), noisy latent 4 divided by sqrt(sigma^2 + 1), latent of the
first frame 4 (its mode, not multiplied by the scaling factor, which is 1). v-prediction, EDM preconditioning,
timestep 0.25 ln sigma, added ids (frame rate - 1, motion bucket, noise augmentation). A latent cell counts as moving
if any of its 4x4 pixels is inside the mask; 12 % of the training rows gave the share instead.
`motion_bucket_id` follows the clip's measured motion: 127 times the mean absolute difference of neighbouring
frames inside the mask over 8 grey levels, 1 to 255.

The encoder is linear and was not trained: a latent holds the mean luminance and two colour differences of a cell of
4x4 pixels, and the difference of its upper and lower half (`autoencoder.py`). The decoder began as interpolation of
those and was trained to sharpen. The denoiser began as "v = -image latent" (`denoiser.py`).

## Data

`clips.py`: scenes that are functions of the direction on the sphere and of time, seen through tangent views of
20 to 90 degrees: pictures that drift, swirl, wave like cloth or boil ({flow:.0%} of the clips), clouds, water,
smoke, fire, lava and flickering lamps, over fractal noise, ridges and dead leaves in random palettes. Random
masks (rectangles, half planes, blobs, ellipses, unions, everything). Speeds are set so that motion inside the
mask is 3 to 16 grey levels a frame. The denoiser's clips are rendered with 2 pixels to a latent cell, which gives
the linear encoder's latents at a quarter of the work.

Held out: seeds never trained and, for half of the test clips, fields of view of 62 to 68 degrees and fire
in colours that training never drew.

## Training

1. Decoder: {vae:.0f} s, {vae_steps:,} steps, squared error and a little L1 of pixels and of their gradients.
2. Denoiser and image encoder: {unet:.0f} s, {unet_steps:,} steps, squared error of v (what must not move weighs {still:g}
   times), log sigma normal with mean 0.7 and deviation 1.6, a quarter uniform from 0.005 to 134; cuts of 16x16
   latents at first, whole tiles later; half of the rows turned left to right.

{clips_made:,} distinct clips in all, on one NVIDIA H200; AdamW in float32 with bfloat16 autocast, moving average.

## Figures on {clips} held-out clips

Sampler: {steps} steps of {solver}, Karras sigmas {sigma_max:g} to {sigma_min:g}, no guidance. Motion bucket of each
clip from its true motion.

| what | figure | wanted |
| --- | --- | --- |
| autoencoder, PSNR (new seeds / excluded ranges) | {vae_psnr_db} dB ({vae_psnr_db_new_seeds} / {vae_psnr_db_excluded_ranges}) | at least 28 |
| first frame against the given picture, PSNR | {first_frame_psnr_db} dB | at least 26 |
| temporal power inside the mask, generated over true, frequencies 1 to 4 | {spectrum} | 0.5 to 2 |
| drift outside the mask | {static_drift_levels} grey levels | small |
| motion inside the mask, generated / true | {motion_levels_generated} / {motion_levels_true} grey levels a frame | 2 to 40 |
| correlation of generated and true motion over the clips | {motion_correlation} | |

The solver matters: with as many steps, {other_solver} gives temporal power {other_spectrum}, and motion of
{other_motion} grey levels.

## Limits

- Motion is generic: matter boils and drifts plausibly for clouds, water, smoke and fire; it does not know
  objects, and later frames wander from the picture.
- Fine texture inside the mask is softer than the picture: latents hold 4 numbers for 16 pixels.
- Trained for minutes, not days, on procedural pictures alone. More training would help before anything else.
- `motion_bucket_id` steers the amount of motion only as far as the correlation above says.
- Only 14 frames of 128 px, one tile at a time.

## Remake

    python -m pano4d.examples.demo_model.train --folder RUN --out OUT/weights --graph
    python -m pano4d.examples.demo_model.evaluate --parts OUT/weights --pipeline FOLDER
    python -m pano4d.examples.demo_model.evaluate --model FOLDER --out examples/demo_model/figures.json
    python -m pano4d.examples.demo_model.evaluate --card

The first wants one large GPU for 25 minutes; it can be cut and run again with the same folder.
"""


def write(folder: Path = HERE) -> None:
    """Write MODEL_CARD.md from figures.json in `folder`."""
    figures = json.loads((folder / "figures.json").read_text())
    sampler, record = figures["samplers"][-1], figures["training"]
    values = {**record, **figures["costs"], **figures, **sampler, "clips_made": record["clips"], "flow": _flow_share()}
    other = figures["samplers"][0]
    values |= {"still": STILL_WEIGHT, "other_solver": other["solver"], "other_motion": other["motion_levels_generated"],
               "other_spectrum": _spectrum(other)}
    values["spectrum"] = _spectrum(sampler)
    (folder / "MODEL_CARD.md").write_text(TEXT.format(**values))


def _spectrum(sampler: dict) -> str:
    return ", ".join(f"{r:.2f}" for r in sampler["spectrum_ratio_1_to_4"])


def _flow_share() -> float:
    return sum(WEIGHTS[kind] for kind in FLOWS)
