"""Turn one panorama file into an output folder: video, frames, figures, report."""

import functools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pano4d.runtime import exr, image, quality, quality_time
from pano4d.runtime.bundle import Bundle, default_bundle_path
from pano4d.runtime.outputs import OutputFolder, estimate_bytes
from pano4d.runtime.parallel import each
from pano4d.runtime.pipeline import Animation, Animator, Progress
from pano4d.runtime.report import StageTimer, write_report
from pano4d.runtime.settings import AnimateSettings
from pano4d.runtime.video import VideoSettings, write_video

Extension = Callable[[OutputFolder, Animation, StageTimer, Progress], dict]
"""More stages of a job: gets the folder and the animation, returns what it adds to the report."""

OWNED = ("video.mp4", "frames", "splats", "scene.p4d", "scene.html", "preview.jpg", "report.json", "report.html")
REPORT_SCHEMA = 1


def animate_into(panorama: str | Path, out: str | Path, *, mask: str | Path | None = None,
                 bundle: str | Path | None = None, backend: str | None = None,
                 settings: AnimateSettings = AnimateSettings(), overwrite: bool = False, resume: bool = False,
                 allow_aspect: bool = False, max_pixels: int = image.MAX_PIXELS, progress: Progress | None = None,
                 extend: Extension | None = None, extra_bytes: int = 0, vram_limit_bytes: int | None = None,
                 video: VideoSettings = VideoSettings()) -> dict:
    """Animate a panorama file and write the results.

    Args:
        panorama: Equirectangular picture.
        out: Output folder.
        mask: Picture of what may move; None looks for the mask that belongs to the panorama, and lets
            everything move if there is none.
        bundle: Engine bundle; None for the demo model that comes with the package.
        backend: Backend name; None for the bundle's own.
        settings: How to animate.
        overwrite: Replace former results once the new ones are complete.
        resume: Go on with an interrupted run.
        allow_aspect: Take pictures that are not 2:1.
        max_pixels: Largest picture to read.
        progress: Called with stage, done, total.
        extend: More stages to run before the results are put in place.
        extra_bytes: What ``extend`` will write, for the check of disk space.
        vram_limit_bytes: Memory of the GPU that the run may take; None for all there is.
        video: How video and frames are written.

    Returns:
        The report, as written to ``report.json``.

    Raises:
        InputError, OutputError, SettingsError, BundleError, BackendError: Before anything is written.
    """
    opened = Bundle.open(bundle or default_bundle_path())
    animator = Animator(opened, settings, backend, vram_limit_bytes=vram_limit_bytes)
    picture, moving, whole, inputs = read_inputs(Path(panorama), mask, settings, allow_aspect, max_pixels)
    timer, progress = StageTimer(), progress or (lambda *_: None)
    needed = estimate_bytes(opened.tile["frames"], settings.height, settings.width) + extra_bytes
    if video.frames == "exr":
        # Halves take twice the bytes.
        needed += estimate_bytes(opened.tile["frames"], settings.height, settings.width)
    with OutputFolder(out, overwrite=overwrite, resume=resume, needs_bytes=needed, owns=OWNED) as folder:
        animation = animator.animate(picture, moving, progress, timer, folder.resume_folder, whole)
        with timer("write"):
            write_frames(folder, animation, progress, video)
        added = extend(folder, animation, timer, progress) if extend else {}
        with timer("measure"):
            figures = measure(animation, picture)
        inputs |= {"notes": inputs["notes"] + animator.notes}
        report = describe(opened, animation, inputs, figures, backend) | added
        report["outputs"] |= {"codec": video.codec, "bits": video.bits, "frame_files": video.frames}
        report |= {"stages": timer.entries, "seconds": round(timer.total_seconds, 3)}
        write_report(folder.path("report.json"), report)
        folder.commit()
    return report


