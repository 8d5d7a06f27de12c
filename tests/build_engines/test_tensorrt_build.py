"""Building plans: options, errors, timings, progress, Ctrl-C; and whole bundles. TensorRT and the GPU are stand-ins."""

import hashlib
import json
import os
import signal
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from click.testing import CliRunner  # noqa: E402
from PIL import Image  # noqa: E402

from pano4d.build_engines import plan_options  # noqa: E402
from pano4d.build_engines.build import build_bundle  # noqa: E402
from pano4d.build_engines.plan_options import PlanOptions  # noqa: E402
from pano4d.build_engines.recipes import recipe_of  # noqa: E402
from pano4d.build_engines.tensorrt_build import build_plan, timing_cache  # noqa: E402
from pano4d.cli import cli  # noqa: E402
from pano4d.runtime.backends.base import NETWORKS, TensorSpec  # noqa: E402
from pano4d.runtime.bundle import Bundle  # noqa: E402
from pano4d.runtime.errors import BackendError, InputError, SettingsError  # noqa: E402
from pano4d.runtime.pipeline import Animator  # noqa: E402
from pano4d.runtime.settings import AnimateSettings  # noqa: E402


@pytest.fixture
def room(tensorrt_room, monkeypatch, tmp_path):
    """TensorRT is installed, and nothing was timed yet."""
    tensorrt_room.install(tensorrt_room.trt)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tensorrt_room


@pytest.fixture
def source(room, tmp_path):
    """An ONNX file of one operator."""
    import trt_room

    onnx.save(trt_room.scaled(), tmp_path / "scaled.onnx")
    return tmp_path / "scaled.onnx"


def built(source, exact=False, progress=lambda *_: None, **options):
    """Build a plan, and give what the stand-in has noted of how."""
    path = source.with_suffix(".plan")
    build_plan(source, path, PlanOptions(**options), exact, "stand-in GPU", progress)
    return json.loads(path.read_bytes().splitlines()[1])


def test_nothing_is_chosen_unless_asked(source):
    about = built(source)
    assert (about["flags"], about["pools"], about["level"]) == ([], {}, 3)


@pytest.mark.parametrize("options, flags", [
    ({"refit": True}, ["REFIT"]), ({"strip": True}, ["REFIT_IDENTICAL", "STRIP_PLAN"]),
    ({"strip": True, "refit": True}, ["REFIT", "STRIP_PLAN"]), ({"version_compatible": True}, ["VERSION_COMPATIBLE"]),
    ({"weight_streaming": True}, ["WEIGHT_STREAMING"])])
def test_every_option_sets_its_flags(source, options, flags):
    assert built(source, **options)["flags"] == flags


def test_limits_and_levels_are_passed_on(source):
    about = built(source, workspace_bytes=2**30, optimization_level=5)
    assert (about["pools"], about["level"]) == ({"WORKSPACE": 2**30}, 5)


def test_float32_is_not_rounded_to_tf32(room, source, monkeypatch):
    cleared = []
    monkeypatch.setattr(room.trt.IBuilderConfig, "clear_flag", lambda self, flag: cleared.append(flag.name))
    built(source)
    assert not cleared
    built(source, exact=True)
    assert cleared == ["TF32"]


@pytest.mark.parametrize("options, words", [
    ({"version_compatible": True, "strip": True}, "leave out --version-compatible, or --refit and --strip"),
    ({"optimization_level": 6}, "no optimisation level 6: give 0 to 5")])
def test_options_that_exclude_each_other_are_refused(options, words):
    with pytest.raises(BackendError, match=words):
        PlanOptions(**options)


def test_unknown_options_are_refused():
    with pytest.raises(BackendError, match="no option 'speed': choose from workspace_bytes, "):
        PlanOptions.of({"speed": 1})


def test_options_are_written_as_the_command_takes_them():
    assert PlanOptions().command() == ""
    chosen = PlanOptions(workspace_bytes=3 * 2**29, optimization_level=4, refit=True, weight_streaming=True)
    assert chosen.command() == " --workspace 1536MiB --optimization-level 4 --refit --weight-streaming"
    named = {option for param in cli.commands["build"].params for option in param.opts}
    assert set(chosen.command().split()) & {word for word in chosen.command().split() if word.startswith("--")} <= named


def test_the_parser_says_where_and_on_what(room, source):
    room.unsupported.add("Mul")
    with pytest.raises(BackendError, match=r"cannot read scaled.onnx at node 0 'product', Mul of \[2, 3\], \[2, 3\]: Assertion "
                                           r"failed: importer for Mul not found \(UNSUPPORTED_NODE\)\.") as caught:
        built(source)
    assert "\n" not in str(caught.value) and not source.with_suffix(".plan").exists()


