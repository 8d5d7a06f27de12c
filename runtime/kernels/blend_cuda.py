"""Hold the state of the denoised tiles on a GPU, and take all of them from step to step (`blend.cu`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pano4d.runtime.device import Arrays, Device, DeviceArray, Scope, total_bytes
from pano4d.runtime.kernels import compiler
from pano4d.runtime.kernels.blend import BlendPlan
from pano4d.runtime.kernels.compiler import THREADS, blocks, pixels_each
from pano4d.runtime.tiles import Layout

FRAMES_EACH = 2  # that a thread works on together, so that four halves of each are read as 16 bytes
SIZES = np.dtype([(name, np.int32) for name in ("slots", "places", "frames", "size", "batch", "next_batch", "batched",
                                           "next_batched", "ranks", "channels")])
SCALES = np.dtype([(name, np.float32) for name in ("c_skip", "c_out", "ratio", "c_in", "extrapolation", "level")])


def groups_of(frames: int) -> int:
    """Count the groups of ``FRAMES_EACH`` frames that a thread works on together."""
    return -(-frames // FRAMES_EACH)


@dataclass(frozen=True)
class StateShape:
    """Say how large the state is, and which engine computes which tile.

    Rows of ``v`` and ``sample`` are those of the engine's calls: all halves of the first B tiles, then of the next B. With
    a second engine for one tile (``tail``) the tiles that do not fill a call may follow one by one, each with its halves.

    Attributes:
        tiles: Tiles of the layout, V.
        slots: Tiles that are denoised.
        frames: T.
        size: Side of a latent tile, in latent pixels.
        batch: Tiles of one engine call, B; guidance doubles its rows.
        channels: Input channels of the denoiser: 9 with a mask, 8 without.
        ranks: Most neighbours that a pixel has.
        guided: Whether the engine computes both guidance halves.
        second_order: Whether steps look back at the previous estimate.
        fuse_samples: Whether stepped states are fused instead of denoised estimates.
        element: What the engine speaks: ``float16`` or ``float32``.
        unguided_steps: Whether some steps of a guided engine leave the unconditional half out.
        reuse: Whether some of those take the difference of the halves from a step before.
        tail: Whether there is a second engine, for one tile and its halves.
    """

    tiles: int
    slots: int
    frames: int
    size: int
    batch: int
    channels: int
    ranks: int
    guided: bool
    second_order: bool
    fuse_samples: bool = False
    element: str = "float16"
    unguided_steps: bool = False
    reuse: bool = False
    tail: bool = False

    def tiles_per_call(self, guided: bool) -> int:
        """Tiles of one engine call in a step with or without guidance: where it is left out, its rows take more."""
        return self.batch * (1 if guided == self.guided else 2)

    def tail_tiles(self, guided: bool) -> int:
        """Tiles of a step that the engine for one tile computes: those left over, if they are at most half a call.

        With B = 4 a full call was measured to take 3.7 times as long as one of a single tile. One by one, half its tiles
        take little more than half its time; more of them would gain little, and nothing where a single tile leaves a GPU
        idle. Where a guided engine leaves the unconditional half out, its calls hold 2 B tiles, and there is no tail.
        """
        left = self.slots % self.batch
        return left if self.tail and guided == self.guided and left <= self.batch // 2 else 0

    def batched_tiles(self, guided: bool) -> int:
        """Places of tiles in a step's calls of the whole engine; the last call may leave some of them empty."""
        batch = self.tiles_per_call(guided)
        return -(-(self.slots - self.tail_tiles(guided)) // batch) * batch

    def first_rows(self, guided: bool) -> tuple[range, range]:
        """Give the first row of every call of a step: of the whole engine, and of the one for a single tile."""
        halves, full = 2 if guided else 1, self.batched_tiles(guided)
        return (range(0, full * halves, self.tiles_per_call(guided) * halves),
                range(full * halves, self.rows(guided), halves))

    def rows(self, guided: bool) -> int:
        """Rows of all engine calls of a step, R."""
        return (self.batched_tiles(guided) + self.tail_tiles(guided)) * (2 if guided else 1)

    def rows_of_slots(self, guided: bool) -> np.ndarray:
        """Find the rows of the denoised tiles, as `row_of` of the kernels does. int64 [halves, slots]."""
        halves, slots = 2 if guided else 1, np.arange(self.slots)
        batch = np.where(slots < self.batched_tiles(guided), self.tiles_per_call(guided), 1)
        return (slots // batch * halves + np.arange(halves)[:, None]) * batch + slots % batch

    def arrays(self) -> Arrays:
        """List shape and element type of every array, by name; what is planned is what is taken."""
        pixels = self.size**2
        state = (self.slots, self.frames, 4, pixels)
        kept = state if self.second_order else (1, 1, 1, 1)
        table = (self.ranks, self.slots, pixels)
        kinds = (self.guided, False) if self.unguided_steps else (self.guided,)
        sample = (self.frames, self.channels, pixels)
        unguided = (self.rows(False), *sample) if self.unguided_steps else (1, 1, 1, 1)
        rest = (max(1, self.tiles - self.slots), *state[1:]) if self.fuse_samples else (1, 1, 1, 1)
        return {
            "x": (state, "float32"), "x_next": (state, "float32"), "fused": (kept, "float32"),
            "previous": (kept, "float32"),
            "v": ((max(map(self.rows, kinds)), self.frames, 4, pixels), self.element),
            "sample": ((self.rows(self.guided), *sample), self.element), "unguided_sample": (unguided, self.element),
            "still": ((self.tiles, 4, pixels), "float32"), "rest": (rest, "float32"), "places": ((self.tiles,), "int32"),
            "given": ((groups_of(self.frames), self.tiles, pixels, FRAMES_EACH, 4), self.element),
            "own": ((self.slots, pixels), "float32"), "taps": (table, "int32"), "shares": ((*table, 4), "float32"),
            "difference": (state if self.reuse else (1, 1, 1, 1), self.element), "guidance": ((self.frames,), "float32"),
            "masks": ((self.slots, self.frames, pixels), "float32"), "latents": ((self.slots, 4, pixels), "float32"),
        }

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return total_bytes(self.arrays())


def _kinds_of_steps(shape: StateShape) -> list[tuple[bool, bool, bool]]:
    """List what steps there can be: both halves now, both halves next, the difference of the halves reused."""
    if not shape.unguided_steps:
        return [(shape.guided, shape.guided, False)]
    kinds = [(guided, following, False) for guided in (True, False) for following in (True, False)]
    return kinds + [(False, following, True) for following in (True, False) if shape.reuse]


def blend_tables(plan: BlendPlan, moving: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bring what every pixel of a denoised tile gathers into the form of `blend.cu`.

    Args:
        plan: Plan of the layout and size.
        moving: Tiles that are denoised. bool [V].
        size: Side of a latent tile.

    Returns:
        own float32 [slots, P]; taps int32 [ranks, slots, P], in which denoised tiles come first and the others follow;
        shares float32 [ranks, slots, P, 4].
    """
    total, ranks = len(moving) * size * size, plan.ranks
    own, taps = np.ones(total, np.float32), np.full((ranks, total), -1, np.int32)
    shares = np.zeros((ranks, total, 4), np.float32)
    own[plan.pixels] = plan.weights[:, 0]
    for rank in range((plan.indices.shape[1] - 1) // 4):
        four = slice(1 + 4 * rank, 5 + 4 * rank)
        used = plan.weights[:, four].any(axis=1)
        taps[rank, plan.pixels[used]] = plan.indices[used, 1 + 4 * rank]
        shares[rank, plan.pixels[used]] = plan.weights[used, four]
    moving = np.asarray(moving, bool)
    place = np.argsort(places_of(moving))
    taps = np.where(taps < 0, -1, place[taps // size**2] * size**2 + taps % size**2).astype(np.int32)
    return (own.reshape(len(moving), -1)[moving], taps.reshape(ranks, len(moving), -1)[:, moving],
            shares.reshape(ranks, len(moving), -1, 4)[:, moving])


def places_of(moving: np.ndarray) -> np.ndarray:
    """List the tiles in the order in which kernels hold them: the denoised ones, then the others. int64 [V]."""
    return np.argsort(~np.asarray(moving, bool), kind="stable")


class TileState:
    """The denoised tiles on the GPU.

    The caller runs the engines from ``sample`` into ``v``, on the rows that start at ``shape.first_rows``, then calls
    `step`. For a step without the unconditional half on a guided engine it takes ``unguided_sample``. Nothing here
    allocates or waits after construction.

    Args:
        device: Where.
        layout: Tile layout of V tiles.
        moving: Tiles that are denoised, at least one. bool [V].
        shape: Sizes; ``ranks`` those of ``plan``.
        plan: Plan of the layout at the latent size.

    Raises:
        BackendError: The GPU has not enough memory, or a kernel does not compile.
    """

    def __init__(self, device: Device, layout: Layout, moving: np.ndarray, shape: StateShape, plan: BlendPlan) -> None:
        self.device, self.shape = device, shape
        element = np.dtype(shape.element)
        self._prepare, self._give, self._blend = {}, {}, {}
        for guided in (True, False) if shape.unguided_steps else (shape.guided,):
            defined = compiler.definitions(element.itemsize, guided=guided, second_order=shape.second_order,
                                           fuse_samples=shape.fuse_samples)
            (self._prepare[guided],) = compiler.load_kernels(device, "prepare.cu", ("prepare",), defined)
        for kind in _kinds_of_steps(shape):
            guided, following, reused = kind
            defined = compiler.definitions(element.itemsize, guided=guided, second_order=shape.second_order,
                                           fuse_samples=shape.fuse_samples, next_guided=following, reused=reused,
                                           kept=guided and shape.reuse, threads=THREADS, frames_each=FRAMES_EACH,
                                           pixels_each=pixels_each(shape.size))
            self._give[kind], self._blend[kind] = compiler.load_kernels(device, "blend.cu", ("give", "blend"), defined)
        with Scope(device) as scope:
            self._arrays = {name: scope.zeros(*spec) for name, spec in shape.arrays().items()}
            for name, values in zip(("own", "taps", "shares"), blend_tables(plan, moving, shape.size)):
                device.upload(values, self._arrays[name])
            device.upload(places_of(moving).astype(np.int32), self._arrays["places"])
            device.synchronize()
            scope.keep()

    def __getattr__(self, name: str) -> DeviceArray:
        """Give one of the arrays of `StateShape.arrays`."""
        try:
            return self.__dict__["_arrays"][name]
        except KeyError:
            raise AttributeError(name) from None

    def begin(self, x: np.ndarray, masks: np.ndarray, latents: np.ndarray, still: np.ndarray, c_in: float,
              guidance: np.ndarray | None = None, rest: np.ndarray | None = None) -> None:
        """Set the first state and the first engine input.

        Args:
            x: Noise of the denoised tiles, scaled. float32 [slots, T, 4, h, w].
            masks: Mask channel of the denoised tiles. float32 [slots, T, h, w].
            latents: Image latents of the denoised tiles, unscaled. float32 [slots, 4, h, w].
            still: Latents of all tiles, scaled, for those that are not denoised. float32 [V, 4, h, w].
            c_in: Scale of the first input.
            guidance: Guidance scale of each frame; None without guidance. float32 [T].
            rest: Unit noise of the tiles that are not denoised, needed to fuse samples. float32 [V - slots, T, 4, h, w].

        Raises:
            BackendError: An array has another size.
        """
        scales = np.ones(self.shape.frames) if guidance is None else guidance
        given = {"x": x, "masks": masks, "latents": latents, "still": still, "guidance": scales}
        if self.shape.fuse_samples and self.shape.slots < self.shape.tiles:
            given["rest"] = rest
        for name, values in given.items():
            self.device.upload(np.asarray(values, np.float32), self._arrays[name])
        shape = self.shape
        pixels = shape.size**2
        for guided, prepare in self._prepare.items():
            sizes = (shape.frames, pixels, shape.tiles_per_call(guided), shape.batched_tiles(guided), shape.channels)
            prepare((blocks(pixels), shape.slots, shape.frames), THREADS, self.x, self.masks, self.latents,
                    self.sample_of(guided), *map(np.int32, sizes), np.float32(c_in))

    def sample_of(self, guided: bool) -> DeviceArray:
        """Give the engine's input of steps with or without guidance: ``sample``, or ``unguided_sample``."""
        return self.sample if guided == self.shape.guided else self.unguided_sample

    def step(self, c_skip: float, c_out: float, sigma: float, sigma_next: float, c_in: float,
             extrapolation: float = 0.0, guided: bool | None = None, next_guided: bool | None = None,
             reused: bool = False) -> None:
        """Take every tile to the next noise level and write the next engine input; enqueued, not waited for.

        Args:
            c_skip: Share of the state in the denoised estimate.
            c_out: Factor of the prediction in it.
            sigma: Noise level of the state.
            sigma_next: Noise level to reach.
            c_in: Scale of the next input; anything for the last step.
            extrapolation: k of ``schedule.extrapolations``.
            guided: Whether the engine computed both halves in this step; None for what it was built for.
            next_guided: Whether it will in the next one; likewise.
            reused: Whether the guidance is that of the last step with both halves.

        Raises:
            BackendError: The driver refuses.
        """
        shape = self.shape
        guided = shape.guided if guided is None else guided
        following = shape.guided if next_guided is None else next_guided
        across, groups = blocks(shape.size**2), groups_of(shape.frames)
        sizes = np.array((shape.slots, shape.tiles, shape.frames, shape.size, shape.tiles_per_call(guided),
                          shape.tiles_per_call(following), shape.batched_tiles(guided), shape.batched_tiles(following),
                          shape.ranks, shape.channels), SIZES)[()]
        scales = np.array((c_skip, c_out, sigma_next / sigma, c_in, extrapolation, sigma_next), SCALES)[()]
        pairs = blocks(shape.size**2 // pixels_each(shape.size))
        self._give[guided, following, reused](
            (pairs, shape.tiles, groups), THREADS, self.x, self.v, self.guidance, self.places, self.still, self.rest,
            self.previous, self.fused, self.difference, self.given, sizes, scales)
        self._blend[guided, following, reused](
            (across, shape.slots, groups), THREADS, self.x, self.own, self.taps, self.shares, self.previous, self.given,
            self.x_next, self.fused, self.sample_of(following), sizes, scales, early=True)
        arrays = self._arrays
        arrays["x"], arrays["x_next"] = arrays["x_next"], arrays["x"]
        arrays["previous"], arrays["fused"] = arrays["fused"], arrays["previous"]

    def free(self) -> None:
        """Give the memory back."""
        self.device.free(*self._arrays.values())