def read_inputs(panorama: Path, mask: str | Path | None, settings: AnimateSettings, allow_aspect: bool,
                max_pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict]:
    """Read picture and mask and bring them to the size of the result.

    Returns:
        The picture, uint8 [H, W, 3]; where it may move, and where all of a pixel may, bool [H, W] each; the report's
        ``inputs``.

    Raises:
        InputError: One of them cannot be used.
    """
    source = image.read_panorama(panorama, allow_aspect=allow_aspect, max_pixels=max_pixels)
    size = (settings.height, settings.width)
    inputs = {"panorama": panorama.name, "panorama_sha256": source.sha256, "notes": list(source.notes),
              "panorama_size": f"{source.pixels.shape[1]}x{source.pixels.shape[0]}", "mask": None, "mask_sha256": None}
    mask = Path(mask) if mask else image.find_mask(panorama)
    if mask is None:
        moving = whole = np.ones(size, bool)
    else:
        read = image.read_mask(mask, source.pixels.shape, max_pixels=max_pixels)
        moving, whole = image.resize_mask(read.moving, *size), image.resize_whole(read.moving, *size)
        inputs |= {"mask": mask.name, "mask_sha256": read.sha256, "notes": inputs["notes"] + list(read.notes)}
    return image.resize_panorama(source.pixels, *size), moving, whole, inputs


def write_frames(folder: OutputFolder, animation: Animation, progress: Progress, settings: VideoSettings) -> None:
    """Write ``frames/frame_0000.png ...``, or EXR files, and ``video.mp4``."""
    paths = [folder.path(f"frames/frame_{t:04d}.{settings.frames}") for t in range(len(animation.frames))]
    write = image.write_png if settings.frames == "png" else exr.write_exr_picture
    each(lambda t: write(paths[t], animation.frames[t]), range(len(paths)), functools.partial(progress, "write"))
    write_video(folder.path("video.mp4"), animation.frames, animation.settings.fps, settings=settings)


def measure(animation: Animation, picture: np.ndarray) -> dict:
    """Compute the report's ``quality``: each figure that of the worst frame."""
    frames, mask = animation.frames, animation.mask
    moved = quality.motion(frames, mask)
    seam = quality.seam_ratio(frames, picture)
    border = quality.tile_border_ratio(frames, picture, animation.layout, mask=mask)
    return {"seam_ratio": _worst_ratio(seam), "tile_border_ratio": _worst_ratio(border),
            "static_drift": float(np.max(quality.static_drift(frames, picture, mask))),
            "motion": float(np.min(moved)), "motion_max": float(np.max(moved)),
            "loop_ratio": quality_time.loop_ratio(frames, mask)}


def describe(bundle: Bundle, animation: Animation, inputs: dict, figures: dict, backend: str | None) -> dict:
    """Put together what the report says of a run, but for its stages."""
    from pano4d import __version__

    frames, height, width, _ = animation.frames.shape
    return {
        "schema_version": REPORT_SCHEMA, "pano4d_version": __version__, "inputs": inputs,
        "outputs": {"width": width, "height": height, "frames": frames, "fps": animation.settings.fps},
        "bundle": {"name": bundle.manifest["model"]["name"], "sha256": bundle.sha256,
                   "backend": backend or bundle.manifest["backend"]["name"],
                   "precision": bundle.manifest["precision"]},
        "seed": animation.settings.seed, "settings": asdict(animation.settings),
        "tiles": {"layout": animation.layout.name, "total": animation.tiles_total,
                  "skipped": animation.tiles_skipped},
        "sampling": sampling(animation), "quality": figures,
    }


def sampling(animation: Animation) -> list[dict]:
    """Describe each stage of the denoising, the coarse one first."""
    parts = [("coarse", animation.coarse), ("fine", animation)] if animation.coarse else [("single", animation)]
    return [{"stage": name, "size": f"{part.settings.width}x{part.settings.height}", "layout": part.layout.name,
             "total": part.tiles_total, "skipped": part.tiles_skipped, "steps": len(part.sigmas) - 1,
             "sigma": float(part.sigmas[0])} for name, part in parts]


def _worst_ratio(ratios: np.ndarray) -> float:
    """Pick the ratio farthest from one, above or below, whichever is the larger factor."""
    ratios = np.asarray(ratios, np.float64)
    return float(ratios[np.argmax(np.abs(np.log(np.maximum(ratios, 1e-6))))])