def test_a_file_that_is_none_is_told(room, source):
    source.write_bytes(b"\x08\xff")
    with pytest.raises(BackendError, match=r"cannot read scaled.onnx: Failed to parse .*\(MODEL_DESERIALIZE_FAILED\)"):
        built(source)


@pytest.mark.parametrize("fails, words", [
    ("Builder", "does not start .CUDA initialization failure with error: 35.: check the GPU"),
    ("Builder crashes", "does not start .CUDA initialization failure with error: 35.: check the GPU"),
    ("build", "cannot build scaled.plan .Error Code 10.* allow more memory with --workspace")])
def test_a_build_that_fails_says_why(room, source, fails, words):
    room.gpu["fails"] = fails
    with pytest.raises(BackendError, match=words):
        built(source)
    assert not source.with_suffix(".plan").exists()


def test_timings_are_kept_for_the_gpu_and_the_version(room, source):
    path = timing_cache("stand-in GPU", room.version)
    assert path.name == f"stand-in-GPU_{room.version}.timings"
    built(source)
    assert path.read_bytes() == b"cache timed"
    built(source)
    assert path.read_bytes() == b"cache timed timed"
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"damaged", b"cache of other GPU"])
def test_timings_that_do_not_fit_are_measured_again(room, source, content):
    path = timing_cache("stand-in GPU", room.version)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    built(source)
    assert path.read_bytes() == b"cache timed"


