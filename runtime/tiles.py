"""Cover the sphere with tangent views (tiles) of one size and field of view.

A tile pixel (y, x) of a tile s pixels wide looks along the camera ray ((x + 0.5 - s/2) / f, (y + 0.5 - s/2) / f, 1)
with f = s / 2 / tan(fov / 2); axes as in ``sphere``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pano4d.runtime.errors import SettingsError
from pano4d.runtime.rings import fewest_rings
from pano4d.runtime.sphere import pixel_directions, pixel_lonlat, rotation, sample_panorama

VERTICES_FOV_DEG, FACES_FOV_DEG, RINGS_FOV_DEG = 84.0, 80.0, 42.9
# Tiles are denser towards their borders than at the centre, so the centre may be a little coarser than the panorama.
_DENSITY = 0.85
_LENIENCE = 0.02  # share by which the fewest tiles may be wider yet, where that saves one
_GOLDEN = 0.618034
FEATHER_SHARE = 0.25
LOWEST_WEIGHT = 1e-3


@dataclass(frozen=True, eq=False)
class Layout:
    """Tangent views that cover the sphere.

    Attributes:
        name: What ``by_name`` takes.
        yaw_deg: Longitude of each centre. float64 [V].
        pitch_deg: Latitude of each centre. float64 [V].
        fov_deg: Field of view, the same in both axes.
    """

    name: str
    yaw_deg: np.ndarray
    pitch_deg: np.ndarray
    fov_deg: float

    def _values(self) -> tuple[bytes, bytes, float]:
        return self.yaw_deg.tobytes(), self.pitch_deg.tobytes(), self.fov_deg

    def __eq__(self, other: object) -> bool:
        """Compare views, whatever the name: what is tabled for one layout serves its equal."""
        return isinstance(other, Layout) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    @property
    def count(self) -> int:
        """Number of tiles V."""
        return len(self.yaw_deg)

    @cached_property
    def rotations(self) -> np.ndarray:
        """Camera-to-world rotation of each tile. float64 [V, 3, 3]."""
        return np.stack([rotation(yaw, pitch) for yaw, pitch in zip(self.yaw_deg, self.pitch_deg)])

    @property
    def corner(self) -> float:
        """Angle between a tile's centre and its corners."""
        return float(np.arctan(np.sqrt(2) * np.tan(np.radians(self.fov_deg) / 2)))

    def focal(self, size: int) -> float:
        """Focal length, in pixels, of a tile ``size`` pixels wide."""
        return size / 2 / np.tan(np.radians(self.fov_deg) / 2)


def icosahedron_vertices(fov_deg: float = VERTICES_FOV_DEG) -> Layout:
    """Twelve tiles: both poles and two rings of five. Covers the sphere from 80 degrees on."""
    _check_fov(fov_deg)
    lat = np.degrees(np.arctan(0.5))
    yaw = np.concatenate([[0], np.arange(5) * 72.0, np.arange(5) * 72.0 + 36.0, [0]])
    pitch = np.concatenate([[90.0], np.full(5, lat), np.full(5, -lat), [-90.0]])
    return Layout(f"vertices-{fov_deg:g}", _wrapped(yaw), pitch, fov_deg)


def icosahedron_faces(fov_deg: float = FACES_FOV_DEG) -> Layout:
    """Twenty upright tiles in four rings of five. Covers the sphere from 75 degrees on."""
    _check_fov(fov_deg)
    rings = ((52.6226, 5, 0.5), (10.8123, 5, 0.5), (-10.8123, 5, 0.0), (-52.6226, 5, 0.0))
    return _of_rings("faces", fov_deg, rings)


def rings(fov_deg: float = RINGS_FOV_DEG) -> Layout:
    """Rings of latitude with as few tiles as cover the sphere at this field of view.

    Args:
        fov_deg: Field of view, 10 to 110 degrees.

    Returns:
        The layout.

    Raises:
        SettingsError: The field of view is out of range.
    """
    _check_fov(fov_deg)
    for count in range(int(np.ceil(180 / fov_deg)), 40):
        pitches = 90 - (np.arange(count) + 0.5) * 180 / count
        layout = _ring_layout(pitches, fov_deg)
        if _covers(layout):
            return layout
    raise AssertionError(f"no rings cover the sphere with tiles of {fov_deg} degrees")


