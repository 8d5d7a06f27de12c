import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pano4d.lifting.depth_file import read_depth, read_depths
from pano4d.runtime.errors import InputError

DEPTH = (1.0 + np.arange(8 * 16).reshape(8, 16) / 10.0).astype(np.float32)


def _write_exr(path, channels, compression):
    """Write scan lines as OpenEXR does; channels: name -> array, in alphabetical order."""
    first = next(iter(channels.values()))
    height, width = first.shape
    kinds = {"uint32": 0, "float16": 1, "float32": 2}
    table = b"".join(
        name.encode() + b"\0" + struct.pack("<IB3xii", kinds[str(a.dtype)], 0, 1, 1)
        for name, a in channels.items()
    ) + b"\0"
    box = struct.pack("<4i", 0, 0, width - 1, height - 1)
    header = b"\x76\x2f\x31\x01" + struct.pack("<I", 2)
    for name, kind, value in (
        (b"channels", b"chlist", table), (b"compression", b"compression", bytes([compression])),
        (b"dataWindow", b"box2i", box), (b"lineOrder", b"lineOrder", b"\0"),
    ):
        header += name + b"\0" + kind + b"\0" + struct.pack("<I", len(value)) + value
    header += b"\0"
    rows, blocks = {0: 1, 2: 1, 3: 16}[compression], []
    for y in range(0, height, rows):
        raw = b"".join(a[r].tobytes() for r in range(y, min(y + rows, height)) for a in channels.values())
        blocks.append(struct.pack("<i", y) + _pack(raw, compression))
    offset, table = len(header) + 8 * len(blocks), b""
    for block in blocks:
        table += struct.pack("<Q", offset)
        offset += len(block)
    path.write_bytes(header + table + b"".join(blocks))


def _pack(raw, compression):
    if compression:
        data = np.frombuffer(raw, np.uint8)
        data = np.concatenate([data[0::2], data[1::2]]).astype(int)
        data[1:] = np.diff(data) + 128
        packed = zlib.compress(data.astype(np.uint8).tobytes())
        raw = packed if len(packed) < len(raw) else raw
    return struct.pack("<I", len(raw)) + raw


def test_npy_in_metres(tmp_path):
    np.save(tmp_path / "d.npy", DEPTH.astype(np.float64)[..., None])
    np.testing.assert_array_equal(read_depth(tmp_path / "d.npy", 8, 16), DEPTH)
    np.testing.assert_array_equal(read_depth(tmp_path / "d.npy", 8, 16, scale=2.0), 2 * DEPTH)


def test_png_in_millimetres(tmp_path):
    Image.fromarray((DEPTH * 1000).astype(np.uint16)).save(tmp_path / "d.PNG")
    np.testing.assert_allclose(read_depth(tmp_path / "d.PNG", 8, 16), DEPTH, atol=0.0011)


@pytest.mark.parametrize("compression", [0, 2, 3])
@pytest.mark.parametrize("dtype", ["float16", "float32", "uint32"])
def test_exr(tmp_path, compression, dtype):
    smooth = np.linspace(1, 9, 40 * 80).reshape(40, 80)
    other = np.zeros((40, 80), "float16")
    _write_exr(tmp_path / "d.exr", {"A": other, "Z": smooth.astype(dtype)}, compression)
    np.testing.assert_array_equal(
        read_depth(tmp_path / "d.exr", 40, 80), smooth.astype(dtype).astype(np.float32)
    )


def test_other_size_is_resampled(tmp_path):
    np.save(tmp_path / "d.npy", np.full((64, 128), 3.5))
    np.testing.assert_allclose(read_depth(tmp_path / "d.npy", 30, 60), np.full((30, 60), 3.5), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0])
def test_impossible_distances(tmp_path, bad):
    depth = DEPTH.copy()
    depth[3, 4] = bad
    np.save(tmp_path / "d.npy", depth)
    with pytest.raises(InputError, match="1 of 128 pixels"):
        read_depth(tmp_path / "d.npy", 8, 16)


def test_other_aspect(tmp_path):
    np.save(tmp_path / "d.npy", DEPTH)
    with pytest.raises(InputError, match="same aspect"):
        read_depth(tmp_path / "d.npy", 16, 16)


