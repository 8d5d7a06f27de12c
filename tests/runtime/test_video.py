"""Writing and reading videos."""

import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from pano4d.runtime import image, video
from pano4d.runtime.errors import InputError, OutputError, SettingsError
from pano4d.runtime.exr import write_exr_picture


@pytest.fixture
def frames():
    """A colour ramp that brightens: 6 frames of 96x48."""
    ramp = np.zeros((6, 48, 96, 3), np.uint8)
    ramp[..., 0] = np.linspace(0, 255, 96)
    ramp[..., 1] = np.linspace(0, 255, 48)[:, None]
    ramp[..., 2] = np.arange(6)[:, None, None] * 40
    return ramp


def test_round_trip_keeps_frames_and_colours(tmp_path, frames):
    video.write_video(tmp_path / "v.mp4", iter(frames), 7)
    read = video.read_video(tmp_path / "v.mp4")
    assert read.shape == frames.shape and read.dtype == np.uint8
    assert np.abs(read.astype(int) - frames).mean() < 3
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


def test_saturated_colours_keep_their_matrix(tmp_path):
    # BT.601 taken for BT.709 turns pure green by more than 20 levels.
    green = np.zeros((2, 32, 64, 3), np.uint8)
    green[..., 1] = 200
    video.write_video(tmp_path / "v.mp4", green, 7)
    assert np.abs(video.read_video(tmp_path / "v.mp4").astype(int) - green).max() <= 4


def test_same_frames_same_bytes(tmp_path, frames):
    for name in ("a.mp4", "b.mp4"):
        video.write_video(tmp_path / name, frames, 7)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize("codec", video.CODECS)
@pytest.mark.parametrize("bits", video.BITS)
def test_codecs_and_bits_as_another_program_tells_them(tmp_path, frames, codec, bits):
    settings = video.VideoSettings(codec, bits)
    for name in ("a.mp4", "b.mp4"):
        video.write_video(tmp_path / name, frames, 29.97, settings=settings)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    told = told_by_ffmpeg(tmp_path / "a.mp4")
    assert {"h264": "h264 (High", "h265": "hevc (Main"}[codec] in told and {"h264": "avc1", "h265": "hvc1"}[codec] in told
    assert {8: "yuv420p(", 10: "yuv420p10le("}[bits] + "tv, bt709, progressive)" in told
    assert "29.97 fps, 29.97 tbr" in told
    assert "Spherical Mapping: equirectangular" in told or "spherical: equirectangular" in told
    read = video.read_video(tmp_path / "a.mp4")
    assert read.shape == frames.shape and np.abs(read.astype(int) - frames).mean() < 3


def test_ten_bits_are_nearer_to_smooth_frames(tmp_path):
    slope = np.repeat(np.linspace(40, 90, 512).astype(np.uint8)[None, None, :, None], 3, -1) + np.zeros((2, 256, 1, 1), np.uint8)
    errors = []
    for bits in video.BITS:
        video.write_video(tmp_path / "v.mp4", slope, 7, settings=video.VideoSettings(bits=bits))
        # Exactly, since reading videos of 8 bits takes a shortcut.
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", tmp_path / "v.mp4", "-vf",
                   "scale=flags=accurate_rnd+full_chroma_int", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        told = subprocess.run(command, check=True, capture_output=True).stdout
        errors.append(np.abs(np.frombuffer(told, np.uint8).reshape(slope.shape).astype(int) - slope).mean())
        assert np.abs(video.read_video(tmp_path / "v.mp4").astype(int) - slope).mean() < 0.6
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("codec, bits", [("h264", 8), ("h265", 10)])
def test_a_large_panorama_fits_a_level(tmp_path, codec, bits):
    ramp = np.zeros((2048, 4096, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(4096) // 16, np.arange(2048)[:, None] // 8
    video.write_video(tmp_path / "v.mp4", [ramp, ramp], 7, settings=video.VideoSettings(codec, bits))
    data = (tmp_path / "v.mp4").read_bytes()
    # avcC: version, profile, compatibility, level x 10; hvcC: level x 30 after twelve bytes.
    level = data[data.index(b"avcC") + 7] / 10 if codec == "h264" else data[data.index(b"hvcC") + 16] / 30
    assert 5.0 <= level <= 5.2
    read = video.read_video(tmp_path / "v.mp4")
    assert read.shape == (2, 2048, 4096, 3) and np.abs(read[1].astype(int) - ramp).mean() < 2


@pytest.mark.parametrize("wrong", [{"codec": "vp9"}, {"bits": 9}, {"frames": "jpg"}])
def test_refuses_what_cannot_be_written(wrong):
    with pytest.raises(SettingsError, match="--" + next(iter(wrong))):
        video.VideoSettings(**wrong)


def told_by_ffmpeg(path):
    """What ffmpeg's own parser says of a file."""
    return subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", path], capture_output=True, text=True).stderr


def test_refuses_odd_sizes_and_no_frames(tmp_path, frames):
    with pytest.raises(SettingsError, match="even"):
        video.write_video(tmp_path / "v.mp4", frames[:, :47], 7)
    with pytest.raises(SettingsError, match="at least one"):
        video.write_video(tmp_path / "v.mp4", [], 7)
    with pytest.raises(OutputError):
        video.write_video(tmp_path / "missing" / "v.mp4", frames, 7)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_interrupted_writing_leaves_nothing(tmp_path, frames, failure):
    def failing():
        yield from frames[:3]
        raise failure

    with pytest.raises(failure):
        video.write_video(tmp_path / "v.mp4", failing(), 7)
    assert list(tmp_path.iterdir()) == []


def test_encoder_failure_is_one_sentence(tmp_path, frames, monkeypatch):
    monkeypatch.setattr(video, "_encoder_options", lambda *_: ["-no-such-option"])
    with pytest.raises(OutputError, match="could not be encoded"):
        video.write_video(tmp_path / "v.mp4", np.repeat(frames, 40, axis=0), 7)
    assert list(tmp_path.iterdir()) == []


def test_reads_gif_and_folder(tmp_path, frames):
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(tmp_path / "v.gif", save_all=True, append_images=pictures[1:], duration=140)
    assert video.read_video(tmp_path / "v.gif").shape == frames.shape
    (tmp_path / "frames").mkdir()
    for t, frame in enumerate(frames):
        image.write_png(tmp_path / "frames" / f"frame_{t:04d}.png", frame)
    assert np.array_equal(video.read_video(tmp_path / "frames"), frames)
    (tmp_path / "linear").mkdir()
    for t, frame in enumerate(frames):
        write_exr_picture(tmp_path / "linear" / f"frame_{t:04d}.exr", frame)
    assert np.array_equal(video.read_video(tmp_path / "linear"), frames)


def test_refuses_with_one_sentence(tmp_path, frames):
    video.write_video(tmp_path / "whole.mp4", np.random.default_rng(0).integers(0, 255, (9, 64, 128, 3), np.uint8), 7)
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[:len(data) * 2 // 3])
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    image.write_png(tmp_path / "mixed" / "a.png", frames[0])
    image.write_png(tmp_path / "mixed" / "b.png", frames[0, :40])
    for name, wanted in {"cut.mp4": "damaged", "text.mp4": "damaged", "empty.mp4": "damaged", "missing": "does not exist",
                         "empty": "no frame", "mixed": "one size"}.items():
        with pytest.raises(InputError, match=wanted) as refusal:
            video.read_video(tmp_path / name)
        assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match="GiB"):
        video.read_video(tmp_path / "whole.mp4", max_bytes=64 * 128 * 3 * 5)