def fewest(fov_deg: float = RINGS_FOV_DEG) -> Layout:
    """Rings at the latitudes where the fewest tiles of this field of view cover the sphere (`rings.py`).

    They overlap less than ``rings``, and so agree less where they meet.

    Args:
        fov_deg: Field of view, 10 to 110 degrees.

    Returns:
        The layout.

    Raises:
        SettingsError: The field of view is out of range.
    """
    _check_fov(fov_deg)
    found = fewest_rings(fov_deg)
    # Shifts of which no two are alike: nothing lines up from ring to ring, nor with the seam.
    return _of_rings("fewest", fov_deg, [(lat, count, _GOLDEN * (i + 1)) for i, (lat, count) in enumerate(found)])


def _ring_layout(pitches_deg: np.ndarray, fov_deg: float) -> Layout:
    """Fill each ring with as many tiles as its widest latitude needs, every other ring shifted by half a tile."""
    found = []
    for i, lat in enumerate(pitches_deg):
        widest = np.radians(max(0.0, abs(lat) - 0.35 * fov_deg))
        count = max(1, int(np.ceil(360 * np.cos(widest) / (0.93 * fov_deg))))
        found.append((lat, count, 0.5 * (i % 2)))
    return _of_rings("rings", fov_deg, found)


def _of_rings(kind: str, fov_deg: float, rings: Sequence[tuple[float, int, float]]) -> Layout:
    """Put tiles on rings, each given by its latitude in degrees, its number of tiles, and its shift in tiles."""
    yaw = np.concatenate([(np.arange(count) + shift) * 360 / count for _, count, shift in rings])
    pitch = np.concatenate([np.full(count, lat) for lat, count, _ in rings])
    return Layout(f"{kind}-{fov_deg:g}", _wrapped(yaw), pitch, fov_deg)


def _covers(layout: Layout) -> bool:
    """Try a grid of directions with the tiles made smaller, so that no hole slips between its points."""
    directions, size = pixel_directions(180, 360), 2.0
    # No direction is further than 0.71 degrees from the grid; a tile stretches angles most, by 1 + 2 tan², in a corner.
    stretch = 1 + 2 * np.tan(np.radians(layout.fov_deg) / 2) ** 2
    step = np.radians(0.71) * stretch * layout.focal(size)
    found = np.zeros(directions.shape[:2], bool)
    for v in range(layout.count):
        x, y, inside = project(layout, v, directions, size)
        found |= inside & (np.maximum(np.abs(x - 0.5), np.abs(y - 0.5)) <= size / 2 - step)
    return bool(found.all())


def _check_fov(fov_deg: float) -> None:
    if not 10 <= fov_deg <= 110:
        raise SettingsError(f"tiles of {fov_deg:g} degrees were asked for; they must be 10 to 110 degrees wide.")


def _wrapped(yaw_deg: np.ndarray) -> np.ndarray:
    return (np.asarray(yaw_deg, np.float64) + 180) % 360 - 180


def by_name(name: str) -> Layout:
    """Make a layout from ``vertices``, ``faces``, ``rings`` or ``fewest``, with ``-FOV`` behind it if wanted.

    Raises:
        SettingsError: No layout has this name.
    """
    kind, _, fov = name.partition("-")
    makers = {"vertices": icosahedron_vertices, "faces": icosahedron_faces, "rings": rings, "fewest": fewest}
    try:
        return makers[kind](float(fov)) if fov else makers[kind]()
    except (KeyError, ValueError):
        raise SettingsError(f"the layout is {name!r}; it must be auto, fewest, rings, vertices or faces, or one of the "
                            "last four with a field of view behind it, as in rings-42.9.") from None


