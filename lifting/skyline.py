"""Find where the sky of a panorama ends, by its colours alone.

What colours the sky has, and what has others, is learned from the picture itself, most from what lies in about the same
direction: at first from what is high above the horizon and what is below it, then from what was found. The line is the
cheapest path round the picture: above it colours should be the sky's, below it not; edges attract it, and jumps cost.
Where something near rises high, what is high above the horizon is no sky; what flows down from the zenith without crossing
an edge explains those columns better then, and is begun with instead. Clouds stop that, so it is not begun with at once.
"""

import numpy as np

from pano4d.runtime.sphere import pixel_lonlat

HIGH_DEG, LOW_DEG = 35.0, -3.0
"""Above the first is sky, below the second is not, to begin with."""
ROUNDS = 4
CLEARLY_BETTER = 1.5
"""By so much more what flows down must explain of the columns where it ends elsewhere."""

_LEVELS = 8  # of each colour channel
_AROUND_DEG, _EVERYWHERE = 50.0, 0.03  # colours count in directions up to so far aside, and with this share in all others
_MOST_LOG_ODDS = 2.0
_EDGE, _EDGE_WEIGHT = 0.3, 20.0  # an edge this strong weighs as much as ten degrees of colours with log odds 1
_JUMP_WEIGHT = 1.0  # per row, from one column to the next
_APART_DEG = 3.0  # lines that differ by less are the same
_SAME_SKY = 0.1  # most that its colours differ by from row to row


def skyline(colors: np.ndarray) -> np.ndarray:
    """Find the line below which there is no sky.

    Args:
        colors: Panorama, RGB 0 to 1, slightly blurred; some hundred columns are enough. float32 [H, W, 3].

    Returns:
        Rows of sky in each column, from the top, at most to the horizon. int64 [W].

    Raises:
        Nothing.
    """
    high = np.broadcast_to(_latitudes_deg(colors) > HIGH_DEG, colors.shape[:2])
    (rows, explained), (flowing, more) = (_line_from(colors, start) for start in (high, find_sky(colors)))
    apart = np.abs(rows - flowing) * 180 > _APART_DEG * len(colors)
    for run in _runs(apart):
        if more[run].sum() > CLEARLY_BETTER * explained[run].sum():
            rows[run] = flowing[run]
    return rows


def _runs(chosen: np.ndarray) -> list[np.ndarray]:
    """Divide the chosen columns [W] into runs, round the seam."""
    columns = np.flatnonzero(chosen)
    if len(columns) in (0, len(chosen)):
        return [columns] if len(columns) else []
    begin = np.flatnonzero(~chosen)[0]  # no run goes over this column
    columns = np.sort((columns - begin) % len(chosen))
    return [(run + begin) % len(chosen) for run in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)]


