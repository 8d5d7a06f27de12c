"""Measure whole panoramas on one GPU: the original's schedule in eager float16, and ours with built engines, in one process.

    python -m pano4d.benchmarks.full_model full --device cuda
    pano4d build full --out engines/full --backend aotinductor --tile-batch 4 --jobs 5
    python -m pano4d.benchmarks.bench_panorama --bundle engines/full --panorama PANORAMA.jpg --mask MASK.png

Both go from the picture in host memory to the frames there, uint8. The baseline's repeated calls are identical, so a few
of each kind are timed and multiplied; what it does does not depend on the mask. Ours is timed whole, once, after a run of
one step has made everything ready. Everything is done twice: all pixels moving, and those of the mask.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pano4d.benchmarks import bandwidth
from pano4d.benchmarks.bench_engine import LATENT_PX, ceiling_tflops, inputs_of, milliseconds, relative_error
from pano4d.benchmarks.full_model import make_model
from pano4d.benchmarks.measuring import ROOT, PeakMemory, revision
from pano4d.benchmarks.reference import ReferenceModels, ReferenceSchedule, run
from pano4d.build_engines.aot_export import target_block
from pano4d.build_engines.checkpoint import SVD
from pano4d.runtime import image
from pano4d.runtime.backends import Engines
from pano4d.runtime.backends.aotinductor import without_tf32
from pano4d.runtime.backends.eager import wrap
from pano4d.runtime.bundle import Bundle
from pano4d.runtime.device import Device
from pano4d.runtime.memory_plan import plan_memory
from pano4d.runtime.pipeline import Animation, Animator
from pano4d.runtime.report import StageTimer
from pano4d.runtime.settings import AnimateSettings

FEWER = {"solver": SVD["solver"], "levels": SVD["levels"], "steps": SVD["num_inference_steps"]}
"""What a bundle of Stable Video Diffusion does unless told otherwise."""


@dataclass(frozen=True)
class Technique:
    """A way of doing less.

    Attributes:
        name: What the table calls it.
        settings: What it changes in ``AnimateSettings``.
        counts: Whether it is on by default, and its time the one that is reported.
        moving: What moves in the runs to make.
    """

    name: str
    settings: dict[str, Any]
    counts: bool = False
    moving: tuple[str, ...] = ("all", "masked")


UNABRIDGED = Technique("tiles on the sphere, compiled engines: 25 Euler steps",
                       {"solver": "euler", "levels": "karras", "steps": 25}, moving=("all",))
TECHNIQUES = (
    Technique(f"{FEWER['steps']} steps of DPM-Solver++(2M), aligned", FEWER, counts=True),
    UNABRIDGED,
    Technique("and guidance at every other step, else reused", FEWER | {"guidance_reuse": 1}, moving=("all",)),
    Technique("and guidance only for sigma in 1 to 60", FEWER | {"guidance_interval": (1.0, 60.0)}, moving=("all",)),
    Technique("and the fewest tiles", FEWER | {"layout": "fewest"}),
)
"""The one that counts first, so that it is measured whatever befalls the others."""


def psnr_db(frames: np.ndarray, reference: np.ndarray, select: np.ndarray) -> float | None:
    """Compare two videos where pixels may move; None if they are the same.

    Args:
        frames: uint8 [T, H, W, 3].
        reference: The same.
        select: bool [H, W].
    """
    squares = [np.mean((a[select].astype(np.float32) - b[select]) ** 2, dtype=np.float64) for a, b in zip(frames, reference)]
    return None if not any(squares) else round(float(10 * np.log10(255**2 / np.mean(squares))), 2)


def time_loading(bundle: Path) -> dict[str, float]:
    """Load all engines in a process of its own and run each once. Returns the seconds it prints."""
    command = [sys.executable, "-m", "pano4d.benchmarks.bench_panorama", "--bundle", str(bundle), "--load"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def load_once(path: Path) -> dict[str, float]:
    """Check the bundle's hashes, load its engines, and run each once."""
    begin = time.perf_counter()
    bundle = Bundle.open(path)
    checked = time.perf_counter()
    engines, loaded = Engines(bundle, keep=True), {}
    for name in bundle.manifest["networks"]:
        with engines.use(name) as engine:
            pass
    loaded = time.perf_counter()
    for name in bundle.manifest["networks"]:
        with engines.use(name) as engine:
            engine.run(engine.allocate())
    torch.cuda.synchronize()
    done = time.perf_counter()
    return {"seconds": round(done - begin, 2), "hashes": round(checked - begin, 2), "engines": round(loaded - checked, 2),
            "first_runs": round(done - loaded, 2)}


