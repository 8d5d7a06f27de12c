"""Choose rings of latitude whose tiles cover the sphere with as few of them as can be.

A tile of half width h (an angle) at pitch p sees the direction at latitude b, a longitude d off its centre, if

    cos d tan(p - h) <= tan b <= cos d tan(p + h)                         upper and lower edge
    tan b sin p >= sin d / tan h - cos d cos p                            left and right edge

so a ring of n tiles, d at most 180/n degrees, sees a whole band of latitudes. Bands are put one on top of the other, from the
equator to the pole, where a single tile may end them; the southern hemisphere mirrors the northern one.
"""

import numpy as np

Rings = list[tuple[float, int]]
"""Pitch of the centres, in degrees, and number of tiles, of each ring."""

LEAST_OVERLAP = 0.02
MOST_OVERLAP = 0.4
_PITCHES, _STEP = np.radians(np.arange(0.25, 90, 0.25)), np.radians(0.1)


def fewest_rings(fov_deg: float, least_overlap: float = LEAST_OVERLAP) -> Rings:
    """Cover the sphere with the fewest tiles, and those with as much overlap as they can have.

    Args:
        fov_deg: Field of view of a tile, 10 to 110 degrees.
        least_overlap: Share of a tile's half width that every direction lies inside of the edge of some tile.

    Returns:
        The rings, from north to south.
    """
    half = np.radians(fov_deg) / 2
    count, low, high = _count(_from_pole_to_pole(half * (1 - least_overlap))), least_overlap, MOST_OVERLAP
    for _ in range(12):
        middle = (low + high) / 2
        fits = _count(_from_pole_to_pole(half * (1 - middle))) <= count
        low, high = (middle, high) if fits else (low, middle)
    return [(float(np.degrees(pitch)), tiles) for pitch, tiles in _from_pole_to_pole(half * (1 - low))]


def _from_pole_to_pole(half: float) -> Rings:
    """Take a ring on the equator, or none, whichever needs fewer tiles; pitches in radians."""
    found, known = [], {}
    around = int(np.ceil(np.pi / half))
    for middle in (0, *range(around, around + 3)):
        seen = np.arctan(np.cos(np.pi / middle) * np.tan(half)) if middle else 0.0
        north = _northwards(float(seen), half, known)
        equator = [(0.0, middle)] if middle else []
        found.append([*north[::-1], *equator, *((-pitch, tiles) for pitch, tiles in north)])
    return min(found, key=_count)


def _northwards(seen: float, half: float, known: dict[int, Rings]) -> Rings:
    """Cover the latitudes from one that is seen already up to the pole.

    Args:
        seen: The latitude.
        half: Half width of a tile.
        known: What was found for latitudes in steps of ``_STEP``, filled here.
    """
    if seen >= np.pi / 2 - half:
        return [(np.pi / 2, 1)]
    step = int(seen / _STEP)
    if step not in known:
        found: list[Rings] = []
        for tiles in range(3, int(np.ceil(np.pi / half)) + 2):
            low, high = _bands(tiles, half)
            reaching = np.where((low <= step * _STEP) & (high > (step + 1) * _STEP), high, -1.0)
            highest = int(np.argmax(reaching))
            if reaching[highest] > 0 and not (found and tiles >= min(map(_count, found))):
                above = [] if high[highest] >= np.pi / 2 else _northwards(float(high[highest]), half, known)
                found.append([(float(_PITCHES[highest]), tiles), *above])
        known[step] = min(found, key=_count)
    return known[step]


def _bands(tiles: int, half: float) -> tuple[np.ndarray, np.ndarray]:
    """Give the lowest and the highest latitude that a ring sees all of, for every pitch."""
    off, pitch = np.pi / tiles, _PITCHES
    high = np.where(pitch + half < np.pi / 2, np.arctan(np.cos(off) * np.tan(pitch + half)), np.pi / 2)
    lower_edge = np.tan(pitch - half) * np.where(pitch > half, 1.0, np.cos(off))
    sides = (np.sin(off) / np.tan(half) - np.cos(off) * np.cos(pitch)) / np.sin(pitch)
    return np.arctan(np.maximum(lower_edge, sides)), high


def _count(rings: Rings) -> int:
    return sum(tiles for _, tiles in rings)
