"""Join the rooms: animate panoramas, and lift what moves to 3D Gaussians.

The rest of `lifting` knows only the geometry and the files of `runtime`; this file, `scene_input`, `scene_lift`,
`scene_options` and the command line know both.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from pano4d import __version__
from pano4d.lifting import render_job
from pano4d.lifting.container import Container, ContainerWriter
from pano4d.lifting.drawing import open_renderer
from pano4d.lifting.holes import Holes, find_holes
from pano4d.lifting.job import LiftSettings, device_and_steps
from pano4d.lifting.lattice import default_count
from pano4d.lifting.render_settings import SCENE_FPS, RenderSettings
from pano4d.lifting.scene_files import closes, find_scene, is_container
from pano4d.lifting.scene_input import read_video_and_mask
from pano4d.lifting.scene_lift import DepthSource, lift_into
from pano4d.lifting.scene_options import AnimateOptions, GenerateOptions
from pano4d.lifting.viewer.export import export_html
from pano4d.runtime import image, inspection, job
from pano4d.runtime.batch import run_batch
from pano4d.runtime.bundle import Bundle, default_bundle_path
from pano4d.runtime.check import check as check_result
from pano4d.runtime.errors import BundleError, OutputError, SettingsError
from pano4d.runtime.files import sha256_of
from pano4d.runtime.outputs import OutputFolder, estimate_bytes
from pano4d.runtime.pipeline import Animation, Progress
from pano4d.runtime.report import StageTimer, write_report
from pano4d.runtime.settings import AnimateSettings
from pano4d.runtime.video import VideoSettings, read_fps, write_video

_PRECISIONS = {"float16": "fp16", "float32": "fp32", "float8": "fp8"}
_LIFTED = ("splats", "scene.p4d", "scene.html", "preview.jpg", "report.json", "report.html")


def generate(panorama: str | Path, out: str | Path, **options: Unpack[GenerateOptions]) -> dict:
    """Animate a panorama and lift every frame to 3D Gaussians.

    Args:
        panorama: Equirectangular picture, or a folder of them: one scene each, in ``out/<name>``.
        out: Folder to write: video.mp4, frames/, splats/, scene.p4d, preview.jpg, report.json; with ``html`` scene.html.
        **options: See `GenerateOptions`.

    Returns:
        What report.json holds; for a batch ``{"scenes": [report, ...], "failed": [{"panorama", "error"}, ...]}``.

    Raises:
        Pano4DError: An input, setting, bundle, backend or output cannot be used; nothing is written then.
    """
    return _each(_generate_one, panorama, out, options)


def animate(panorama: str | Path, out: str | Path, **options: Unpack[AnimateOptions]) -> dict:
    """Animate a panorama into a seamless panoramic video.

    Args:
        panorama: Equirectangular picture, or a folder of them: one scene each, in ``out/<name>``.
        out: Folder to write: video.mp4, frames/, report.json.
        **options: See `AnimateOptions`.

    Returns:
        What report.json holds, or the reports of a batch as for `generate`.

    Raises:
        Pano4DError: An input, setting, bundle, backend or output cannot be used; nothing is written then.
    """
    return _each(_animate_one, panorama, out, options)


def lift(video: str | Path, out: str | Path, *, mask: str | Path | None = None, depth: str | Path | None = None,
         depth_scale: float | None = None, depth_model: str | Path | None = None, depth_kind: str | None = None,
         depth_geometry: str | None = None, gaussians: int | None = None, iterations: int | None = None,
         device: str = "auto", deltas: bool = False, licence: str | None = None, html: bool = False, seed: int = 0,
         overwrite: bool = False, resume: bool = False, progress: Progress | None = None) -> dict:
    """Lift a panoramic video to 3D Gaussians, one set per frame.

    Args:
        video: Equirectangular video, GIF, or folder of PNG frames.
        out: Folder to write: splats/, scene.p4d, preview.jpg, report.json; with ``html`` scene.html.
        mask: Picture whose non-black pixels move, or one for each frame: folder, video or GIF; None: everything.
        depth: Distance along each pixel's ray, a file or a folder of one for each frame; None: guessed from the first
            frame.
        depth_scale: Metres per stored unit; None: 0.001 for PNG, 1 for NPY and EXR.
        depth_model: What estimates depth instead: folder of a depth model of transformers, .onnx file, or "prior".
        depth_kind: What the model tells: "metric", "scale-invariant" or "affine-inverse"; None: as it declares.
        depth_geometry: Whether of distance, "ray", or of depth along the axis, "z"; None: as it declares.
        gaussians: Count per frame; None: a quarter of the pixels, at most 1,000,000.
        iterations: Steps of optimisation of what does not move; 0 leaves Gaussians as placed; None: 600 on a GPU with
            gsplat, else 0.
        device: Where to estimate depth and to optimise: "auto", "cpu" or "cuda".
        deltas: Store frames of scene.p4d as what differs from a keyframe, where that is smaller.
        licence: What scene.p4d says of its licence.
        html: Write scene.html too, one file that plays the scene offline in a browser, and the video if that is an MP4.
        seed: Of the views that are compared.
        resume: Go on with an interrupted run.
        overwrite: Replace earlier results once the new ones are complete.
        progress: Called with stage, done, total.

    Returns:
        What report.json holds.

    Raises:
        Pano4DError: An input or the output cannot be used; nothing is written then.
    """
    frames, moving, inputs = read_video_and_mask(Path(video), mask)
    count, height, width, _ = frames.shape
    settings = LiftSettings(gaussians, iterations, device, seed)
    device_and_steps(settings)
    source = DepthSource(depth, depth_scale, depth_model, depth_kind, depth_geometry, height, width, count, device)
    each = gaussians or default_count(height, width)
    needed = estimate_bytes(count, 0, 0, gaussians=each)
    timer = StageTimer()
    fps = read_fps(video)
    origin = {"name": inputs["video"], "sha256": inputs["frames_sha256"]}
    writer = functools.partial(ContainerWriter, fps=fps or SCENE_FPS, source=origin, licence=licence, deltas=deltas)
    with OutputFolder(out, overwrite=overwrite, resume=resume, needs_bytes=needed, owns=_LIFTED) as folder:
        splats = lift_into(folder, frames, moving, source, settings, writer, timer, progress,
                           inputs["frames_sha256"])
        if html:
            splats["splats"]["html_bytes"] = _write_page(folder, video if Path(video).suffix.lower() == ".mp4" else None, timer)
        report = {"schema_version": job.REPORT_SCHEMA, "pano4d_version": __version__, "inputs": inputs,
                  "outputs": {"width": width, "height": height, "frames": count} | ({"fps": fps} if fps else {}), **splats,
                  "stages": timer.entries, "seconds": round(timer.total_seconds, 3)}
        write_report(folder.path("report.json"), report)
        folder.commit()
    return report


def render(scene: str | Path, out: str | Path, *, settings: RenderSettings = RenderSettings(), overwrite: bool = False,
           progress: Progress | None = None) -> dict:
    """Render a scene to a video while a camera moves through it.

    Args:
        scene: Result folder, .p4d scene, folder of PLY files, or one file of Gaussians.
        out: Video to write, ending in .mp4, or a folder for PNG frames.
        settings: Path of the camera, size, projection and so on.
        overwrite: Replace an earlier video, once the new one is complete.
        progress: Called with stage, done, total.

    Returns:
        ``renderer``, ``outputs`` (width, height, frames, fps), ``scene`` (frames, fps), ``near_m``, ``seconds``.

    Raises:
        Pano4DError: The scene, a setting or the output cannot be used; nothing is written then.
    """
    timer, out = StageTimer(), Path(out)
    width, height = settings.video_size
    found, fps = find_scene(Path(scene))
    first = found.frame(0)
    poses = render_job.plan(settings, first)
    _require_writable(out, width, height, overwrite)
    renderer = open_renderer(settings.device)
    with timer("render"):
        frames = render_job.render_frames(found, poses, settings, renderer, fps or SCENE_FPS, progress, closes(Path(scene)))
        if out.suffix:
            write_video(out, frames, settings.fps, spherical=settings.projection == "equirectangular",
                        settings=VideoSettings(settings.codec, settings.bits))
        else:
            _write_frames(out, frames, overwrite, estimate_bytes(len(poses), height, width))
    outputs = {"width": width, "height": height, "frames": len(poses), "fps": settings.fps}
    near_m = round(render_job.near_distance(first), 3)
    return {"renderer": renderer.name, "outputs": outputs,
            "scene": {"frames": len(found), "fps": fps or SCENE_FPS, "near_m": near_m},
            "seconds": round(timer.total_seconds, 3)}


def inspect(path: str | Path, settings: AnimateSettings | None = None, moving_tiles: int | None = None) -> dict:
    """Describe an engine bundle, the output folder of a run, or a .p4d scene, and check that it is complete.

    Args:
        path: Folder with a manifest.json or a report.json, or a scene.
        settings: Of a bundle, say too what a run with these settings takes of the memory of a GPU.
        moving_tiles: Tiles that such a run denoises; None for all.

    Returns:
        ``kind`` ("bundle", "output" or "scene") and what was found, ready for JSON; with settings ``memory``, in bytes.

    Raises:
        SettingsError: A size for something that is no bundle, or more moving tiles than there are.
        InputError: None of these, or a report or part of a scene that cannot be read.
        BundleError: A file of the bundle is missing or changed.
    """
    if not is_container(Path(path)):
        return inspection.inspect(path, settings, moving_tiles)
    if settings or moving_tiles:
        raise SettingsError(f"{path} is no engine bundle, and --size and --moving-tiles ask what a run of one takes: "
                            "leave them out.")
    scene = Container.open(path)
    manifest, size = dict(scene.manifest), scene.verify()
    moving = manifest.pop("moving")
    return {"kind": "scene", "path": str(path), "hashes": "every part is as it was written", **manifest,
            "static": manifest["static"]["gaussians"], "moving": max((entry["gaussians"] for entry in moving), default=0),
            "deltas": sum("keyframe" in entry for entry in moving), "mib": round(size / 2**20, 2)}


def check(path: str | Path, *, panorama: str | Path | None = None, mask: str | Path | None = None,
          limits: str | Path | None = None, progress: Progress | None = None) -> dict:
    """Check the output folder of a run: figures, thresholds, report.html.

    Args:
        path: The folder: of generate, animate or lift, or any with frames/, video.mp4 or splats/ in it.
        panorama: The input picture; None to look for the one that report.json names, by name and SHA-256.
        mask: Its mask; None likewise.
        limits: File of thresholds, TOML or JSON; None for the defaults.
        progress: Called with stage, done, total.

    Returns:
        As `runtime.check.check`.

    Raises:
        Pano4DError: There is nothing to check, or a file cannot be used or written.
    """
    def find(files: list[Path], progress: Progress) -> Holes:
        return find_holes(files, open_renderer(), progress)

    return check_result(path, panorama=panorama, mask=mask, limits=limits, find_holes=find, progress=progress)


def _require_writable(out: Path, width: int, height: int, overwrite: bool) -> None:
    """Refuse before the work what would fail after it."""
    if not out.suffix:
        return
    if out.suffix.lower() != ".mp4":
        raise SettingsError(f"--out {out.name} ends in {out.suffix}; give a name ending in .mp4, or one without an "
                            "ending for a folder of PNG frames.")
    if width % 2 or height % 2:
        raise SettingsError(f"A video of {width}x{height} cannot be written as 4:2:0; choose an even --size, or a folder "
                            "of PNG frames.")
    if out.is_dir():
        raise OutputError(f"{out} is a folder; --out needs another name for the video.")
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists; add --overwrite to replace it, or choose another name with --out.")
    if not out.parent.is_dir():
        raise OutputError(f"{out.parent} does not exist; make that folder, or choose another one with --out.")


def _write_frames(out: Path, frames: Iterable[np.ndarray], overwrite: bool, needed: int) -> None:
    """Write PNG frames, which replace those of an earlier run."""
    former = tuple(path.name for path in out.glob("frame_*.png"))
    with OutputFolder(out, overwrite=overwrite, needs_bytes=needed, owns=former) as folder:
        for number, frame in enumerate(frames):
            image.write_png(folder.path(f"frame_{number:04d}.png"), frame)
        folder.commit()


def _each(job_of_one: Callable[..., dict], panorama: str | Path, out: str | Path, options: Mapping[str, Any]) -> dict:
    """Run a job on a panorama, or on each one of a folder."""
    given = {name: value for name, value in options.items() if value is not None}
    if Path(panorama).is_dir():
        return run_batch(panorama, out, job_of_one, **given)
    return job_of_one(panorama, out, **given)


def _generate_one(panorama: str | Path, out: str | Path, *, depth: str | Path | None = None,
                  depth_scale: float | None = None, depth_model: str | Path | None = None, depth_kind: str | None = None,
                  depth_geometry: str | None = None, gaussians: int | None = None, iterations: int | None = None,
                  device: str = "auto", deltas: bool = False, licence: str | None = None, html: bool = False,
                  settings: AnimateSettings = AnimateSettings(), **options: Any) -> dict:
    """Animate and lift one panorama."""
    height, width, lifting = settings.height, settings.width, LiftSettings(gaussians, iterations, device, settings.seed)
    device_and_steps(lifting)
    frames = Bundle.open(options.get("bundle") or default_bundle_path(), verify=False).tile["frames"]
    source = DepthSource(depth, depth_scale, depth_model, depth_kind, depth_geometry, height, width, frames, device)
    each = gaussians or default_count(height, width)

    def extend(folder: OutputFolder, animation: Animation, timer: StageTimer, progress: Progress) -> dict:
        origin = {"name": Path(panorama).name, "sha256": sha256_of(Path(panorama).read_bytes())}
        writer = functools.partial(ContainerWriter, fps=animation.settings.fps, source=origin, licence=licence,
                                   deltas=deltas)
        added = lift_into(folder, animation.frames, animation.mask, source, lifting, writer, timer, progress)
        if html:
            added["splats"]["html_bytes"] = _write_page(folder, None, timer)
        return added

    return _animate_one(panorama, out, settings=settings, extend=extend,
                        extra_bytes=estimate_bytes(frames, 0, 0, gaussians=each), **options)


def _animate_one(panorama: str | Path, out: str | Path, *, precision: str | None = None, **options: Any) -> dict:
    """Animate one panorama."""
    video = VideoSettings(**{name: options.pop(name) for name in ("codec", "bits", "frames") if name in options})
    if precision:
        _require_precision(Path(options.get("bundle") or default_bundle_path()), precision)
    return job.animate_into(panorama, out, video=video, **options)


def _require_precision(path: Path, wanted: str) -> None:
    weights = Bundle.open(path, verify=False).manifest["precision"]["weights"]
    found = _PRECISIONS.get(weights, weights)
    if found != wanted:
        raise BundleError(f"The bundle {path} is {found} and {wanted} was asked for: leave --{wanted} out, or build "
                          f"one with pano4d build CHECKPOINT --out FOLDER --precision {wanted}.")


def _write_page(folder: OutputFolder, video: str | Path | None, timer: StageTimer) -> int:
    """Write scene.html of the scene.p4d written before, with a video or the one written before, and return its size."""
    with timer("html"):
        title = f"{folder.target.resolve().name} · pano4d"
        return export_html(folder.path("scene.p4d"), video, folder.path("scene.html"), title=title)["bytes"]
