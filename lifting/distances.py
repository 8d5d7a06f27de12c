"""Hold the distances of a video: one map for what stays, and what changes where the picture moves."""

from dataclasses import dataclass

import numpy as np

_ROWS = 64


@dataclass(frozen=True)
class Distances:
    """Distance along each pixel's ray, frame by frame.

    A pixel that does not move has the same number in every frame, bit for bit. Elsewhere a frame's distance is
    ``static * exp(change)``; changes are small numbers, which half precision holds to better than 0.1 per cent.

    Attributes:
        static: Distance where nothing moves, and what a moving pixel's distance is like on the whole. Metres.
            float32 [H, W].
        pixels: Flat places of the pixels whose distance changes, ascending. int64 [M].
        changes: Log of a frame's distance over ``static``. float16 [T, M]; T is 0 where nothing changes.
    """

    static: np.ndarray
    pixels: np.ndarray
    changes: np.ndarray

    @property
    def changing(self) -> bool:
        """Whether any frame has distances of its own."""
        return self.changes.size > 0

    def frame(self, number: int) -> np.ndarray:
        """Give the map of one frame.

        Args:
            number: Which frame.

        Returns:
            Metres. float32 [H, W]; ``static`` itself where nothing changes.

        Raises:
            IndexError: There is no such frame.
        """
        if not self.changing:
            return self.static
        distance = self.static.copy()
        distance.reshape(-1)[self.pixels] *= np.exp(self.changes[number].astype(np.float32))
        return distance


def unchanging(distance: np.ndarray) -> Distances:
    """Take one map for all frames.

    Args:
        distance: Metres, above 0. [H, W].

    Returns:
        Distances without changes.

    Raises:
        Nothing.
    """
    return Distances(np.asarray(distance, np.float32), np.empty(0, np.int64), np.empty((0, 0), np.float16))


def from_maps(maps: np.ndarray, moving: np.ndarray) -> Distances:
    """Let maps of single frames share what does not move.

    Args:
        maps: Metres, above 0. float32 [T, H, W].
        moving: True where the picture may move. bool [H, W].

    Returns:
        Distances; what does not move, and what changes are counted from, is the median over time.

    Raises:
        Nothing.
    """
    static = np.empty(maps.shape[1:], np.float32)
    for row in range(0, len(static), _ROWS):
        static[row:row + _ROWS] = np.median(maps[:, row:row + _ROWS], axis=0)
    pixels = np.flatnonzero(moving)
    changes = np.empty((len(maps), len(pixels)), np.float16)
    for change, distance in zip(changes, maps):
        change[:] = np.log(distance.reshape(-1)[pixels] / static.reshape(-1)[pixels])
    return Distances(static, pixels, changes)
