"""Measure the denoiser and the decoder of the full-size model on one GPU: eager, and compiled in each way.

    python -m pano4d.benchmarks.bench_engine --out benchmarks/results/engine.json

Every compiled engine is checked against float32 before it is timed. Work is counted on the untouched module, so a
variant that saves operations gains by it; the ceiling is the rate of a large matrix product, sustained in the same process.
Needs CXX=g++ and CC=gcc where the environment names another compiler.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pano4d.benchmarks.full_model import make_part
from pano4d.build_engines import aot_export
from pano4d.build_engines.channels_last import keep_channels_last
from pano4d.build_engines.fp8 import use_fp8
from pano4d.build_engines.shortcuts import simplify
from pano4d.runtime.backends.aotinductor import Package, without_tf32
from pano4d.runtime.backends.eager import wrap

FRAMES, LATENT_PX, CONTEXT = 14, 64, 1024
VARIANTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": lambda module: module, "simplified": simplify,
    "channels last": lambda module: keep_channels_last(module, FRAMES),
    "fp8": lambda module: use_fp8(keep_channels_last(module, FRAMES))}
PART = {"unet": "unet", "vae_decoder": "vae"}


def inputs_of(network: str, rows: int, size: int = LATENT_PX) -> list[torch.Tensor]:
    """Draw inputs of the size and kind that the network sees in use, on the GPU.

    Args:
        network: ``unet`` or ``vae_decoder``.
        rows: Tiles, guidance halves included.
        size: Side of a latent tile.

    Returns:
        Tensors in the order of the module's arguments.
    """
    generator = torch.Generator("cuda").manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device="cuda", dtype=torch.float16)

    if network == "vae_decoder":
        return [normal(rows, FRAMES, 4, size, size)]
    ids = torch.tensor([[6.0, 127.0, 0.02]] * rows, device="cuda")
    return [normal(rows, FRAMES, 9, size, size), torch.linspace(-0.5, 1.0, rows, device="cuda"), normal(rows, 1, CONTEXT), ids]


def milliseconds(run: Callable[[], object], repeats: int = 10) -> dict[str, float]:
    """Time by CUDA events, one pair a call, after two calls to warm up: median, 10th and 90th percentile."""
    for _ in range(2):
        run()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    low, high = np.percentile(times, [10, 90])
    return {"ms": round(statistics.median(times), 3), "p10_ms": round(float(low), 3), "p90_ms": round(float(high), 3)}


def ceiling_tflops(size: int = 8192, seconds: float = 3.0) -> dict[str, Any]:
    """Measure the rate of a large matrix product on random data, at first and after so many seconds without a pause.

    A GPU clocks higher for the first tenths of a second than its power lets it go on; engines run for longer.

    Args:
        size: Side of both float16 matrices.
        seconds: How long.

    Returns:
        ``tflops``, the median over the last half; ``burst_tflops``, that of the first 30 products; ``what``.
    """
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.float16) for _ in range(2))

    begin, rates = time.monotonic(), []
    while time.monotonic() - begin < seconds:
        rates.append(2 * size**3 / milliseconds(lambda: a @ b, 30)["ms"] / 1e9)
    return {"tflops": round(statistics.median(rates[len(rates) // 2:]), 1), "burst_tflops": round(rates[0], 1),
            "what": f"{size}^3 float16 matrix product, sustained for {seconds:g} s"}


def graphed(run: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
    """Record a CUDA graph of a call. Returns what replays it, and the tensor it writes."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        result = run()
    return graph.replay, result


def relative_error(made: torch.Tensor, exact: torch.Tensor) -> float:
    """Compare by norms, in float64."""
    difference = (made.double() - exact.double()).norm() / exact.double().norm()
    return float(f"{difference.item():.2e}")