def layout_for(width_px: int, tile_px: int) -> Layout:
    """Choose the layout with the fewest tiles that are about as dense at their centre as a panorama.

    Args:
        width_px: Width of the panorama.
        tile_px: Side of a tile.
    """
    fov_deg = _fov_for(width_px, tile_px)
    return icosahedron_vertices() if fov_deg >= VERTICES_FOV_DEG - 4 else rings(round(fov_deg, 1))


def _fov_for(width_px: int, tile_px: int) -> float:
    return float(np.degrees(2 * np.arctan(np.pi * tile_px / width_px / _DENSITY)))


def chosen(name: str, width_px: int, tile_px: int) -> Layout:
    """Make the layout that settings name.

    Args:
        name: As for `by_name`; or ``auto`` for `layout_for`, ``fewest`` for the fewest tiles, of this width and tile.
        width_px: Width of the panorama.
        tile_px: Side of a tile.

    Raises:
        SettingsError: No layout has this name.
    """
    if name not in ("auto", "fewest"):
        return by_name(name)
    layouts = [layout_for(width_px, tile_px)]
    if name == "fewest":
        fov_deg = min(_fov_for(width_px, tile_px), VERTICES_FOV_DEG)
        layouts += [fewest(round(fov_deg * wider, 1)) for wider in (1, 1 + _LENIENCE)]
    return min(layouts, key=lambda layout: layout.count)


def tile_directions(layout: Layout, size: int) -> np.ndarray:
    """List the world direction of every tile pixel. Unit vectors, float64 [V, s, s, 3]."""
    axis = (np.arange(size) + 0.5 - size / 2) / layout.focal(size)
    x, y = np.meshgrid(axis, axis)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    return np.einsum("vij,yxj->vyxi", layout.rotations, rays)


