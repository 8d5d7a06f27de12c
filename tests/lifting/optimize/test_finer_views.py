"""What is optimised holds in views that are finer than the panorama, too."""

import numpy as np

from pano4d.lifting import drawing
from pano4d.lifting.cube import CubeView
from pano4d.lifting.formats.ply import read_ply
from pano4d.lifting.job import LiftSettings, lift_frames
from pano4d.lifting.optimize import run

VIEWERS_BLUR = 0.3


def detailed(height: int, width: int) -> np.ndarray:
    """A picture with detail down to some pixels, and no more. uint8 [H, W, 3]."""
    noise = np.random.default_rng(0).normal(size=(height, width, 3))
    y, x = np.fft.fftfreq(height)[:, None, None], np.fft.fftfreq(width)[None, :, None]
    noise = np.fft.ifft2(np.fft.fft2(noise, axes=(0, 1)) * np.exp(-(x**2 + y**2) / 0.1**2), axes=(0, 1)).real
    return np.clip(128 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)


def test_a_view_four_times_finer_is_nearer_and_less_dark_than_under_the_blur_of_viewers(tmp_path, monkeypatch):
    picture, around = detailed(64, 128), np.full((64, 128), 3.0, np.float32)
    want = np.repeat(np.repeat(picture, 4, axis=0), 4, axis=1)[64:192].astype(float)
    errors, darker = [], []
    for blur in (run.BLUR, VIEWERS_BLUR):
        monkeypatch.setattr(run, "BLUR", blur)
        lift_frames(picture[None], np.zeros((64, 128), bool), tmp_path, depth=around,
                    settings=LiftSettings(gaussians=2000, iterations=100, device="cpu"))
        renderer = drawing.open_renderer("cpu")
        renderer.show(read_ply(tmp_path / "frame_0000.ply"))
        apart = CubeView(512, 256).draw(renderer, np.zeros(3)).astype(float)[64:192] - want
        errors.append(np.mean(apart**2)), darker.append(-apart.mean())
    assert errors[0] < 0.93 * errors[1]
    assert darker[0] < darker[1] - 1
