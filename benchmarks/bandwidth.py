"""Measure the bandwidth of the kernels that move the tiles, against that of a plain copy on the same GPU.

    python -m pano4d.benchmarks.bandwidth

Bytes are those that a kernel has to move: each value that it reads or writes, once, however often it is fetched. Beside
each kernel stand a copy of as many bytes, and kernels that read and write as many and compute nothing (`moves.cu`).
"""

import argparse
import itertools
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pano4d.benchmarks.measuring import ROOT, revision
from pano4d.runtime import schedule, tiles
from pano4d.runtime.device import Device, DeviceArray, Scope, total_bytes
from pano4d.runtime.kernels import compiler
from pano4d.runtime.kernels.blend import BlendPlan
from pano4d.runtime.kernels.blend_cuda import StateShape, TileState, blend_tables
from pano4d.runtime.kernels.compose_cuda import Composer, PixelMajor, pixel_major_shape

MOVES = Path(__file__).with_name("moves.cu")
OCTET, MOST_OCTETS = 16, 4  # bytes that a thread of it reads or writes at once, and how often at most
FRAMES, TILE_PX, LATENT_PX, CHANNELS, BATCH, CELL_PX = 14, 512, 64, 9, 4, 10.0
COPY_BYTES, BALLAST_BYTES, MOST_COPIES = 2**30, 2**28, 256


def milliseconds(device: Device, enqueue: Callable[[], object], repeats: int = 20, rounds: int = 5) -> float:
    """Time work that is queued up, so that launches are not timed: copies keep the GPU busy while Python enqueues.

    Args:
        device: Where.
        enqueue: Enqueues the work once. Repeats follow one another, so let it take turns with what stays in the cache.
        repeats: Repeats between two events.
        rounds: How often that is done.

    Returns:
        Median over the rounds, for one repeat.

    Raises:
        BackendError: The GPU fails.
    """
    copies, times = 16, []
    with Scope(device) as scope:
        source, target = (scope.zeros((BALLAST_BYTES,), np.uint8) for _ in range(2))
        for _ in range(3):
            enqueue()
        while len(times) < rounds:
            for _ in range(copies):
                device.copy(source, target)
            begin = device.event()
            for _ in range(repeats):
                enqueue()
            end = device.event()
            late = device.reached(begin)  # the GPU may have waited for Python
            spent = device.elapsed_ms(begin, end)
            if late and copies < MOST_COPIES:
                copies *= 2
            else:
                times.append(spent / repeats)
    return statistics.median(times)


