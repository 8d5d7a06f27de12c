import numpy as np
import pytest

from pano4d.lifting.distances import from_maps
from pano4d.lifting.formats.ply import read_ply
from pano4d.lifting.gaps import share_between
from pano4d.lifting.gaussians import sh_to_colors
from pano4d.lifting.job import LiftSettings, lift_frames
from pano4d.runtime.errors import InputError, OutputError, SettingsError
from pano4d.runtime.sphere import sample_panorama


def _clip(panorama, count=3):
    mask = np.zeros(panorama.shape[:2], bool)
    mask[20:50, 100:] = True
    still = np.broadcast_to(panorama, (count, *panorama.shape))
    shift = np.stack([np.roll(panorama, 9 * t, axis=1) for t in range(count)])
    return np.where(mask[..., None], shift, still), mask


def test_files_counts_and_progress(panorama, tmp_path):
    frames, mask = _clip(panorama)
    calls = []
    result = lift_frames(frames, mask, tmp_path / "splats", settings=LiftSettings(gaussians=2000), progress=lambda *a: calls.append(a))
    assert result["files"] == ["frame_0000.ply", "frame_0001.ply", "frame_0002.ply"]
    assert sorted(p.name for p in (tmp_path / "splats").iterdir()) == result["files"]
    assert result["static"] + result["moving"] == result["gaussians"] == 2000
    assert result["bytes"] == sum(p.stat().st_size for p in (tmp_path / "splats").iterdir())
    assert calls == [("lift", i + 1, 3) for i in range(3)]


def test_still_part_is_shared_and_moving_part_follows_the_frame(panorama, tmp_path):
    frames, mask = _clip(panorama)
    depth = np.full(mask.shape, 3.0, np.float32)
    result = lift_frames(frames, mask, tmp_path, depth=depth, settings=LiftSettings(gaussians=2000))
    scenes = [read_ply(tmp_path / name) for name in result["files"]]
    for scene, frame in zip(scenes, frames):
        np.testing.assert_array_equal(scene.means, scenes[0].means)
        np.testing.assert_array_equal(scene.sh[: result["static"]], scenes[0].sh[: result["static"]])
        directions = scene.means / np.linalg.norm(scene.means, axis=1, keepdims=True)
        want = sample_panorama(frame, directions.astype(np.float64))
        # Brighter by what shows between them, which is less where they are wider.
        gain = 255 * sh_to_colors(scene.sh) / want
        np.testing.assert_allclose(gain, np.broadcast_to(gain.mean(axis=1, keepdims=True), gain.shape), rtol=1e-3)
        assert gain.min() > 1.002 and gain.max() < 1 + 1.05 * share_between()
    assert np.abs(scenes[1].sh - scenes[0].sh)[result["static"] :].mean() > 0.01


@pytest.mark.parametrize("moves", [False, True])
def test_nothing_or_everything_moves(panorama, tmp_path, moves):
    result = lift_frames(panorama[None], np.full(panorama.shape[:2], moves), tmp_path, settings=LiftSettings(gaussians=100))
    assert result["moving"] == (100 - result["background"] if moves else 0)
    assert len(read_ply(tmp_path / "frame_0000.ply")) == 100


def test_given_depth_is_used(panorama, tmp_path):
    depth = np.full(panorama.shape[:2], 7.0, np.float32)
    assert lift_frames(panorama[None], depth > 0, tmp_path, depth=depth, settings=LiftSettings(gaussians=64))["depth"] == "given"
    means = read_ply(tmp_path / "frame_0000.ply").means
    assert means.shape == (64, 3)
    np.testing.assert_allclose(np.linalg.norm(means, axis=1), 7.0, rtol=1e-5)


def test_a_depth_map_for_each_frame_moves_what_moves(panorama, tmp_path):
    frames, mask = _clip(panorama)
    depth = np.stack([np.where(mask, 3.0 + t, 5.5) for t in range(3)]).astype(np.float32)
    result = lift_frames(frames, mask, tmp_path, depth=depth, settings=LiftSettings(gaussians=2000))
    scenes = [read_ply(tmp_path / name) for name in result["files"]]
    reach = np.stack([np.linalg.norm(scene.means, axis=1) for scene in scenes])
    np.testing.assert_array_equal(reach[1:, : result["static"]] - reach[0, : result["static"]], 0.0)
    assert (np.abs(reach[:, result["static"] :] - np.array([[3.0], [4.0], [5.0]])) < 0.01).mean() > 0.9
    assert result["background"] > 0
    with pytest.raises(InputError, match="distances of 2 frames, and 3 frames"):
        lift_frames(frames, mask, tmp_path, depth=depth[:2])


@pytest.mark.parametrize("as_distances", [False, True])
def test_moving_samples_follow_the_distances_of_their_frame(panorama, tmp_path, as_distances):
    frames, mask = _clip(panorama)
    maps = np.full(mask.shape, 5.0, np.float32) + np.array([0, 1, 2], np.float32)[:, None, None]
    given = from_maps(maps, mask) if as_distances else maps
    result = lift_frames(frames, mask, tmp_path, depth=given, settings=LiftSettings(gaussians=3000))
    still, surface, moving = result["static"], result["static"] - result["background"], []
    for number, name in enumerate(result["files"]):
        reach = np.linalg.norm(read_ply(tmp_path / name).means, axis=1)
        np.testing.assert_allclose(reach[:surface], 6.0, rtol=0.02)
        moving.append(np.median(reach[still:]))
    np.testing.assert_allclose(moving, [5, 6, 7], rtol=2e-3)
    means = [read_ply(tmp_path / name).means[:still] for name in result["files"]]
    np.testing.assert_array_equal(means[0], means[2])


def test_same_input_same_bytes(panorama, tmp_path):
    frames, mask = _clip(panorama, 2)
    for name in ("a", "b"):
        lift_frames(frames, mask, tmp_path / name, settings=LiftSettings(gaussians=500))
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_refusals(panorama, tmp_path):
    mask = np.ones(panorama.shape[:2], bool)
    for frames in (panorama, panorama[None].astype(float), panorama[None][:0]):
        with pytest.raises(InputError, match="uint8"):
            lift_frames(frames, mask, tmp_path)
    with pytest.raises(InputError, match="mask is"):
        lift_frames(panorama[None], mask[1:], tmp_path)
    with pytest.raises(InputError, match="depth map is"):
        lift_frames(panorama[None], mask, tmp_path, depth=np.ones((4, 8), np.float32))
    with pytest.raises(InputError, match="distances of 2 frames, and 3"):
        lift_frames(panorama[None].repeat(3, 0), mask, tmp_path, depth=np.ones((2, *mask.shape), np.float32))
    with pytest.raises(SettingsError):
        lift_frames(panorama[None], mask, tmp_path, settings=LiftSettings(gaussians=1))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="frame_0000.ply"):
        lift_frames(panorama[None], mask, tmp_path / "file", settings=LiftSettings(gaussians=100))
