"""What inspect and doctor find."""

import json

import pytest

from pano4d.runtime import inspection
from pano4d.runtime.errors import BundleError, InputError, SettingsError
from pano4d.runtime.settings import AnimateSettings
from pano4d.runtime.tables import print_figures


def test_a_bundle_is_described(fake_bundle):
    found = inspection.inspect(fake_bundle)
    assert found["kind"] == "bundle" and found["tile"]["px"] == 64 and found["mib"] == 0
    unet = next(row for row in found["networks"] if row["name"] == "unet")
    assert unet["outputs"] == "v float32 [1,4,4,8,8]"
    json.dumps(found)


def test_a_changed_bundle_is_refused(fake_bundle):
    (fake_bundle / "none").write_bytes(b"x")
    with pytest.raises(BundleError):
        inspection.inspect(fake_bundle)


def test_a_run_is_planned_for_a_bundle_of_a_gpu(fake_bundle, capsys):
    manifest = json.loads((fake_bundle / "manifest.json").read_text()) | {"target": {"device": "cuda"}}
    manifest["networks"]["unet"]["workspace_bytes"] = 3 * 10**9
    (fake_bundle / "manifest.json").write_text(json.dumps(manifest))
    found = inspection.inspect(fake_bundle, AnimateSettings(width=256, height=128), 5)
    assert found["memory"]["moving_tiles"] == 5 and found["memory"]["peak_bytes"] > 3.8e9
    json.dumps(found)
    print_figures(found)
    printed = capsys.readouterr().out
    assert "memory.peak " in printed and "unknown" in printed and "3 GB" in printed and "tile state" in printed
    assert "memory" not in inspection.inspect(fake_bundle)


def test_engines_of_the_cpu_take_no_memory_of_a_gpu(fake_bundle):
    found = inspection.inspect(fake_bundle, AnimateSettings(width=256, height=128))["memory"]
    assert "run on the CPU" in found["notes"][0] and "peak_bytes" not in found


def test_only_a_bundle_is_planned_for(tmp_path):
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(SettingsError, match="is no engine bundle, and --size"):
        inspection.inspect(tmp_path, AnimateSettings())


def test_an_output_folder_is_described(tmp_path):
    (tmp_path / "frames").mkdir()
    for number in range(3):
        (tmp_path / "frames" / f"frame_{number:04d}.png").write_bytes(b"12")
    (tmp_path / "report.json").write_text('{"seed": 5}')
    found = inspection.inspect(tmp_path)
    assert (found["kind"], found["seed"], found["spherical"]) == ("output", 5, None)
    assert found["files"] == [{"name": "frames", "files": 3, "mib": 0.0}]


@pytest.mark.parametrize("content", [None, "{half"])
def test_anything_else_is_refused(tmp_path, content):
    if content:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(InputError):
        inspection.inspect(tmp_path)


def test_doctor_approves_of_a_machine_that_can_run_the_bundle(fake_bundle):
    found = inspection.doctor(fake_bundle)
    assert found["ok"] is True and found["bundle"]["ok"] and found["free_gib"] > 0
    backends = {row["name"]: row for row in found["backends"]}
    assert backends["onnxruntime"]["ok"] and backends["fake"]["ok"]
    assert all(row["remedy"] for row in found["backends"] if not row["ok"])
    assert {row["name"] for row in found["packages"]} >= set(inspection.BASE_PACKAGES)
    json.dumps(found)


def test_doctor_names_what_is_wrong(fake_bundle, monkeypatch):
    (fake_bundle / "none").write_bytes(b"x")
    monkeypatch.setattr(inspection, "EXTRA_PACKAGES", {"no-such-package": "gpu"})
    found = inspection.doctor(fake_bundle)
    assert found["ok"] is False and "none" in found["bundle"]["detail"]
    missing = {"name": "no-such-package", "version": None, "remedy": "pip install 'pano4d[gpu]'"}
    assert missing in found["packages"]
