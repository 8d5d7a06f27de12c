"""Lay out a contact sheet: a few frames, and the scene seen from two places."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pano4d.lifting.cameras import perspective_K, viewmat
from pano4d.lifting.gaussians import Gaussians
from pano4d.lifting.render import splat
from pano4d.runtime.errors import OutputError

SHEET_WIDTH = 1280
VIEW_FOV_DEG = 90.0
STEP_SHARE = 0.25
"""How far the second camera steps aside, as a share of the distance to what is near."""

_GAP = 8
_CAPTION = 22
_INK, _PAPER = (60, 60, 60), (255, 255, 255)


def contact_sheet(
    frames: np.ndarray, gaussians: Gaussians, *, yaw_deg: float | None = None,
    pitch_deg: float = 0.0,
) -> np.ndarray:
    """Draw three frames above two perspective views of the scene.

    Args:
        frames: Panoramas. uint8 [T, H, W, 3].
        gaussians: The scene of one frame, by custom the first.
        yaw_deg: Direction of the views; None: where the frames move most.
        pitch_deg: Degrees above the horizon.

    Returns:
        uint8 [height, SHEET_WIDTH, 3].

    Raises:
        Nothing.
    """
    yaw_deg = _liveliest_yaw(frames) if yaw_deg is None else yaw_deg
    chosen = sorted({0, len(frames) // 2, len(frames) - 1})
    top = [(Image.fromarray(frames[i]), f"frame {i}") for i in chosen]
    step = float(STEP_SHARE * np.quantile(np.linalg.norm(gaussians.means, axis=1), 0.05))
    aside = viewmat(yaw_deg, 0.0)[0, :3] * step
    bottom = [
        (_view(gaussians, yaw_deg, pitch_deg, position), f"{caption}, looking {yaw_deg:+.0f}°")
        for position, caption in (
            (np.zeros(3), "Gaussians from the centre"),
            (aside, f"Gaussians from {step:.2g} m to the right"),
        )
    ]
    return np.concatenate([_row(top), _row(bottom)])


def write_preview(path: Path, frames: np.ndarray, gaussians: Gaussians, **options) -> None:
    """Write the contact sheet as a JPEG.

    Args:
        path: File to write.
        frames: Panoramas. uint8 [T, H, W, 3].
        gaussians: The scene of one frame.
        **options: As for ``contact_sheet``.

    Raises:
        OSError: The file cannot be written.
    """
    encoded = io.BytesIO()
    Image.fromarray(contact_sheet(frames, gaussians, **options)).save(encoded, "JPEG", quality=90)
    try:
        Path(path).write_bytes(encoded.getvalue())
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}); free some space or choose another --out."
        ) from error


def _view(gaussians: Gaussians, yaw_deg: float, pitch_deg: float, position) -> Image.Image:
    """Render one view in the size that the sheet shows."""
    width = (SHEET_WIDTH - 3 * _GAP) // 2
    height = width * 2 // 3
    K = perspective_K(VIEW_FOV_DEG, width, height)
    return Image.fromarray(splat(gaussians, viewmat(yaw_deg, pitch_deg, position), K, width, height))


def _row(items: Sequence[tuple[Image.Image, str]]) -> np.ndarray:
    """Put pictures of one size side by side, each above its caption."""
    width = (SHEET_WIDTH - (len(items) + 1) * _GAP) // len(items)
    height = max(1, round(width * items[0][0].height / items[0][0].width))
    row = Image.new("RGB", (SHEET_WIDTH, height + _GAP + _CAPTION), _PAPER)
    draw, font = ImageDraw.Draw(row), ImageFont.load_default(13)
    for i, (picture, caption) in enumerate(items):
        left = _GAP + i * (width + _GAP)
        row.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (left, _GAP))
        draw.text((left, _GAP + height + 3), caption, _INK, font)
    return np.asarray(row)


def _liveliest_yaw(frames: np.ndarray) -> float:
    """Return the longitude of the middle of what moves, 0 if nothing does, in degrees."""
    _, height, width, _ = frames.shape
    rows = slice(height // 4, 3 * height // 4, max(1, height // 128))
    columns = slice(None, None, max(1, width // 256))
    chosen = frames[:: max(1, len(frames) // 5), rows, columns].astype(np.float32)
    energy = chosen.std(0).mean((0, 2))
    lon = (np.arange(width)[columns] + 0.5) / width * 2.0 * np.pi - np.pi
    # Squared: the liveliest place, not the middle of everything that stirs.
    mean = (energy**2 * np.exp(1j * lon)).sum()
    return float(round(np.degrees(np.angle(mean)))) if abs(mean) > 1e-6 else 0.0
