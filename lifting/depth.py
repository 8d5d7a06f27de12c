"""Say what an estimator of depth is, and open one by what names it.

An estimator says how far things are, up to what its kind leaves open:

    metric            metres
    scale-invariant   metres times a number that is another one for every picture
    affine-inverse    one over metres, times such a number, plus such a number (disparity)

and of a distance along the ray ("ray") or of the depth along the picture's axis ("z").
"""

from pathlib import Path
from typing import Protocol

import numpy as np

from pano4d.runtime.errors import CheckpointError, SettingsError

KINDS = ("metric", "scale-invariant", "affine-inverse")
GEOMETRIES = ("ray", "z")


class DepthEstimator(Protocol):
    """Tells depth from pictures, many at a time.

    Attributes:
        name: What reports call it.
        kind: One of `KINDS`.
        geometry: One of `GEOMETRIES`.
        panoramic: True if pictures are whole panoramas, False if they are tiles.
    """

    name: str
    kind: str
    geometry: str
    panoramic: bool

    def __call__(self, tiles: np.ndarray, fov_deg: float) -> np.ndarray:
        """Tell the depth of pictures.

        Args:
            tiles: Pictures, sRGB. uint8 [B, s, s, 3]; for a panoramic estimator [B, H, W, 3].
            fov_deg: Field of view of tiles, the same in both axes; 360 for panoramas.

        Returns:
            What the kind says. float32 [B, s, s] or [B, H, W].

        Raises:
            CheckpointError: The model says nothing usable.
        """


def open_estimator(spec: str | Path, kind: str | None = None, geometry: str | None = None,
                   device: str = "auto") -> DepthEstimator:
    """Open what a name stands for.

    Args:
        spec: "prior"; a folder with config.json and safetensors, of a depth model of transformers; or an .onnx file.
        kind: One of `KINDS`; None: what the model declares.
        geometry: One of `GEOMETRIES`; None: what the model declares.
        device: Where a model of transformers runs: "auto", "cpu" or "cuda".

    Returns:
        An estimator that is ready.

    Raises:
        SettingsError: The kind or the geometry is none of those, or the device is not there.
        CheckpointError: The model cannot be used.
        BackendError: What would run it is not installed.
    """
    for value, values, option in ((kind, KINDS, "--depth-kind"), (geometry, GEOMETRIES, "--depth-geometry")):
        if value is not None and value not in values:
            raise SettingsError(f"{option} is {value!r}; it must be one of {', '.join(values)}.")
    path = Path(spec)
    if str(spec) == "prior":
        from pano4d.lifting.depth_prior import PriorDepth

        if kind or geometry:
            raise SettingsError("The prior's distances are of a known kind; leave --depth-kind and --depth-geometry out.")
        return PriorDepth()
    if path.is_dir():
        from pano4d.lifting.depth_transformers import TransformersDepth

        return TransformersDepth(path, kind, geometry, device)
    if path.suffix.lower() == ".onnx":
        from pano4d.lifting.depth_onnx import OnnxDepth

        return OnnxDepth(path, kind, geometry)
    raise CheckpointError(f"{spec} is no depth model; give --depth-model a folder with config.json and safetensors, an "
                          ".onnx file, or prior.")


def require_kind(kind: str | None, path: Path, known: str) -> str:
    """Refuse a model of which nobody said what it tells.

    Args:
        kind: What was found or given.
        path: The model.
        known: Where the kind was looked for.

    Returns:
        The kind.

    Raises:
        CheckpointError: There is none.
    """
    if kind in KINDS:
        return kind
    raise CheckpointError(f"{path} does not say what its depth means ({known}); say it with --depth-kind, one of "
                          f"{', '.join(KINDS)}.")


def checked(depth: np.ndarray, tiles: np.ndarray, name: str) -> np.ndarray:
    """Refuse predictions that are of another shape than the pictures or not finite.

    Args:
        depth: What the model said.
        tiles: The pictures. uint8 [B, h, w, 3].
        name: The model's name.

    Returns:
        float32 [B, h, w], contiguous.

    Raises:
        CheckpointError: They are.
    """
    if depth.shape != tiles.shape[:3]:
        raise CheckpointError(f"The depth model {name} answered {list(depth.shape)} to pictures of "
                              f"{list(tiles.shape[:3])}; it must give one number a pixel.")
    if not np.isfinite(depth).all():
        raise CheckpointError(f"The depth model {name} gave numbers that are not finite; its file is damaged, or it is "
                              "run in a precision too low for it.")
    return np.ascontiguousarray(depth, np.float32)
