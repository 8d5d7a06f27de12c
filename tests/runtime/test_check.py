"""The check of a result folder, with faults planted in its frames."""

import html
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pano4d.runtime import tiles
from pano4d.runtime.check import check
from pano4d.runtime.check_figures import FIGURES
from pano4d.runtime.errors import InputError
from pano4d.runtime.files import sha256_of
from pano4d.runtime.quality_sphere import NOTHING_DIFFERS_DB
from pano4d.runtime.sphere import pixel_directions
from pano4d.runtime.video import write_video

HEIGHT, WIDTH = 128, 256
LAYOUT = tiles.icosahedron_vertices()
ON_FRAMES = {"seam_ratio", "tile_border_ratio", "pole_ratio", "static_drift", "ws_psnr_db", "ws_ssim", "motion",
             "motion_max", "flicker", "loop_ratio"}


@pytest.fixture
def good(sphere_picture, tmp_path):
    """A faultless result: what moves swings to and fro round the seam. Its folder and frames, uint8 [6, 128, 256, 3]."""
    reference, mask = _bytes(127 + 0.4 * (sphere_picture - 127)), _mask()
    swing = [0, 1, 2, 3, 2, 1]
    frames = np.stack([np.where(mask[..., None], np.roll(reference, step, 1), reference) for step in swing])
    Image.fromarray(reference).save(tmp_path / "input.png")
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "input_mask.png")
    (tmp_path / "out").mkdir()
    return tmp_path / "out", frames


def _mask():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[30:100, :90] = mask[30:100, -90:] = True
    return mask


def _bytes(picture):
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def _write(out, frames, **more):
    folder = out.parent
    inputs = {"panorama": "input.png", "panorama_sha256": sha256_of((folder / "input.png").read_bytes()),
              "mask": "input_mask.png", "mask_sha256": sha256_of((folder / "input_mask.png").read_bytes())}
    report = {"pano4d_version": "0", "inputs": inputs, "tiles": {"layout": LAYOUT.name},
              "settings": {"mask_policy": "freeze"}} | more
    (out / "report.json").write_text(json.dumps(report))
    (out / "frames").mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(out / "frames" / f"frame_{number:04d}.png")


def _past(result):
    return {row["figure"]: row["frame"] for row in result["figures"] if not row["ok"]}


def _value(result, name):
    return next(row["value"] for row in result["figures"] if row["figure"] == name)


def test_a_good_result_passes_and_its_inputs_are_found_by_their_digests(good):
    out, frames = good
    _write(out, frames)
    result = check(out)
    assert result["ok"] and {row["figure"] for row in result["figures"]} == ON_FRAMES
    assert _value(result, "ws_psnr_db") == NOTHING_DIFFERS_DB and _value(result, "static_drift") == 0
    assert _value(result, "loop_ratio") == pytest.approx(1, abs=0.1)
    assert len(result["notes"]) == 2 and all("SHA-256" in note for note in result["notes"])
    assert {row["figure"] for row in result["not_computed"]} == {"hole_percent", "splat_bytes_per_frame",
                                                                 "video_bytes_per_frame"}


def _seam(frame):
    return _bytes(frame + 25.0 * np.linspace(-1, 1, WIDTH)[:, None] * _mask()[..., None])


def _tile(frame):
    rng, total = np.random.default_rng(1), np.zeros((HEIGHT, WIDTH, 1))
    for v in range(LAYOUT.count):
        inside = tiles.project(LAYOUT, v, pixel_directions(HEIGHT, WIDTH), 256)[2]
        total[np.asarray(inside, bool)] += rng.choice([-20, 20])
    return _bytes(frame + total * _mask()[..., None])


def _pole(frame):
    frame = frame.copy()
    frame[:8] = np.stack([np.roll(frame[row], 37 * row * row, 0) for row in range(8)])
    return frame


def _shifted(frame):
    return np.where(_mask()[..., None], frame, np.roll(frame, 1, 1))


def _bright(frame):
    return _bytes(frame.astype(int) + 20 * _mask()[..., None])


@pytest.mark.parametrize("plant, names", [
    (_seam, {"seam_ratio"}), (_tile, {"tile_border_ratio"}), (_pole, {"pole_ratio"}), (_shifted, {"static_drift"}),
    (_bright, {"flicker"})], ids=["seam", "tile border", "pole", "static drift of a pixel", "flicker"])
def test_a_planted_fault_is_found_in_its_frame(good, plant, names):
    out, frames = good
    frames = frames.copy()
    frames[3] = plant(frames[3])
    _write(out, frames)
    past = _past(check(out))
    assert names <= set(past) and all(past[name] == 3 for name in names)


def test_a_video_that_stands_still_or_jumps(good):
    out, frames = good
    frames = frames.copy()
    frames[2] = frames[1]
    frames[4, _mask()] ^= 128
    _write(out, frames)
    past = _past(check(out))
    assert past["motion"] == 2 and past["motion_max"] in (4, 5)


@pytest.mark.parametrize("loop", [True, False])
def test_a_loop_that_does_not_close_counts_where_one_was_asked_for(good, loop):
    out, frames = good
    frames = frames[:4]
    _write(out, frames, settings={"mask_policy": "freeze", "loop": loop})
    result = check(out)
    assert _value(result, "loop_ratio") > 1.5 and ("loop_ratio" in _past(result)) == loop


