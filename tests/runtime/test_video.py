"""Writing and reading videos."""

import numpy as np
import pytest
from PIL import Image

from pano4d.runtime import image, video
from pano4d.runtime.errors import InputError, OutputError, SettingsError


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
