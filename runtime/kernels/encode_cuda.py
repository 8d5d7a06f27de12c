"""Cut tiles out of a panorama on a GPU (`encode_tiles.cu`)."""

import numpy as np

from pano4d.runtime.device import Arrays, Device, DeviceArray, Scope
from pano4d.runtime.kernels import compiler
from pano4d.runtime.kernels.compiler import THREADS, blocks
from pano4d.runtime.tiles import Layout, supersampling



def encode_arrays(tiles: int, size: int, height: int, width: int, element: str = "float32") -> Arrays:
    """List shape and element type of every array it takes to cut tiles; what is planned is what is taken.

    Args:
        tiles: Tiles of the layout, V.
        size: Side of a tile, s.
        height: Rows of the panorama.
        width: Columns of the panorama.
        element: ``float32`` or ``float16``.

    Returns:
        The arrays by name.
    """
    return {"panorama": ((height, width, 3), "uint8"), "rotations": ((tiles, 3, 3), "float32"),
            "tiles": ((tiles, 3, size, size), element)}


def encode_tiles(device: Device, panorama: DeviceArray, layout: Layout, size: int, samples: int | None = None,
                 element: str = "float32") -> DeviceArray:
    """Cut upright pictures out of a panorama, antialiased.

    Args:
        device: Where.
        panorama: uint8 [H, W, 3].
        layout: Tile layout of V tiles.
        size: Side of a tile, s.
        samples: Samples per pixel and axis; None for twice the panorama's density or more.
        element: ``float32`` or ``float16``.

    Returns:
        Grey levels as -1..1. ``element`` [V, 3, s, s].

    Raises:
        BackendError: The GPU has not enough memory, or the kernel does not compile.
    """
    height, width, _ = panorama.shape
    samples = supersampling(layout, size, width) if samples is None else samples
    (kernel,) = compiler.load_kernels(device, "encode_tiles.cu", ("encode_tiles",),
                                      compiler.definitions(np.dtype(element).itemsize))
    with Scope(device) as scope:  # the driver waits for the kernel before it frees the rotations
        rotations = scope.upload(layout.rotations.astype(np.float32))
        tiles = scope.empty(*encode_arrays(layout.count, size, height, width, element)["tiles"])
        kernel((blocks(size * size), layout.count), THREADS, panorama, rotations, tiles,
               *map(np.int32, (height, width, size, samples)), np.float32(layout.focal(size)))
        scope.keep(tiles)
    return tiles
