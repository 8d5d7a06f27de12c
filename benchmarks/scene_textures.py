"""Paint surfaces: patterns with sharp edges under noise whose octaves weaken slowly, as in photographs.

A pattern is a function of where a point lies on its object, so that paint moves with what it is on, and of the side of
a pixel there, so that lines finer than a pixel fade into their mean. Colours are shares of full scale of the display.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from pano4d.benchmarks.scene_noise import hash_cells, octaves

# Letters of 3 x 5 dots, the top row first, the left dot the highest bit.
_GLYPHS = (0b010101111101101, 0b110101110101110, 0b011100100100011, 0b111100110100111, 0b101101111101101,
           0b111010010010111, 0b101101110101101, 0b100100100100111, 0b101111111101101, 0b111101101101111,
           0b110101110100100, 0b011100010001110, 0b111010010010010, 0b101101101101111, 0b101101010101101, 0)


@dataclass(frozen=True)
class Paint:
    """Choose a pattern.

    Attributes:
        kind: A name of ``PATTERNS``.
        first: Main colour, 0 to 1. [3]
        second: Other colour. [3]
        scale_m: Size of the pattern: a brick's length, a plank's width, a letter's height, the longest wavelength.
        contrast: Strength of the noise over the pattern.
        line: Colour of joints, of letters. [3]
    """

    kind: str
    first: Sequence[float]
    second: Sequence[float]
    scale_m: float = 1.0
    contrast: float = 0.25
    line: Sequence[float] = (0.25, 0.24, 0.22)


@dataclass
class Palette:
    """Number the paints of a scene.

    Attributes:
        seed: Sets the noise of all of them.
        paints: In the order of their numbers.
    """

    seed: int
    paints: list[Paint] = field(default_factory=list)

    def index(self, paint: Paint) -> int:
        """Give a paint's number, a new one the first time. Raises nothing."""
        if paint not in self.paints:
            self.paints.append(paint)
        return self.paints.index(paint)

    @property
    def kinds(self) -> list[str]:
        """Kind of each paint."""
        return [paint.kind for paint in self.paints]

    def tables(self, device: torch.device | str) -> dict[str, torch.Tensor]:
        """Give the paints as arrays.

        Args:
            device: Where they lie.

        Returns:
            colors float32 [M, 9], scale float32 [M], contrast float32 [M], seed int32 [M].

        Raises:
            RuntimeError: The device is not there.
        """
        colors = np.array([[*p.first, *p.second, *p.line] for p in self.paints], np.float32)
        numbers = np.array([[p.scale_m, p.contrast] for p in self.paints], np.float32)
        seeds = torch.arange(len(self.paints), dtype=torch.int32, device=device) * 7919 + self.seed * 104729
        scale, contrast = torch.from_numpy(numbers).to(device).unbind(-1)
        return {"colors": torch.from_numpy(colors).to(device), "scale": scale, "contrast": contrast, "seed": seeds}


@dataclass(frozen=True)
class Spots:
    """Points to be painted in one pattern.

    Attributes:
        local: Where each lies on its object, metres. float32 [3, N].
        across: Where it lies on its face, metres. float32 [2, N].
        footprint: Side of a pixel there, metres. float32 [N].
        first: Colours, float32 [3, N] each.
        second: Likewise.
        line: Likewise.
        scale: Metres. float32 [N].
        seed: int32 [N].
    """

    local: torch.Tensor
    across: torch.Tensor
    footprint: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    line: torch.Tensor
    scale: torch.Tensor
    seed: torch.Tensor

    def noise(self, stretch: Sequence[float] = (1, 1, 1), shift: int = 0, count: int = 5) -> torch.Tensor:
        """Return noise, stretched along an axis whose factor is below 1. [N]"""
        points = self.local * torch.tensor(stretch, dtype=torch.float32, device=self.local.device)[:, None]
        return octaves(points, self.scale, self.footprint, self.seed + shift, count)

    def covered(self, inside: torch.Tensor) -> torch.Tensor:
        """Return the share of a pixel that is inside an edge, of the signed distance to it in metres. [N]"""
        return (inside / self.footprint + 0.5).clamp(0, 1)

    def seen(self, length: torch.Tensor) -> torch.Tensor:
        """Return 1 where a length is well above a pixel, 0 where it is below one. [N]"""
        return (length / self.footprint - 1).clamp(0, 1)


def paint(spots: Spots, kind: str, contrast: torch.Tensor) -> torch.Tensor:
    """Colour points.

    Args:
        spots: The points.
        kind: A name of ``PATTERNS``.
        contrast: Strength of the noise on top. float32 [N].

    Returns:
        Colours before light, about 0 to 1. float32 [3, N].

    Raises:
        KeyError: There is no such pattern.
    """
    grain = octaves(spots.local, torch.full_like(spots.scale, 0.8), spots.footprint, spots.seed + 5, 9)
    return PATTERNS[kind](spots) * (1 + contrast * grain)


def _mottled(spots: Spots) -> torch.Tensor:
    """Clouds of two colours: plaster, stone, soil, leaves of trees."""
    return _mix(spots.first, spots.second, 0.5 + 0.6 * spots.noise())


def _veined(spots: Spots) -> torch.Tensor:
    """Marble: thin dark lines where noise is 0."""
    noise = spots.noise(shift=11)
    vein = (1 - noise.abs() * 6).clamp(0, 1) ** 2 * spots.seen(spots.scale * 0.1)
    return _mix(_mix(spots.first, spots.second, 0.5 + 0.5 * spots.noise()), spots.line, 0.7 * vein)


