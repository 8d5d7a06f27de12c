"""Pictures as EXR, which another program reads too."""

import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from pano4d.runtime.errors import InputError
from pano4d.runtime.exr import linear_to_srgb, read_exr_picture, srgb_to_linear, write_exr_picture


@pytest.fixture
def levels():
    """Every level of every channel, and noise; rows that are no multiple of a block's. uint8 [37, 256, 3]."""
    picture = np.random.default_rng(0).integers(0, 256, (37, 256, 3), np.uint8)
    picture[:3] = np.arange(256)[:, None]
    return picture


def test_every_level_comes_back(tmp_path, levels):
    write_exr_picture(tmp_path / "a.exr", levels)
    np.testing.assert_array_equal(read_exr_picture(tmp_path / "a.exr", 10**6), levels)
    assert [path.name for path in tmp_path.iterdir()] == ["a.exr"]


def test_another_reader_sees_linear_light(tmp_path, levels):
    write_exr_picture(tmp_path / "a.exr", levels)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", tmp_path / "a.exr", "-f", "rawvideo", "-"]
    told = subprocess.run(command, check=True, capture_output=True).stdout
    # Some versions of it give halves as they are, others as floats.
    green, blue, red = np.frombuffer(told, "<f2" if len(told) == 2 * levels.size else "<f4").reshape(3, 37, 256)
    np.testing.assert_array_equal(np.stack([red, green, blue], -1), srgb_to_linear(levels / 255.0).astype(np.float16))


def test_the_curve_is_that_of_srgb():
    np.testing.assert_allclose(srgb_to_linear(np.array([0, 0.04045, 0.5, 1])), [0, 0.0031308, 0.2140411, 1], rtol=1e-4)
    values = np.linspace(0, 1, 999)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(values)), values, atol=2e-6)
    np.testing.assert_allclose(linear_to_srgb(np.array([-1.0, 5.0])), [0, 1])


def test_what_is_no_picture_is_refused(tmp_path, levels):
    write_exr_picture(tmp_path / "a.exr", levels)
    whole = (tmp_path / "a.exr").read_bytes()
    (tmp_path / "cut.exr").write_bytes(whole[:-30])
    (tmp_path / "grey.exr").write_bytes(whole.replace(b"R\0\1", b"Y\0\1"))
    for name, words in (("cut.exr", "damaged"), ("grey.exr", "has R, G and B"), ("none.exr", "cannot be read")):
        with pytest.raises(InputError, match=words):
            read_exr_picture(tmp_path / name, 10**6)
    with pytest.raises(InputError, match="at most 100"):
        read_exr_picture(tmp_path / "a.exr", 100)