def test_a_cache_that_cannot_be_written_does_not_stop_the_build(room, source, monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    assert built(source)["flags"] == []


def test_progress_is_told_by_phase(source):
    told = []
    built(source, progress=lambda *step: told.append(step))
    assert told == [("scaled", 0, 2), ("scaled", 1, 2), ("Timing", 0, 3), ("Timing", 1, 3), ("Timing", 2, 3), ("Timing", 3, 3),
                    ("scaled", 2, 2)]


def test_an_error_while_telling_stops_the_build_and_is_raised(source):
    def breaks(stage, done, total):
        if done == 1:
            raise BrokenPipeError("gone")

    told = []
    with pytest.raises(BrokenPipeError):
        built(source, progress=lambda *step: told.append(step) or breaks(*step))
    assert told[-1] == ("scaled", 1, 2) and not source.with_suffix(".plan").exists()


@pytest.fixture
def ctrl_c():
    """Python's own handler of Ctrl-C, whatever started the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number, raised", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_stops_the_build_at_its_next_step(room, source, number, raised):
    def leave(*_):
        raise SystemExit(143)

    before, told = signal.signal(signal.SIGTERM, leave), []
    try:
        with pytest.raises(raised):
            built(source, progress=lambda *step: told.append(step) or (len(told) == 4 and os.kill(os.getpid(), number)))
        assert signal.getsignal(signal.SIGTERM) is leave
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told[-1] == ("Timing", 1, 3) and not source.with_suffix(".plan").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler and signal.set_wakeup_fd(-1) == -1


@pytest.mark.usefixtures("ctrl_c")
def test_a_signal_is_seen_by_threads_of_tensorrt_while_the_main_one_waits(room, source, monkeypatch):
    """TensorRT may report from threads of its own; Python runs no handler there, nor in the main thread meanwhile."""
    import trt_behaviour

    results = []
    watched = trt_behaviour._watched

    def elsewhere(monitor):
        thread = threading.Thread(target=lambda: results.append(watched(monitor)))
        thread.start()
        thread.join()
        return results[0]

    def press(stage, done, total):
        if done == 1:
            # To this thread, where it has arrived when the call returns; to the process it may take its time.
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    monkeypatch.setattr(trt_behaviour, "_watched", elsewhere)
    with pytest.raises(KeyboardInterrupt):
        built(source, progress=press)
    assert results == [False]


def test_a_signal_that_is_ignored_stays_so(source, ctrl_c):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    about = built(source, progress=lambda *_: os.kill(os.getpid(), signal.SIGINT))
    assert about["flags"] == [] and signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_handler_that_raises_nothing_still_stops_the_build(source, ctrl_c):
    called = []
    signal.signal(signal.SIGINT, lambda *asked: called.append(asked[0]))
    with pytest.raises(KeyboardInterrupt):
        built(source, progress=lambda *_: os.kill(os.getpid(), signal.SIGINT))
    assert called == [signal.SIGINT] and not source.with_suffix(".plan").exists()


def test_outside_the_main_thread_signals_are_left_alone(room, source):
    results = []
    thread = threading.Thread(target=lambda: results.append(built(source)["flags"]))
    thread.start()
    thread.join()
    assert results == [[]]


@pytest.mark.parametrize("options, words", [
    ({"precision": "fp16", "calibration": ["a.jpg"]}, "fp16 of tensorrt has none: leave it out, or .* --backend tensorrt --fp8"),
    ({"device": "cpu"}, "are for a GPU: leave --device out"),
    ({"options": {"max_autotune": True}}, "no option 'max_autotune'")])
def test_what_plans_cannot_be_is_refused(room, options, words):
    with pytest.raises(BackendError, match=words):
        recipe_of("tensorrt", **{"precision": "fp16"} | options)


def test_plans_are_timed_one_at_a_time(room, masked, tmp_path):
    with pytest.raises(SettingsError, match="--jobs 2 would time plans .* leave --jobs out"):
        build_bundle(masked, tmp_path / "out", "tensorrt", jobs=2)


@pytest.mark.parametrize("backend", ["onnxruntime", "aotinductor"])
def test_options_of_plans_are_refused_elsewhere(backend):
    assert plan_options.NAMES == set(PlanOptions.__dataclass_fields__)
    with pytest.raises(BackendError, match="--workspace is an option of plans, .*build with --backend tensorrt"):
        recipe_of(backend, "fp16", "cpu", {"workspace_bytes": 1})


def test_fp8_needs_a_gpu_that_has_it(room):
    room.gpu["capability"] = "sm_80"
    with pytest.raises(BackendError, match="stand-in GPU computes nothing in fp8: choose --precision fp16, .* 8.9 or newer"):
        recipe_of("tensorrt", "fp8")


def test_the_pictures_of_a_calibration_change_the_key_whatever_they_are_called(room, tmp_path, panorama_pixels):
    for name, pixels in (("a.png", panorama_pixels), ("b.png", panorama_pixels), ("c.png", 255 - panorama_pixels)):
        Image.fromarray(pixels).save(tmp_path / name)
    drawn, one, other = (recipe_of("tensorrt", "fp8", calibration=given) for given in (
        [], [tmp_path / "a.png"], [tmp_path / "c.png"]))
    assert one.command == " --calibration a.png" and drawn.command == ""
    assert len({json.dumps(dict(recipe.options), sort_keys=True) for recipe in (drawn, one, other)}) == 3
    assert "tmp" not in json.dumps(dict(one.options)) and recipe_of("tensorrt", "fp16").options.get("calibration") is None
    with pytest.raises(InputError, match="missing.png"):
        recipe_of("tensorrt", "fp8", calibration=[tmp_path / "missing.png"])


@pytest.mark.parametrize("tensorrt_room", ["11.4"], indirect=True)
def test_a_denoiser_in_fp8_is_built_end_to_end(room, masked, tmp_path, panorama_pixels):
    Image.fromarray(panorama_pixels).save(tmp_path / "scene.png")
    done = CliRunner().invoke(cli, ["build", str(masked), "--out", str(tmp_path / "out"), "--backend", "tensorrt", "--fp8",
                                    "--calibration", str(tmp_path / "scene.png"), "--strip", "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    bundle = Bundle.open(tmp_path / "out")
    assert bundle.manifest["precision"] == {"weights": "float8", "compute": "float16"}
    picture, = bundle.manifest["build"]["options"]["calibration"]["pictures"]
    assert picture == {"name": "scene.png", "sha256": hashlib.sha256((tmp_path / "scene.png").read_bytes()).hexdigest()}
    assert bundle.manifest["build"]["command"].endswith("--tile-batch 1 --strip --calibration scene.png")
    counts = {name: [node.op_type for node in onnx.load(bundle.path / f"{name}.onnx").graph.node].count("QuantizeLinear")
              for name in NETWORKS}
    assert counts.pop("unet") > 10 and set(counts.values()) == {0}
    errors = {name: figures["relative_error"] for name, figures in bundle.manifest["parity"].items()}
    assert 3e-3 < errors["unet"] <= 5e-2 and max(errors[name] for name in counts) <= 1e-2


def test_every_option_of_plans_changes_the_key(room):
    plain = recipe_of("tensorrt", "fp16")
    for name, value in (("workspace_bytes", 1), ("optimization_level", 0), ("refit", True), ("version_compatible", True),
                        ("strip", True), ("weight_streaming", True)):
        assert recipe_of("tensorrt", "fp16", options={name: value}).options != plain.options, name
    room.gpu["capability"] = "sm_80"
    assert recipe_of("tensorrt", "fp16").options != plain.options


@pytest.mark.parametrize("tensorrt_room", ["10.16"], indirect=True)
def test_a_checkpoint_becomes_a_bundle_of_plans(room, masked, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("pano4d.build_engines.aot_export.driver_version", lambda: "580.1")
    bundle = build_bundle(masked, tmp_path / "out", "tensorrt", tile_batch=2, progress=lambda *step: told.append(step))
    manifest = bundle.manifest
    assert manifest["backend"] == {"name": "tensorrt", "version": room.version}
    assert manifest["precision"] == {"weights": "float16", "compute": "float16"}
    assert manifest["target"] == {
        "device": "cuda", "compute_capability": "9.0", "gpu": "stand-in GPU", "cuda": "13.0", "driver": "580.1",
        "plan": {"version_compatible": False, "stripped": False, "refittable": False, "weight_streaming": False}}
    assert set(manifest["networks"]) == set(NETWORKS)
    assert all(network["workspace_bytes"] > 4096 for network in manifest["networks"].values())
    assert all(0 < figures["relative_error"] <= 1e-2 for figures in manifest["parity"].values())
    assert {path.name for path in bundle.path.iterdir()} == {"manifest.json", *(f"{name}.plan" for name in NETWORKS)}
    types = {spec.name: spec.dtype for spec in bundle.network("unet").inputs}
    assert types == {"sample": "float16", "embeddings": "float16", "c_noise": "float32", "added_time_ids": "float32"}
    assert ("unet", 2, 2) in told and told[-1] == ("verify", 4, 4)


@pytest.mark.parametrize("tensorrt_room", ["11.4"], indirect=True)
def test_stripped_plans_come_with_their_weights_and_animate(room, masked, tmp_path, panorama_pixels):
    done = CliRunner().invoke(cli, ["build", str(masked), "--out", str(tmp_path / "out"), "--backend", "tensorrt", "--strip",
                                    "--workspace", "1GiB", "--optimization-level", "0", "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    bundle = Bundle.open(tmp_path / "out")
    assert {path.name for path in bundle.path.iterdir()} == {
        "manifest.json", *(f"{name}.{kind}" for name in NETWORKS for kind in ("plan", "onnx"))}
    assert bundle.manifest["build"]["command"].endswith("--tile-batch 1 --workspace 1024MiB --optimization-level 0 --strip")
    assert all(figures["relative_error"] <= 1e-2 for figures in bundle.manifest["parity"].values())
    assert (bundle.path / "unet.plan").stat().st_size < (bundle.path / "unet.onnx").stat().st_size
    _animates(room, bundle, build_bundle(masked, tmp_path / "cpu"), panorama_pixels, tmp_path)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_leaves_nothing(room, masked, tmp_path):
    (tmp_path / "bundles").mkdir()

    def press(stage, done, total):
        if stage == "Timing":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build_bundle(masked, tmp_path / "bundles" / "out", "tensorrt", progress=press)
    assert not list((tmp_path / "bundles").iterdir())


@pytest.mark.parametrize("precision, dtype", [("fp16", "float16"), ("fp32", "float32")])
def test_the_precision_decides_the_types_at_the_edge(room, precision, dtype):
    recipe = recipe_of("tensorrt", precision)
    assert recipe.precision == {"weights": dtype, "compute": dtype}
    specs = [TensorSpec(name, "float32", (1,)) for name in ("sample", "c_noise", "added_time_ids")]
    assert [spec.dtype for spec in recipe.typed(specs)] == [dtype, "float32", "float32"]


def _animates(room, plans, onnx_engines, panorama, folder):
    """Hold frames that plans make, with everything on the device, against those of ONNX engines on the CPU."""
    import trt_room

    kernels = trt_room.host_kernels(folder)
    if kernels is None:
        return
    room.monkeypatch.setattr("pano4d.runtime.kernels.compiler.load_kernels", kernels)
    mask = np.zeros((64, 128), bool)
    mask[16:48, 30:90] = True
    settings = AnimateSettings(width=128, height=64, steps=3, layout="faces")
    ours, theirs = (Animator(bundle, settings, device=device).animate(panorama, mask).frames.astype(int)
                    for bundle, device in ((plans, room.device()), (onnx_engines, None)))
    assert room.driver.launches and not room.driver.live
    assert (ours[:, ~mask] == panorama[~mask]).all() and ours[:, mask].std(axis=0).any()
    assert np.abs(ours - theirs)[:, mask].mean() < 1.0
