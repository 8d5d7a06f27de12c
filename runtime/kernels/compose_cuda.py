"""Compose decoded tiles onto the panorama on a GPU, with the input's detail and its still pixels (`compose.cu`,
`detail.cu`); before that, lay them out pixel by pixel (`pixel_major.cu`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pano4d.runtime.device import Arrays, Device, DeviceArray, Scope, total_bytes
from pano4d.runtime.kernels import compiler
from pano4d.runtime.kernels.compiler import THREADS, blocks, pixels_each
from pano4d.runtime.kernels.detail import LEVELS, radii
from pano4d.runtime.sphere import lonlat_to_directions, pixel_lonlat
from pano4d.runtime.tiles import Layout

PATCH_ROWS, PATCH_COLUMNS = 4, 32
FRAMES_EACH = 7  # at most, worked on together: a count and their changes make eight
TOGETHER = 2  # groups that a thread gathers at a time, at most


def groups_of(frames: int) -> tuple[int, int]:
    """Divide frames into groups that are worked on together.

    Args:
        frames: T.

    Returns:
        Number of groups, and frames of each; the last may have fewer.
    """
    groups = -(-frames // FRAMES_EACH)
    return groups, -(-frames // groups)


def pixel_major_shape(tiles: int, frames: int, size: int) -> tuple[int, ...]:
    """Give the shape of tiles that are laid out pixel by pixel.

    Args:
        tiles: Number of tiles.
        frames: T.
        size: Side of a decoded tile, s.

    Returns:
        [tiles, groups, s, s, 8 n]: frame by frame, colour by colour, filled up with zeros.
    """
    groups, each = groups_of(frames)
    return tiles, groups, size, size, -(-3 * each // 8) * 8


class PixelMajor:
    """Lay decoded tiles out pixel by pixel, as `Composer` takes them.

    Args:
        device: Where.
        frames: T.
        size: Side of a decoded tile, s.
        element: What the decoder writes.

    Raises:
        BackendError: The kernel does not compile.
    """

    def __init__(self, device: Device, frames: int, size: int, element: str) -> None:
        (self.groups, each), self.frames = groups_of(frames), frames
        self.pixels_each = pixels_each(size)
        defined = compiler.definitions(np.dtype(element).itemsize, frames_each=each, patch_rows=PATCH_ROWS,
                                       threads=THREADS, pixels_each=self.pixels_each)
        (self._kernel,) = compiler.load_kernels(device, "pixel_major.cu", ("pixel_major",), defined)

    def __call__(self, decoded: DeviceArray, target: DeviceArray) -> None:
        """Lay tiles out; enqueued, not waited for.

        Args:
            decoded: Tiles of the decoder, about -1..1. ``element`` [n, T, 3, s, s].
            target: The same, clipped. ``element``, of the shape that `pixel_major_shape` gives for n tiles.

        Raises:
            BackendError: The driver refuses.
        """
        pixels = decoded.shape[-1] * decoded.shape[-2]
        self._kernel((blocks(pixels // self.pixels_each), self.groups, decoded.shape[0]), THREADS, decoded, target,
                     np.int32(pixels), np.int32(self.frames))


@dataclass(frozen=True)
class ComposeShape:
    """Say how large the work is.

    Attributes:
        tiles: Tiles of the layout, V.
        listed: Entries of the tiles that may see each block.
        frames: T.
        height: Rows of the panorama.
        width: Columns of the panorama.
        count: Pixels to compose, N.
        chunk: Frames finished at a time.
    """

    tiles: int
    listed: int
    frames: int
    height: int
    width: int
    count: int
    chunk: int

    @property
    def held(self) -> int:
        """Groups of frames that are composed at a time."""
        return -(-min(self.chunk, self.frames) // groups_of(self.frames)[1])

    def arrays(self) -> Arrays:
        """List shape and element type of every array, by name; what is planned is what is taken."""
        whole, values = (self.height, self.width), pixel_major_shape(1, self.frames, 1)[-1]
        patches = -(-self.height // PATCH_ROWS) * -(-self.width // PATCH_COLUMNS)
        return {
            "rotations": ((self.tiles, 3, 3), "float32"), "slot_of": ((self.tiles,), "int32"),
            "patch_start": ((patches + 1,), "int32"), "patch_tiles": ((self.listed,), "int32"),
            "columns": ((self.width, 2), "float32"), "rows": ((self.height, 2), "float32"),
            "composed": ((self.held, self.count, values), "uint16"), "first": ((self.count, 4), "uint16"),
            "alpha": ((self.count,), "float32"), "place_of": (whole, "int32"),
            "cast": ((*whole, 4), "float32"), "stay": ((*whole, 8), "uint16"), "scratch": ((*whole, 4), "float32"),
            "frames": ((self.chunk, *whole, 3), "uint8"),
        }

    @property
    def nbytes(self) -> int:
        """Bytes of these arrays."""
        return total_bytes(self.arrays())


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
    """Turn decoded tiles, laid out pixel by pixel, into the frames of a panoramic video. Nothing here allocates or waits
    after construction.

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
        self.groups, self.frames_each = groups_of(frames)
        assert len(moving) * self.groups * size**2 < 2**31, "taps are counted in 32 bits"
        defined = {"frames_each": self.frames_each, "patch_rows": PATCH_ROWS}
        self._compose, self._lay = (
            compiler.load_kernels(device, "compose.cu", ("compose",), compiler.definitions(
                np.dtype(element).itemsize, lay=lay, size=size, together=min(self.shape.held, TOGETHER), **defined))[0]
            for lay in (False, True))
        names = ("residual", "box_sum", "change", "change_along_rows", "stay_along_columns", "finish")
        loaded = compiler.load_kernels(device, "detail.cu", names, compiler.definitions(**defined))
        self._detail = dict(zip(names, loaded))
        columns, rows = (np.stack([np.sin(a), np.cos(a)], axis=-1) for a in pixel_lonlat(height, width))
        values = {"rotations": layout.rotations, "slot_of": np.where(moving, np.cumsum(moving) - 1, -1),
                  "patch_start": start, "patch_tiles": listed, "columns": columns, "rows": rows,
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
            pixels: Decoded tiles in -1..1. ``element``, of the shape that `pixel_major_shape` gives for the slots.
            panorama: Input picture. uint8 [H, W, 3].
            alpha: Weight of the composed pixels against the input. float32 [N]; None for the share of decoded tiles.
            cell_px: Width of a latent cell on the panorama, in pixels, to keep the input's detail; None to leave it.

        Yields:
            The next frames, ``chunk`` of them or what is left. uint8 [n, H, W, 3], overwritten by the next chunk.

        Raises:
            BackendError: The driver refuses.
        """
        shape, ready = self.shape, -1
        for begin in range(0, shape.frames, shape.chunk):
            part = self._part(min(shape.chunk, shape.frames - begin))
            end = begin + part.shape[0]
            groups = range(begin // self.frames_each, (end - 1) // self.frames_each + 1)
            if cell_px is None:
                weighted = np.int32(alpha is not None)
                self._launch(self._lay, pixels, (panorama, alpha or self._arrays["alpha"], part, weighted, np.int32(begin),
                                                 np.int32(part.shape[0])), groups.start, len(groups))
            for group in groups if cell_px is not None else ():
                if group > ready:
                    self._find_stay(pixels, group, panorama, cell_px)
                    ready = group
                self._finish(group, panorama, alpha or self._arrays["alpha"], part, begin)
            yield part

    def _part(self, count: int) -> DeviceArray:
        """View the frames of a chunk."""
        frames = self._arrays["frames"]
        return DeviceArray(frames.pointer, (count, *frames.shape[1:]), frames.dtype, frames.owner)

    def bytes_composed(self) -> int:
        """Count the bytes that `compose_groups` writes for all groups."""
        return self.groups * self._arrays["composed"][0].nbytes + self._arrays["alpha"].nbytes

    def compose_groups(self, pixels: DeviceArray, first: int = 0) -> None:
        """Gather as many groups of frames as are held from the tiles, without the input's detail; enqueued, not waited for.

        Args:
            pixels: As for `run`.
            first: The first group.

        Raises:
            BackendError: The driver refuses.
        """
        self._launch(self._compose, pixels, (self._arrays["composed"],), first, min(self.shape.held, self.groups - first))

    def _launch(self, kernel: compiler.Kernel, pixels: DeviceArray, outputs: tuple, first: int, groups: int) -> None:
        shape = self.shape
        sizes = (shape.count, shape.height, shape.width, self.groups, first, groups)
        names = ("rotations", "slot_of", "patch_start", "patch_tiles", "columns", "rows", "place_of")
        kernel(self._patches, PATCH_ROWS * PATCH_COLUMNS, pixels, *(self._arrays[name] for name in names), *outputs,
               self._arrays["alpha"], *map(np.int32, sizes), self.focal)

    @property
    def _patches(self) -> tuple[int, int]:
        return -(-self.shape.width // PATCH_COLUMNS), -(-self.shape.height // PATCH_ROWS)

    def _over_pixels(self, name: str, *arguments: DeviceArray | np.generic) -> None:
        """Launch a kernel of `detail.cu` that has a thread for each pixel of the panorama."""
        self._detail[name]((blocks(self.shape.height * self.shape.width),), THREADS, *arguments)

    def _find_stay(self, pixels: DeviceArray, group: int, panorama: DeviceArray, cell_px: float) -> None:
        """Compose a group, unless it is held already, and find how much of the detail stays in its frames."""
        arrays, whole = self._arrays, (np.int32(self.shape.height), np.int32(self.shape.width))
        near, around = radii(cell_px)
        if group % self.shape.held == 0:
            self.compose_groups(pixels, group)
        if group == 0:
            self._find_cast(panorama, around)
        self._over_pixels("change", arrays["first"], self._composed(group), arrays["place_of"], arrays["stay"],
                          np.int32(whole[0] * whole[1]))
        self._over_pixels("change_along_rows", arrays["stay"], arrays["scratch"], *whole, self._reach(near, along_rows=True))
        self._over_pixels("stay_along_columns", arrays["scratch"], arrays["place_of"], arrays["stay"], *whole,
                          self._reach(near, along_rows=False), np.float32(LEVELS))

    def _composed(self, group: int) -> DeviceArray:
        return self._arrays["composed"][group % self.shape.held]

    def _find_cast(self, panorama: DeviceArray, radius: int) -> None:
        arrays, whole = self._arrays, (np.int32(self.shape.height), np.int32(self.shape.width))
        self._over_pixels("residual", self._composed(0), panorama, arrays["place_of"], arrays["first"], arrays["cast"],
                          np.int32(whole[0] * whole[1]))
        for source, target, along in (("cast", "scratch", True), ("scratch", "cast", False)):
            self._over_pixels("box_sum", arrays[source], arrays[target], *whole, self._reach(radius, along), np.int32(along))

    def _reach(self, radius: int, along_rows: bool) -> np.int32:
        """Limit half a square's side to what the panorama has."""
        return np.int32(min(radius, ((self.shape.width if along_rows else self.shape.height) - 1) // 2))

    def _finish(self, group: int, panorama: DeviceArray, alpha: DeviceArray, part: DeviceArray, begin: int) -> None:
        """Finish the frames of a group that are in the chunk which begins at a frame."""
        arrays, start = self._arrays, group * self.frames_each
        first, last = max(begin, start), min(begin + part.shape[0], start + self.frames_each)
        sizes = (self.shape.height, self.shape.width, first - start, last - first)
        self._detail["finish"](
            self._patches, PATCH_ROWS * PATCH_COLUMNS, self._composed(group), arrays["first"], arrays["cast"], arrays["stay"],
            panorama, arrays["place_of"], alpha, part[first - begin], *map(np.int32, sizes))

    def free(self) -> None:
        """Give the memory back."""
        self.device.free(*self._arrays.values())