def compare_engines(models: dict[str, torch.nn.Module], bundle: Bundle, ceiling: float) -> dict[str, dict]:
    """Time the denoiser and the decoder, eager and as engines, and take both errors against float32."""
    found = {}
    with torch.inference_mode():
        for name, part in (("unet", "unet"), ("vae_decoder", "vae")):
            specs = bundle.network(name).inputs
            given = [tensor.to(getattr(torch, spec.dtype)) for tensor, spec in
                     zip(inputs_of(name, specs[0].shape[0], LATENT_PX), specs)]
            module = wrap(name, models[part])
            with FlopCounterMode(display=False) as counter:
                eager = module(*given)
            work = counter.get_total_flops() / 1e12
            eager_ms = milliseconds(lambda: module(*given), 5)["ms"]
            module.float()
            with without_tf32():
                exact = torch.cat([module(*(tensor[i:i + 2].float() for tensor in given))
                                   for i in range(0, len(given[0]), 2)])
            module.half()
            with Engines(bundle).use(name) as engine:
                buffers = engine.allocate()
                for tensor, spec in zip(given, specs):
                    buffers[spec.name].copy_(tensor)
                engine.run(buffers)
                error = relative_error(buffers[engine.outputs[0].name], exact)
                timed = milliseconds(lambda: engine.run(buffers), 10)
            rate = work / timed["ms"] * 1e3
            found[name] = {"rows": len(given[0]), **timed, "tflop": round(work, 2), "tflops": round(rate, 1),
                           "share_of_ceiling": round(rate / ceiling, 3), "relative_error": error, "eager_ms": eager_ms,
                           "eager_relative_error": relative_error(eager, exact), "ratio": round(eager_ms / timed["ms"], 2)}
            print(name, json.dumps(found[name]), flush=True)
    return found


def animate(animator: Animator, panorama: np.ndarray, mask: np.ndarray) -> tuple[Animation, dict]:
    """Run once, timed by the clock and by stage."""
    timer, begin = StageTimer(), time.perf_counter()
    animation = animator.animate(panorama, mask, timer=timer)
    seconds = time.perf_counter() - begin
    return animation, {"seconds": round(seconds, 2), "stages": {row["name"]: row["seconds"] for row in timer.entries},
                       "tiles": animation.tiles_total, "skipped": animation.tiles_skipped,
                       "steps": animation.settings.steps, "solver": animation.settings.solver}


