"""Stage times, peaks, and the JSON report."""

import json
from pathlib import Path

import numpy as np
import pytest

from pano4d.runtime.report import StageTimer, write_report


def test_stages_in_order_of_first_entry():
    stages = StageTimer()
    for name in ("encode", "denoise", "encode"):
        with stages(name):
            pass
    assert [entry["name"] for entry in stages.entries] == ["encode", "denoise"]
    assert all(set(entry) == {"name", "seconds", "peak_mib"} for entry in stages.entries)
    assert all(entry["seconds"] >= 0 and entry["peak_mib"] > 1 for entry in stages.entries)
    assert stages.peak_mib > 1 and stages.total_seconds >= 0


def test_peak_is_that_of_the_stage():
    stages = StageTimer()
    with stages("large"):
        np.ones(48 << 20, np.uint8).sum()
    with stages("small"):
        pass
    large, small = (entry["peak_mib"] for entry in stages.entries)
    # Where the high-water mark cannot be reset, the second peak is the first one again.
    assert small <= large


def test_failing_stage_is_counted_and_stages_do_not_nest():
    stages = StageTimer()
    with pytest.raises(ValueError), stages("encode"):
        raise ValueError
    assert stages.entries[0]["name"] == "encode"
    with pytest.raises(AssertionError), stages("a"), stages("b"):
        pass


def test_report_keeps_order_and_takes_numpy(tmp_path):
    report = {"b": np.float32(0.5), "a": [np.int64(3), float("nan"), np.array([1.0, np.inf])],
              "path": Path("x/y"), "flag": np.bool_(True), "none": None}
    write_report(tmp_path / "report.json", report)
    text = (tmp_path / "report.json").read_text()
    assert list(json.loads(text)) == ["b", "a", "path", "flag", "none"]
    assert json.loads(text) == {"b": 0.5, "a": [3, None, [1.0, None]], "path": "x/y", "flag": True, "none": None}


def test_failed_report_leaves_the_former(tmp_path):
    write_report(tmp_path / "report.json", {"a": 1})
    with pytest.raises(TypeError):
        write_report(tmp_path / "report.json", {"a": object()})
    assert json.loads((tmp_path / "report.json").read_text()) == {"a": 1}
