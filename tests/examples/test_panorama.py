"""The sample panorama: seamless, right at the poles, partly still, and small."""

import importlib.util

import numpy as np
import pytest

from pano4d.runtime import image, quality, tiles


@pytest.fixture(scope="module")
def script(root):
    spec = importlib.util.spec_from_file_location("make_panorama", root / "examples" / "make_panorama.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rendered(script):
    light, moves = script.render(192)
    return script.develop(light), moves


@pytest.fixture(scope="module")
def shipped(root):
    picture = image.read_panorama(root / "examples" / "panorama.jpg")
    found = image.find_mask(root / "examples" / "panorama.jpg")
    return picture.pixels, image.read_mask(found, picture.pixels.shape).moving


def test_rendering_is_seamless(rendered):
    picture, _ = rendered
    elsewhere = [np.roll(picture, shift, axis=1) for shift in range(8, 192, 8)]
    # The seam among the columns: no sharper than most of the others.
    assert 0.6 < np.median([quality.seam_ratio(picture[None], other)[0] for other in elsewhere]) < 1.4


def test_poles_are_single_points(shipped):
    for row, inner in ((0, 1), (-1, -2)):
        pole, ring = shipped[0][row].astype(int), shipped[0][inner].astype(int)
        # Straight across a pole the next pixel is as far off as the next row is.
        assert np.abs(pole - np.roll(pole, 1024, axis=0)).mean() < 1 + 2 * np.abs(pole - ring).mean()


def test_same_seed_same_picture(script, rendered):
    again = script.develop(script.render(192)[0])
    assert np.array_equal(again, rendered[0])


def test_shipped_files(root, shipped):
    picture, moving = shipped
    assert picture.shape == (1024, 2048, 3) and moving.shape == (1024, 2048)
    assert (root / "examples" / "panorama.jpg").stat().st_size <= 700_000
    assert 0.35 <= moving.mean() <= 0.5
    # The seam must lie in what moves, or the sample could not show that it stays closed.
    assert moving[:, 0].mean() > 0.3 and (moving[:, 0] != moving[:, -1]).mean() < 0.01


def test_shipped_is_what_the_script_makes(script, shipped, rendered):
    small = image.resize_panorama(shipped[0], 96, 192)
    assert np.abs(small.astype(int) - rendered[0]).mean() < 12
    assert (image.resize_mask(shipped[1], 96, 192) != rendered[1]).mean() < 0.03


def test_some_tiles_stay_still(shipped):
    layout = tiles.layout_for(1024, 256)
    moving = tiles.tile_masks(image.resize_mask(shipped[1], 512, 1024), layout, 256, 8) > 0
    still = int((~moving.any(axis=(1, 2))).sum())
    assert layout.count == 12 and still >= 2
