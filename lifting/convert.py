"""Convert a file of Gaussians, or a frame of a scene, to another format."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from pano4d.lifting.formats.table import CONSTANT_COLOR, require_format, write_gaussians
from pano4d.lifting.gaussians import Gaussians
from pano4d.lifting.scene_files import find_scene
from pano4d.runtime.errors import InputError, OutputError, SettingsError

_ALL_HARMONICS = 16


def convert(source: str | Path, out: str | Path, *, frame: int = 0, sh3: bool = False, overwrite: bool = False,
            progress: object = None) -> dict:
    """Convert Gaussians to another format.

    Args:
        source: A .ply, .splat, .spz or .sog file, or a scene of several frames: .p4d, or the output folder of a run.
        out: File to write; its suffix says how.
        frame: Which frame of a scene, from 0.
        sh3: Write all harmonics up to degree 3, zero where there are none; of .ply and .spz.
        overwrite: Replace an earlier file.
        progress: Not called; there is but one step.

    Returns:
        ``outputs``: ``gaussians``, ``sh_degree``, ``bytes``.

    Raises:
        InputError: The source cannot be used, or has no such frame.
        SettingsError: The format holds no harmonics.
        OutputError: The file is there already, or cannot be written.
    """
    out = Path(out)
    require_format(out)
    constant = out.suffix.lower() in CONSTANT_COLOR
    if sh3 and constant:
        raise SettingsError(f"{out.suffix} holds no colour that depends on the direction; leave --sh3 out.")
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists; add --overwrite to replace it, or choose another name.")
    scene, _ = find_scene(Path(source))
    if not 0 <= frame < len(scene):
        raise InputError(f"{source} has {len(scene)} frames, and --frame {frame} was asked for; they count from 0.")
    gaussians = _with_harmonics(scene.frame(frame), _ALL_HARMONICS if sh3 else 0)
    try:
        size = write_gaussians(out, gaussians)
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error.strerror}); choose another name.") from error
    degree = 0 if constant else round(gaussians.sh.shape[1] ** 0.5) - 1
    return {"outputs": {"gaussians": len(gaussians), "sh_degree": degree, "bytes": size}}


def _with_harmonics(gaussians: Gaussians, count: int) -> Gaussians:
    """Append harmonics that are zero, up to a count."""
    missing = max(0, count - gaussians.sh.shape[1])
    return replace(gaussians, sh=np.pad(gaussians.sh, ((0, 0), (0, missing), (0, 0))))
