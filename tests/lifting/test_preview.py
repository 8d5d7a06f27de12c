import numpy as np
from PIL import Image

from pano4d.lifting.initialize import gaussians_at, place
from pano4d.lifting.preview import SHEET_WIDTH, _liveliest_yaw, contact_sheet, write_preview


def _scene(panorama, count=1500):
    return gaussians_at(place(np.full(panorama.shape[:2], 3.0, np.float32), count), panorama, np.arange(count))


def test_sheet_is_a_picture_of_fixed_width(panorama, tmp_path):
    frames = np.stack([panorama, np.roll(panorama, 5, 1), panorama, panorama])
    write_preview(tmp_path / "preview.jpg", frames, _scene(panorama))
    with Image.open(tmp_path / "preview.jpg") as picture:
        assert picture.format == "JPEG" and picture.width == SHEET_WIDTH
        assert 500 < picture.height < 900


def test_one_frame_is_enough(panorama):
    assert contact_sheet(panorama[None], _scene(panorama, 200)).shape[1] == SHEET_WIDTH


def test_views_look_where_it_moves(panorama):
    frames = np.broadcast_to(panorama, (4, *panorama.shape)).copy()
    assert _liveliest_yaw(frames) == 0.0
    frames[1::2, 40:60, 136:152] ^= 64  # around lon +90 degrees
    assert abs(_liveliest_yaw(frames) - 90.0) < 5.0
    frames[:] = panorama
    frames[1::2, 40:60, :8] ^= 64  # both sides of the seam
    frames[1::2, 40:60, -8:] ^= 64
    assert abs(_liveliest_yaw(frames)) > 175.0