def copy_us(device: Device, moved: int) -> float:
    """Measure a copy within the GPU, in microseconds; two pairs of arrays take turns.

    Args:
        device: Where.
        moved: Bytes read and written, together.

    Returns:
        Time of one copy.

    Raises:
        BackendError: The GPU fails.
    """
    with Scope(device) as scope:
        pairs = itertools.cycle([[scope.zeros((moved // 2,), np.uint8) for _ in range(2)] for _ in range(2)])
        return 1e3 * milliseconds(device, lambda: device.copy(*next(pairs)))


def moves_us(device: Device, *passes: tuple[int, int, int]) -> float:
    """Measure kernels that move bytes and compute nothing, in microseconds; two sets of arrays take turns.

    Args:
        device: Where.
        *passes: For each kernel the bytes that it reads, those that it writes, and how many of these the next one reads,
            beside others; they may still be in the cache.

    Returns:
        Time of all kernels, one after another.

    Raises:
        BackendError: The GPU fails.
    """
    octets = [tuple(-(-count // OCTET) for count in each) for each in passes]
    threads = [-(-max(reads, writes) // MOST_OCTETS) for reads, writes, _ in octets]
    kernels = [compiler.load_kernels(device, str(MOVES), ("move",), compiler.definitions(
        reads=-(-reads // count), writes=-(-writes // count), threads=compiler.THREADS))[0]
        for (reads, writes, _), count in zip(octets, threads)]
    # What a kernel writes lies before what the next one reads besides.
    sizes, before = [], (0, 0)
    for reads, writes, kept in octets:
        sizes.append(before[0] + reads - before[1])
        before = writes, kept
    sizes.append(before[0])
    with Scope(device) as scope:
        turns = itertools.cycle([[scope.zeros((size, OCTET), np.uint8) for size in sizes] for _ in range(2)])

        def enqueue(arrays: list[DeviceArray]) -> None:
            for kernel, count, (reads, writes, kept), source, target in zip(kernels, threads, octets, arrays, arrays[1:]):
                last = DeviceArray(source.pointer + (source.shape[0] - reads) * OCTET, (reads, OCTET), source.dtype, device)
                kernel((compiler.blocks(count),), compiler.THREADS, last, target, *map(np.int32, (reads, writes, kept)),
                       early=True)

        return 1e3 * milliseconds(device, lambda: enqueue(next(turns)))


def measure_blend(device: Device, width: int) -> dict[str, float]:
    """Measure a step of `blend.cu` as a guided run with DPM-Solver++(2M) takes it, on random values.

    Two states take turns: between two steps of one, the other's pass through the cache, as an engine's values do.

    Returns:
        ``gbps``; ``us``; ``copy_us`` of a copy of as many bytes; ``moves_us`` of two kernels that move as many.
    """
    layout = tiles.layout_for(width, TILE_PX)
    moving, plan = np.ones(layout.count, bool), BlendPlan.build(layout, LATENT_PX)
    ranks = blend_tables(plan, moving, LATENT_PX)[1].shape[0]
    shape = StateShape(layout.count, layout.count, FRAMES, LATENT_PX, BATCH, CHANNELS, ranks, True, True, True)
    states: list[TileState] = []
    try:
        for seed in range(2):
            states.append(TileState(device, layout, moving, shape, plan))
            _fill(device, states[-1], np.random.default_rng(seed))
        c_skip, c_out, c_in, _ = schedule.scalings(2.0)
        turns = itertools.cycle(states)
        spent = milliseconds(device, lambda: next(turns).step(c_skip, c_out, 2.0, 1.5, c_in, 0.5))
    finally:
        for state in states:
            state.free()
    values, arrays = layout.count * FRAMES * 4 * LATENT_PX**2, shape.arrays()
    tables, given = (total_bytes({name: arrays[name] for name in names})
                     for names in (("own", "taps", "shares"), ("given",)))
    # Of each value x, previous, v and u, and the estimate; then the next x, and both halves of the sample.
    reads, estimates, writes = values * (4 + 4 + 2 * 2), values * 4, values * (4 + 2 * 2)
    moved = reads + estimates + tables + writes
    return {"gbps": moved / spent / 1e6, "us": 1e3 * spent, "copy_us": copy_us(device, moved),
            "moves_us": moves_us(device, (reads, estimates + given, given), (given + tables, writes, 0))}


def _fill(device: Device, state: TileState, rng: np.random.Generator) -> None:
    def normal(*size: int) -> np.ndarray:
        return rng.standard_normal(size, np.float32)

    count, cells = state.shape.tiles, (LATENT_PX, LATENT_PX)
    state.begin(normal(count, FRAMES, 4, *cells), normal(count, FRAMES, *cells), normal(count, 4, *cells),
                normal(count, 4, *cells), 1.0, np.linspace(1, 3, FRAMES))
    device.upload(normal(*state.v.shape).astype(state.v.dtype), state.v)
    device.upload(normal(*state.previous.shape), state.previous)


def measure_compose(device: Device, width: int) -> dict[str, float]:
    """Measure `compose.cu` over a whole panorama, on random pixels; and the stage, from decoded tiles to frames.

    Args:
        device: Where.
        width: Width of the panorama.

    Returns:
        ``gbps`` and ``us`` of the gathering alone, of all frames; ``copy_us`` of a copy of as many bytes; ``moves_us`` of a
        kernel that moves as many; ``tiles_us`` of laying the tiles out; ``stage_us`` of everything without the input's
        detail, ``detailed_us`` with it.

    Raises:
        BackendError: The GPU has not enough memory.
    """
    layout, rng = tiles.layout_for(width, TILE_PX), np.random.default_rng(0)
    everything, calls = np.ones((width // 2, width), bool), -(-layout.count // BATCH)
    composer = Composer(device, layout, np.ones(layout.count, bool), everything, FRAMES, TILE_PX)
    lay_out = PixelMajor(device, FRAMES, TILE_PX, "float16")
    with Scope(device) as scope:
        decoded = scope.upload(rng.uniform(-1, 1, (BATCH, FRAMES, 3, TILE_PX, TILE_PX)).astype(np.float16))
        panorama = scope.upload(rng.integers(0, 256, (*everything.shape, 3), np.uint8))
        pixels = scope.empty(pixel_major_shape(calls * BATCH, FRAMES, TILE_PX), "float16")
        calls_of_tiles = [DeviceArray(pixels[v].pointer, (BATCH, *pixels.shape[1:]), pixels.dtype, device)
                          for v in range(0, calls * BATCH, BATCH)]

        def lay_all_out() -> None:
            for part in calls_of_tiles:
                lay_out(decoded, part)

        def stage(cell_px: float | None) -> None:
            lay_all_out()
            for _ in composer.run(pixels, panorama, None, cell_px):
                pass

        try:
            tiles_us = 1e3 * milliseconds(device, lay_all_out)
            spent = milliseconds(device, lambda: composer.compose_groups(pixels))
            reads, writes = layout.count * pixels[0].nbytes, composer.bytes_composed()
            measured = {"gbps": (reads + writes) / spent / 1e6, "us": 1e3 * spent, "tiles_us": tiles_us,
                        "stage_us": 1e3 * milliseconds(device, lambda: stage(None)),
                        "detailed_us": 1e3 * milliseconds(device, lambda: stage(CELL_PX), repeats=5)}
        finally:
            composer.free()
    return measured | {"copy_us": copy_us(device, reads + writes), "moves_us": moves_us(device, (reads, writes, 0))}


def measure(device: Device, width: int = 4096) -> dict[str, dict[str, float]]:
    """Measure all three: ``copy``, ``blend`` and ``compose``, each with ``gbps``, and times in microseconds."""
    figures = {"copy": {"gbps": 2e-3 * COPY_BYTES / copy_us(device, 2 * COPY_BYTES)}, "blend": measure_blend(device, width),
               "compose": measure_compose(device, width)}
    return {name: {unit: round(value, 1) for unit, value in values.items()} for name, values in figures.items()}


def main() -> None:
    """Measure, and write ``benchmarks/results/bandwidth.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "bandwidth.json")
    args = parser.parse_args()
    with Device() as device:
        result = {"command": "python -m pano4d.benchmarks.bandwidth", "revision": revision(), "gpu": device.name,
                  **measure(device)}
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
