"""The benchmark of lifting runs whole, small and on the CPU, and writes every figure and both pictures."""

import json
import sys

import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from pano4d.benchmarks import bench_lifting, tables  # noqa: E402
from pano4d.benchmarks.bench_lifting import RUNS, Clock, summary  # noqa: E402

OFFSETS = {"center", "off5", "off10"}


def run(monkeypatch, folder, *options):
    monkeypatch.setattr(sys, "argv", ["bench_lifting", "--height", "32", "--gaussians", "900", "--iterations", "2",
                                      "--baseline-iterations", "2", "--device", "cpu", "--out", str(folder / "lifting.json"),
                                      *options])
    bench_lifting.main()
    return json.loads((folder / "lifting.json").read_text())


def test_every_run_of_a_scene_is_judged_and_shown(monkeypatch, tmp_path, capsys):
    found = run(monkeypatch, tmp_path, "--scenes", "gallery", "--pictures", str(tmp_path / "pictures"))
    assert [row["scene"] for row in found["scenes"]] == ["gallery"] and "gpu" in found
    printed = capsys.readouterr().out
    assert all(f"gallery: {kind} distances" in printed for kind in ("aligned", "sharpened", "true"))
    for name in RUNS:
        for figure in ("psnr_db", "ssim", "holes"):
            assert set(found[name][figure]) == OFFSETS
        assert found[name]["seconds"] > 0 and found[name]["peak_gib"] == 0 and found[name]["scenes"] == ["gallery"]
        assert found[name]["psnr_db"] == pytest.approx(found["scenes"][0][name]["psnr_db"], rel=1e-4)
    for name in ("ours", "ours_true", "ours_full", "baseline"):
        assert found[name]["flicker"] >= 0
    assert found["ours_full"]["gaussians"] == found["baseline"]["gaussians"] == 32 * 64
    assert found["ratio"] == pytest.approx(found["baseline"]["seconds"] / found["ours"]["seconds"], rel=0.01)
    for name in ("lifting_centre.jpg", "lifting_off10.jpg"):
        path = tmp_path / "pictures" / name
        with Image.open(path) as picture:
            assert picture.width == 3 * picture.height + 12 and path.stat().st_size < 150_000


def test_a_run_that_fails_leaves_those_before_it(monkeypatch, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_lifting, "lift_original", stop)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, tmp_path, "--scenes", "gallery", "--runs", "ours", "baseline")
    found = json.loads((tmp_path / "lifting.json").read_text())
    assert found["ours"]["seconds"] > 0 and "baseline" not in found and "ratio" not in found


def test_a_run_that_was_cut_short_goes_on_with_what_is_missing(monkeypatch, tmp_path, capsys):
    first = run(monkeypatch, tmp_path, "--scenes", "gallery", "--runs", "ours")
    both = run(monkeypatch, tmp_path, "--scenes", "gallery", "--runs", "ours", "baseline", "--resume")
    assert both["ours"] == first["ours"] and both["ratio"] > 0 and len(both["commands"]) == 2
    monkeypatch.setattr(bench_lifting, "revision", lambda: "another")
    with pytest.raises(SystemExit, match="another revision"):
        run(monkeypatch, tmp_path, "--scenes", "gallery", "--resume")


def test_nothing_is_begun_that_would_not_end_in_time(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(bench_lifting.time, "monotonic", lambda: now[0])
    clock = Clock(100)

    def last(seconds):
        now[0] += seconds

    assert clock.fits("ours")
    clock.time("scene", lambda: last(10))
    clock.time("ours", lambda: last(40))
    assert clock.fits("ours") and clock.fits("baseline") and clock.fits("scene", "ours")
    now[0] += 15
    assert not clock.fits("ours") and not clock.fits("ours_full") and clock.fits("baseline") and clock.fits("scene")
    assert not clock.fits("scene", "ours") and Clock(None).fits("ours")


def test_ours_and_the_baseline_are_averaged_over_the_same_scenes():
    rows = [{"scene": "a", "ours": {"seconds": 10.0}, "ours_true": {"seconds": 8.0}, "baseline": {"seconds": 100.0}},
            {"scene": "b", "ours": {"seconds": 90.0}, "ours_true": {"seconds": 6.0}}]
    found = summary(rows)
    assert found["ours"] == {"seconds": 10.0, "scenes": ["a"]} and found["ratio"] == 10.0
    assert found["ours_true"] == {"seconds": 7.0, "scenes": ["a", "b"]}
    assert summary(rows[1:])["ours"]["seconds"] == 90.0 and "ratio" not in summary(rows[1:]) and summary([]) == {}


def test_the_table_shows_what_was_measured(monkeypatch, tmp_path):
    run(monkeypatch, tmp_path, "--scenes", "gallery", "--runs", "ours", "baseline")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    lines = tables.lifting_table().splitlines()
    assert len(lines) == 4 and lines[2].startswith("| ours, 900 Gaussians |") and lines[3].startswith("| the original's")
    assert len({line.count("|") for line in lines}) == 1
