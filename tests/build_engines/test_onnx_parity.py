"""What TensorRT is given computes what diffusers computes, as the benchmark says it; and the benchmark sees when it does not."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from pano4d.benchmarks import onnx_parity  # noqa: E402
from pano4d.runtime.backends.base import NETWORKS  # noqa: E402


def test_the_benchmark_measures_the_networks_asked_for(masked, tmp_path, monkeypatch, capsys):
    out = tmp_path / "onnx.json"
    monkeypatch.setattr(sys, "argv", ["onnx_parity", str(masked), "--device", "cpu", "--out", str(out),
                                      "--networks", "unet"])
    onnx_parity.main()
    result = json.loads(out.read_text())
    assert [row["network"] for row in result["rows"]] == ["unet"]
    for row in result["rows"]:
        assert row["within"] and 0 < row["relative_error"] <= 2 * row["eager_relative_error"] < 1e-2
        assert row["operators"]["Conv"] > 0 and 0 < row["host_gib"] < 24 and row["ms"] > 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_file_of_another_model_is_seen_and_told(masked, written, tmp_path, monkeypatch):
    path = tmp_path / "vae_decoder.onnx"
    other = written(tmp_path / "other", 9, seed=5)
    onnx_parity.export(other, "vae_decoder", 1, path)
    found = onnx_parity.compare(masked, "vae_decoder", 1, path, "cpu")
    assert not found["within"] and found["relative_error"] > 0.1
    monkeypatch.setattr(onnx_parity, "measure", lambda *_: [{"network": "unet", "export_seconds": 1, "host_gib": 1, **found}])
    monkeypatch.setattr(sys, "argv", ["onnx_parity", str(masked), "--networks", "unet", "--out", str(tmp_path / "o.json")])
    with pytest.raises(SystemExit, match="more than 2 times that of eager float16"):
        onnx_parity.main()


def test_a_network_that_fails_leaves_the_others(masked, tmp_path, monkeypatch, capsys):
    row = {"network": "vae_decoder", "export_seconds": 1, "host_gib": 1, "ms": 1, "relative_error": 1e-3,
           "eager_relative_error": 1e-3, "within": True}
    monkeypatch.setattr(onnx_parity, "apart", lambda function, checkpoint, network, *_: row if network != "unet" else 1 / 0)
    out = tmp_path / "onnx.json"
    monkeypatch.setattr(sys, "argv", ["onnx_parity", str(masked), "--jobs", "2", "--networks", "unet", "vae_decoder",
                                      "--out", str(out)])
    with pytest.raises(SystemExit, match="a network failed"):
        onnx_parity.main()
    assert json.loads(out.read_text())["rows"] == [row]
    assert capsys.readouterr().err.endswith("\nunet           ZeroDivisionError: division by zero\n")


def test_the_full_model_was_measured_and_holds(operators):
    """Its networks were exported, checked and run on a GPU; the results say with what operators, memory and error."""
    result = json.loads((Path(onnx_parity.__file__).parent / "results" / "onnx.json").read_text(encoding="utf-8"))
    assert result["provider"] == "CUDAExecutionProvider"
    assert [row["network"] for row in result["rows"]] == list(NETWORKS)
    for row in result["rows"]:
        assert set(row["operators"]) <= set(operators[0]), row["network"]
        assert row["host_gib"] <= 12 and row["within"]
        assert row["relative_error"] <= onnx_parity.MOST_TIMES_EAGER * row["eager_relative_error"]
