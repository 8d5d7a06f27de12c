"""Build worlds out of solids: boxes, ellipsoids, tapered rods and leaves, each with a frame of its own.

Axes are those of ``runtime.sphere`` (y is down), lengths are metres; the viewer stands at 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pano4d.benchmarks.scene_sheets import Sheet
from pano4d.benchmarks.scene_textures import Paint, Palette
from pano4d.runtime.sphere import rotation

BOX, BALL, ROD, LEAF = range(4)
Vector = Sequence[float]


@dataclass(frozen=True)
class Light:
    """Light a world; nothing moving casts a shadow.

    Attributes:
        sun: Direction towards the sun.
        sunlight: Share of a surface's colour that the sun adds where it falls straight on.
        ambient: Share that is always there.
        lamp: Where a lamp hangs, metres. None: there is none.
        lamplight: Share that the lamp adds close by.
        zenith: Colour of the sky overhead, 0 to 1.
        horizon: Colour of the sky at the horizon.
        clouds: Colour of clouds.
        cover: How much of the sky is cloudy, about -1 to 1.
        haze_m: Distance from the centre at which the horizon's colour hides 63 %.
        shade_m: How far a shadow reaches: hills, which cast none, are not to let it through.
    """

    sun: Vector = (0.4, -0.8, -0.45)
    sunlight: float = 0.5
    ambient: float = 0.55
    lamp: Vector | None = None
    lamplight: float = 0.0
    zenith: Vector = (0.25, 0.45, 0.75)
    horizon: Vector = (0.75, 0.82, 0.88)
    clouds: Vector = (0.95, 0.95, 0.96)
    cover: float = 0.0
    haze_m: float = 1e5
    shade_m: float = 1e5


@dataclass
class Solids:
    """Hold P solids as arrays.

    Attributes:
        kinds: BOX, BALL, ROD or LEAF. int64 [P].
        centers: float64 [P, 3].
        rotations: Columns are the solid's axes in the world. float64 [P, 3, 3].
        sizes: Box: half sides. Ball: radii. Rod along y: radius at -y, half length, radius at +y. Leaf in x and y:
            half width, half length, 0. float64 [P, 3].
        paints: Index of each one's paint. int64 [P].
    """

    kinds: np.ndarray
    centers: np.ndarray
    rotations: np.ndarray
    sizes: np.ndarray
    paints: np.ndarray

    @property
    def reaches(self) -> np.ndarray:
        """Radius of a ball around each, metres. float64 [P]."""
        half = self.sizes.copy()
        rods = self.kinds == ROD
        half[rods, 0] = half[rods][:, [0, 2]].max(-1)
        half[rods, 2] = 0
        balls = self.kinds == BALL
        return np.where(balls, self.sizes.max(-1), np.linalg.norm(half, axis=-1))

    def hold(self, points: np.ndarray, margin_m: float) -> np.ndarray:
        """Tell which points lie in a solid or within a margin of one.

        Args:
            points: float64 [N, 3].
            margin_m: Metres.

        Returns:
            bool [N].

        Raises:
            ValueError: The shapes do not fit.
        """
        held = np.zeros(len(points), bool)
        for kind, center, turn, size, reach in zip(self.kinds, self.centers, self.rotations, self.sizes, self.reaches,
                                                   strict=True):
            offset = points - center
            near = np.flatnonzero((offset * offset).sum(-1) <= (reach + 2 * margin_m) ** 2)
            if len(near):
                held[near] |= _holds(kind, offset[near] @ turn, size, margin_m)
        return held


def _holds(kind: int, local: np.ndarray, size: np.ndarray, margin_m: float) -> np.ndarray:
    """Tell which points [N, 3] in a solid's own axes lie in it. bool [N]."""
    if kind == BALL:
        return ((local / (size + margin_m)) ** 2).sum(-1) <= 1
    if kind == ROD:
        share = np.clip(local[:, 1] / size[1], -1, 1) / 2 + 0.5
        radius = size[0] + (size[2] - size[0]) * share
        return (np.hypot(local[:, 0], local[:, 2]) <= radius + margin_m) & (np.abs(local[:, 1]) <= size[1] + margin_m)
    return (np.abs(local) <= size + margin_m).all(-1)