def _bricks(spots: Spots) -> torch.Tensor:
    """Courses of bricks, every other one moved by half a brick."""
    return _blocks(spots, spots.scale, spots.scale * 0.36, spots.scale * 0.045, 0.5)


def _tiles(spots: Spots) -> torch.Tensor:
    """Square tiles."""
    return _blocks(spots, spots.scale, spots.scale, spots.scale * 0.02, 0.0)


def _blocks(spots: Spots, length: torch.Tensor, height: torch.Tensor, joint: torch.Tensor, shift: float) -> torch.Tensor:
    """Blocks of a hashed tint with joints between them; ``joint`` is half as wide as they are apart."""
    u, v = spots.across
    row = (v / height).floor()
    u = u + shift * length * (row.int() % 2)
    column = (u / length).floor()
    tint = hash_cells(column, row, spots.seed)
    edge = torch.minimum(_to_edge(u / length) * length, _to_edge(v / height) * height) - joint
    seen = spots.seen(height)
    block = _mix(spots.first, spots.second, 0.5 + (tint - 0.5) * seen + 0.25 * spots.noise())
    return _mix(spots.line, block, 0.9 + (spots.covered(edge) - 0.9) * seen)


def _checks(spots: Spots) -> torch.Tensor:
    """A chessboard."""
    u, v = spots.across / spots.scale
    odd = (u.floor() + v.floor()).int() % 2 * 2 - 1
    edge = torch.minimum(_to_edge(u), _to_edge(v)) * spots.scale
    share = odd * (spots.covered(edge) - 0.5).clamp_min(0) * spots.seen(spots.scale)
    return _mix(spots.first, spots.second, 0.5 + share)


def _planks(spots: Spots) -> torch.Tensor:
    """Boards along v with a grain of their own, a dark gap between them."""
    u, v = spots.across
    board = (u / spots.scale).floor()
    own = hash_cells(board, torch.zeros_like(board), spots.seed)
    grain = octaves(torch.stack([u, v * 0.06, own * 40]), spots.scale * 0.7, spots.footprint, spots.seed + 3, 6, 0.85)
    edge = _to_edge(u / spots.scale) * spots.scale - 0.004
    seen = spots.seen(spots.scale)
    board_color = _mix(spots.first, spots.second, 0.5 + (0.7 * own - 0.35) * seen + 0.4 * grain)
    return _mix(spots.line, board_color, 0.93 + (spots.covered(edge) - 0.93) * seen)


def _stripes(spots: Spots) -> torch.Tensor:
    """Woven stripes along v, of two widths."""
    u = spots.across[0] / spots.scale
    edge = (_to_edge(u) - 0.18) * spots.scale
    seen = spots.seen(spots.scale)
    cloth = _mix(spots.first, spots.second, 0.5 + (spots.covered(edge) - 0.5) * seen)
    thin = spots.covered((0.03 - _to_edge(u + 0.5)) * spots.scale) * seen
    return _mix(cloth, spots.line, thin)


def _letters(spots: Spots) -> torch.Tensor:
    """Lines of letters on mottled paper."""
    u, v = spots.across[0] / spots.scale * 1.25, spots.across[1] / spots.scale / 1.5
    column, row = u.floor(), v.floor()
    choice = (hash_cells(column, row, spots.seed) * 15.99).long()
    glyph = torch.tensor(_GLYPHS, dtype=torch.int32, device=u.device)[choice]
    dot_u, dot_v = ((u - column) * 4).int(), ((v - row) * 7.5).int()
    bit = (glyph >> (14 - 3 * dot_v.clamp(0, 4) - dot_u.clamp(0, 2))) & 1
    ink = bit * (dot_u < 3) * (dot_v < 5) * 1.0
    seen = spots.seen(spots.scale * 0.3)
    return _mix(_mottled(spots), spots.line, 0.3 + (ink - 0.3) * seen)


def _grass(spots: Spots) -> torch.Tensor:
    """Patches of two greens and tufts of the line's colour."""
    patch = spots.noise(count=4)
    tuft = octaves(spots.local, torch.full_like(spots.scale, 0.35), spots.footprint, spots.seed + 2, 6, 0.85)
    return _mix(_mix(spots.first, spots.second, 0.5 + 0.8 * patch), spots.line, (0.25 + 0.35 * tuft).clamp(0, 1))


def _bark(spots: Spots) -> torch.Tensor:
    """Furrows along y."""
    return _mix(spots.first, spots.second, 0.5 + 0.7 * spots.noise((1.0, 0.2, 1.0)))


def _rings(spots: Spots) -> torch.Tensor:
    """Bands around y, as on balls and lamps."""
    edge = (_to_edge(spots.local[1] / spots.scale) - 0.25) * spots.scale
    return _mix(spots.first, spots.second, 0.5 + (spots.covered(edge) - 0.5) * spots.seen(spots.scale))


PATTERNS: dict[str, Callable[[Spots], torch.Tensor]] = {
    "mottled": _mottled, "veined": _veined, "bricks": _bricks, "tiles": _tiles, "checks": _checks, "planks": _planks,
    "stripes": _stripes, "letters": _letters, "grass": _grass, "bark": _bark, "rings": _rings,
}
"""Pattern of each kind of paint."""


def _mix(first: torch.Tensor, second: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Blend colours [3, N]; the share of the second is cut to 0..1. [N]"""
    return first + (second - first) * share.clamp(0, 1)


def _to_edge(cells: torch.Tensor) -> torch.Tensor:
    """Return the distance to the nearest whole number, 0 to 0.5."""
    return (cells - cells.round()).abs()
