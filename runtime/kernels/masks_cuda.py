"""Find how much of each latent cell may move on a GPU (`masks.cu`)."""

import numpy as np

from pano4d.runtime.device import Device, DeviceArray, Scope
from pano4d.runtime.kernels import compiler
from pano4d.runtime.kernels.compiler import THREADS, blocks
from pano4d.runtime.sphere import pixel_lonlat
from pano4d.runtime.tiles import Layout



def tile_masks(device: Device, mask: DeviceArray, layout: Layout, size_px: int, factor: int) -> DeviceArray:
    """Give the share of moving pixels in each latent cell of each tile, as ``tiles.tile_masks``.

    Args:
        device: Where.
        mask: Not zero where the picture may move. bool or uint8 [H, W].
        layout: Tile layout of V tiles.
        size_px: Side of a tile in pixels.
        factor: Pixels per latent cell and axis.

    Returns:
        float32 [V, size_px / factor, size_px / factor] in 0..1.

    Raises:
        BackendError: The GPU has not enough memory, or a kernel does not compile.
    """
    (height, width), cells = mask.shape, size_px // factor
    mark, share = compiler.load_kernels(device, "masks.cu", ("mark_moving", "share_moving"), compiler.definitions(4))
    tables = (np.stack([np.sin(a), np.cos(a)], axis=-1) for a in pixel_lonlat(height, width))
    focal, reach = layout.focal(size_px), np.cos(layout.corner) - 1e-9
    with Scope(device) as scope:  # the driver waits for the kernels before it frees the tables
        rotations, columns, rows = (scope.upload(table) for table in (layout.rotations, *tables))
        marks = scope.zeros((layout.count, cells, cells), "uint8")
        shares = scope.empty((layout.count, cells, cells), "float32")
        mark((blocks(width), height), THREADS, mask, rotations, columns, rows, marks,
             *map(np.int32, (height, width, layout.count, size_px, factor)), np.float64(focal), np.float64(reach))
        share((blocks(cells * cells), layout.count), THREADS, mask, rotations, marks, shares,
              *map(np.int32, (height, width, size_px, factor)), np.float64(focal))
        scope.keep(shares)
    return shares
