"""Offer the library on the command line: parse, make one library call, print."""

import json
import signal
import sys
import traceback
from pathlib import Path
from typing import Any


def _adopt_checkout() -> None:
    """Make the folder of this file importable as pano4d, whatever its name is."""
    import importlib.util

    root = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location("pano4d", root / "__init__.py", submodule_search_locations=[str(root)])
    sys.modules["pano4d"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["pano4d"])
    # Python put the checkout first on the path, where its rooms would shadow packages of the same name.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != root]


if __name__ == "__main__" and __spec__ is None:
    _adopt_checkout()

import click  # noqa: E402

import pano4d  # noqa: E402
from pano4d.runtime.amounts import parse_bytes, parse_count  # noqa: E402
from pano4d.runtime.errors import DeviceMemoryError  # noqa: E402
from pano4d.runtime.progress import stage_bars  # noqa: E402
from pano4d.runtime.settings import LEVELS, MASK_POLICIES, SOLVERS, STAGES  # noqa: E402

_DEBUG = "pano4d.debug"
_INTERRUPTED = 130
_TERMINATED = 143
_PAST = 3
_PLAN = ("workspace_bytes", "optimization_level", "refit", "version_compatible", "strip", "weight_streaming")
_BRIEF = ("key", "model", "precision", "parity", "renderer", "scene", "outputs", "tiles", "quality", "splats", "seconds",
          "stages")
_FIGURE_COLUMNS = ("figure", "value", "frame", "at_least", "at_most", "ok", "unit")


class _Shell(click.Group):
    """Show what went wrong as one line, and the trace only with --debug."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; exit codes: 1 for an error, 2 for wrong usage, 3 past a threshold, 130 for Ctrl-C."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(_INTERRUPTED)
        except Exception as error:
            if not isinstance(error, (pano4d.Pano4DError, OSError, MemoryError)) and not _is_full_gpu(error):
                raise
            if ctx.meta.get(_DEBUG):
                traceback.print_exc()
            click.echo(f"error: {_sentence(error)}", err=True)
            ctx.exit(1)


class _Size(click.ParamType):
    """A size such as 1024x512."""

    name = "WxH"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        """Split into width and height, in pixels."""
        width, cross, height = str(value).partition("x")
        if not (cross and width.isdecimal() and height.isdecimal()):
            self.fail(f"{value!r} is no size; write for instance 1024x512.", param, ctx)
        return int(width), int(height)


class _Bytes(click.ParamType):
    """An amount of memory such as 24GB."""

    name = "AMOUNT"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Count the bytes."""
        try:
            return parse_bytes(str(value))
        except pano4d.Pano4DError as error:
            self.fail(str(error), param, ctx)


