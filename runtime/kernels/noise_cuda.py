"""Draw the first state on a GPU: numbers from the host's streams, gathered by `noise.cu`."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pano4d.runtime.device import Device, DeviceArray
from pano4d.runtime.kernels import compiler
from pano4d.runtime.noise import CellLists, cell_lists, count_cells, draw_field, draw_fill
from pano4d.runtime.tiles import Layout

THREADS = 128


def sphere_noise(device: Device, layout: Layout, size: int, frames: int, channels: int, seed: int,
                 shared: bool = True) -> DeviceArray:
    """Draw unit noise for every tile: the bytes of ``noise.sphere_noise``.

    The frames' fields are drawn by as many threads as there are cores, while the cells are listed.

    Args:
        device: Where.
        layout: Tile layout of V tiles.
        size: Side of a tile's latent, s.
        frames: T.
        channels: C.
        seed: Not negative.
        shared: False draws every tile for itself.

    Returns:
        float32 [V, T, C, s, s].

    Raises:
        BackendError: The GPU has not enough memory, or the kernel does not compile.
    """
    if not shared:
        return device.upload(draw_fill(layout, size, frames, channels, seed))
    cells = count_cells(layout, size)
    with ThreadPoolExecutor(min(frames, os.cpu_count() or 1)) as pool:
        drawn = [pool.submit(draw_field, cells, channels, seed, t) for t in range(frames)]
        lists = cell_lists(layout, size)
        noise = (device.empty((layout.count, frames, channels, size, size), "float32") if lists.full else
                 device.upload(draw_fill(layout, size, frames, channels, seed)))
        field = device.empty((channels, cells), "float32")
        gather = _Gather(device, lists, noise)
        for t in range(frames):
            device.upload(drawn[t].result(), field)
            drawn[t] = None  # a field is large, and the threads are drawing more
            gather(field, t)
    device.free(field, *gather.tables)  # the driver waits for the kernels first
    return noise


class _Gather:
    """The kernel and its lists."""

    def __init__(self, device: Device, lists: CellLists, noise: DeviceArray) -> None:
        (self._kernel,) = compiler.load_kernels(device, "noise.cu", ("gather_cells",), compiler.definitions(4))
        start = np.concatenate([[0], np.cumsum(lists.counts)]).astype(np.int32)
        self.noise, self.tables = noise, (device.upload(start), device.upload(lists.cells))

    def __call__(self, field: DeviceArray, t: int) -> None:
        """Write frame t; enqueued, not waited for."""
        tiles, frames, channels, size, _ = self.noise.shape
        grid = (-(-size * size // THREADS), tiles, channels)
        self._kernel(grid, THREADS, field, *self.tables, self.noise,
                     *map(np.int32, (field.shape[1], size * size, channels, frames, t)))