def test_wrong_kinds(tmp_path):
    Image.fromarray(np.full((8, 16), 9, np.uint8)).save(tmp_path / "grey8.png")
    Image.fromarray(np.full((8, 16, 3), 9, np.uint8)).save(tmp_path / "color.png")
    np.save(tmp_path / "object.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "flat.npy", np.ones(128))
    np.save(tmp_path / "text.npy", np.full((8, 16), "1"))
    (tmp_path / "noise.npy").write_bytes(b"no array")
    (tmp_path / "noise.png").write_bytes(b"no picture")
    (tmp_path / "noise.exr").write_bytes(b"no picture")
    (tmp_path / "depth.txt").write_text("1 2 3")
    _write_exr(tmp_path / "d.exr", {"Z": DEPTH}, 0)
    piz = (tmp_path / "d.exr").read_bytes().replace(b"compression\0\x01\0\0\0\0", b"compression\0\x01\0\0\0\4")
    (tmp_path / "piz.exr").write_bytes(piz)
    (tmp_path / "cut.exr").write_bytes((tmp_path / "d.exr").read_bytes()[:-30])
    for name in ("grey8.png", "color.png", "object.npy", "flat.npy", "text.npy", "noise.npy", "noise.png",
                 "noise.exr", "depth.txt", "piz.exr", "cut.exr", "missing.npy", "missing.png", "missing.exr"):
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            read_depth(tmp_path / name, 8, 16)


def test_bad_scale(tmp_path):
    np.save(tmp_path / "d.npy", DEPTH)
    with pytest.raises(InputError, match="--depth-scale"):
        read_depth(tmp_path / "d.npy", 8, 16, scale=0.0)


def _folder(tmp_path, count=3, shape=(8, 16)):
    folder = tmp_path / "maps"
    folder.mkdir()
    for number in range(count):
        np.save(folder / f"depth_{number:04d}.npy", np.full(shape, 1.0 + number))
    return folder


def test_a_folder_holds_one_map_for_each_frame(tmp_path):
    folder = _folder(tmp_path)
    (folder / "notes.txt").write_text("not a map")
    maps = read_depths(folder, 8, 16, 3, scale=2.0)
    assert maps.shape == (3, 8, 16) and maps[:, 0, 0].tolist() == [2, 4, 6]


def test_an_npy_file_may_hold_all_frames(tmp_path):
    np.save(tmp_path / "d.npy", np.stack([DEPTH, 2 * DEPTH]))
    np.testing.assert_array_equal(read_depths(tmp_path / "d.npy", 8, 16, 2), [DEPTH, 2 * DEPTH])
    assert read_depths(tmp_path / "d.npy", 4, 8, 2).shape == (2, 4, 8)


def test_one_file_serves_all_frames(tmp_path):
    np.save(tmp_path / "d.npy", DEPTH)
    np.testing.assert_array_equal(read_depths(tmp_path / "d.npy", 8, 16, 5), DEPTH[None])


@pytest.mark.parametrize("bad", [np.nan, 0.0])
def test_the_frame_with_impossible_distances_is_named(tmp_path, bad):
    folder = _folder(tmp_path)
    np.save(folder / "depth_0001.npy", np.full((8, 16), bad))
    with pytest.raises(InputError, match="depth_0001"):
        read_depths(folder, 8, 16, 3)
    np.save(tmp_path / "stack.npy", np.stack([DEPTH, np.full((8, 16), bad)]))
    with pytest.raises(InputError, match="frame 1"):
        read_depths(tmp_path / "stack.npy", 8, 16, 2)


def test_another_number_of_maps_or_another_aspect(tmp_path):
    folder = _folder(tmp_path)
    with pytest.raises(InputError, match="3 depth maps .* 14 frames"):
        read_depths(folder, 8, 16, 14)
    with pytest.raises(InputError, match="same aspect"):
        read_depths(folder, 16, 16, 3)
    np.save(tmp_path / "stack.npy", np.stack([DEPTH] * 3))
    with pytest.raises(InputError, match="3 depth maps .* 4 frames"):
        read_depths(tmp_path / "stack.npy", 8, 16, 4)


def test_models_are_told_apart_from_maps(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for path in (tmp_path, tmp_path / "model.onnx"):
        with pytest.raises(InputError, match="--depth-model"):
            read_depths(path, 8, 16, 3)
