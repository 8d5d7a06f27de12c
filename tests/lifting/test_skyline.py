"""The line where the sky ends is found through clouds, over things near and far, and round the seam."""

import numpy as np
import pytest

from pano4d.lifting.skyline import _runs, find_sky, refined, skyline

HEIGHT, WIDTH = 128, 256


def sunset() -> np.ndarray:
    """A sky from blue to orange with orange clouds over one half, a dark sea with the sky's colours. [H, W, 3]."""
    lat = (90 - (np.arange(HEIGHT) + 0.5) / HEIGHT * 180)[:, None, None]
    blue, orange = np.array([0.12, 0.2, 0.42]), np.array([0.9, 0.65, 0.4])
    low = np.clip(1 - lat / 40, 0, 1)
    picture = np.broadcast_to(blue * (1 - 0.8 * low) + orange * 0.8 * low, (HEIGHT, WIDTH, 3)).copy()
    x, y = np.meshgrid(np.arange(WIDTH) / WIDTH, np.arange(HEIGHT) / HEIGHT)
    puffs = np.sin(14 * np.pi * x) * np.sin(23 * np.pi * y + 3 * np.sin(6 * np.pi * x)) > 0.2
    clouds = puffs & (x < 0.5) & (y > 0.1) & (y < 0.47)
    picture[clouds] = (0.88, 0.66, 0.5)
    waves = 0.5 + 0.1 * np.sin(40 * np.pi * y + 30 * np.sin(4 * np.pi * x))[..., None]
    picture[HEIGHT // 2:] = (waves * (0.7 * blue + 0.3 * orange))[HEIGHT // 2:]
    return picture.astype(np.float32)


def test_clouds_are_sky_though_what_flows_down_stops_at_them():
    picture = sunset()
    rows, flowing = skyline(picture), find_sky(picture)
    assert np.abs(rows - HEIGHT // 2).max() <= 1
    assert flowing[:HEIGHT // 2, :WIDTH // 2].mean() < 0.8, "there is nothing to tell these apart by"


def test_sky_stops_at_edges_and_flows_around(landscape):
    sky = find_sky(landscape.astype(np.float32) / 255.0)
    assert sky[:18].all() and not sky[64:].any()
    assert not sky[36:64, 186:198].any() and not sky[22:32, 52:78].any()
    assert sky[40:60, 55:75].all(), "the sky under a cloud is sky"


def test_what_stands_before_the_sky_ends_it():
    picture = sunset()
    picture[40:70, 180:200] = (0.25, 0.3, 0.2)
    rows = skyline(picture)
    assert (rows[180:200] == 40).all()
    assert (rows[:178] >= HEIGHT // 2 - 1).all() and (rows[202:] >= HEIGHT // 2 - 1).all()


def test_a_near_wall_that_rises_high_is_no_sky(landscape):
    landscape[16:80, 100:180] = (130, 125, 120)
    rows = skyline(landscape.astype(np.float32) / 255)
    assert (rows[102:178] == 16).all() and (np.delete(rows, range(98, 202)) == HEIGHT // 2).all()


def test_turning_the_picture_turns_the_line(landscape):
    colors = landscape.astype(np.float32) / 255
    for turn in (1, 90, 186):  # at last with the tower over the seam
        np.testing.assert_array_equal(skyline(np.roll(colors, turn, axis=1)), np.roll(skyline(colors), turn))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_picture_of_one_colour_is_sky_down_to_the_horizon(value):
    assert (skyline(np.full((32, 64, 3), value, np.float32)) == 16).all()


def test_the_line_is_brought_to_the_pixels_of_the_large_picture(landscape):
    large = np.repeat(np.repeat(landscape, 8, axis=0), 8, axis=1)
    rows = np.full(256, 64)
    rows[184:200] = 34
    shifted = rows + np.where(rows == 34, 1, -1)  # a row off
    line = refined(large, shifted, 128)
    assert (line[8 * 186:8 * 198] == 34 * 8).all()
    assert (line[:8 * 182] == 64 * 8).all() and (line[8 * 202:] == 64 * 8).all()
    assert line.shape == (2048,) and line.max() <= 512


def test_runs_go_round_the_seam():
    chosen = np.zeros(10, bool)
    assert _runs(chosen) == []
    chosen[[8, 9, 0, 3, 4]] = True
    assert [run.tolist() for run in _runs(chosen)] == [[3, 4], [8, 9, 0]]
    assert [run.tolist() for run in _runs(np.ones(3, bool))] == [[0, 1, 2]]
