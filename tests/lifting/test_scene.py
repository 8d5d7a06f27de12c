"""The whole chain from files to files, with the stand-in for a model."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import pano4d
from pano4d.cli import cli
from pano4d.lifting.container import Container
from pano4d.lifting.formats.ply import read_ply
from pano4d.runtime.errors import BundleError, InputError
from pano4d.runtime.video import read_fps, read_video

SIZE = {"width": 128, "height": 64}


@pytest.fixture
def files(tmp_path, panorama_pixels, fake_bundle):
    """A folder with a panorama, its mask, and everything that can be wrong with them."""
    def save(name, pixels, **options):
        Image.fromarray(pixels).save(tmp_path / name, **options)

    mask = np.zeros((64, 128), np.uint8)
    mask[20:44, 50:90] = 255
    save("p.png", panorama_pixels)
    save("m.png", mask)
    save("wide.png", panorama_pixels[:32])
    save("wide_mask.png", mask[:50])
    save("black.png", np.zeros_like(mask))
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "p.png").read_bytes()[:400])
    (tmp_path / "depth.txt").write_text("1")
    return tmp_path


@pytest.fixture
def run(files, fake_bundle):
    """Call the command line in that folder on the fake bundle."""
    def call(command, source, *more, out="out"):
        model = [] if command == "lift" else ["--bundle", fake_bundle, "--size", "128x64"]
        args = [command, files / source, "--out", files / out, *model, *more]
        return CliRunner().invoke(cli, [str(files / arg) if (files / str(arg)).exists() else str(arg) for arg in args])
    return call


def test_generate_writes_everything(files, fake_bundle):
    told = []
    report = pano4d.generate(files / "p.png", files / "out", mask=files / "m.png", bundle=fake_bundle,
                             settings=pano4d.AnimateSettings(**SIZE), gaussians=500, precision="fp32",
                             progress=lambda *args: told.append(args))
    out = files / "out"
    assert sorted(path.name for path in out.iterdir()) == ["frames", "preview.jpg", "report.json", "scene.p4d", "splats",
                                                              "video.mp4"]
    assert len(list((out / "frames").iterdir())) == len(list((out / "splats").iterdir())) == 4
    assert json.loads((out / "report.json").read_text()) == json.loads(json.dumps(report))
    assert [stage["name"] for stage in report["stages"]] == ["encode", "denoise", "decode", "write", "lift", "preview",
                                                            "measure"]
    assert report["splats"]["gaussians"] == 500 == report["splats"]["static"] + report["splats"]["moving"]
    assert report["quality"]["static_drift"] == 0 and report["tiles"]["skipped"] > 0
    assert {"encode", "denoise", "decode", "write", "lift"} == {stage for stage, _, _ in told}
    assert pano4d.inspect(out)["spherical"]
    scene = Container.open(out / "scene.p4d")
    told = scene.manifest
    assert (len(scene), told["fps"], told["generator"]) == (4, report["outputs"]["fps"], f"pano4d {pano4d.__version__}")
    assert told["source"] == {"name": "p.png", "sha256": report["inputs"]["panorama_sha256"]} and told["licence"] is None
    counts = [told["static"]["gaussians"], told["moving"][3]["gaussians"]]
    assert counts == [report["splats"]["static"], report["splats"]["moving"]]
    assert report["splats"]["container_bytes"] == (out / "scene.p4d").stat().st_size < report["splats"]["bytes"]
    exact = read_ply(out / "splats" / "frame_0002.ply")
    lowest = np.sort(exact.means[:, 1])
    np.testing.assert_allclose(np.sort(scene.frame(2).means[:, 1]), lowest, atol=told["near_m"] / 1024)


def test_every_field_of_the_report_is_documented(files, fake_bundle, root):
    report = pano4d.generate(files / "p.png", files / "out", mask=files / "m.png", bundle=fake_bundle,
                             settings=pano4d.AnimateSettings(**SIZE), gaussians=100)
    page = (root / "docs" / "report.md").read_text(encoding="utf-8")
    blocks = [report, *(report[name] for name in ("inputs", "outputs", "bundle", "tiles", "quality", "splats")),
              report["stages"][0], report["sampling"][0]]
    missing = {field for block in blocks for field in block if f"`{field}`" not in page}
    assert not missing


@pytest.mark.parametrize("command, missing", [
    ("generate", set()), ("animate", {"hole_percent", "splat_bytes_per_frame"}),
    ("lift", {"seam_ratio", "tile_border_ratio", "pole_ratio", "static_drift", "ws_psnr_db", "ws_ssim", "motion",
              "motion_max", "flicker", "loop_ratio", "video_bytes_per_frame"})])
def test_a_result_is_checked(files, run, command, missing):
    if command == "lift":
        assert run("animate", "p.png", "--mask", "m.png", out="video").exit_code == 0
    source = "video/frames" if command == "lift" else "p.png"
    gaussians = [] if command == "animate" else ["--gaussians", "500"]
    assert run(command, source, "--mask", "m.png", *gaussians).exit_code == 0
    done = CliRunner().invoke(cli, ["inspect", str(files / "out"), "--check", "--json"])
    result = json.loads(done.stdout)
    assert {row["figure"] for row in result["not_computed"]} == missing
    assert done.exit_code == (0 if result["ok"] else 3) and (files / "out" / "report.html").stat().st_size > 1000
    values = {row["figure"]: row["value"] for row in result["figures"]}
    assert values.get("static_drift", 0) == 0 and values.get("ws_psnr_db", 100) == 100
    assert run(command, source, "--mask", "m.png", *gaussians, "--overwrite").exit_code == 0
    assert not (files / "out" / "report.html").exists()  # it was of the former result


def test_a_looped_run_says_so(files, run):
    assert run("animate", "p.png", "--mask", "m.png", "--loop").exit_code == 0
    report = json.loads((files / "out" / "report.json").read_text())
    assert report["settings"]["loop"] and report["quality"]["loop_ratio"] > 0


@pytest.fixture
def depth_model(files):
    """A depth model whose disparity is the mean of the normalised channels, plus 3."""
    pytest.importorskip("onnx")
    from test_depth_onnx import save_model

    return save_model(files / "depth.onnx", properties={"pano4d.kind": "affine-inverse"})


def test_a_depth_model_is_run_and_reported(files, run, depth_model, root):
    done = run("generate", "p.png", "--mask", "m.png", "--gaussians", 300, "--depth-model", "depth.onnx", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["splats"]["depth"] == "estimated" and report["depth"]["kind"] == "affine-inverse"
    assert "depth" in [stage["name"] for stage in report["stages"]]
    page = (root / "docs" / "report.md").read_text(encoding="utf-8")
    assert not {field for field in report["depth"] if f"`{field}`" not in page}


def test_a_folder_of_maps_serves_every_frame(files, run):
    (files / "maps").mkdir()
    for number in range(4):
        np.save(files / "maps" / f"{number}.npy", np.full((64, 128), 2.0 + number))
    assert run("generate", "p.png", "--mask", "m.png", "--gaussians", 300, "--depth", "maps").exit_code == 0
    assert json.loads((files / "out" / "report.json").read_text())["splats"]["depth"] == "given"


def test_a_batch_finds_folders_of_maps(files, fake_bundle):
    (files / "set").mkdir()
    (files / "p.png").rename(files / "set" / "p.png")
    (files / "maps" / "p").mkdir(parents=True)
    for number in range(4):
        np.save(files / "maps" / "p" / f"{number}.npy", np.full((64, 128), 2.0))
    result = pano4d.generate(files / "set", files / "out", bundle=fake_bundle, depth=files / "maps", gaussians=100,
                             settings=pano4d.AnimateSettings(**SIZE))
    assert not result["failed"] and result["scenes"][0]["splats"]["depth"] == "given"


def test_lift_takes_the_frames_of_a_run(files, run):
    assert run("animate", "p.png", "--mask", "m.png").exit_code == 0
    done = run("lift", "out/frames", "--mask", "m.png", "--gaussians", 300, "--json", out="lifted")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["splats"]["files"], report["splats"]["gaussians"], report["outputs"]["width"]) == (4, 300, 128)
    names = sorted(path.name for path in (files / "lifted").iterdir())
    assert names == ["preview.jpg", "report.json", "scene.p4d", "splats"]


def test_a_video_that_is_lifted_keeps_its_pace(files, run):
    assert run("animate", "p.png", "--fps", 9).exit_code == 0
    done = run("lift", "out/video.mp4", "--gaussians", 300, "--licence", "CC0", "--json", out="lifted")
    told = Container.open(files / "lifted" / "scene.p4d").manifest
    assert json.loads(done.stdout)["outputs"]["fps"] == told["fps"] == 9 and told["licence"] == "CC0"
    assert told["source"]["name"] == "video.mp4" and read_fps(files / "out" / "frames") is None
    assert read_fps(files / "text.png") is None


def test_a_page_is_written_when_asked_for(files, run):
    assert run("generate", "p.png", "--gaussians", 300, "--html").exit_code == 0
    page, report = files / "out" / "scene.html", json.loads((files / "out" / "report.json").read_text())
    assert report["splats"]["html_bytes"] == page.stat().st_size and report["stages"][-2]["name"] == "html"
    text = page.read_text(encoding="utf-8")
    assert "<title>out · pano4d</title>" in text
    assert re.findall('data-name="([^"$]+)" ', text) == ["static.spz", *(f"moving_{i:04d}.spz" for i in range(4)), "video.mp4",
                                                      "viewer.js.gz"]
    for source, has_video in (("out/video.mp4", True), ("out/frames", False)):
        assert run("lift", source, "--gaussians", 300, "--html", "--deltas", "--overwrite", out="lifted").exit_code == 0
        assert ('data-name="video.mp4"' in (files / "lifted" / "scene.html").read_text(encoding="utf-8")) is has_video
    assert run("lift", "out/frames", "--gaussians", 300, "--overwrite", out="lifted").exit_code == 0
    assert not (files / "lifted" / "scene.html").exists()


def test_other_codecs_and_frames_hold_the_same_pictures(files, run):
    assert run("generate", "p.png", "--mask", "m.png", "--gaussians", 300).exit_code == 0
    options = ["--codec", "h265", "--bits", 10, "--frames", "exr"]
    assert run("generate", "p.png", "--mask", "m.png", "--gaussians", 300, *options, out="other").exit_code == 0
    assert [path.suffix for path in (files / "other" / "frames").iterdir()] == [".exr"] * 4
    np.testing.assert_array_equal(read_video(files / "other" / "frames"), read_video(files / "out" / "frames"))
    told = pano4d.inspect(files / "other")
    assert told["spherical"]["v2"] and {**told["outputs"], "fps": 7} == {
        "width": 128, "height": 64, "frames": 4, "fps": 7, "codec": "h265", "bits": 10, "frame_files": "exr"}
    assert run("lift", "other/frames", "--mask", "m.png", "--gaussians", 300, out="lifted").exit_code == 0
    for path in (files / "out" / "splats").iterdir():
        assert path.read_bytes() == (files / "lifted" / "splats" / path.name).read_bytes()
    for option, value in (("--codec", "vp9"), ("--bits", 9), ("--frames", "jpg")):
        done = run("animate", "p.png", option, value, out="none")
        assert done.exit_code == 1 and option in done.stderr and not (files / "none").exists()


def test_lifting_afterwards_gives_the_same_splats(files, run):
    assert run("generate", "p.png", "--mask", "m.png", "--gaussians", 300).exit_code == 0
    assert run("lift", "out/frames", "--mask", "m.png", "--gaussians", 300, out="lifted").exit_code == 0
    for path in (files / "out" / "splats").iterdir():
        assert path.read_bytes() == (files / "lifted" / "splats" / path.name).read_bytes()


def test_a_folder_is_a_batch(files, run):
    (files / "set").mkdir()
    for name, source in (("a.png", "p.png"), ("a_mask.png", "m.png"), ("b.png", "text.png")):
        (files / "set" / name).write_bytes((files / source).read_bytes())
    done = run("animate", "set", "--json")
    assert done.exit_code == 1 and done.stderr.startswith("error: ") and "b.png" in done.stderr
    assert [scene["inputs"]["mask"] for scene in json.loads(done.stdout)["scenes"]] == ["a_mask.png"]
    assert [path.name for path in (files / "out").iterdir()] == ["a"]


@pytest.mark.parametrize("source, options, words", [
    ("nowhere.png", [], "nowhere.png"),
    ("text.png", [], "text.png"),
    ("cut.png", [], "cut.png"),
    ("wide.png", [], "--allow-aspect"),
    ("p.png", ["--max-pixels", "1000"], "--max-pixels"),
    ("p.png", ["--mask", "wide_mask.png"], "wide_mask.png"),
    ("p.png", ["--mask", "black.png"], "black.png"),
    ("p.png", ["--depth", "depth.txt"], "depth.txt"),
    ("p.png", ["--depth", "p.png", "--depth-model", "prior"], "maps or a model"),
    ("p.png", ["--depth-kind", "metric"], "--depth-model"),
    ("p.png", ["--depth-model", "nowhere"], "no depth model"),
    ("p.png", ["--depth-model", "."], "config.json"),
    ("p.png", ["--backend", "abacus"], "abacus"),
    ("p.png", ["--fp16"], "fp32"),
    ("p.png", ["--size", "100x100"], "1024x512"),
])
def test_bad_input_gets_one_line_and_nothing_is_written(files, run, source, options, words):
    done = run("generate", source, *options)
    assert done.exit_code == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and words in done.stderr
    assert not (files / "out").exists()


def test_a_changed_bundle_writes_nothing(files, run, fake_bundle):
    (fake_bundle / "none").write_bytes(b"\0")
    done = run("generate", "p.png")
    assert done.exit_code == 1 and done.stderr.startswith("error: ") and not (files / "out").exists()
    with pytest.raises(BundleError):
        pano4d.animate(files / "p.png", files / "out", bundle=fake_bundle)


def test_an_occupied_folder_is_left_alone(files, run):
    (files / "out").mkdir()
    (files / "out" / "report.json").write_text("mine")
    done = run("generate", "p.png")
    assert done.exit_code == 1 and "--overwrite" in done.stderr
    assert (files / "out" / "report.json").read_text() == "mine"
    assert run("generate", "p.png", "--overwrite").exit_code == 0
    assert (files / "out" / "report.json").read_text() != "mine"


def test_a_video_that_is_no_panorama_is_refused(files):
    (files / "frames").mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(files / "frames" / "frame_0000.png")
    with pytest.raises(InputError, match="twice as wide"):
        pano4d.lift(files / "frames", files / "out")
    assert not (files / "out").exists()