@dataclass
class World:
    """Collect what stands in a scene, or what moves in one frame of it.

    Attributes:
        palette: Paints, shared by the frames of a scene.
        light: How it is lit.
        sheets: Surfaces that are heights over a plane.
    """

    palette: Palette
    light: Light = Light()
    sheets: list[Sheet] = field(default_factory=list)
    _rows: list[tuple] = field(default_factory=list)

    def box(self, center: Vector, size: Vector, paint: Paint, turn: np.ndarray | float = 0.0) -> None:
        """Add a box of a full ``size``; ``turn`` is a rotation or a yaw in degrees."""
        self._add(BOX, center, _turn(turn), np.asarray(size, float) / 2, paint)

    def ball(self, center: Vector, radii: Vector | float, paint: Paint, turn: np.ndarray | float = 0.0) -> None:
        """Add an ellipsoid."""
        self._add(BALL, center, _turn(turn), np.broadcast_to(np.asarray(radii, float), 3), paint)

    def rod(self, start: Vector, end: Vector, radius: float, paint: Paint, tip: float | None = None) -> None:
        """Add a round rod from ``start``, where its radius is ``radius``, to ``end``, where it is ``tip``."""
        start, end = np.asarray(start, float), np.asarray(end, float)
        length = np.linalg.norm(end - start)
        axis = (end - start) / length
        other = np.eye(3)[np.argmin(np.abs(axis))]
        side = np.cross(axis, other)
        side /= np.linalg.norm(side)
        turn = np.stack([side, axis, np.cross(side, axis)], axis=-1)
        self._add(ROD, (start + end) / 2, turn, (radius, length / 2, radius if tip is None else tip), paint)

    def chain(self, points: Sequence[Vector], radius: float, paint: Paint) -> None:
        """Add rods from point to point, as of a wire."""
        for start, end in zip(points[:-1], points[1:], strict=True):
            self.rod(start, end, radius, paint)

    def leaf(self, center: Vector, yaw_deg: float, pitch_deg: float, width: float, length: float, paint: Paint) -> None:
        """Add a flat pointed leaf that faces a direction."""
        self._add(LEAF, center, rotation(yaw_deg, pitch_deg), (width / 2, length / 2, 0.0), paint)

    def solids(self) -> Solids:
        """Give the solids as arrays.

        Returns:
            All that were added, in that order.

        Raises:
            ValueError: Never.
        """
        kinds, centers, turns, sizes, paints = zip(*self._rows, strict=True) if self._rows else ([],) * 5
        return Solids(np.array(kinds, np.int64), np.array(centers, float).reshape(-1, 3),
                      np.array(turns, float).reshape(-1, 3, 3), np.array(sizes, float).reshape(-1, 3),
                      np.array(paints, np.int64))

    def hold(self, points: np.ndarray, margin_m: float = 0.0) -> np.ndarray:
        """Tell which points lie in something, or within a margin of it: where no viewer can be. bool [N]."""
        held = self.solids().hold(points, margin_m)
        for sheet in self.sheets:
            held |= sheet.hold(points, margin_m)
        return held

    def _add(self, kind: int, center: Vector, turn: np.ndarray, size: Vector, paint: Paint) -> None:
        """Add one solid."""
        self._rows.append((kind, tuple(center), turn, tuple(size), self.palette.index(paint)))


def _turn(turn: np.ndarray | float) -> np.ndarray:
    """Take a rotation or a yaw in degrees."""
    return rotation(turn, 0.0) if np.ndim(turn) == 0 else np.asarray(turn)


def roll(angle_deg: float) -> np.ndarray:
    """Give the rotation about z that takes x towards y, that is down.

    Args:
        angle_deg: Degrees.

    Returns:
        float64 [3, 3].

    Raises:
        TypeError: The angle is not a number.
    """
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
