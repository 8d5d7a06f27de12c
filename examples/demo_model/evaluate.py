"""Measure a trained demo model on held-out clips, draw contact sheets, write the model card.

    python -m pano4d.examples.demo_model.evaluate --model FOLDER --out examples/demo_model/figures.json
    python -m pano4d.examples.demo_model.evaluate --parts OUT/weights --pipeline FOLDER
    python -m pano4d.examples.demo_model.evaluate --card          (MODEL_CARD.md from figures.json)
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from pano4d.examples.demo_model import card, networks, state
from pano4d.examples.demo_model.clips import sample_clips
from pano4d.examples.demo_model.diffusion import karras_sigmas, predict_v
from pano4d.examples.demo_model.measures import generate, measure, psnr, reconstruct

SEED = 2_000_000_000
VAE_DB, FIRST_FRAME_DB, RATIOS = 28.0, 26.0, (0.5, 2.0)
RECORD = "training.json"


def load(args) -> tuple[networks.Networks, dict]:
    """Read the networks and the record of their training, from parts or from a pipeline folder."""
    if args.parts:
        saved, nets = state.read_parts(args.parts, "weights"), networks.build(0)
        for name, module in nets.modules().items():
            module.load_state_dict(saved[name])
        return nets.eval(), saved["progress"]
    record = args.model / RECORD
    return networks.load(args.model), json.loads(record.read_text()) if record.exists() else {}


def held_out_clips(count: int, device, size_px: int = networks.TILE_PX) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Render clips that training never shows: half of them also from excluded ranges.

    Returns:
        clips float32 [count, 14, 3, s, s]; masks float32 [count, 1, s, s]; kinds.
    """
    half = count // 2
    seen = sample_clips(half, SEED, device, size_px)
    new = sample_clips(count - half, SEED + 1, device, size_px, held_out=True)
    return torch.cat([seen[0], new[0]]), torch.cat([seen[1], new[1]]), seen[2] + new[2]


@torch.no_grad()
def costs(nets: networks.Networks, size: int) -> dict:
    """Count parameters in millions, and GFLOP of a denoiser call and of decoding, for tiles of `size` latent pixels."""
    device, frames = next(nets.unet.parameters()).device, networks.NUM_FRAMES
    found = {f"{k}_params_m": round(sum(p.numel() for p in m.parameters()) / 1e6, 2) for k, m in nets.modules().items()}
    latents = torch.zeros(1, frames, 4, size, size, device=device)
    context, ids = torch.zeros(1, 1, networks.EMBED_DIM, device=device), torch.zeros(1, 3, device=device)
    with FlopCounterMode(display=False) as counter:
        predict_v(nets.unet, latents, torch.ones(1, device=device), latents[:, :, :1], latents[:, 0], context, ids)
    found["unet_gflop"] = round(counter.get_total_flops() / 1e9, 1)
    with FlopCounterMode(display=False) as counter:
        nets.vae.decode(latents[0], num_frames=frames)
    return found | {"vae_decode_gflop": round(counter.get_total_flops() / 1e9, 1)}


def sheet(clips, masks, made, path: Path, frames=(0, 1, 4, 8, 13)) -> None:
    """Draw a contact sheet: per clip, the true frames, the mask, the generated frames."""
    from PIL import Image

    rows = []
    for true, mask, got in zip(clips.cpu(), masks.cpu(), made.cpu()):
        rows.append(torch.cat([*true[list(frames)], mask.expand(3, -1, -1), *got[list(frames)]], dim=-1))
    pixels = (torch.cat(rows, dim=-2).movedim(0, -1) * 255).round().byte().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def held(figures: dict) -> dict[str, bool]:
    """Say which of the figures that must hold do, for the last sampler."""
    sampler = figures["samplers"][-1]
    return {
        f"autoencoder at least {VAE_DB:g} dB": figures["vae_psnr_db"] >= VAE_DB,
        f"first frame at least {FIRST_FRAME_DB:g} dB": sampler["first_frame_psnr_db"] >= FIRST_FRAME_DB,
        f"spectrum ratios {RATIOS[0]:g} to {RATIOS[1]:g}": all(
            RATIOS[0] <= r <= RATIOS[1] for r in sampler["spectrum_ratio_1_to_4"]
        ),
    }


