"""Compare panoramas with a reference by area on the sphere: WS-PSNR, WS-SSIM, and what the poles must not show.

A row of an equirectangular picture counts by the area that it covers, w(row) = cos(latitude) = sin((row + 0.5) pi / H)
(Sun, Lu and Yu, "Weighted-to-Spherically-Uniform Quality Evaluation for Omnidirectional Video", IEEE Signal Processing
Letters 24(9), 2017). Each figure is one number a frame.
"""

import numpy as np

from pano4d.runtime.parallel import each

NOTHING_DIFFERS_DB = 100.0
CAP_DEG = 12.0
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # BT.709
_WINDOW_PX, _SIGMA_PX = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
# A hundredth of a grey level keeps flat pictures at 1 instead of 0/0.
_FLOOR = 0.01


def row_weights(height: int) -> np.ndarray:
    """Give the weight of each row: the cosine of its latitude. float64 [H]."""
    return np.sin((np.arange(height) + 0.5) / height * np.pi)


def ws_psnr(frames: np.ndarray, reference: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Measure the peak signal-to-noise ratio by area on the sphere (Sun et al. 2017).

        WMSE = sum w (I - R)^2 / sum w        WS-PSNR = 10 log10(255^2 / WMSE)

    Args:
        frames: uint8 [T, H, W, 3].
        reference: uint8 [H, W, 3].
        where: The pixels that count, at least one. bool [H, W].

    Returns:
        Decibels, at most NOTHING_DIFFERS_DB. float64 [T].
    """
    weights = (row_weights(len(reference))[:, None] * where)
    total = 3 * weights.sum()
    errors = np.array(each(lambda frame: (weights * squared_error(frame, reference)).sum() / total, frames))
    return np.minimum(10 * np.log10(255.0**2 / np.maximum(errors, 1e-12)), NOTHING_DIFFERS_DB)


def squared_error(frame: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Add up the channels' squared differences. float64 [H, W]."""
    return ((frame.astype(np.float32) - reference) ** 2).sum(axis=2, dtype=np.float64)


def ws_ssim(frames: np.ndarray, reference: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Measure structural similarity by area on the sphere: sum w SSIM / sum w.

    The weighting is that of WS-PSNR, as in Zhou et al., "Weighted-to-Spherically-Uniform SSIM Objective Quality Evaluation
    for Panoramic Video" (ICSP 2018); the map is `ssim_map`.

    Args:
        frames: uint8 [T, H, W, 3].
        reference: uint8 [H, W, 3].
        where: The pixels that count, as `whole_windows` gives them, at least one. bool [H, W].

    Returns:
        At most 1. float64 [T].
    """
    weights = row_weights(len(reference))[:, None] * where
    return np.array(each(lambda frame: (weights * ssim_map(frame, reference)).sum() / weights.sum(), frames))


def ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compare the luminance of two panoramas around every pixel.

        SSIM = (2 ma mb + C1) (2 cov + C2) / ((ma^2 + mb^2 + C1) (va + vb + C2))

    with means, variances and covariance over a Gaussian window of 11 pixels and sigma 1.5, C1 = (0.01 255)^2 and C2 =
    (0.03 255)^2 (Wang, Bovik, Sheikh and Simoncelli 2004, eq. 13 to 16), here round the seam and over the poles.

    Args:
        a: uint8 [H, W, 3].
        b: uint8 [H, W, 3].

    Returns:
        float64 [H, W].
    """
    # In float32 the variance of a bright flat place would drown: products are taken about mid-grey.
    a, b = (picture @ _LUMA.astype(np.float64) - 128.0 for picture in (a, b))
    mean_a, mean_b = _blurred(a), _blurred(b)
    var_a, var_b = _blurred(a * a) - mean_a**2, _blurred(b * b) - mean_b**2
    covariance = _blurred(a * b) - mean_a * mean_b
    mean_a, mean_b = mean_a + 128.0, mean_b + 128.0
    return ((2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
            / ((mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2)))


def whole_windows(where: np.ndarray) -> np.ndarray:
    """Keep the pixels whose whole window of `ssim_map` counts. bool [H, W]."""
    reach = _WINDOW_PX // 2
    left_out = _continued(~np.asarray(where, bool), reach)
    for axis in (0, 1):
        size = left_out.shape[axis] - 2 * reach
        left_out = np.any([np.take(left_out, range(k, k + size), axis) for k in range(_WINDOW_PX)], axis=0)
    return ~left_out


def pole_ratio(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Compare detail at the poles with detail around them, relative to the input's.

    A picture that does not know of the poles is pinched, smeared or swirled there: detail along meridians or along
    parallels is out of proportion. With g the mean gradient per radian, by area, of one direction,

        ratio = (g of the cap / g of the ring around it, frame) / (the same of the reference)

    for the caps of CAP_DEG around both poles, rings as wide again, and both directions.

    Args:
        frames: uint8 [T, H, W, 3].
        reference: The input at the same size. uint8 [H, W, 3].

    Returns:
        Of the four ratios the one farthest from 1. float64 [T].
    """
    own = pole_contrasts(reference)
    ratios = np.array(each(pole_contrasts, frames)) / own
    ratios = ratios.reshape(len(frames), 4)
    return ratios[np.arange(len(ratios)), np.abs(np.log(ratios)).argmax(axis=1)]


def pole_contrasts(image: np.ndarray) -> np.ndarray:
    """Divide the gradient in the caps by that around them: float64 [2, 2], north first, along meridians first."""
    return np.stack([_cap_contrasts(image), _cap_contrasts(image[::-1])])


def _cap_contrasts(image: np.ndarray) -> np.ndarray:
    """Do so for the cap at the upper edge. float64 [2]."""
    height, width = image.shape[:2]
    rows = max(2, round(CAP_DEG / 180 * height))
    upper = image[:2 * rows + 1].astype(np.float32)
    # The row beyond the pole is the first one half a turn away: there the meridian goes on.
    beyond = np.roll(upper[:1], width // 2, axis=1)
    along_meridian = np.abs(np.diff(np.concatenate([beyond, upper]), axis=0)).mean(axis=(1, 2))[:2 * rows]
    along_parallel = np.abs(upper - np.roll(upper, -1, axis=1)).mean(axis=(1, 2))[:2 * rows]
    edges, centres = np.sin(np.arange(2 * rows) / height * np.pi), row_weights(height)[:2 * rows]
    # A pair along a parallel spans an angle that shrinks as its area does; the two cancel.
    steps = ((along_meridian * edges, edges), (along_parallel * height / width * 2, centres))
    means = [[step[part].sum() / area[part].sum() + _FLOOR for part in (slice(rows), slice(rows, None))]
             for step, area in steps]
    return np.array([cap / ring for cap, ring in means])


def _continued(picture: np.ndarray, reach: int) -> np.ndarray:
    """Continue a map round the seam and over the poles. [H + 2 reach, W + 2 reach]."""
    over = np.roll(picture, picture.shape[1] // 2, axis=1)
    tall = np.concatenate([over[:reach][::-1], picture, over[-reach:][::-1]])
    return np.pad(tall, ((0, 0), (reach, reach)), mode="wrap")


def _blurred(values: np.ndarray) -> np.ndarray:
    reach = _WINDOW_PX // 2
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _SIGMA_PX) ** 2)
    taps /= taps.sum()
    wide = _continued(values, reach)
    height, width = values.shape
    tall = sum(tap * wide[k:k + height] for k, tap in enumerate(taps))
    return sum(tap * tall[:, k:k + width] for k, tap in enumerate(taps))
