"""Reading, refusing, resizing and writing pictures."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pano4d.runtime import image
from pano4d.runtime.errors import InputError, OutputError


@pytest.fixture
def picture():
    """A smooth 128x64 panorama without a seam."""
    lon = (np.arange(128) + 0.5) / 128 * 2 * np.pi
    lat = (np.arange(64) + 0.5) / 64 * np.pi
    red = np.sin(lat)[:, None] * np.sin(lon)
    green = np.sin(lat)[:, None] * np.cos(2 * lon)
    blue = np.repeat(np.cos(lat)[:, None], 128, axis=1)
    return np.round(127 + 120 * np.stack([red, green, blue], axis=-1)).astype(np.uint8)


def _save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def test_reads_plain_picture_without_notes(tmp_path, picture):
    read = image.read_panorama(_save(tmp_path / "p.png", picture))
    assert np.array_equal(read.pixels, picture) and read.notes == () and len(read.sha256) == 64


@pytest.mark.parametrize("mode", ["CMYK", "RGBA", "LA", "P", "L", "1"])
def test_converts_and_says_so(tmp_path, picture, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    Image.fromarray(picture).convert(mode).save(tmp_path / f"p.{suffix}")
    read = image.read_panorama(tmp_path / f"p.{suffix}")
    assert read.pixels.shape == (64, 128, 3) and read.pixels.dtype == np.uint8
    assert len(read.notes) >= 1 and all("p." in note for note in read.notes)
    if mode in ("CMYK", "RGBA"):
        assert np.abs(read.pixels.astype(int) - picture).max() <= 2


def test_reduces_sixteen_bits(tmp_path, picture):
    gray = picture[..., 0].astype(np.uint16) * 257
    Image.fromarray(gray).save(tmp_path / "gray.png")
    (tmp_path / "rgb.png").write_bytes(_sixteen_bit_png(picture.astype(np.uint16) * 257))
    read = image.read_panorama(tmp_path / "gray.png")
    assert np.array_equal(read.pixels[..., 1], picture[..., 0]) and "16 bits" in read.notes[0]
    read = image.read_panorama(tmp_path / "rgb.png")
    assert np.array_equal(read.pixels, picture) and "16 bits" in read.notes[0]


def test_turns_upright(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = np.rot90(picture)
    read = image.read_panorama(_save(tmp_path / "p.png", np.ascontiguousarray(turned), exif=exif))
    assert np.array_equal(read.pixels, picture) and "EXIF" in read.notes[0]


def test_alpha_lies_over_black(tmp_path, picture):
    clear = np.dstack([picture, np.full((64, 128), 255, np.uint8)])
    clear[:8, :, 3] = 0
    read = image.read_panorama(_save(tmp_path / "p.png", clear))
    assert not read.pixels[:8].any() and np.array_equal(read.pixels[8:], picture[8:])


def test_refuses_with_one_sentence(tmp_path, picture):
    whole = _save(tmp_path / "whole.png", picture).read_bytes()
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(whole[:len(whole) // 2])
    jpeg = _save(tmp_path / "whole.jpg", picture, quality=95).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(jpeg[:len(jpeg) // 2])
    _save(tmp_path / "square.png", picture[:, :64])
    _save(tmp_path / "tiny.png", picture[:4, :8])
    Image.fromarray(picture[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    cases = {"missing.jpg": "does not exist", "text.jpg": "not a picture", "empty.jpg": "not a picture",
             "cut.png": "damaged", "cut.jpg": "damaged", "square.png": "--allow-aspect", "tiny.png": "at least",
             "float.tif": "floating point", ".": "folder"}
    for name, wanted in cases.items():
        with pytest.raises(InputError, match=wanted) as refusal:
            image.read_panorama(tmp_path / name)
        assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match="--max-pixels"):
        image.read_panorama(tmp_path / "whole.png", max_pixels=8000)


def test_allows_other_aspect_and_says_so(tmp_path, picture):
    read = image.read_panorama(_save(tmp_path / "p.png", picture[:, :100]), allow_aspect=True)
    assert read.pixels.shape == (64, 100, 3) and "stretched" in read.notes[0]


def test_limit_can_be_raised_past_pillows(tmp_path, picture, monkeypatch):
    path = _save(tmp_path / "p.png", picture)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert image.read_panorama(path).pixels.shape == (64, 128, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_finds_masks(tmp_path):
    scene = tmp_path / "walks" / "beach.jpg"
    (tmp_path / "walks_mask").mkdir(parents=True)
    scene.parent.mkdir()
    assert image.find_mask(scene) is None
    beside = scene.with_name("beach_mask.png")
    beside.touch()
    assert image.find_mask(scene) == beside
    layout = tmp_path / "walks_mask" / "beach.png"
    layout.touch()
    assert image.find_mask(scene) == layout


def test_lists_panoramas_without_masks(tmp_path, picture):
    for name in ("b.jpg", "a.PNG", "a_mask.png", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    assert [path.name for path in image.list_panoramas(tmp_path)] == ["a.PNG", "b.jpg"]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no picture"):
        image.list_panoramas(tmp_path / "none")


def test_mask_of_any_colour(tmp_path):
    painted = np.zeros((32, 64, 3), np.uint8)
    painted[4:9, 5:20] = (0, 0, 1)
    read = image.read_mask(_save(tmp_path / "m.png", painted), (64, 128, 3))
    assert read.moving.dtype == bool and read.moving.sum() == 5 * 15
    assert "resized" in read.notes[0]


def test_jpeg_mask_has_a_threshold(tmp_path):
    painted = np.zeros((64, 128), np.uint8)
    painted[16:48, 32:96] = 255
    read = image.read_mask(_save(tmp_path / "m.jpg", painted, quality=60), (64, 128))
    assert np.array_equal(read.moving, painted > 0) and "127" in read.notes[0]


def test_transparent_mask_does_not_move(tmp_path):
    painted = np.full((32, 64, 4), 255, np.uint8)
    painted[:16, :, 3] = 0
    assert image.read_mask(_save(tmp_path / "m.png", painted), (32, 64)).moving.sum() == 16 * 64


def test_mask_refusals(tmp_path):
    with pytest.raises(InputError, match="nothing would move"):
        image.read_mask(_save(tmp_path / "black.png", np.zeros((32, 64), np.uint8)), (32, 64))
    with pytest.raises(InputError, match="aspect"):
        image.read_mask(_save(tmp_path / "square.png", np.ones((64, 64), np.uint8)), (32, 64))


def test_resize_goes_round_the_seam(picture):
    shifted = image.resize_panorama(np.roll(picture, 40, axis=1), 16, 32)
    assert np.array_equal(shifted, np.roll(image.resize_panorama(picture, 16, 32), 10, axis=1))


def test_resize_goes_over_the_poles(picture):
    # Turning the sphere over a pole exchanges the columns by half a turn and reverses the rows.
    turned = np.roll(picture, 64, axis=1)[::-1]
    small = image.resize_panorama(picture, 16, 32)
    assert np.array_equal(image.resize_panorama(turned, 16, 32), np.roll(small, 16, axis=1)[::-1])
    # A red spot on the pole must not darken or double: its row is the mean of both sides.
    spot = np.zeros((64, 128, 3), np.uint8)
    spot[:8] = 200
    assert image.resize_panorama(spot, 32, 64)[0].min() >= 199


@pytest.mark.parametrize("size", [(16, 32), (17, 33), (64, 128), (100, 201)])
def test_resize_keeps_shape_and_mean(picture, size):
    resized = image.resize_panorama(picture, *size)
    assert resized.shape == (*size, 3) and resized.dtype == np.uint8
    assert abs(resized.mean() - picture.mean()) < 1.5


def test_resize_antialiases():
    stripes = np.zeros((64, 128, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.ptp(image.resize_panorama(stripes, 16, 32).astype(int)) <= 2


def test_resize_of_few_rows(picture):
    assert image.resize_panorama(picture, 4, 8).shape == (4, 8, 3)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(1, 20), st.integers(0, 9))
def test_mask_share_is_exact(rows, columns, height, width, seed):
    mask = np.random.default_rng(seed).random((rows, columns)) < 0.5
    # Repeating each pixel makes the area of every new pixel a whole number of copies.
    fine = np.repeat(np.repeat(mask, height, 0), width, 1)
    share = fine.reshape(height, rows, width, columns).mean(axis=(1, 3))
    if mask.any() and not (share >= 0.5 - 1e-9).any():
        with pytest.raises(InputError, match="smaller than a pixel"):
            image.resize_mask(mask, height, width)
    else:
        assert np.array_equal(image.resize_mask(mask, height, width), share >= 0.5 - 1e-9)


def test_real_panorama(root):
    folder = root.parent / "shared" / "data" / "I2"
    if not folder.is_dir():
        pytest.skip("needs the real panorama beside the checkout")
    picture = image.read_panorama(folder / "panorama.jpg")
    mask = image.read_mask(folder / "mask.png", picture.pixels.shape)
    assert picture.pixels.shape == (3072, 6144, 3) and picture.notes == mask.notes == ()
    assert abs(image.resize_mask(mask.moving, 512, 1024).mean() - mask.moving.mean()) < 0.005
    assert image.resize_panorama(picture.pixels, 512, 1024).shape == (512, 1024, 3)


def test_write_png_is_whole_or_nothing(tmp_path, picture):
    image.write_png(tmp_path / "p.png", picture)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "p.png")), picture)
    with pytest.raises(OutputError):
        image.write_png(tmp_path / "missing" / "p.png", picture)
    with pytest.raises(TypeError):
        image.write_png(tmp_path / "p.png", picture.astype(np.float64))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "p.png")), picture)
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def _sixteen_bit_png(values):
    """Encode 16-bit RGB, which Pillow cannot write."""
    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    rows, columns = values.shape[:2]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = columns.to_bytes(4, "big") + rows.to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    out = io.BytesIO()
    out.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))
    return out.getvalue()


def test_a_still_line_thinner_than_a_pixel_is_not_lost():
    mask = np.ones((12, 24), bool)
    mask[:, 0] = False
    assert image.resize_mask(mask, 4, 8).all()
    whole = image.resize_whole(mask, 4, 8)
    assert not whole[:, 0].any() and whole[:, 1:].all()
    assert (image.resize_whole(mask, 12, 24) == mask).all()