def evaluate(args, nets: networks.Networks, record: dict) -> dict:
    """Run the whole evaluation of one model."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    nets.to(device).eval()
    clips, masks, kinds = held_out_clips(args.clips, device, args.size_px)
    vae = psnr(reconstruct(nets, clips[:, ::4]), clips[:, ::4])
    figures = {"clips": len(clips), "kinds": {k: kinds.count(k) for k in sorted(set(kinds))}, "device": device,
               "tile_px": args.size_px, "training": record, "costs": costs(nets, args.size_px // 4),
               "vae_psnr_db": round(vae.mean().item(), 2), "samplers": []}  # fmt: skip
    half = len(clips) // 2
    for name, part in (("new_seeds", vae[:half]), ("excluded_ranges", vae[half:])):
        figures[f"vae_psnr_db_{name}"] = round(part.mean().item(), 2)
    print(json.dumps(figures), flush=True)
    for steps, sigma_max, solver in itertools.product(args.steps, args.sigma_max, args.solver):
        begun = time.monotonic()
        made = generate(nets, clips, masks, karras_sigmas(steps, args.sigma_min, sigma_max, args.rho), solver)
        row = {"solver": solver, "steps": steps, "sigma_min": args.sigma_min, "sigma_max": sigma_max, "rho": args.rho}
        row |= measure(clips, masks, made) | {"seconds": round(time.monotonic() - begun, 1)}
        figures["samplers"].append(row)
        print(json.dumps(row), flush=True)
    figures["held"] = held(figures)
    print("\n".join(f"{'holds' if ok else 'MISSED'}: {what}" for what, ok in figures["held"].items()), flush=True)
    if args.sheet:
        every = slice(None, None, max(1, len(clips) // 12))
        sheet(clips[every], masks[every], made[every], args.sheet)
    return figures


def main() -> None:
    """Evaluate a model, write it as a pipeline folder, or write the card from figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="pipeline folder")
    parser.add_argument("--parts", type=Path, help="weights in parts, as training writes them")
    parser.add_argument("--pipeline", type=Path, help="only write the networks here, as a pipeline folder in float16")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--size-px", type=int, default=networks.TILE_PX)
    parser.add_argument("--steps", type=int, nargs="+", default=[networks.RECOMMENDED["num_inference_steps"]])
    parser.add_argument("--sigma-max", type=float, nargs="+", default=[networks.SCHEDULER["sigma_max"]])
    parser.add_argument("--sigma-min", type=float, default=networks.SCHEDULER["sigma_min"])
    parser.add_argument("--solver", nargs="+", default=["euler", networks.RECOMMENDED["solver"]])
    parser.add_argument("--rho", type=float, default=7.0)
    parser.add_argument("--sheet", type=Path, help="write a contact sheet here")
    parser.add_argument("--out", type=Path, help="write the figures here")
    parser.add_argument("--threads", type=int, help="threads on a CPU")
    parser.add_argument("--card", action="store_true", help="only write MODEL_CARD.md from figures.json")
    args = parser.parse_args()
    if args.card:
        return card.write()
    if not (args.model or args.parts):
        parser.error("name a model: --model FOLDER, or --parts FOLDER")
    if args.threads:
        torch.set_num_threads(args.threads)
    nets, record = load(args)
    if args.pipeline:
        networks.save(nets, args.pipeline, torch.float16, networks.RECOMMENDED, networks.SCHEDULER)
        return networks.write_json(args.pipeline / RECORD, record)
    figures = evaluate(args, nets, record)
    if args.out:
        networks.write_json(args.out, figures)


if __name__ == "__main__":
    main()
