"""Run a depth model that is an .onnx file.

One input of pictures [B, 3, h, w] in red, green, blue, normalised as for ImageNet; one output of depth [B, h, w] or
[B, 1, h, w]. B, h and w may be fixed or free. Properties of the file say what depth means: ``pano4d.kind`` and
``pano4d.geometry``.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from pano4d.lifting.depth import GEOMETRIES, KINDS, checked, require_kind
from pano4d.runtime.errors import CheckpointError

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
_PATCH = 14
"""Free sizes are rounded to this, which vision transformers cut pictures into."""

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxDepth:
    """A depth model in onnxruntime, on the GPU where onnxruntime has CUDA.

    Attributes:
        name: The file's name.
        kind: As the file's properties say, or as given.
        geometry: As the file's properties say, or as given; else "z".
        panoramic: False.
    """

    panoramic = False

    def __init__(self, path: Path, kind: str | None = None, geometry: str | None = None) -> None:
        """Open the file.

        Args:
            path: The .onnx file.
            kind: Overrules the file's property.
            geometry: Overrules the file's property.

        Raises:
            CheckpointError: The file is missing, damaged, or has other inputs and outputs.
        """
        self._session = _open(path)
        self.name = path.name
        self._input, self._output, self._shape = _check_ends(path, self._session)
        self._dtype = _DTYPES[self._input.type]
        said = self._session.get_modelmeta().custom_metadata_map
        self.kind = require_kind(kind or _known(said, "pano4d.kind", KINDS, path), path, "it has no property pano4d.kind")
        self.geometry = geometry or _known(said, "pano4d.geometry", GEOMETRIES, path) or "z"

    def __call__(self, tiles: np.ndarray, fov_deg: float) -> np.ndarray:
        """Tell the depth of tiles.

        Args:
            tiles: uint8 [B, s, s, 3].
            fov_deg: Not used.

        Returns:
            float32 [B, s, s].

        Raises:
            CheckpointError: The model fails, or its answer cannot be used.
        """
        rows, columns = (size or max(_PATCH, _PATCH * round(side / _PATCH))
                         for size, side in zip(self._shape[1:], tiles.shape[1:3]))
        batch, found = self._shape[0] or len(tiles), []
        for start in range(0, len(tiles), batch):
            part = np.stack([_prepared(tile, rows, columns) for tile in tiles[start:start + batch]])
            filling = np.repeat(part[-1:], batch - len(part), axis=0)
            found.append(self._run(np.concatenate([part, filling]).astype(self._dtype))[:len(part)])
        depth = [_resized(one, *tiles.shape[1:3]) for one in np.concatenate(found)]
        return checked(np.stack(depth), tiles, self.name)

    def _run(self, pictures: np.ndarray) -> np.ndarray:
        """Run one batch [B, 3, h, w]; float32 [B, h, w]."""
        try:
            depth, = self._session.run([self._output], {self._input.name: pictures})
        except Exception as error:
            raise CheckpointError(f"{self.name} failed on pictures of {list(pictures.shape)} "
                             f"({' '.join(str(error).split())[:160]}); export it for such sizes.") from error
        depth = depth[:, 0] if depth.ndim == 4 and depth.shape[1] == 1 else depth
        if depth.ndim != 3:
            raise CheckpointError(f"{self.name} gave {list(depth.shape)}; depth must be [B, h, w] or [B, 1, h, w].")
        return depth.astype(np.float32)


def _open(path: Path):
    """Open a session."""
    import onnxruntime

    if not path.is_file():
        raise CheckpointError(f"There is no file {path}; give --depth-model a model that exists.")
    providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider")
                 if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(str(path), providers=providers)
    except Exception as error:
        raise CheckpointError(f"{path} cannot be opened by onnxruntime ({' '.join(str(error).split())[:160]}); export it "
                         "again.") from error


def _check_ends(path: Path, session) -> tuple:
    """Find the input, the output's name, and the fixed sizes (B, h, w), None where free."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape = list(inputs[0].shape) if len(inputs) == 1 else []
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3) or inputs[0].type not in _DTYPES:
        told = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs) or "none"
        raise CheckpointError(f"{path} takes {told}; a depth model must take one input of floats [B, 3, h, w].")
    named = [one for one in outputs if one.name in ("predicted_depth", "depth")] or outputs
    if len(named) != 1 or len(named[0].shape) not in (0, 3, 4):
        told = ", ".join(f"{one.name} {one.shape}" for one in outputs)
        raise CheckpointError(f"{path} gives {told}; a depth model must give one output [B, h, w], or one named "
                              "predicted_depth.")
    return inputs[0], named[0].name, [size if isinstance(size, int) else None for size in (shape[0], *shape[2:])]


def _known(said: dict, name: str, values: tuple[str, ...], path: Path) -> str | None:
    """Read a property that must be one of some values."""
    if name in said and said[name] not in values:
        raise CheckpointError(f"{path} says {name} = {said[name]!r}; it must be one of {', '.join(values)}.")
    return said.get(name)


def _prepared(tile: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Bring a tile to a size and normalise it. float32 [3, rows, columns]."""
    if tile.shape[:2] != (rows, columns):
        tile = np.asarray(Image.fromarray(tile).resize((columns, rows), Image.Resampling.BICUBIC))
    return ((tile.astype(np.float32) / 255.0 - _MEAN) / _DEVIATION).transpose(2, 0, 1)


def _resized(depth: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Bring depth [h, w] to a size."""
    if depth.shape == (rows, columns):
        return depth
    return np.asarray(Image.fromarray(depth).resize((columns, rows), Image.Resampling.BILINEAR))