def test_noise_outside_the_mask_has_its_ws_psnr(good):
    out, frames = good
    where = ~_mask()
    where[:24] = where[-24:] = False
    noise = np.random.default_rng(0).choice([-3, 3], (HEIGHT, WIDTH, 3)) * where[..., None]
    frames = frames.copy()
    frames[5] = _bytes(frames[5].astype(int) + noise)
    _write(out, frames)
    result = check(out)
    area = np.cos((np.arange(HEIGHT) + 0.5 - HEIGHT / 2) / HEIGHT * np.pi)
    error = 9 * (area @ where.sum(axis=1)) / (area @ (~_mask()).sum(axis=1))
    assert _value(result, "ws_psnr_db") == pytest.approx(10 * np.log10(255**2 / error), abs=0.01)
    assert _past(result) == {"static_drift": 5}


@pytest.mark.parametrize("policy", ["trained", "soft"])
def test_drift_is_allowed_where_the_mask_policy_lets_still_pixels_move(good, policy):
    out, frames = good
    _write(out, frames ^ 1, settings={"mask_policy": policy})
    result = check(out)
    assert _value(result, "static_drift") == 1 and result["ok"]


def test_a_file_of_thresholds_is_obeyed(good, tmp_path):
    out, frames = good
    _write(out, frames)
    (tmp_path / "limits.toml").write_text("[motion]\nat_least = 100\n")
    result = check(out, limits=tmp_path / "limits.toml")
    assert set(_past(result)) == {"motion"} and result["thresholds"]["motion"] == {"at_least": 100, "at_most": None}
    assert set(result["thresholds"]) == {figure.name for figure in FIGURES}


def test_a_compressed_video_alone(good):
    """Without frames and report: what can be computed is, from the inputs that are given, and the rest is said."""
    out, frames = good
    write_video(out / "video.mp4", frames, 7)
    result = check(out, panorama=out.parent / "input.png", mask=out.parent / "input_mask.png")
    left_out = {row["figure"]: row["why"] for row in result["not_computed"]}
    assert not _past(result) and result["source"] == "video.mp4"
    assert "compressed" in left_out["static_drift"] and "layout" in left_out["tile_border_ratio"]
    assert 30 < _value(result, "ws_psnr_db") < 60 and 0.9 < _value(result, "ws_ssim") < 1
    assert _value(result, "video_bytes_per_frame") == (out / "video.mp4").stat().st_size / 6


def test_what_was_not_found_is_said_and_not_guessed(good):
    out, frames = good
    _write(out, frames)
    Image.fromarray(frames[1]).save(out.parent / "input.png")  # another picture of the same name
    (out.parent / "input_mask.png").unlink()
    result = check(out)
    left_out = {row["figure"]: row["why"] for row in result["not_computed"]}
    assert set(left_out) >= ON_FRAMES and not result["figures"]
    assert "another file (SHA-256)" in left_out["seam_ratio"] and "is not there" in left_out["motion"]


def test_a_given_file_that_is_not_the_runs_is_noted(good):
    out, frames = good
    _write(out, frames)
    Image.fromarray(frames[0] ^ 1).save(out.parent / "other.png")
    result = check(out, panorama=out.parent / "other.png")
    assert any("other.png is not the panorama of the run" in note for note in result["notes"])
    assert _past(result) == {"static_drift": 0}


def test_without_a_mask_everything_moves(good):
    out, frames = good
    _write(out, frames, inputs={"panorama": "input.png", "mask": None,
                                "panorama_sha256": sha256_of((out.parent / "input.png").read_bytes())})
    result = check(out)
    assert {row["figure"] for row in result["not_computed"]} >= {"static_drift", "ws_psnr_db", "ws_ssim"}
    assert 0 < _value(result, "motion") < 50


def test_splats_alone(tmp_path):
    (tmp_path / "splats").mkdir()
    for number, size in enumerate((10, 30, 20)):
        (tmp_path / "splats" / f"frame_{number:04d}.ply").write_bytes(bytes(size))
    holes = SimpleNamespace(frames=np.array([0, 2]), percent=np.array([0.2, 4.0]), view="ahead",
                            picture=np.zeros((8, 8, 3), np.uint8))
    result = check(tmp_path, find_holes=lambda files, progress: holes)
    assert _past(result) == {"hole_percent": 2} and _value(result, "splat_bytes_per_frame") == 30
    assert {row["figure"] for row in result["not_computed"]} == ON_FRAMES | {"video_bytes_per_frame"}
    assert "holes are magenta" in (tmp_path / "report.html").read_text()


def test_the_page_stands_alone_and_shows_the_worst_first(good):
    out, frames = good
    frames = frames.copy()
    frames[2] = _seam(frames[2])
    _write(out, frames)
    result = check(out)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert result["page"] == str(out / "report.html") and str(out.parent) not in page
    assert re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,)', page) == []
    assert page.index("<section><h2>A step across") < page.index("<section><h2>", page.index("<section>") + 1)
    assert all(html.escape(figure.formula) in page and html.escape(figure.source) in page for figure in FIGURES)


@pytest.mark.parametrize("plant, row", [("empty", "holds neither"), ("missing", "is no folder"),
                                        ("flat", "twice as wide")])
def test_what_is_no_result_is_refused(tmp_path, plant, row):
    if plant == "flat":
        (tmp_path / "frames").mkdir()
        Image.new("RGB", (64, 64)).save(tmp_path / "frames" / "frame_0000.png")
    with pytest.raises(InputError, match=row):
        check(tmp_path / "missing" if plant == "missing" else tmp_path)
