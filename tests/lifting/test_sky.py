import math

import numpy as np

from pano4d.lifting.sky import middle_distance, sky_distance
import ray_rooms as rooms


def test_a_far_plateau_is_sky():
    _, distance = rooms.panorama(64, 128, samples=1, sky=True)
    found = sky_distance(distance)
    assert 50.0 < found < 60.0
    assert (distance >= found).mean() > 0.4


def test_rooms_and_flat_maps_have_none():
    _, distance = rooms.panorama(64, 128, samples=1)
    assert sky_distance(distance) == math.inf
    assert sky_distance(np.full((32, 64), 60.0, np.float32)) == math.inf


def test_a_back_wall_is_no_sky():
    distance = np.full((64, 128), 3.0, np.float32)
    distance[20:40, 30:60] = 4.5
    assert sky_distance(distance) == math.inf


def test_middle_distance_weighs_by_solid_angle():
    distance = np.full((60, 120), 5.0, np.float32)
    distance[:20] = 1.0
    distance[41:] = 1.0  # 39 of 60 rows, but less than half of the sphere
    assert middle_distance(distance, distance > 0) == 5.0
