"""The command line: what it hands to the library, what it prints, how it ends."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

import pano4d
from pano4d.cli import cli
from pano4d.runtime.errors import BundleError, DeviceMemoryError, InputError

REPORT = {"seed": 3, "inputs": {"panorama": "p.jpg", "notes": ["p.jpg: CMYK, converted"]}, "seconds": 2.5, "tiles": {"total": 12, "skipped": 4}, "quality": {"motion": 5.25},
          "stages": [{"name": "encode", "seconds": 1.5, "peak_mib": 600.0}]}


class OutOfMemoryError(RuntimeError):
    """As torch raises it."""


FULL = ("The GPU has not enough free memory: use a smaller --size, a smaller --vram-limit (it composes fewer frames at a time)"
        " or a bundle of a smaller --tile-batch, or end what else uses the GPU.")


class FakeBundle:
    """What `build_bundle` returns, as far as the command line looks at it."""

    manifest = {"key": "0123abcd"}


@pytest.fixture
def calls(monkeypatch):
    """Put recorders in the place of the library; returns [(name, args, options)]."""
    seen = []

    def recorder(name, result):
        def call(*args, **options):
            seen.append((name, args, options))
            return result
        return call

    results = {"generate": REPORT, "animate": REPORT, "lift": REPORT, "build_bundle": FakeBundle(),
               "inspect": {"kind": "bundle", "tile": {"px": 256}}, "doctor": {"ok": True, "backends": []}}
    for name, result in results.items():
        monkeypatch.setitem(vars(pano4d), name, recorder(name, result))
    return seen


@pytest.fixture
def failing(monkeypatch):
    """Make `generate` raise what it is given."""
    def install(error):
        def fail(*args, **options):
            raise error
        monkeypatch.setitem(vars(pano4d), "generate", fail)
    return install


def run(*args):
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def test_generate_hands_every_option_to_the_library(calls):
    done = run("generate", "p.jpg", "--mask", "m.png", "--out", "o", "--size", "2048x1024", "--bundle", "b",
               "--backend", "eager", "--seed", 7, "--steps", 5, "--mask-policy", "soft", "--depth", "d.npy",
               "--depth-scale", 2, "--gaussians", "1k", "--iterations", 50, "--device", "cpu",
               "--deltas", "--licence", "CC0", "--html", "--overwrite", "--resume", "--allow-aspect", "--max-pixels", 99,
               "--motion", 60, "--fps", 10, "--codec", "h265", "--bits", 10, "--frames", "exr", "--loop", "--guidance-interval", "0.5:50", "--fp16", "--vram-limit", "24GB")
    assert done.exit_code == 0, done.output
    (name, args, options), = calls
    settings = pano4d.AnimateSettings(width=2048, height=1024, seed=7, steps=5, mask_policy="soft",
                                      motion_bucket_id=60, fps=10, guidance_interval=(0.5, 50.0), loop=True)
    assert name == "generate" and args == (Path("p.jpg"), Path("o"))
    assert options == {
        "mask": Path("m.png"), "bundle": Path("b"), "backend": "eager", "settings": settings,
        "depth": Path("d.npy"), "depth_scale": 2.0, "depth_model": None, "depth_kind": None, "depth_geometry": None,
        "gaussians": 1000, "iterations": 50, "device": "cpu", "deltas": True, "licence": "CC0", "html": True,
        "overwrite": True, "resume": True,
        "allow_aspect": True, "max_pixels": 99, "precision": "fp16", "vram_limit_bytes": 24 * 10**9,
        "codec": "h265", "bits": 10, "frames": "exr", "progress": None}


def test_what_is_not_given_is_left_to_the_library(calls):
    assert run("animate", "p.jpg", "--out", "o").exit_code == 0
    (name, _, options), = calls
    assert name == "animate"
    assert {name: value for name, value in options.items() if value not in (None, False, ())} == {
        "settings": pano4d.AnimateSettings()}


def test_lift_and_build(calls):
    assert run("lift", "v.mp4", "--mask", "m.png", "--depth", "d.png", "--out", "o").exit_code == 0
    assert run("build", "ckpt", "--out", "e", "--precision", "fp32", "--tile-px", 256, "--frames", 14,
               "--tile-batch", 2, "--device", "cuda", "--option", "max_autotune=true", "--option",
               "triton.num=[1, 2]", "--vram-limit", "1.5GiB", "--lora", "a.safetensors:0.5", "--lora",
               "b.safetensors").exit_code == 0
    assert calls == [
        ("lift", (Path("v.mp4"), Path("o")), {"mask": Path("m.png"), "depth": Path("d.png"), "depth_scale": None,
                                              "depth_model": None, "depth_kind": None, "depth_geometry": None,
                                              "gaussians": None, "iterations": None, "device": "auto", "deltas": False,
                                              "licence": None, "html": False, "seed": 0,
                                              "overwrite": False, "resume": False, "progress": None}),
        ("build_bundle", (Path("ckpt"), Path("e")), {"backend": "onnxruntime", "precision": "fp32", "tile_px": 256,
                                                     "frames": 14, "tile_batch": 2, "force": False,
                                                     "max_guidance_scale": None, "device": "cuda",
                                                     "options": {"max_autotune": True, "triton.num": [1, 2]},
                                                     "vram_limit_bytes": 3 * 2**29, "jobs": 1, "progress": None,
                                                     "unet": None, "loras": ("a.safetensors:0.5", "b.safetensors"),
                                                     "calibration": ()})]


def test_the_licence_is_printed_once(calls, monkeypatch):
    bundle = FakeBundle()
    bundle.manifest = FakeBundle.manifest | {"model": {"license": "some-community", "license_from": "model card"}}
    monkeypatch.setitem(vars(pano4d), "build_bundle", lambda *args, **options: bundle)
    assert run("build", "ckpt", "--out", "e").stdout.count("some-community") == 1
    assert run("build", "ckpt", "--out", "e", "--quiet").stdout == ""


def test_fp8_is_short_for_a_precision(calls):
    assert run("build", "ckpt", "--out", "e", "--fp8").exit_code == 0
    assert calls[0][2]["precision"] == "fp8"


def test_build_leaves_what_is_not_given_to_the_library(calls):
    assert run("build", "ckpt", "--out", "e").exit_code == 0
    (_, _, options), = calls
    assert {name: value for name, value in options.items() if value not in (None, False, ())} == {
        "backend": "onnxruntime", "precision": "fp16", "jobs": 1}


def test_json_prints_the_report_and_nothing_else(calls):
    done = run("generate", "p.jpg", "--out", "o", "--json")
    assert json.loads(done.stdout) == REPORT and done.stderr == ""


def test_figures_are_printed_for_people(calls):
    done = run("generate", "p.jpg", "--out", "o")
    assert "CMYK, converted" in done.stdout
    assert "tiles.skipped" in done.stdout and "5.25" in done.stdout and "encode" in done.stdout


def test_quiet_prints_nothing(calls):
    done = run("generate", "p.jpg", "--out", "o", "--quiet")
    assert done.output == "" and done.exit_code == 0


def test_inspect_plans_a_run(calls):
    assert run("inspect", "b").exit_code == run("inspect", "b", "--size", "4096x2048", "--moving-tiles", 5).exit_code == 0
    assert calls == [("inspect", (Path("b"), None, None), {}),
                     ("inspect", (Path("b"), pano4d.AnimateSettings(width=4096, height=2048), 5), {})]


@pytest.mark.parametrize("ok, code", [(True, 0), (False, 3)])
def test_a_check_exits_with_3_past_a_threshold(monkeypatch, ok, code):
    from pano4d.lifting import scene

    row = {"figure": "motion", "value": 1.5, "frame": 2, "at_least": 2.0, "at_most": None, "ok": ok,
           "unit": "grey levels", "formula": "mean", "from": "pano4d", "per_frame": {2: 1.5}}
    result = {"kind": "check", "path": "o", "ok": ok, "source": "frames", "notes": [], "figures": [row],
              "not_computed": [{"figure": "flicker", "why": "few frames"}], "page": "o/report.html"}
    seen = []
    monkeypatch.setattr(scene, "check", lambda path, **options: seen.append((path, options)) or result)
    done = run("inspect", "o", "--check", "--panorama", "p.jpg", "--mask", "m.png", "--thresholds", "t.toml")
    assert done.exit_code == code and "few frames" in done.stdout and "o/report.html" in done.stdout
    assert "1 of 2 figures" in done.stdout
    assert seen[0][0] == Path("o") and seen[0][1].pop("progress") is None
    assert seen[0][1] == {"panorama": Path("p.jpg"), "mask": Path("m.png"), "limits": Path("t.toml")}
    done = run("inspect", "o", "--check", "--json")
    assert done.exit_code == code and json.loads(done.stdout)["figures"][0]["at_least"] == 2


@pytest.mark.parametrize("args", [["--check", "--size", "128x64"], ["--panorama", "p.jpg"], ["--thresholds", "t.toml"]])
def test_options_of_a_check_need_one(calls, args):
    assert run("inspect", "o", *args).exit_code == 2 and not calls


def test_inspect_and_doctor(calls, monkeypatch):
    assert json.loads(run("inspect", "b", "--json").stdout)["tile"] == {"px": 256}
    assert "tile.px" in run("inspect", "b").stdout
    assert run("doctor", "--bundle", "b").exit_code == 0
    monkeypatch.setitem(vars(pano4d), "doctor", lambda bundle: {"ok": False})
    assert run("doctor").exit_code == 1


@pytest.mark.parametrize("error, line", [
    (InputError("p.jpg is\nno picture."), "error: p.jpg is no picture.\n"),
    (BundleError("unet.onnx was changed."), "error: unet.onnx was changed.\n"),
    (OSError(errno.ENOSPC, "No space left on device", "out/video.mp4"), "error: No space left on device: out/video.mp4\n"),
    (MemoryError(), "error: out of memory: try a smaller --size\n"),
    (DeviceMemoryError(), f"error: {FULL}\n"),
    (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 1 GiB."), f"error: {FULL}\n"),
])
def test_an_error_is_one_line_on_stderr(failing, error, line):
    failing(error)
    done = run("generate", "p.jpg", "--out", "o", "--json")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", line)


def test_debug_shows_the_trace(failing):
    failing(InputError("no picture."))
    done = run("generate", "p.jpg", "--out", "o", "--debug")
    assert done.exit_code == 1
    assert "Traceback" in done.stderr and done.stderr.endswith("error: no picture.\n")


def test_a_defect_is_not_hidden(failing):
    failing(ZeroDivisionError())
    assert isinstance(run("generate", "p.jpg", "--out", "o").exception, ZeroDivisionError)


def test_ctrl_c_exits_with_130(failing):
    failing(KeyboardInterrupt())
    done = run("generate", "p.jpg", "--out", "o")
    assert done.exit_code == 130 and done.stderr.strip() == "interrupted"


@pytest.mark.parametrize("args", [
    ["generate", "p.jpg"], ["generate", "--out", "o"], ["generate", "p.jpg", "--out", "o", "--size", "big"],
    ["generate", "p.jpg", "--out", "o", "--seed", "-1"], ["generate", "p.jpg", "--out", "o", "--mask-policy", "x"],
    ["generate", "p.jpg", "--out", "o", "--guidance-interval", "5"],
    ["fly"], ["build", "c", "--out", "e", "--precision", "int3"], ["build", "c", "--out", "e", "--device", "tpu"],
    ["build", "c", "--out", "e", "--option", "max_autotune"], ["build", "c", "--out", "e", "--option", "=1"],
    ["build", "c", "--out", "e", "--option", "max_autotune=yes"], ["build", "c", "--out", "e", "--vram-limit", "24"],
    ["generate", "p.jpg", "--out", "o", "--vram-limit", "lots"], ["inspect", "b", "--size", "big"],
    ["inspect", "b", "--moving-tiles", "0"]])
def test_wrong_usage_exits_with_2(calls, args):
    assert run(*args).exit_code == 2 and not calls


def test_a_size_that_no_panorama_has_is_refused(calls):
    done = run("generate", "p.jpg", "--out", "o", "--size", "1000x1000")
    assert done.exit_code == 1 and done.stderr.startswith("error: ") and "1024x512" in done.stderr
    assert not calls


def test_a_failed_scene_of_a_batch_is_named_and_fails_the_command(monkeypatch):
    failed = [{"panorama": "set/b.jpg", "error": "set/b.jpg is not a picture."}]
    monkeypatch.setitem(vars(pano4d), "generate", lambda *_, **__: {"scenes": [REPORT], "failed": failed})
    done = run("generate", "set", "--out", "o", "--json")
    assert done.exit_code == 1 and len(json.loads(done.stdout)["scenes"]) == 1
    assert done.stderr == "error: set/b.jpg is not a picture.\n"
    assert "p.jpg" in run("generate", "set", "--out", "o").stdout


def test_a_run_beyond_the_limit_is_refused_in_one_line_and_writes_nothing(fake_bundle, tmp_path):
    manifest = json.loads((fake_bundle / "manifest.json").read_text()) | {"target": {"device": "cuda"}}
    (fake_bundle / "manifest.json").write_text(json.dumps(manifest))
    Image.new("RGB", (128, 64)).save(tmp_path / "p.png")
    done = run("animate", tmp_path / "p.png", "--out", tmp_path / "o", "--bundle", fake_bundle, "--size", "128x64",
               "--vram-limit", "768MiB")
    assert done.exit_code == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: 128x64 needs at least 8") and "--vram-limit is 805 MB" in done.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_of_every_command(flag):
    for command in ("", *cli.commands):
        done = run(*command.split(), flag)
        assert done.exit_code == 0 and done.stdout.startswith("Usage:")


def test_runs_from_a_checkout_of_any_name(root, tmp_path):
    checkout = tmp_path / "any-name"
    shutil.copytree(root / "runtime", checkout / "runtime", ignore=shutil.ignore_patterns("demo", "__pycache__"))
    for name in ("__init__.py", "cli.py"):
        shutil.copy(root / name, checkout)
    (checkout / "__init__.py").write_text((root / "__init__.py").read_text().replace(pano4d.__version__, "9.9.9"))
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, checkout / "cli.py", "--version"], cwd=tmp_path, env=env, text=True,
                          capture_output=True)
    assert done.stdout == "pano4d, version 9.9.9\n", done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to unwind from")
def test_sigterm_unwinds(tmp_path):
    code = f"""
import pano4d, sys, time
from pano4d.cli import main
def sleep(*args, **options):
    try:
        print("running", flush=True)
        time.sleep(30)
    finally:
        open({str(tmp_path / "tidied")!r}, "w").close()
pano4d.generate = sleep
sys.argv = ["pano4d", "generate", "p.jpg", "--out", "o"]
main()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143 and (tmp_path / "tidied").exists()
    process.stdout.close()