def waterfall(bundle: Bundle, device: Device, picture: np.ndarray, masks: dict[str, np.ndarray],
              save: Callable[[list[dict]], None], techniques: tuple[Technique, ...] = TECHNIQUES) -> None:
    """Run the techniques; quality is PSNR against the unabridged run of the same seed, where something may move.

    Args:
        bundle: Engine bundle.
        device: Where.
        picture: uint8 [H, W, 3].
        masks: What may move, by name. bool [H, W].
        save: Called with all rows so far after each run.
        techniques: What to run, in this order.
    """
    rows, frames, engines = [], {}, Engines(bundle, keep=True)
    size = {"width": picture.shape[1], "height": picture.shape[0]}

    def animator(**changes: Any) -> Animator:
        return Animator(bundle, AnimateSettings(**size | changes), device=device, engines=engines)

    try:
        for technique in techniques:
            animator(**technique.settings | {"steps": 2}).animate(picture, masks[technique.moving[-1]])
            for name in technique.moving:
                animation, row = animate(animator(**technique.settings), picture, masks[name])
                frames[technique.name, name] = animation.frames
                rows.append({"technique": technique.name, "moving": name, **row, "counts": technique.counts})
                for done in rows:
                    reference = frames.get((UNABRIDGED.name, done["moving"]))
                    if reference is not None and "psnr_db" not in done and done["technique"] != UNABRIDGED.name:
                        done["psnr_db"] = psnr_db(frames[done["technique"], done["moving"]], reference, masks[done["moving"]])
                print(json.dumps(rows[-1]), flush=True)
                save(rows)
    finally:
        engines.close()


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--panorama", type=Path, default=ROOT / "examples" / "panorama.jpg")
    parser.add_argument("--mask", type=Path, default=ROOT / "examples" / "panorama_mask.png")
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--sample", type=int, default=2, help="calls of each kind that the baseline makes")
    parser.add_argument("--largest", type=int, default=8192, help="another width whose memory is measured")
    parser.add_argument("--load", action="store_true", help="only load the bundle, and print the seconds")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "panorama.json")
    args = parser.parse_args()
    if args.load:
        print(json.dumps(load_once(args.bundle)))
        return
    loading = time_loading(args.bundle)
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    source = image.read_panorama(args.panorama)
    picture = image.resize_panorama(source.pixels, args.width // 2, args.width)
    moving = image.resize_mask(image.read_mask(args.mask, source.pixels.shape).moving, args.width // 2, args.width)
    masks = {"all": np.ones_like(moving), "masked": moving}
    bundle, ceiling = Bundle.open(args.bundle), ceiling_tflops()
    result = {"command": "python -m pano4d.benchmarks.bench_panorama " + " ".join(sys.argv[1:]), "revision": revision(),
              "gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "driver": target_block("cuda")["driver"],
              "size": f"{args.width}x{args.width // 2}", "frames": bundle.tile["frames"], "bundle": bundle.manifest["key"],
              "picture": args.panorama.name, "mask": {"name": args.mask.name, "share": round(float(moving.mean()), 4)},
              "load_seconds": loading["seconds"], "load": loading,
              "ceiling": ceiling}

    def save(**more: Any) -> None:
        result.update(more)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    def save_rows(peak: PeakMemory) -> Callable[[list[dict]], None]:
        def save_them(rows: list[dict]) -> None:
            ours = {row["moving"]: row | {"ratio": round(report["seconds"] / row["seconds"], 1)} for row in rows if row["counts"]}
            save(waterfall=rows, peak_gib=round(peak.gib, 2), **ours)
        return save_them

    models = make_model("cuda", torch.float16)
    compared = compare_engines(models, bundle, ceiling["tflops"])
    save(unet=compared["unet"], vae_decode=compared["vae_decoder"])
    report, _ = run(ReferenceModels(models["unet"], models["vae"], models["image_encoder"]), ReferenceSchedule(), picture,
                    moving, sample=args.sample)
    print("baseline", json.dumps(report), flush=True)
    save(baseline=_rounded(report))
    models.clear()
    gc.collect()
    torch.cuda.empty_cache()
    with Device() as device:
        save(**bandwidth.measure(device, args.width))
        with PeakMemory() as peak:
            waterfall(bundle, device, picture, masks, save_rows(peak))
        save(one_engine_at_a_time=[one_step(bundle, device, source.pixels, width)
                                   for width in (args.width, args.largest) if width])
    _print(result)


def one_step(bundle: Bundle, device: Device, pixels: np.ndarray, width: int) -> dict:
    """Run one step with all pixels moving and engines loaded for their stage alone, to see what memory that takes."""
    picture = image.resize_panorama(pixels, width // 2, width)
    animator = Animator(bundle, AnimateSettings(width=width, height=width // 2, steps=1), device=device)
    with PeakMemory() as peak:
        _, row = animate(animator, picture, np.ones(picture.shape[:2], bool))
    planned = plan_memory(bundle, animator.settings).peak_bytes
    return {"size": f"{width}x{width // 2}", **row, "peak_gib": round(peak.gib, 2), "planned_gib": round(planned / 2**30, 2)}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def _print(result: dict) -> None:
    show: Callable[[str, str], None] = lambda name, text: print(f"{name:24s} {text}")
    show("baseline", f"{result['baseline']['seconds']:.1f} s")
    for name in ("all", "masked"):
        show(name, f"{result[name]['seconds']:.2f} s, {result[name]['ratio']:.1f} times faster")
    show("unet", f"{result['unet']['ms']:.1f} ms, {result['unet']['share_of_ceiling']:.0%} of the ceiling")
    show("vae_decode", f"{result['vae_decode']['ratio']:.2f} times faster than eager")
    for name in ("blend", "compose"):
        show(name, f"{result[name]['gbps']:.0f} GB/s, {result[name]['gbps'] / result['copy']['gbps']:.0%} of a copy")
    show("load", f"{result['load_seconds']:.1f} s")
    show("peak", f"{result['peak_gib']:.1f} GiB with all engines kept")
    for row in result["one_engine_at_a_time"]:
        show(f"peak at {row['size']}", f"{row['peak_gib']:.1f} GiB with one engine at a time, planned {row['planned_gib']:.1f} GiB")


if __name__ == "__main__":
    main()