def project(layout: Layout, v: int, directions: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find where directions fall on a tile.

    Args:
        layout: Tile layout.
        v: Tile number.
        directions: Unit vectors [..., 3].
        size: Side of the tile, in pixels.

    Returns:
        Continuous x and y (integers at pixel centres), float64 [...]; whether within the tile, bool [...].
    """
    camera = directions @ layout.rotations[v]
    depth = camera[..., 2]
    front = depth > 1e-6
    scale = layout.focal(size) / np.where(front, depth, 1.0)
    x, y = camera[..., 0] * scale + size / 2 - 0.5, camera[..., 1] * scale + size / 2 - 0.5
    inside = front & (np.abs(x + 0.5 - size / 2) <= size / 2) & (np.abs(y + 0.5 - size / 2) <= size / 2)
    return x, y, inside


def seen_directions(layout: Layout, v: int, directions: np.ndarray, size: int) \
        -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the directions that fall on a tile, without projecting those that cannot.

    Args:
        layout: Tile layout.
        v: Tile number.
        directions: Unit vectors [N, 3].
        size: Side of the tile, in pixels.

    Returns:
        Places in ``directions`` in ascending order, int64 [Q], and their continuous x and y, float64 [Q].
    """
    near = np.flatnonzero(directions @ layout.rotations[v][:, 2] >= np.cos(layout.corner) - 1e-9)
    x, y, inside = project(layout, v, np.take(directions, near, axis=0), size)
    return near[inside], x[inside], y[inside]


def seen_pixels(layout: Layout, v: int, size: int, select: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the panorama pixels that fall on a tile, without projecting the whole sphere.

    Args:
        layout: Tile layout.
        v: Tile number.
        size: Side of the tile, in pixels.
        select: Pixels that count. bool [H, W].

    Returns:
        Flat panorama pixels in ascending order, int64 [Q], and their continuous x and y on the tile, float64 [Q].
    """
    (height, width), centre = select.shape, layout.rotations[v][:, 2]
    lon, lat = pixel_lonlat(height, width)
    sin_lon, cos_lon, sin_lat, cos_lat = np.sin(lon), np.cos(lon), np.sin(lat), np.cos(lat)
    # Within the circle round the tile's corners: cos(lat) * (turned forward) >= cos(corner) - (part along the axis).
    rest = (np.cos(layout.corner) - 1e-9 + sin_lat * centre[1]) / cos_lat
    near = select & (sin_lon * centre[0] + cos_lon * centre[2] >= rest[:, None])
    flat = np.flatnonzero(near)
    row, column = np.divmod(flat, width)
    directions = np.stack([cos_lat[row] * sin_lon[column], -sin_lat[row], cos_lat[row] * cos_lon[column]], axis=-1)
    x, y, inside = project(layout, v, directions, size)
    return flat[inside], x[inside], y[inside]


def feather(size: int) -> np.ndarray:
    """Weigh tile pixels: 1 inside, falling smoothly to almost 0 at the border. float32 [s, s]."""
    at = np.arange(size) + 0.5
    return feather_at(at - 0.5, at[:, None] - 0.5, size)


def feather_at(x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """Give ``feather`` at continuous tile coordinates [...]. float32 [...]; never 0, so that no tile is lost."""
    def ramp(at: np.ndarray) -> np.ndarray:
        edge = np.minimum(at + 0.5, size - 0.5 - at) / (size * FEATHER_SHARE)
        t = np.clip(edge, 0.0, 1.0)
        return t * t * (3 - 2 * t)

    return np.maximum(ramp(np.asarray(x)) * ramp(np.asarray(y)), LOWEST_WEIGHT).astype(np.float32)


def supersampling(layout: Layout, size: int, width: int) -> int:
    """Give the samples per tile pixel and axis that are twice as dense as a panorama of this width, or denser."""
    return max(2, int(np.ceil(2 * width / (2 * np.pi) / layout.focal(size))))


def extract_tiles(panorama: np.ndarray, layout: Layout, size: int, supersample: int | None = None) -> np.ndarray:
    """Cut upright pictures out of a panorama, antialiased by averaging bilinear samples.

    Args:
        panorama: Any numeric dtype [H, W, C].
        layout: Tile layout of V tiles.
        size: Side of a tile, s.
        supersample: Samples per pixel and axis; None for twice the panorama's density or more.

    Returns:
        float32 [V, s, s, C].
    """
    supersample = supersampling(layout, size, panorama.shape[1]) if supersample is None else supersample
    tiles = np.empty((layout.count, size, size, panorama.shape[2]), np.float32)
    for v in range(layout.count):
        single = Layout(layout.name, layout.yaw_deg[v:v + 1], layout.pitch_deg[v:v + 1], layout.fov_deg)
        samples = sample_panorama(panorama, tile_directions(single, size * supersample)[0])
        tiles[v] = samples.reshape(size, supersample, size, supersample, -1).mean(axis=(1, 3))
    return tiles


def tile_masks(mask: np.ndarray, layout: Layout, size_px: int, factor: int) -> np.ndarray:
    """Give the share of moving pixels in each latent cell of each tile.

    A cell that holds the centre of a moving panorama pixel has a share above zero, at the poles too.

    Args:
        mask: True where the picture may move. bool [H, W].
        layout: Tile layout of V tiles.
        size_px: Side of a tile in pixels.
        factor: Pixels per latent cell and axis.

    Returns:
        float32 [V, size_px / factor, size_px / factor] in 0..1.
    """
    shares = extract_tiles(mask[..., None].astype(np.float32), layout, size_px, 1)[..., 0]
    cells = size_px // factor
    shares = shares.reshape(layout.count, cells, factor, cells, factor).mean(axis=(2, 4))
    for v in range(layout.count):
        # Near a pole pixels are narrower than the samples are apart: one could move that no sample has met.
        _, x, y = seen_pixels(layout, v, size_px, np.asarray(mask, bool))
        column, row = (np.clip((at + 0.5) // factor, 0, cells - 1).astype(np.int64) for at in (x, y))
        shares[v, row, column] = np.maximum(shares[v, row, column], np.float32(1 / factor**2))
    return shares
