"""Draw the first state on a GPU: numbers from the host's streams, gathered by `noise.cu`."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pano4d.runtime.device import Arrays, Device, DeviceArray, Scope
from pano4d.runtime.kernels import compiler
from pano4d.runtime.kernels.compiler import THREADS, blocks
from pano4d.runtime.noise import CellLists, cell_lists, count_cells, draw_field, draw_fill
from pano4d.runtime.parallel import cores
from pano4d.runtime.tiles import Layout


def noise_arrays(layout: Layout, size: int, frames: int, channels: int, shared: bool = True) -> Arrays:
    """List shape and element type of what `sphere_noise` takes; what is planned is what is taken.

    Args:
        layout: Tile layout of V tiles.
        size: Side of a tile's latent, s.
        frames: T.
        channels: C.
        shared: Whether tiles share the field.

    Returns:
        ``noise``, which stays, and with a field ``field``, ``start`` and ``held``.
    """
    noise = {"noise": ((layout.count, frames, channels, size, size), "float32")}
    if not shared:
        return noise
    lists = cell_lists(layout, size)
    return noise | {"field": ((channels, lists.total), "float32"), "start": ((lists.counts.size + 1,), "int32"),
                    "held": (lists.cells.shape, "int32")}


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
    with Scope(device) as scope, ThreadPoolExecutor(min(frames, cores())) as pool:
        drawn = [pool.submit(draw_field, cells, channels, seed, t) for t in range(frames)]
        lists = cell_lists(layout, size)
        arrays = noise_arrays(layout, size, frames, channels)
        noise = (scope.empty(*arrays["noise"]) if lists.full else
                 scope.upload(draw_fill(layout, size, frames, channels, seed)))
        field, gather = scope.empty(*arrays["field"]), _Gather(scope, lists, noise)
        for t in range(frames):
            device.upload(drawn[t].result(), field)
            drawn[t] = None  # a field is large, and the threads are drawing more
            gather(field, t)
        scope.keep(noise)
    return noise  # the driver has waited for the kernels to free the rest


class _Gather:
    """The kernel and its lists."""

    def __init__(self, scope: Scope, lists: CellLists, noise: DeviceArray) -> None:
        (self._kernel,) = compiler.load_kernels(scope.device, "noise.cu", ("gather_cells",), compiler.definitions(4))
        start = np.concatenate([[0], np.cumsum(lists.counts)]).astype(np.int32)
        self.noise, self.tables = noise, (scope.upload(start), scope.upload(lists.cells))

    def __call__(self, field: DeviceArray, t: int) -> None:
        """Write frame t; enqueued, not waited for."""
        tiles, frames, channels, size, _ = self.noise.shape
        grid = (blocks(size * size), tiles, channels)
        self._kernel(grid, THREADS, field, *self.tables, self.noise,
                     *map(np.int32, (field.shape[1], size * size, channels, frames, t)))
