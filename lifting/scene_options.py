"""Name the options of animating and generating, which a batch hands on to each of its panoramas."""

from pathlib import Path
from typing import TypedDict

from pano4d.runtime.pipeline import Progress
from pano4d.runtime.settings import AnimateSettings


class AnimateOptions(TypedDict, total=False):
    """Options of `animate`; one that is left out or None has its default.

    Attributes:
        mask: Picture whose non-black pixels may move; for a batch a folder of them. Default: the one that lies beside
            the panorama, else everything moves.
        bundle: Engine bundle folder. Default: the demo model.
        backend: Name of what runs the engines. Default: the bundle's.
        settings: How to animate.
        precision: Refuse a bundle of another one: "fp16" or "fp32".
        overwrite: Replace earlier results once the new ones are complete.
        resume: Go on with an interrupted run.
        allow_aspect: Take a picture that is not 2:1.
        max_pixels: Largest picture to read.
        vram_limit_bytes: Memory of the GPU that a run may take. Default: all there is.
        codec: Of the video: "h264" or "h265". Default: "h264".
        bits: Of the video: 8 or 10. Default: 8.
        frames: Files of the single frames: "png", or "exr" for linear light. Default: "png".
        progress: Called with stage, done, total.
    """

    mask: str | Path | None
    bundle: str | Path | None
    backend: str | None
    settings: AnimateSettings | None
    precision: str | None
    overwrite: bool
    resume: bool
    allow_aspect: bool
    max_pixels: int | None
    vram_limit_bytes: int | None
    codec: str | None
    bits: int | None
    frames: str | None
    progress: Progress | None


class GenerateOptions(AnimateOptions, total=False):
    """Options of `generate`: those of `animate`, and eleven more.

    Attributes:
        depth: Distance along each pixel's ray: 16-bit PNG, NPY or EXR, or a folder of one for each frame; for a batch a
            folder of such files and folders. Default: guessed from the picture.
        depth_scale: Metres per stored unit. Default: 0.001 for PNG, 1 for NPY and EXR.
        depth_model: What estimates depth instead: folder of a depth model of transformers, .onnx file, or "prior".
        depth_kind: What the model tells: "metric", "scale-invariant" or "affine-inverse". Default: as it declares.
        depth_geometry: Whether of distance, "ray", or of depth along the axis, "z". Default: as it declares.
        gaussians: Count per frame. Default: a quarter of the pixels, at most 1,000,000.
        iterations: Steps of optimisation of what does not move; 0 leaves Gaussians as placed. Default: 600 on a GPU with
            gsplat, else 0.
        device: Where to estimate depth and to optimise: "auto", "cpu" or "cuda". Default: "auto".
        deltas: Store frames of scene.p4d as what differs from a keyframe, where that is smaller. Default: no.
        licence: What scene.p4d says of its licence. Default: nothing.
        html: Write scene.html too, one file that plays scene and video offline in a browser. Default: no.
    """

    depth: str | Path | None
    depth_scale: float | None
    depth_model: str | Path | None
    depth_kind: str | None
    depth_geometry: str | None
    gaussians: int | None
    iterations: int | None
    device: str
    deltas: bool
    licence: str | None
    html: bool
