import numpy as np

from pano4d.lifting.distances import from_maps, unchanging


def _maps(frames=5):
    rng = np.random.default_rng(0)
    return rng.uniform(1, 9, (frames, 70, 140)).astype(np.float32)


def test_still_pixels_are_the_same_in_every_frame_and_moving_ones_their_own():
    maps, moving = _maps(), np.zeros((70, 140), bool)
    moving[10:30, 5:90] = True
    distances = from_maps(maps, moving)
    assert distances.static.dtype == np.float32 and distances.changes.shape == (5, moving.sum())
    np.testing.assert_array_equal(distances.static, np.median(maps, axis=0))
    for number, given in enumerate(maps):
        frame = distances.frame(number)
        np.testing.assert_array_equal(frame[~moving], distances.static[~moving])
        np.testing.assert_allclose(frame[moving], given[moving], rtol=2e-3)


def test_one_map_for_all():
    distance = _maps(1)[0]
    distances = unchanging(distance)
    assert not distances.changing and distances.frame(3) is distances.static
    assert not from_maps(_maps(), np.zeros((70, 140), bool)).changing
