"""An estimator run over a video whose colours tell its distances."""

import numpy as np
import pytest
import box_room as room

from pano4d.lifting.depth import open_estimator
from pano4d.lifting.estimate import estimate_distances, tile_size
from pano4d.lifting.prior import prior_distance
from pano4d.runtime.errors import CheckpointError
from pano4d.runtime.sphere import pixel_directions

H = 64
MOVING = room.moving_mask(H, 2 * H)


class FromColour:
    """Reads log distance off the red channel; its scale is another one at every call."""

    name, kind, geometry, panoramic = "colour", "scale-invariant", "ray", False

    def __init__(self, factor=1.0):
        self.calls, self.rng, self.factor = 0, np.random.default_rng(0), factor

    def __call__(self, tiles, fov_deg):
        self.calls += len(tiles)
        assert tiles.dtype == np.uint8 and tiles.shape[3] == 3 and fov_deg == 80
        return np.float32(self.factor * self.rng.uniform(0.5, 2)) * np.exp(tiles[..., 0].astype(np.float32) / 128)


def video(frames=3):
    log = [np.log(room.distance_along(pixel_directions(H, 2 * H), t)) for t in range(frames)]
    return np.repeat(np.rint(128 * np.stack(log)[..., None]).clip(0, 255), 3, axis=-1).astype(np.uint8)


def test_distances_follow_the_frames():
    frames, estimator, told = video(), FromColour(), []
    distances, figures = estimate_distances(frames, MOVING, estimator, lambda *args: told.append(args))
    assert told[-1] == ("depth", 20, 20) and 20 < estimator.calls < 60, "still tiles are estimated once"
    assert figures["estimator"] == "colour" and figures["tiles"] == 20 and figures["tile_px"] == tile_size(2 * H)
    for number in range(len(frames)):
        want = np.exp(frames[number, ..., 0] / 128)
        off = np.abs(np.log(distances.frame(number) / want))
        off = np.abs(np.log(distances.frame(number) / want) - np.median(np.log(distances.static / want)[~MOVING]))
        assert np.median(off) < 0.01 and np.median(off[MOVING]) < 0.02
        np.testing.assert_array_equal(distances.frame(number)[~MOVING], distances.static[~MOVING])


def test_an_estimator_of_panoramas_is_asked_once(landscape):
    distances, figures = estimate_distances(landscape[None], np.ones(landscape.shape[:2]), open_estimator("prior"))
    np.testing.assert_array_equal(distances.static, prior_distance(landscape))
    assert figures == {"estimator": "prior", "kind": "metric", "geometry": "ray"} and not distances.changing


def test_depths_below_zero_are_refused():
    with pytest.raises(CheckpointError, match="--depth-kind"):
        estimate_distances(video(1), np.zeros_like(MOVING), FromColour(-1.0))


@pytest.mark.parametrize("width, side", [(128, 42), (1024, 280), (4096, 518)])
def test_tiles_are_as_dense_as_the_panorama_up_to_a_limit(width, side):
    assert tile_size(width) == side
