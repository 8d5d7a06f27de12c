"""Compose decoded tiles onto the panorama on a GPU, with the input's detail and its still pixels (`compose.cu`,
`detail.cu`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pano4d.runtime.device import Device, DeviceArray, Scope
from pano4d.runtime.kernels import compiler
from pano4d.runtime.kernels.detail import LEVELS, radii
from pano4d.runtime.sphere import lonlat_to_directions, pixel_lonlat
from pano4d.runtime.tiles import Layout

THREADS = 128
PATCH_ROWS, PATCH_COLUMNS = 8, 32
FRAMES_EACH = 7  # at most, of a thread


@dataclass(frozen=True)
class ComposeShape:
    """Say how large the work is.

    Attributes:
        tiles: Tiles of the layout, V.
        listed: Entries of the tiles that may see each block.
        frames: T.
        size: Side of a decoded tile, s.
        height: Rows of the panorama.
        width: Columns of the panorama.
        count: Pixels to compose, N.
        chunk: Frames composed at a time.
    """

    tiles: int
    listed: int
    frames: int
    height: int
    width: int
    count: int
    chunk: int

    def arrays(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """List shape and element type of every array, by name; what is planned is what is taken."""
        whole = (self.height, self.width)
        patches = -(-self.height // PATCH_ROWS) * -(-self.width // PATCH_COLUMNS)
        return {
            "rotations": ((self.tiles, 3, 3), "float32"), "slot_of": ((self.tiles,), "int32"),
            "patch_start": ((patches + 1,), "int32"), "patch_tiles": ((self.listed,), "int32"),
            "columns": ((self.width, 2), "float32"), "rows": ((self.height, 2), "float32"),
            "composed": ((self.chunk, 3, self.count), "float32"), "first": ((3, self.count), "float32"),
            "alpha": ((self.count,), "float32"), "selected": ((self.count,), "int32"),
            "place_of": (whole, "int32"),
            "cast": ((*whole, 4), "float32"), "change": ((*whole, 2), "float32"), "scratch": ((*whole, 4), "float32"),
            "frames": ((self.chunk, *whole, 3), "uint8"),
        }

    @property
    def nbytes(self) -> int:
        """Bytes of these arrays."""
        return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in self.arrays().values())


def tiles_of_patches(layout: Layout, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """List the tiles that may see each patch of ``PATCH_ROWS`` x ``PATCH_COLUMNS`` panorama pixels.

    Args:
        layout: Tile layout.
        height: Rows of the panorama.
        width: Columns of the panorama.

    Returns:
        Start of each patch's tiles, int32 [patches + 1], row by row of patches, and the tiles, int32.
    """
    lon, lat = pixel_lonlat(height, width)
    top, left = np.arange(0, height, PATCH_ROWS), np.arange(0, width, PATCH_COLUMNS)
    bottom, right = np.minimum(top + PATCH_ROWS, height) - 1, np.minimum(left + PATCH_COLUMNS, width) - 1
    middle = _grid((lon[left] + lon[right]) / 2, (lat[top] + lat[bottom]) / 2)
    corners = [_grid(lon[x], lat[y]) for x in (left, right) for y in (top, bottom)]
    reach = np.max([_angle((middle * corner).sum(axis=-1)) for corner in corners], axis=0)
    near = _angle(middle @ layout.rotations[:, :, 2].T) <= reach[..., None] * 1.01 + layout.corner + 1e-6
    near = near.reshape(-1, layout.count)
    start = np.concatenate([[0], np.cumsum(near.sum(axis=1))])
    return start.astype(np.int32), np.nonzero(near)[1].astype(np.int32)


def _grid(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    return lonlat_to_directions(lon[None], lat[:, None])


def _angle(cosine: np.ndarray) -> np.ndarray:
    return np.arccos(np.clip(cosine, -1, 1))


class Composer:
    """Turn decoded tiles into the frames of a panoramic video. Nothing here allocates or waits after construction.

    Args:
        device: Where.
        layout: Tile layout of V tiles.
        moving: Tiles that were decoded, in the order of the slots. bool [V].
        select: Pixels to compose. bool [H, W], one at least.
        frames: T.
        size: Side of a decoded tile.
        chunk: Frames at a time, at most T; None for all.
        element: What the decoder writes.

    Raises:
        BackendError: The GPU has not enough memory, or a kernel does not compile.
    """

    def __init__(self, device: Device, layout: Layout, moving: np.ndarray, select: np.ndarray, frames: int, size: int,
                 chunk: int | None = None, element: str = "float16") -> None:
        (height, width), count = select.shape, int(select.sum())
        self.device, self.focal = device, np.float32(layout.focal(size))
        start, listed = tiles_of_patches(layout, height, width)
        self.shape = ComposeShape(layout.count, len(listed), frames, height, width, count, chunk or frames)
        defined = compiler.definitions(np.dtype(element).itemsize)
        self._frames_each = -(-self.shape.chunk // -(-self.shape.chunk // FRAMES_EACH))
        mapped = {"size": size, "frames_each": self._frames_each, "patch_rows": PATCH_ROWS}
        self._compose, self._lay = (
            compiler.load_kernels(device, "compose.cu", ("compose",), compiler.definitions(
                np.dtype(element).itemsize, lay=lay, **mapped))[0] for lay in (False, True))
        self._residual, self._change, self._box_sum, self._finish = compiler.load_kernels(
            device, "detail.cu", ("residual", "change", "box_sum", "finish"), defined)
        columns, rows = (np.stack([np.sin(a), np.cos(a)], axis=-1) for a in pixel_lonlat(height, width))
        values = {"rotations": layout.rotations, "slot_of": np.where(moving, np.cumsum(moving) - 1, -1),
                  "patch_start": start, "patch_tiles": listed, "columns": columns, "rows": rows,
                  "selected": np.flatnonzero(select),
                  "place_of": np.where(select, np.cumsum(select).reshape(select.shape) - 1, -1)}
        with Scope(device) as scope:
            self._arrays = {name: scope.zeros(*spec) for name, spec in self.shape.arrays().items()}
            for name, value in values.items():
                device.upload(value.astype(self._arrays[name].dtype), self._arrays[name])
            device.synchronize()
            scope.keep()

    def run(self, pixels: DeviceArray, panorama: DeviceArray, alpha: DeviceArray | None = None,
            cell_px: float | None = None) -> Iterator[DeviceArray]:
        """Compose all frames, a chunk at a time; enqueued, not waited for.

        Args:
            pixels: Decoded tiles in -1..1. ``element`` [slots, T, 3, s, s].
            panorama: Input picture. uint8 [H, W, 3].
            alpha: Weight of the composed pixels against the input. float32 [N]; None for the share of decoded tiles.
            cell_px: Width of a latent cell on the panorama, in pixels, to keep the input's detail; None to leave it.

        Yields:
            The next frames, ``chunk`` of them or what is left. uint8 [n, H, W, 3], overwritten by the next chunk.

        Raises:
            BackendError: The driver refuses.
        """
        arrays, shape, frames = self._arrays, self.shape, self._arrays["frames"]
        for begin in range(0, shape.frames, shape.chunk):
            count = min(shape.chunk, shape.frames - begin)
            for t in range(count):
                self.device.copy(panorama, frames[t])
            if cell_px is None:
                weighted = np.int32(alpha is not None)
                self._launch(self._lay, pixels, (panorama, alpha or arrays["alpha"], frames, weighted), begin, count)
                yield self._part(count)
                continue
            self.compose_frames(pixels, begin, count)
            if begin == 0:
                self.device.copy(arrays["composed"][0], arrays["first"])
                self._find_cast(panorama, cell_px)
            for t in range(count):
                self._finish_frame(t, panorama, alpha or arrays["alpha"], cell_px)
            yield self._part(count)

    def _part(self, count: int) -> DeviceArray:
        """View the frames of a chunk."""
        frames = self._arrays["frames"]
        return DeviceArray(frames.pointer, (count, *frames.shape[1:]), frames.dtype, frames.owner)

    def bytes_composed(self, frames: int) -> int:
        """Count the bytes that `compose_frames` writes."""
        return self.shape.count * (frames * 3 * 4 + 4)

    def compose_frames(self, pixels: DeviceArray, begin: int, frames: int) -> None:
        """Gather some frames from the tiles, without the input's detail and still pixels; enqueued, not waited for.

        Args:
            pixels: As for `run`.
            begin: The first frame.
            frames: Number of frames, at most the chunk.

        Raises:
            BackendError: The driver refuses.
        """
        self._launch(self._compose, pixels, (self._arrays["composed"],), begin, frames)

    def _launch(self, kernel: compiler.Kernel, pixels: DeviceArray, outputs: tuple, begin: int, frames: int) -> None:
        shape = self.shape
        sides = ((shape.width, PATCH_COLUMNS), (shape.height, PATCH_ROWS), (frames, self._frames_each))
        sizes = (shape.count, shape.height, shape.width, frames, begin, shape.frames)
        names = ("rotations", "slot_of", "patch_start", "patch_tiles", "columns", "rows", "place_of")
        kernel(tuple(-(-length // step) for length, step in sides), PATCH_ROWS * PATCH_COLUMNS, pixels,
               *(self._arrays[name] for name in names), *outputs, self._arrays["alpha"], *map(np.int32, sizes), self.focal)

    def _find_cast(self, panorama: DeviceArray, cell_px: float) -> None:
        arrays, count = self._arrays, np.int32(self.shape.count)
        self.device.clear(arrays["cast"])
        self._residual((self._blocks(self.shape.count),), THREADS, arrays["first"], panorama, arrays["selected"],
                       arrays["cast"], count)
        self._box_sums(arrays["cast"], 4, radii(cell_px)[1])

    def _finish_frame(self, t: int, panorama: DeviceArray, alpha: DeviceArray, cell_px: float) -> None:
        """Finish frame ``t`` of the chunk."""
        arrays, count = self._arrays, np.int32(self.shape.count)
        composed = arrays["composed"][t]
        grid = (self._blocks(self.shape.count),)
        # The sums of the frame before lie outside the selection too.
        self.device.clear(arrays["change"])
        self._change(grid, THREADS, arrays["first"], composed, arrays["selected"], arrays["change"], count)
        self._box_sums(arrays["change"], 2, radii(cell_px)[0])
        self._finish(grid, THREADS, composed, arrays["first"], arrays["cast"], arrays["change"], panorama,
                     arrays["selected"], alpha, arrays["frames"][t], count, np.float32(LEVELS))

    def _box_sums(self, values: DeviceArray, channels: int, radius: int) -> None:
        """Replace values by their sums over squares: along rows into the scratch, along columns back."""
        shape, scratch = self.shape, self._arrays["scratch"]
        sizes = (shape.height, shape.width, channels)
        grid = (self._blocks(shape.height * shape.width * channels),)
        for source, target, length, along_rows in ((values, scratch, shape.width, 1), (scratch, values, shape.height, 0)):
            reach = min(radius, (length - 1) // 2)
            self._box_sum(grid, THREADS, source, target, *map(np.int32, (*sizes, reach, along_rows)))

    def _blocks(self, count: int) -> int:
        return -(-count // THREADS)

    def free(self) -> None:
        """Give the memory back."""
        self.device.free(*self._arrays.values())