class _Count(click.ParamType):
    """A large number such as 1M."""

    name = "COUNT"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Read the number."""
        try:
            return parse_count(str(value))
        except pano4d.Pano4DError as error:
            self.fail(str(error), param, ctx)


class _Setting(click.ParamType):
    """A name and its value, such as max_autotune=true."""

    name = "NAME=JSON"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, Any]:
        """Split into the name and what its JSON says."""
        name, equals, text = str(value).partition("=")
        try:
            if name and equals:
                return name, json.loads(text)
        except ValueError:
            pass
        self.fail(f"{value!r} is no name with a value in JSON; write for instance max_autotune=true.", param, ctx)


class _Interval(click.ParamType):
    """A range of noise levels such as 1:50."""

    name = "LO:HI"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, float]:
        """Split into the lower and the upper level."""
        low, _, high = str(value).partition(":")
        try:
            return float(low), float(high)
        except ValueError:
            self.fail(f"{value!r} is no interval; write for instance 1:50.", param, ctx)


def _options(*options):
    """Put several options on a command, in the order given."""
    def decorate(command):
        for option in reversed(options):
            command = option(command)
        return command
    return decorate


def _path_option(*names: str, **more: Any):
    return click.option(*names, type=click.Path(path_type=Path), **more)


def _remember_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta[_DEBUG] = value


_json = click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
_debug = click.option("--debug", is_flag=True, expose_value=False, callback=_remember_debug,
                      help="Show the trace of an error.")
_talk = _options(_json, _debug, click.option("--quiet", is_flag=True, help="Print nothing but errors."))
_out = _path_option("--out", required=True, help="Folder to write.")
_mask = _path_option("--mask", help="Picture whose non-black pixels may move; for a batch, a folder of <name>.png.")
_vram_limit = click.option("--vram-limit", "vram_limit_bytes", type=_Bytes(), metavar="AMOUNT",
                           help="GPU memory to stay within, such as 24GB or 800MiB.  [default: all there is]")
_encoding = _options(
    click.option("--codec", metavar="h264|h265", help="Codec of the video: h265 is smaller, h264 plays everywhere.  [default: h264]"),
    click.option("--bits", type=int, metavar="8|10", help="Bits of the video's colours.  [default: 8]"))
_overwrite = click.option("--overwrite", is_flag=True, help="Replace earlier results, once the new ones are complete.")
_resume = click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
_lifting = _options(
    _path_option("--depth", help="Ray distance per pixel: 16-bit PNG, NPY or EXR, or a folder of one for each frame; for "
                                 "a batch, a folder of these."),
    click.option("--depth-scale", type=float, help="Metres per unit of --depth.  [default: 0.001 for PNG, else 1]"),
    click.option("--depth-model", metavar="DIR|FILE.onnx|prior",
                 help="Estimate depth with a model of transformers, an ONNX file, or without a model."),
    click.option("--depth-kind", type=click.Choice(["metric", "scale-invariant", "affine-inverse"]),
                 help="What --depth-model tells.  [default: as it declares]"),
    click.option("--depth-geometry", type=click.Choice(["ray", "z"]),
                 help="Whether it tells distance along the ray or depth along the axis.  [default: as it declares, or z]"),
    click.option("--gaussians", type=_Count(), metavar="COUNT",
                 help="Gaussians per frame, such as 500k or 2M.  [default: a quarter of the pixels, at most 1M]"),
    click.option("--iterations", type=click.IntRange(min=0),
                 help="Steps of optimising Gaussians; 0: leave them as placed.  [default: 600 on a GPU with gsplat, else 0]"),
    click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda", help="Where to estimate depth and optimise."),
    click.option("--deltas", is_flag=True, help="Store frames of scene.p4d as what differs from a keyframe, where smaller."),
    click.option("--licence", metavar="TEXT", help="What scene.p4d says of its licence."),
    click.option("--html", is_flag=True, help="Write scene.html too: one file that plays the scene in any browser, offline."))
_animating = _options(
    _mask, _out,
    click.option("--size", type=_Size(), metavar="WxH", default="1024x512", show_default=True, help="Size of the result."),
    _path_option("--bundle", help="Engine bundle.  [default: the demo model]"),
    click.option("--backend", help="What runs the engines; `pano4d doctor` lists them.  [default: the bundle's]"),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another seed, other motion."),
    click.option("--steps", type=click.IntRange(min=1), help="Denoising steps.  [default: the bundle's]"),
    click.option("--solver", type=click.Choice(SOLVERS), help="How a step is taken.  [default: the bundle's]"),
    click.option("--levels", type=click.Choice(LEVELS), help="Noise levels of the steps.  [default: the bundle's]"),
    click.option("--layout", default="auto", show_default=True,
                 help="Where tiles lie: fewest takes fewer of them, which overlap less; others by name, as rings-42.9."),
    click.option("--stages", type=click.Choice(STAGES), default="single", show_default=True,
                 help="coarse-fine animates with wide tiles first and refines that."),
    click.option("--mask-policy", type=click.Choice(MASK_POLICIES), default="freeze", show_default=True,
                 help="freeze keeps still pixels bit for bit; trained and soft only tell the model."),
    click.option("--motion", "motion_bucket_id", type=click.IntRange(min=0),
                 help="Amount of motion (motion bucket).  [default: the bundle's]"),
    click.option("--guidance-interval", type=_Interval(), metavar="LO:HI",
                 help="Noise levels with guidance; other steps cost half.  [default: all]"),
    click.option("--loop", is_flag=True, help="Fade the second half back into the first frame, so that the video closes."),
    click.option("--fps", type=click.IntRange(min=1), help="Frames per second.  [default: the bundle's]"),
    _encoding,
    click.option("--frames", metavar="png|exr", help="Files of the single frames; exr: linear light.  [default: png]"),
    click.option("--fp16", is_flag=True, help="Refuse a bundle of another precision than fp16."),
    click.option("--allow-aspect", is_flag=True, help="Take a picture that is not 2:1."),
    click.option("--max-pixels", type=click.IntRange(min=1), help="Largest picture to read.  [default: 134217728]"),
    _vram_limit, _overwrite, _resume, _talk)


@click.group(cls=_Shell, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(pano4d.__version__, "--version", prog_name="pano4d")
def cli() -> None:
    """Turn one panorama into a moving 4D scene."""


@cli.command()
@click.argument("panorama", type=click.Path(path_type=Path))
@_lifting
@_animating
def generate(panorama: Path, **options: Any) -> None:
    """Animate a panorama and lift it to 3D Gaussians.

    PANORAMA is an equirectangular picture, or a folder of them: a batch, one scene each in OUT/NAME.
    """
    _run(pano4d.generate, panorama, **_settled(options))


@cli.command()
@click.argument("panorama", type=click.Path(path_type=Path))
@_animating
def animate(panorama: Path, **options: Any) -> None:
    """Animate a panorama into a panoramic video.

    PANORAMA is an equirectangular picture, or a folder of them: a batch, one video each in OUT/NAME.
    """
    _run(pano4d.animate, panorama, **_settled(options))


@cli.command()
@click.argument("video", type=click.Path(path_type=Path))
@_options(_mask, _out, _lifting, click.option("--seed", type=int, default=0, show_default=True,
                                              help="Of the views that are compared."), _overwrite, _resume, _talk)
def lift(video: Path, **options: Any) -> None:
    """Lift a panoramic video to 3D Gaussians.

    VIDEO is an equirectangular video file, a GIF or a folder of PNG frames.
    """
    _run(pano4d.lift, video, **options)


@cli.command()
@click.argument("scene", type=click.Path(path_type=Path))
@_path_option("--out", required=True, help="Video to write, ending in .mp4, or a folder for PNG frames.")
@click.option("--path", default="orbit", show_default=True, metavar="orbit|dolly|still|FILE.json",
              help="How the camera moves: around the centre, ahead through it, not at all, or through keyframes.")
@click.option("--seconds", type=float, help="Length of the video.  [default: 6, or what the file of --path takes]")
@click.option("--frames", type=click.IntRange(min=1), help="Length of the video in frames, instead.")
@click.option("--fps", type=float, help="Frames per second of the video.  [default: 24]")
@click.option("--fov", "fov_deg", type=float, default=75.0, show_default=True,
              help="Field of view over the width, degrees.")
@click.option("--size", type=_Size(), metavar="WxH",
              help="Size of the picture, of each eye with --stereo.  [default: 1280x720, of a panorama 2048x1024]")
@click.option("--projection", type=click.Choice(["perspective", "equirectangular"]), default="perspective",
              show_default=True, help="equirectangular draws a panorama from every place of the path.")
@click.option("--stereo", is_flag=True, help="A pair side by side, left eye left.")
@click.option("--ipd", "ipd_m", type=float, default=0.063, show_default=True, help="Metres between the eyes.")
@click.option("--radius", type=float, default=0.25, show_default=True,
              help="How far orbit and dolly go from the centre, over the distance of what is near.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
              help="Where to draw; auto takes a GPU if torch sees one.")
@_options(_encoding, _overwrite, _talk)
def render(scene: Path, out: Path, overwrite: bool, as_json: bool, quiet: bool, **options: Any) -> None:
    """Render a scene to a video while a camera moves.

    SCENE is the output folder of a run, a .p4d scene, a folder of PLY files, or one file of Gaussians.
    """
    from pano4d.lifting.render_settings import RenderSettings
    from pano4d.lifting.scene import render as render_scene

    options = {name: value for name, value in options.items() if value is not None}
    _run(render_scene, scene, out, as_json, quiet, settings=RenderSettings(**options), overwrite=overwrite)


@cli.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--frame", type=click.IntRange(min=0), default=0, show_default=True, help="Which frame of a scene.")
@click.option("--sh3", is_flag=True, help="Write all harmonics up to degree 3, zero where there are none.")
@_options(_overwrite, _talk)
def convert(source: Path, out: Path, **options: Any) -> None:
    """Convert Gaussians to another format.

    SOURCE is a .ply, .splat, .spz or .sog file, a .p4d scene, or the output folder of a run. OUT ends in one of the first
    four.
    """
    from pano4d.lifting.convert import convert as convert_file

    _run(convert_file, source, out, **options)


@cli.command()
@click.argument("scene", type=click.Path(path_type=Path))
@_path_option("--export", help="Write one HTML file that needs no network and no pano4d, instead of serving.")
@_path_option("--video", help="Panoramic video to show beside the scene, an MP4 file.  [default: the run's video.mp4]")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port to serve on.  [default: any that is free]")
@click.option("--no-browser", is_flag=True, help="Print the address, open nothing.")
@_options(_overwrite, _talk)
def view(scene: Path, export: Path | None, video: Path | None, port: int, no_browser: bool, overwrite: bool, as_json: bool,
         quiet: bool) -> None:
    """Look at a scene in a browser.

    SCENE is the output folder of a run, a .p4d scene, a folder of PLY files, or one file of Gaussians. The page is served on this
    machine alone until Ctrl-C.
    """
    from pano4d.lifting.viewer.export import export_html
    from pano4d.lifting.viewer.serve import serve

    if export is None:
        serve(scene, video=video, port=port, browser=not no_browser,
              tell=lambda url: quiet or click.echo(json.dumps({"url": url}) if as_json else url))
        return
    figures = export_html(scene, video, export, overwrite=overwrite)
    if not quiet:
        _print(figures, as_json)


@cli.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@_out
@_path_option("--unet", help="Take the denoiser of this .safetensors file, such as AnimateLCM's.")
@click.option("--lora", "loras", multiple=True, metavar="FILE[:SCALE]",
              help="Merge a LoRA into the denoiser, as much of it as SCALE says; may be repeated.  [default scale: 1]")
@click.option("--backend", default="onnxruntime", show_default=True, help="What will run the engines.")
@click.option("--precision", type=click.Choice(["fp16", "fp32", "fp8"]), default="fp16", show_default=True,
              help="Precision of the engines; fp8: the denoiser's matrix products, on a GPU.")
@click.option("--fp8", "precision", flag_value="fp8", help="The same as --precision fp8.")
@click.option("--calibration", type=click.Path(path_type=Path), multiple=True, metavar="PICTURE",
              help="A panorama to find the scales of tensorrt's fp8 on; may be repeated.  [default: a drawn one]")
@click.option("--tile-px", type=click.IntRange(min=8), help="Side of a tile.  [default: the checkpoint's]")
@click.option("--frames", type=click.IntRange(min=1), help="Frames of a video.  [default: the checkpoint's]")
@click.option("--tile-batch", type=click.IntRange(min=1), help="Tiles run at once.  [default: 1, or what --vram-limit lets]")
@_vram_limit
@click.option("--device", type=click.Choice(["cuda", "cpu"]),
              help="What aotinductor compiles for.  [default: cuda where torch sees a GPU]")
@click.option("--option", "options", type=_Setting(), multiple=True, metavar="NAME=JSON",
              help="An option of Inductor, for aotinductor, such as max_autotune=true; may be repeated.")
@click.option("--workspace", "workspace_bytes", type=_Bytes(), metavar="AMOUNT",
              help="GPU memory a kernel of tensorrt may use beside its operands.  [default: all there is]")
@click.option("--optimization-level", type=click.IntRange(0, 5),
              help="How long tensorrt looks for faster kernels.  [default: 3]")
@click.option("--refit", is_flag=True, help="Let other weights be put into plans of tensorrt when they are loaded.")
@click.option("--version-compatible", is_flag=True, help="Let newer versions of tensorrt run the plans.")
@click.option("--strip", is_flag=True, help="Keep the weights beside the plans of tensorrt.")
@click.option("--weight-streaming", is_flag=True, help="Let weights of tensorrt stay in host memory; slower.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True,
              help="Networks exported at once, each in a process of its own.")
@click.option("--max-guidance-scale", type=click.FloatRange(min=1.0),
              help="Guidance of the last frame; 1 halves the work.  [default: the checkpoint's]")
@click.option("--force", is_flag=True, help="Replace another bundle.")
@_talk
def build(checkpoint: Path, **options: Any) -> None:
    """Export a checkpoint to an engine bundle.

    CHECKPOINT is a Stable Video Diffusion folder in the layout of diffusers, a single .safetensors file in the layout of
    Stability AI, or ORG/NAME@COMMIT of the Hugging Face hub. Needs pano4d[build].
    """
    plan = {name: options.pop(name) for name in _PLAN}
    chosen = {name: value for name, value in plan.items() if value is not None and value is not False}
    options["options"] = dict(options["options"]) | chosen or None
    _run(lambda *args, **more: pano4d.build_bundle(*args, **more).manifest, checkpoint, **options)


@cli.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--size", type=_Size(), metavar="WxH", help="Say what memory of the GPU a run of this size takes.")
@click.option("--moving-tiles", type=click.IntRange(min=1), help="Tiles that move, with --size.  [default: all]")
@click.option("--check", "checking", is_flag=True,
              help="Hold a result's figures against thresholds and write report.html; exits with 3 past one.")
@_path_option("--panorama", help="With --check, the input picture.  [default: the one the report names]")
@_path_option("--mask", help="With --check, its mask.  [default: the one the report names]")
@_path_option("--thresholds", help="With --check, a TOML or JSON file of other thresholds.")
@_options(_json, _debug)
@click.pass_context
def inspect(ctx: click.Context, path: Path, size: tuple[int, int] | None, moving_tiles: int | None, checking: bool,
            panorama: Path | None, mask: Path | None, thresholds: Path | None, as_json: bool) -> None:
    """Describe and check a bundle, a result or a scene.

    PATH is an engine bundle, the output folder of a run, or a .p4d scene.
    """
    if checking:
        if size or moving_tiles:
            raise click.UsageError("--check is of a result, and --size and --moving-tiles plan a run of a bundle.")
        ctx.exit(_check(path, as_json, panorama=panorama, mask=mask, limits=thresholds))
    if panorama or mask or thresholds:
        raise click.UsageError("--panorama, --mask and --thresholds need --check.")
    settings = pano4d.AnimateSettings(width=size[0], height=size[1]) if size else None
    _print(pano4d.inspect(path, settings, moving_tiles), as_json)


@cli.command()
@_path_option("--bundle", help="Engine bundle to check.  [default: the demo model]")
@_options(_json, _debug)
@click.pass_context
def doctor(ctx: click.Context, bundle: Path | None, as_json: bool) -> None:
    """Say what can run here, and what is missing.

    Exits with 0 if `generate` can work on this machine.
    """
    figures = pano4d.doctor(bundle)
    _print(figures, as_json)
    ctx.exit(0 if figures["ok"] else 1)


def _check(path: Path, as_json: bool, **options: Any) -> int:
    """Check a result, print the figures, and return the exit code."""
    from pano4d.lifting.scene import check

    with stage_bars(as_json) as progress:
        result = check(path, progress=progress, **options)
    if as_json:
        _print(result, as_json)
    else:
        rows = [{name: row[name] for name in _FIGURE_COLUMNS} for row in result["figures"]]
        judged = f"{len(rows)} of {len(rows) + len(result['not_computed'])} figures"
        told = {name: result[name] for name in ("page", "notes", "not_computed")}
        _print({"ok": result["ok"], "judged": judged, **told, "figures": rows}, as_json)
    return 0 if result["ok"] else _PAST


def _settled(options: dict[str, Any]) -> dict[str, Any]:
    """Gather what describes the animation into settings, and leave out what was not given."""
    width, height = options.pop("size")
    names = ("seed", "steps", "solver", "levels", "layout", "stages", "mask_policy", "motion_bucket_id",
             "guidance_interval", "fps", "loop")
    settings = pano4d.AnimateSettings(width=width, height=height, **{name: options.pop(name) for name in names})
    options["precision"] = "fp16" if options.pop("fp16") else None
    return {**options, "settings": settings}


def _run(job: Any, source: Path, out: Path, as_json: bool, quiet: bool, **options: Any) -> None:
    """Run a job with progress bars and print its report."""
    with stage_bars(quiet) as progress:
        report = job(source, out, progress=progress, **options)
    if as_json:
        _print(report, as_json)
    elif not quiet:
        _print({"out": str(out), **_brief(report)}, as_json)
    failed = report.get("failed", ())
    for failure in failed:
        click.echo(f"error: {failure['error']}", err=True)
    if failed:
        click.get_current_context().exit(1)


def _brief(report: dict) -> dict:
    """Pick what a person wants to see at the end of a run; the whole stands in the files written."""
    brief = {name: report[name] for name in _BRIEF if name in report}
    if "scenes" in report:
        brief["scenes"] = [{"panorama": scene["inputs"]["panorama"], "seconds": scene["seconds"], **scene["quality"]}
                           for scene in report["scenes"]]
    notes = [note for part in (report, *report.get("scenes", ())) for note in part.get("inputs", {}).get("notes", ())]
    return {**brief, "notes": notes} if notes else brief


def _print(figures: dict, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(figures, indent=2, default=str))
        return
    from pano4d.runtime.tables import print_figures

    print_figures(figures)


def _sentence(error: BaseException) -> str:
    """Say in one line what went wrong."""
    if _is_full_gpu(error):
        return str(DeviceMemoryError())
    if isinstance(error, MemoryError) and not isinstance(error, pano4d.Pano4DError):
        return "out of memory: try a smaller --size"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _is_full_gpu(error: BaseException) -> bool:
    """Know the error that torch raises where a GPU is full, without importing torch."""
    return type(error).__name__ == "OutOfMemoryError"


def main() -> None:
    """Run the command line; SIGTERM unwinds as Ctrl-C does, so that nothing half-written stays."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    cli(prog_name="pano4d")


if __name__ == "__main__":
    main()
