"""The benchmark of lifting runs whole, small and on the CPU, and writes every figure."""

import json
import sys

import pytest

torch = pytest.importorskip("torch")

from pano4d.benchmarks import bench_lifting  # noqa: E402


class NoMemory:
    """No GPU, no memory to watch."""

    gib = 0.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_every_run_of_a_scene_is_judged(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_lifting, "PeakMemory", NoMemory)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(sys, "argv", ["bench_lifting", "--scenes", "gallery", "--height", "32", "--gaussians", "900",
                                      "--iterations", "2", "--baseline-iterations", "2", "--device", "cpu",
                                      "--out", str(tmp_path / "lifting.json")])
    bench_lifting.main()
    found = json.loads((tmp_path / "lifting.json").read_text())
    assert [row["scene"] for row in found["scenes"]] == ["gallery"]
    for run in bench_lifting.RUNS:
        assert set(found[run]["psnr_db"]) == set(found[run]["ssim"]) == set(found[run]["holes"]) == {"center", "off5", "off10"}
        assert found[run]["seconds"] > 0
    assert found["ours"]["flicker"] >= 0 and found["baseline"]["flicker"] >= 0
    assert found["ours_full"]["gaussians"] == found["baseline"]["gaussians"] == 32 * 64
    assert found["ratio"] == pytest.approx(found["baseline"]["seconds"] / found["ours"]["seconds"], rel=0.01)
