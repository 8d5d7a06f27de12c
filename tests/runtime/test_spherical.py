"""Spherical metadata, checked by a walk over the boxes that shares no code with the writer."""

import struct
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from pano4d.runtime import spherical, video
from pano4d.runtime.errors import InputError

PARENTS = {"moov", "trak", "mdia", "minf", "stbl", "sv3d", "proj", "dinf", "udta"}


def walk(data, begin=0, end=None, path=""):
    """Yield (path, payload offset, payload end) of every box, sample entries included."""
    end = len(data) if end is None else end
    while begin < end:
        size, kind = int.from_bytes(data[begin:begin + 4], "big"), data[begin + 4:begin + 8].decode("latin1")
        assert size >= 8 and begin + size <= end, f"{path}/{kind} of {size} bytes overruns its parent"
        here = f"{path}/{kind}"
        yield here, begin + 8, begin + size
        if kind in PARENTS:
            yield from walk(data, begin + 8, begin + size, here)
        if kind == "stsd":
            yield from walk(data, begin + 16, begin + size, here)
        if kind in ("avc1", "hvc1"):
            yield from walk(data, begin + 8 + 78, begin + size, here)
        begin += size
    assert begin == end


@pytest.fixture(params=video.CODECS)
def settings(request):
    return video.VideoSettings(request.param)


@pytest.fixture
def clip(tmp_path, settings):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (5, 32, 64, 3), np.uint8)
    video.write_video(tmp_path / "clip.mp4", frames, 7, settings=settings)
    return tmp_path / "clip.mp4"


@pytest.fixture
def plain(tmp_path, settings):
    video.write_video(tmp_path / "plain.mp4", np.full((5, 32, 64, 3), 90, np.uint8), 7, spherical=False, settings=settings)
    return tmp_path / "plain.mp4"


def test_boxes_where_players_look(clip, settings):
    data = clip.read_bytes()
    boxes = {path: data[begin:end] for path, begin, end in walk(data)}
    v1 = boxes["/moov/trak/uuid"]
    assert v1[:16].hex() == "ffcc8263f8554a938814587a02521fdd"
    assert b"<GSpherical:ProjectionType>equirectangular</GSpherical:ProjectionType>" in v1
    entry = "/moov/trak/mdia/minf/stbl/stsd/" + {"h264": "avc1", "h265": "hvc1"}[settings.codec]
    assert boxes[f"{entry}/st3d"] == bytes(5)
    assert boxes[f"{entry}/sv3d/svhd"] == bytes(4) + b"pano4d\0"
    assert boxes[f"{entry}/sv3d/proj/prhd"] == bytes(16)
    assert boxes[f"{entry}/sv3d/proj/equi"] == bytes(20)


@pytest.mark.parametrize("hidden, told", [((), True), ((b"uuid",), True), ((b"st3d", b"sv3d"), True),
                                          ((b"uuid", b"st3d", b"sv3d"), False)])
def test_another_parser_finds_either_version(clip, hidden, told):
    """ffmpeg reads V2, and V1 where there is no V2; a box of another name is left aside."""
    data = clip.read_bytes()
    for kind in hidden:
        data = data.replace(kind, b"free")
    clip.write_bytes(data)
    found = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", clip], capture_output=True, text=True).stderr
    assert ("equirectangular" in found) is told


def test_frames_last_equally_long(clip):
    data = clip.read_bytes()
    times = next(data[begin:end] for path, begin, end in walk(data) if path.endswith("/stts"))
    clock = next(data[begin:end] for path, begin, end in walk(data) if path.endswith("/mdhd"))
    entries, count, ticks = struct.unpack(">III", times[4:16])
    assert (entries, count) == (1, 5) and len(times) == 16
    assert struct.unpack(">I", clock[12:16])[0] == 7 * ticks


def test_header_comes_first_and_chunks_point_into_the_data(clip):
    data = clip.read_bytes()
    boxes = {path: (begin, end) for path, begin, end in walk(data)}
    assert boxes["/moov"][0] < boxes["/mdat"][0]
    begin, end = boxes["/moov/trak/mdia/minf/stbl/stco"]
    count = struct.unpack_from(">I", data, begin + 4)[0]
    offsets = struct.unpack_from(f">{count}I", data, begin + 8)
    assert all(boxes["/mdat"][0] <= offset < boxes["/mdat"][1] for offset in offsets)


def test_pictures_survive(plain):
    before = video.read_video(plain)
    spherical.inject(plain)
    assert np.array_equal(video.read_video(plain), before)


def test_injecting_twice_changes_nothing(clip):
    once = clip.read_bytes()
    spherical.inject(clip)
    assert clip.read_bytes() == once


def test_parse(clip, plain):
    assert spherical.parse(plain) == {"v1": None, "v2": None}
    found = spherical.parse(clip)
    assert found["v1"]["Spherical"] == "true" and found["v1"]["ProjectionType"] == "equirectangular"
    assert found["v2"] == {"stereo_mode": 0, "projection": "equi", "pose_deg": (0, 0, 0), "bounds": (0, 0, 0, 0),
                           "source": "pano4d"}


def test_moov_at_the_end_keeps_its_offsets(plain):
    """Chunks that lie before the header must not be shifted."""
    data = plain.read_bytes()
    top = {path: (begin - 8, end) for path, begin, end in walk(data) if path.count("/") == 1}
    ftyp, moov, mdat = (data[slice(*top[f"/{kind}"])] for kind in ("ftyp", "moov", "mdat"))
    begin = next(begin for path, begin, _ in walk(moov) if path.endswith("/stco"))
    count = struct.unpack_from(">I", moov, begin + 4)[0]
    moved = bytearray(moov)
    shift = len(ftyp) - top["/mdat"][0]
    offsets = [offset + shift for offset in struct.unpack_from(f">{count}I", moov, begin + 8)]
    struct.pack_into(f">{count}I", moved, begin + 8, *offsets)
    before = video.read_video(plain)
    plain.write_bytes(ftyp + mdat + bytes(moved))
    assert np.array_equal(video.read_video(plain), before)
    spherical.inject(plain)
    assert np.array_equal(video.read_video(plain), before) and spherical.parse(plain)["v2"]


@pytest.mark.parametrize("content", [b"", b"text, and no box at all", b"\0\0\0\x08free", b"\0\0\x10\0moov"])
def test_refuses_what_is_no_mp4(tmp_path, content):
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(InputError):
        spherical.inject(tmp_path / "x.mp4")
    assert (tmp_path / "x.mp4").read_bytes() == content
