"""Stand in for a model with NumPy: deterministic, needs no files, runs the whole pipeline in a second.

The encoder averages 8x8 pixels and maps colours to 4 channels; the decoder undoes both. The denoiser knows the
clean answer: the tile's own latent, and where the mask is 1 a slow change of brightness plus a trace of the noise
it was given, so that another seed gives another video.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pano4d.runtime.backends.base import TAIL, Availability, Engine
from pano4d.runtime.bundle import SCHEMA_VERSION, Bundle

DEVICE = None  # as its bundle says, so that tests can ask for either
FACTOR = 8
EMBEDDING = 8
COLOURS = np.array([[0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5], [0.5, -0.5, -0.5]], np.float32)
"""Columns are orthonormal, so the transpose maps latents back to colours."""
BRIGHTNESS = np.array([1.0, 0.3, -0.2, 0.1], np.float32)
AMPLITUDE, GRAIN = 0.15, 0.03


class FakeBundle(Bundle):
    """A bundle without files, for tests.

    Args:
        tile_px: Side of a tile; a multiple of 8.
        frames: Frames T.
        channels: Input channels of the denoiser: 9 with a mask channel, 8 without.
        batch: Tiles run at once.
        max_guidance_scale: Above 1 the denoiser takes both guidance halves.
        steps: Recommended denoising steps.
        tail: Whether there is a second denoiser, for one tile.
    """

    def __init__(self, tile_px: int = 64, frames: int = 4, channels: int = 9, batch: int = 1,
                 max_guidance_scale: float = 1.0, steps: int = 3, tail: bool = False) -> None:
        manifest = fake_manifest(tile_px, frames, channels, batch, max_guidance_scale, steps, tail)
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        super().__init__(Path("fake"), manifest, digest)


class FakeEngine(Engine):
    """One network of the stand-in."""

    def __init__(self, bundle: Bundle, network: str) -> None:
        described = bundle.network(network)
        self.inputs, self.outputs = described.inputs, described.outputs
        self._scaling_factor = bundle.sampler["scaling_factor"]
        self._compute = getattr(self, "_unet" if network == TAIL else f"_{network}")

    def run(self, buffers: Mapping[str, np.ndarray], stream: Any = None) -> None:
        """Compute the outputs. See ``Engine.run``.

        Raises:
            BackendError: A buffer is missing or does not fit its spec.
        """
        self.check(buffers)
        arrays = [buffers[spec.name] for spec in self.inputs]
        buffers[self.outputs[0].name][:] = self._compute(*arrays)

    def _image_encoder(self, pixels: np.ndarray) -> np.ndarray:
        size = self.outputs[0].shape[-1]
        blocks = pixels.mean(axis=(2, 3), dtype=np.float64)  # [B, 3]
        waves = np.sin(blocks @ np.outer(np.arange(1, 4), np.arange(1, size + 1)))
        return waves[:, None].astype(np.float32)

    def _vae_encoder(self, pixels: np.ndarray) -> np.ndarray:
        batch, _, height, width = pixels.shape
        cells = pixels.reshape(batch, 3, height // FACTOR, FACTOR, width // FACTOR, FACTOR).mean(axis=(3, 5))
        return np.einsum("oc,bchw->bohw", COLOURS, cells)

    def _vae_decoder(self, latents: np.ndarray) -> np.ndarray:
        cells = np.einsum("oc,btohw->btchw", COLOURS, latents)
        return _upsample(_upsample(cells, -2), -1)

    def _unet(self, sample: np.ndarray, c_noise: np.ndarray, embeddings: np.ndarray, time_ids: np.ndarray) -> np.ndarray:
        frames, channels = sample.shape[1:3]
        sigma = np.exp(4.0 * c_noise.astype(np.float64))[:, None, None, None, None]
        x = sample[:, :, channels - 8:channels - 4] * np.sqrt(sigma**2 + 1.0)
        moves = sample[:, :, :1] if channels == 9 else (np.arange(frames) > 0)[:, None, None, None]
        brightness = AMPLITUDE * np.sin(2.0 * np.pi * np.arange(frames) / frames)  # [T]
        still = self._scaling_factor * sample[:, :, channels - 4:]
        moving = still + brightness[:, None, None, None] * BRIGHTNESS[:, None, None]
        moving = moving + np.clip(x - moving, -GRAIN, GRAIN)
        denoised = still + moves * (moving - still)
        return (x / (sigma**2 + 1.0) - denoised) * np.sqrt(sigma**2 + 1.0) / sigma


def load(bundle: Bundle, network: str) -> FakeEngine:
    """Make the stand-in for one network of any bundle: only shapes are taken from it.

    Args:
        bundle: Bundle that gives the shapes.
        network: Name of the network.

    Returns:
        The engine.

    Raises:
        BundleError: The bundle has no such network.
    """
    return FakeEngine(bundle, network)


def available() -> Availability:
    """Say that NumPy is all it takes."""
    return Availability(True, f"numpy {np.__version__}; no model, for tests")


def fake_manifest(tile_px: int, frames: int, channels: int, batch: int, max_guidance_scale: float,
                  steps: int, tail: bool = False) -> dict[str, Any]:
    """Write the manifest of a stand-in. Arguments as of ``FakeBundle``; returns what manifest.json would hold."""
    cells = tile_px // FACTOR
    halves = 2 if max_guidance_scale > 1.0 else 1
    denoisers = {"unet": batch * halves} | ({TAIL: halves} if tail else {})
    return {
        "schema_version": SCHEMA_VERSION, "key": "fake", "weights": {}, "parity": {}, "target": {}, "build": {},
        "model": {"name": "fake", "source": "", "license": "Apache-2.0", "masked": channels == 9},
        "networks": {
            "image_encoder": _network([("pixels", (batch, 3, 224, 224))], ("embeddings", (batch, 1, EMBEDDING))),
            "vae_encoder": _network([("pixels", (batch, 3, tile_px, tile_px))], ("latents", (batch, 4, cells, cells))),
            **{name: _network([("sample", (rows, frames, channels, cells, cells)), ("c_noise", (rows,)),
                               ("embeddings", (rows, 1, EMBEDDING)), ("added_time_ids", (rows, 3))],
                              ("v", (rows, frames, 4, cells, cells))) for name, rows in denoisers.items()},
            "vae_decoder": _network([("latents", (batch, frames, 4, cells, cells))],
                                    ("pixels", (batch, frames, 3, tile_px, tile_px))),
        },
        "tile": {"px": tile_px, "latent_px": cells, "frames": frames, "batch": batch},
        "sampler": {"sigma_min": 0.01, "sigma_max": 80.0, "rho": 7.0, "prediction_type": "v_prediction",
                    "scaling_factor": 0.5, "num_inference_steps": steps, "solver": "euler", "min_guidance_scale": 1.0,
                    "max_guidance_scale": max_guidance_scale, "fps": 7, "motion_bucket_id": 127,
                    "noise_aug_strength": 0.02},
        "precision": {"weights": "float32", "compute": "float32"},
        "backend": {"name": "fake", "version": "1"},
    }


def _network(inputs: list[tuple[str, tuple[int, ...]]], output: tuple[str, tuple[int, ...]]) -> dict[str, Any]:
    def spec(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
        return {"name": name, "dtype": "float32", "shape": list(shape)}

    return {"file": "none", "sha256": "", "bytes": 0, "extra_files": [],
            "inputs": [spec(*one) for one in inputs], "outputs": [spec(*output)]}


def _upsample(cells: np.ndarray, axis: int) -> np.ndarray:
    """Interpolate linearly between cell centres, FACTOR times as many along an axis."""
    count = cells.shape[axis]
    at = np.clip((np.arange(count * FACTOR) + 0.5) / FACTOR - 0.5, 0.0, count - 1.0)
    low = np.minimum(at.astype(int), max(count - 2, 0))
    share = (at - low).astype(np.float32).reshape([-1] + [1] * (-axis - 1))
    first = np.take(cells, low, axis=axis)
    return first + share * (np.take(cells, np.minimum(low + 1, count - 1), axis=axis) - first)
