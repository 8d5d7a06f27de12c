"""Measure the bandwidth of the kernels that move the tiles, against that of a plain copy on the same GPU.

    python -m pano4d.benchmarks.bandwidth

Bytes are those that a kernel has to move: each value that it reads or writes, once, however often it is fetched.
"""

import itertools
import json
import statistics
from collections.abc import Callable

import numpy as np

from pano4d.runtime import schedule, tiles
from pano4d.runtime.device import Device, DeviceArray, Scope
from pano4d.runtime.kernels.blend import BlendPlan
from pano4d.runtime.kernels.blend_cuda import StateShape, TileState, blend_tables
from pano4d.runtime.kernels.compose_cuda import Composer, PixelMajor, pixel_major_shape

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


def copy_gbps(device: Device) -> float:
    """Measure a copy within the GPU: bytes read and written, over time."""
    source, target = device.zeros((COPY_BYTES,), np.uint8), device.zeros((COPY_BYTES,), np.uint8)
    try:
        return 2 * COPY_BYTES / milliseconds(device, lambda: device.copy(source, target)) / 1e6
    finally:
        device.free(source, target)


def measure_blend(device: Device, width: int) -> dict[str, float]:
    """Measure a step of `blend.cu` as a guided run with DPM-Solver++(2M) takes it, on random values.

    Two states take turns: between two steps of one, the other's pass through the cache, as an engine's values do.
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
        values = layout.count * FRAMES * 4 * LATENT_PX**2
        per_value = 4 + 2 * 2 + 4 + 4 + 4 + 2 * 2  # x, v and u, previous; next x, estimate, both halves of the sample
        tables = sum(getattr(states[0], name).nbytes for name in ("own", "taps", "shares"))
        return {"gbps": (values * per_value + tables) / spent / 1e6, "us": 1e3 * spent}
    finally:
        for state in states:
            state.free()


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
        ``gbps`` and ``us`` of the gathering alone, of all frames; ``tiles_us`` of laying the tiles out for it; ``stage_us``
        of everything without the input's detail, ``detailed_us`` with it.

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
            moved = layout.count * pixels[0].nbytes + composer.bytes_composed()
            return {"gbps": moved / spent / 1e6, "us": 1e3 * spent, "tiles_us": tiles_us,
                    "stage_us": 1e3 * milliseconds(device, lambda: stage(None)),
                    "detailed_us": 1e3 * milliseconds(device, lambda: stage(CELL_PX), repeats=5)}
        finally:
            composer.free()


def measure(device: Device, width: int = 4096) -> dict[str, float]:
    """Measure all three: ``copy_gbps``, ``blend_gbps``, ``compose_gbps``, and their times in microseconds."""
    figures = {"copy": {"gbps": copy_gbps(device)}, "blend": measure_blend(device, width),
               "compose": measure_compose(device, width)}
    return {f"{name}_{unit}": round(value, 1) for name, values in figures.items() for unit, value in values.items()}


if __name__ == "__main__":
    with Device() as opened:
        print(json.dumps({"gpu": opened.name, **measure(opened)}))
