"""Measure the bandwidth of the kernels that move the tiles, against that of a plain copy on the same GPU.

    python -m pano4d.benchmarks.bandwidth

Bytes are those that a kernel has to move: each value that it reads or writes, once, however often it is fetched.
"""

import json
import statistics
from collections.abc import Callable

import numpy as np

from pano4d.runtime import schedule, tiles
from pano4d.runtime.device import Device
from pano4d.runtime.kernels.blend import BlendPlan
from pano4d.runtime.kernels.blend_cuda import StateShape, TileState, blend_tables
from pano4d.runtime.kernels.compose_cuda import Composer

FRAMES, TILE_PX, LATENT_PX, CHANNELS, BATCH = 14, 512, 64, 9, 4


def milliseconds(device: Device, enqueue: Callable[[], object], repeats: int = 20) -> float:
    """Time work on the device's stream: median of ``repeats`` after three to warm up."""
    for _ in range(3):
        enqueue()
    times = []
    for _ in range(repeats):
        begin = device.event()
        enqueue()
        times.append(device.elapsed_ms(begin, device.event()))
    return statistics.median(times)


def copy_gbps(device: Device, size: int = 2**30) -> float:
    """Measure a copy within the GPU: bytes read and written, over time."""
    source, target = device.zeros((size,), np.uint8), device.zeros((size,), np.uint8)
    try:
        return 2 * size / milliseconds(device, lambda: device.copy(source, target)) / 1e6
    finally:
        device.free(source, target)


def blend_gbps(device: Device, width: int) -> float:
    """Measure a step of `blend.cu` as a guided run with DPM-Solver++(2M) takes it, on random values."""
    layout = tiles.layout_for(width, TILE_PX)
    moving, plan = np.ones(layout.count, bool), BlendPlan.build(layout, LATENT_PX)
    ranks = blend_tables(plan, moving, LATENT_PX)[1].shape[0]
    shape = StateShape(layout.count, layout.count, FRAMES, LATENT_PX, BATCH, CHANNELS, ranks, True, True, True)
    state, rng = TileState(device, layout, moving, shape, plan), np.random.default_rng(0)

    def normal(*size: int) -> np.ndarray:
        return rng.standard_normal(size, np.float32)

    cells = (LATENT_PX, LATENT_PX)
    try:
        state.begin(normal(layout.count, FRAMES, 4, *cells), normal(layout.count, FRAMES, *cells),
                    normal(layout.count, 4, *cells), normal(layout.count, 4, *cells), 1.0, np.linspace(1, 3, FRAMES))
        device.upload(normal(*state.v.shape).astype(state.v.dtype), state.v)
        device.upload(normal(*state.previous.shape), state.previous)
        c_skip, c_out, c_in, _ = schedule.scalings(2.0)
        spent = milliseconds(device, lambda: state.step(c_skip, c_out, 2.0, 1.5, c_in, 0.5))
        values = layout.count * FRAMES * 4 * LATENT_PX**2
        per_value = 4 + 2 * 2 + 4 + 4 + 4 + 2 * 2  # x, v and u, previous; next x, estimate, both halves of the sample
        tables = sum(getattr(state, name).nbytes for name in ("own", "taps", "shares"))
        return (values * per_value + tables) / spent / 1e6
    finally:
        state.free()


def compose_gbps(device: Device, width: int) -> float:
    """Measure `compose.cu` over a whole panorama, on random pixels."""
    layout = tiles.layout_for(width, TILE_PX)
    everything = np.ones((width // 2, width), bool)
    composer = Composer(device, layout, np.ones(layout.count, bool), everything, FRAMES, TILE_PX)
    pixels = device.empty((layout.count, FRAMES, 3, TILE_PX, TILE_PX), np.float16)
    rng = np.random.default_rng(0)
    try:
        for v in range(layout.count):
            device.upload(rng.uniform(-1, 1, pixels.shape[1:]).astype(np.float16), pixels[v])
        spent = milliseconds(device, lambda: composer.compose_frames(pixels, 0, FRAMES))
        return (pixels.nbytes + composer.bytes_composed(FRAMES)) / spent / 1e6
    finally:
        composer.free()
        device.free(pixels)


def measure(device: Device, width: int = 4096) -> dict[str, float]:
    """Measure all three, in GB/s."""
    return {name: round(value, 1) for name, value in (
        ("copy_gbps", copy_gbps(device)), ("blend_gbps", blend_gbps(device, width)),
        ("compose_gbps", compose_gbps(device, width)))}


if __name__ == "__main__":
    with Device() as opened:
        print(json.dumps({"gpu": opened.name, **measure(opened)}))
