"""Small scenes shared by the tests of lifting."""

import sys
from pathlib import Path

import numpy as np
import pytest

from pano4d.runtime.sphere import pixel_directions

if str(Path(__file__).parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parent))


def smooth_panorama(height: int, width: int) -> np.ndarray:
    """Draw a smooth coloured sphere: no seam, nothing special at the poles."""
    d = pixel_directions(height, width)
    color = 0.5 + 0.3 * d + 0.15 * np.sin(5.0 * d[..., [1, 2, 0]])
    return np.rint(255.0 * np.clip(color, 0.0, 1.0)).astype(np.uint8)


@pytest.fixture
def panorama() -> np.ndarray:
    """A smooth panorama. uint8 [96, 192, 3]."""
    return smooth_panorama(96, 192)


@pytest.fixture
def landscape() -> np.ndarray:
    """Blue sky, green ground, a grey tower at +90 degrees, a cloud at -90. uint8 [128, 256, 3]."""
    picture = np.empty((128, 256, 3), np.uint8)
    picture[:64] = (100, 150, 230)
    picture[64:] = (60, 120, 40)
    picture[34:70, 184:200] = (90, 80, 80)
    picture[20:34, 50:80] = (250, 250, 250)
    return picture