def kernels_of(run: Callable[[], object], top: int = 25) -> list[dict]:
    """List the kernels of one call by their time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    events = sorted(profile.key_averages(), key=lambda event: -event.self_device_time_total)
    return [{"name": event.key[:120], "calls": event.count, "ms": round(event.self_device_time_total / 1e3, 3)}
            for event in events[:top] if event.self_device_time_total]


def bench(network: str, rows: int, variants: list[str], options: dict, folder: Path, ceiling: float) -> list[dict]:
    """Measure one network, eager first.

    Args:
        network: ``unet`` or ``vae_decoder``.
        rows: Tiles of a call, guidance halves included.
        variants: Names of ``VARIANTS``.
        options: Inductor's options.
        folder: Where packages are put.
        ceiling: TFLOP/s of a matrix product, for the share.

    Returns:
        One row a variant.
    """
    given = inputs_of(network, rows)

    def fresh(dtype: torch.dtype) -> nn.Module:
        return wrap(network, make_part(PART[network], "cuda", torch.float16)).to("cuda", dtype)

    module, found = fresh(torch.float32), []
    with torch.inference_mode():
        with without_tf32():
            exact = module(*(tensor.float() for tensor in given))
        module = module.half()
        with FlopCounterMode(display=False) as counter:
            error = relative_error(module(*given), exact)
        work = counter.get_total_flops() / 1e12
        torch.cuda.reset_peak_memory_stats()
        timed = milliseconds(lambda: module(*given), 5)
    peak = torch.cuda.max_memory_allocated() / 2**30
    found.append(_row(network, rows, "eager", timed, work, ceiling, error, peak))
    del module
    for name in variants:
        gc.collect(), torch.cuda.empty_cache()
        turned = VARIANTS[name](fresh(torch.float16))
        aot_export.turn_convolutions(turned)
        found.append(_compiled(network, rows, name, turned, given, exact, options, folder, work,
                               ceiling))
    return found


def _compiled(network: str, rows: int, name: str, module: nn.Module, given: list[torch.Tensor], exact: torch.Tensor,
              options: dict, folder: Path, work: float, ceiling: float) -> dict:
    path = folder / f"{network}_{rows}_{name.replace(' ', '_')}.pt2"
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    if not path.exists():
        aot_export.compile_package(module, given, path, options)
    compiled_s = time.perf_counter() - begun
    begun = time.perf_counter()
    package = Package(path)
    package.bind({**dict(module.named_parameters(remove_duplicate=False)),
                  **dict(module.named_buffers(remove_duplicate=False))})
    loaded_s = time.perf_counter() - begun
    with torch.inference_mode():
        torch.cuda.reset_peak_memory_stats()
        replay, result = graphed(lambda: package(*given))
        replay()
        error = relative_error(result, exact)
        timed = milliseconds(replay)
        peak = torch.cuda.max_memory_allocated() / 2**30
        row = _row(network, rows, name, timed, work, ceiling, error, peak)
        row |= {"compile_s": round(compiled_s, 1), "load_s": round(loaded_s, 2), "kernels": kernels_of(lambda: package(*given))}
    print(json.dumps({key: value for key, value in row.items() if key != "kernels"}), flush=True)
    return row


def _row(network, rows, name, timed, work, ceiling, error, peak) -> dict:
    rate = work / timed["ms"] * 1e3
    return {"network": network, "rows": rows, "variant": name, **timed, "tflop": round(work, 2), "tflops": round(rate, 1),
            "share_of_ceiling": round(rate / ceiling, 3), "relative_error": error, "peak_gib": round(peak, 2)}


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=list(PART), nargs="+", default=["unet"])
    parser.add_argument("--rows", type=int, nargs="+", default=[2])
    parser.add_argument("--variant", choices=list(VARIANTS), nargs="+", default=["channels last"])
    parser.add_argument("--option", nargs="*", default=[], metavar="NAME=JSON", help="options of Inductor")
    parser.add_argument("--attention", choices=["default", "cudnn"], default="default", help="within a frame")
    parser.add_argument("--packages", type=Path, default=Path("engines/bench"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "engine.json")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    if args.attention == "cudnn":
        torch.backends.cuda.enable_flash_sdp(False), torch.backends.cuda.enable_mem_efficient_sdp(False)
    given = {name: json.loads(value) for name, value in (option.split("=", 1) for option in args.option)}
    options = aot_export.inductor_options("cuda", options=given)
    ceiling = ceiling_tflops()
    result = {"command": "python -m pano4d.benchmarks.bench_engine " + " ".join(sys.argv[1:]),
              "gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda,
              "driver": aot_export.target_block("cuda")["driver"], "options": options, "attention": args.attention,
              "ceiling": ceiling, "rows": []}
    for network in args.network:
        for rows in args.rows:
            result["rows"] += bench(network, rows, args.variant, options, args.packages, ceiling["tflops"])
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(result, indent=2) + "\n")
    for row in result["rows"]:
        print(f"{row['network']:12s} {row['rows']} {row['variant']:14s} {row['ms']:8.1f} ms {row['tflops']:6.0f} TFLOP/s "
              f"{row['share_of_ceiling']:.0%} of the ceiling, error {row['relative_error']:.1e}, {row['peak_gib']:.1f} GiB")


if __name__ == "__main__":
    main()