def _line_from(colors: np.ndarray, sky: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the line from a first guess of the sky [H, W]; and say how much it explains of each column."""
    height, width = colors.shape[:2]
    lat = _latitudes_deg(colors)
    area = np.cos(np.radians(lat))
    cells = np.minimum((colors * _LEVELS).astype(np.int64), _LEVELS - 1) @ np.array([_LEVELS**2, _LEVELS, 1])
    attraction = _EDGE_WEIGHT * np.minimum(_edges(colors)[:height // 2 + 1] / _EDGE, 1)
    other = lat < LOW_DEG
    for _ in range(ROUNDS):
        odds = np.log(_histograms(cells, area * sky)) - np.log(_histograms(cells, area * other))
        odds = np.take_along_axis(odds, cells[:height // 2], axis=0)
        odds = np.clip(odds, -_MOST_LOG_ODDS, _MOST_LOG_ODDS) * 180 / height + 1e-6  # sky, where nothing tells
        above = np.concatenate([np.zeros((1, width)), np.cumsum(odds, axis=0)])
        explained = 2 * above - above[-1] + attraction
        rows = _cheapest_path(-explained, _JUMP_WEIGHT)
        sky = np.arange(height)[:, None] < rows
        other = ~sky
    return rows, explained[rows, np.arange(width)]


def find_sky(colors: np.ndarray) -> np.ndarray:
    """Find the pixels that the zenith reaches downwards without crossing an edge.

    A reference colour per column is carried down row by row; it follows what it finds
    and, behind something that is not sky, what its neighbours find.

    Args:
        colors: Panorama, RGB 0 to 1, slightly blurred. float32 [H, W, 3].

    Returns:
        True for sky; never below the horizon. bool [H, W].

    Raises:
        Nothing.
    """
    height, width = colors.shape[:2]
    sky = np.zeros((height, width), bool)
    reference = np.broadcast_to(colors[: max(1, height // 12)].mean((0, 1)), (width, 3)).copy()
    trust, above = np.ones((width, 1), np.float32), np.ones(width, bool)
    for row in range(height // 2):
        near = np.abs(colors[row] - reference).max(-1) < _SAME_SKY
        sky[row] = above = near & _touched_runs(near, above)
        reference[above] += 0.5 * (colors[row, above] - reference[above])
        trust = np.where(above[:, None], 1.0, 0.7 * trust).astype(np.float32)
        spread = _box_around(np.concatenate([reference * trust, trust], -1), max(1, width // 64))
        reference = spread[:, :3] / np.maximum(spread[:, 3:], 1e-6)
    return sky


def refined(panorama: np.ndarray, rows: np.ndarray, small_height: int) -> np.ndarray:
    """Bring a line that was found in a small picture to the edges of the large one.

    Args:
        panorama: uint8 [H, W, 3].
        rows: Line of `skyline`, from a picture of the same panorama. [w].
        small_height: Rows of that picture.

    Returns:
        Rows of sky in each column of the panorama. int64 [W].

    Raises:
        Nothing.
    """
    height, width = panorama.shape[:2]
    scale = height / small_height
    small = np.concatenate([rows[-1:], rows, rows[:1]]) * scale
    at = (np.arange(width) + 0.5) * len(rows) / width + 0.5
    line = np.rint(np.interp(at, np.arange(len(small)), small)).astype(np.int64)
    reach = int(np.ceil(scale))
    band = line + np.arange(-reach, reach + 1)[:, None]  # [2 reach + 1, W]
    inside = (band > 0) & (band <= height // 2)
    # Two pixels on either side: what is next to an edge is often a mixture.
    columns, edge = np.arange(width), np.zeros(band.shape, np.float32)
    for apart in (1, 2):
        over, under = (panorama[np.clip(band + shift, 0, height - 1), columns].astype(np.float32) / 255
                       for shift in (-apart, apart - 1))
        edge += np.abs(under - over).max(axis=-1)
    cost = np.where(inside, -edge, np.where(band == line, 0, np.inf))
    # Paths are of distances from the line found, so that its own slope costs nothing.
    return np.clip(line + _cheapest_path(cost, 0.02) - reach, 0, height // 2)


def _latitudes_deg(colors: np.ndarray) -> np.ndarray:
    """Give the latitude of each row's middle. [H, 1]."""
    return np.degrees(pixel_lonlat(*colors.shape[:2])[1])[:, None]


def _touched_runs(row: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Tell which columns lie in a run of equal values that touches what is set above. [W]"""
    reach = row & (above | np.roll(above, 1) | np.roll(above, -1))
    runs = np.cumsum(np.diff(row, prepend=row[:1]))
    # A run that crosses the seam is one run.
    runs[runs == runs[-1]] = 0 if row[0] == row[-1] else runs[-1]
    return np.bincount(runs[reach], minlength=runs.max() + 1)[runs] > 0


def _box_around(values: np.ndarray, radius: int) -> np.ndarray:
    """Return the running mean over 2 radius + 1 columns, around the seam. [W, C]."""
    padded = np.concatenate([values[len(values) - radius:], values, values[:radius]])
    sums = np.cumsum(np.concatenate([np.zeros_like(padded[:1]), padded]), axis=0)
    return (sums[2 * radius + 1 :] - sums[: -2 * radius - 1]) / (2 * radius + 1)


def _edges(colors: np.ndarray) -> np.ndarray:
    """Say how much the two rows over the upper border of each row differ from the two under it. [H, W]."""
    padded = np.pad(colors, ((2, 1), (0, 0), (0, 0)), mode="edge")
    pairs = (padded[1:] + padded[:-1]) / 2  # of rows k - 2 and k - 1
    return np.abs(pairs[2:] - pairs[:-2]).max(axis=-1)


def _histograms(cells: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Count the colours around each column, smoothed; never 0. [_LEVELS**3, W]."""
    width, colors = cells.shape[1], _LEVELS**3
    columns, weights = np.arange(width), np.broadcast_to(weights, cells.shape)
    counts = np.bincount((cells * width + columns).ravel(), weights.ravel(), colors * width).reshape(colors, width)
    reach = min(int(width * _AROUND_DEG / 360), (width - 1) // 2)
    counts = (2 * reach + 1) * _box_around(counts.T, reach).T + _EVERYWHERE * counts.sum(axis=1, keepdims=True)
    counts = np.maximum(counts, 0).reshape(_LEVELS, _LEVELS, _LEVELS, width)
    for axis in range(3):
        padded = np.pad(counts, [(1, 1) if a == axis else (0, 0) for a in range(4)], mode="edge")
        before, here, after = (np.take(padded, range(k, k + _LEVELS), axis) for k in range(3))
        counts = (before + 2 * here + after) / 4
    counts = counts.reshape(colors, width)
    return counts / np.maximum(counts.sum(axis=0), 1e-9) + 1e-4 / colors


def _cheapest_path(cost: np.ndarray, jump: float) -> np.ndarray:
    """Choose a row in each column, round the seam, so that costs and jumps are least. [R, W] -> [W]."""
    rows, width = cost.shape
    best, came_from = cost[:, 0], np.zeros((2 * width, rows), np.int64)
    # Twice round; what lies in the middle does not know where that began.
    for k in range(1, 2 * width):
        (down, from_above), (up, from_below) = _reached(best, jump), _reached(best[::-1], jump)
        up, from_below = up[::-1], rows - 1 - from_below[::-1]
        came_from[k] = np.where(down <= up, from_above, from_below)
        best = np.minimum(down, up) + cost[:, k % width]
    path = np.empty(2 * width, np.int64)
    path[-1] = best.argmin()
    for k in range(2 * width - 1, 0, -1):
        path[k - 1] = came_from[k, path[k]]
    middle = width // 2
    return np.roll(path[middle:middle + width], middle)


def _reached(best: np.ndarray, jump: float) -> tuple[np.ndarray, np.ndarray]:
    """Give the least cost of reaching each row from itself or one above it, and that row. Both [R]."""
    row = np.arange(len(best))
    start = best - jump * row
    least = np.minimum.accumulate(start)
    return least + jump * row, np.maximum.accumulate(np.where(start <= least, row, 0))
