"""The noise of an estimator is as large as it says, the same each time, and new where it should be."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pano4d.benchmarks.estimator_noise import KINDS, EstimatorNoise, distort, smooth_field
from pano4d.runtime.errors import SettingsError

NONE = EstimatorNoise(0, 0, 0, 0.25, 0, 0, 0)


def tile(frames=2, size=48):
    """Make a slope with a step in it."""
    y, x = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    return torch.where(x < size / 2, 2 + 0.01 * y, 8 + 0.02 * y).expand(frames, -1, -1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same(kind):
    first = distort(tile(), 5, kind)
    assert first.dtype == torch.float32 and first.shape == (2, 48, 48) and first.isfinite().all()
    assert torch.equal(first, distort(tile(), 5, kind))
    assert not torch.allclose(first, distort(tile(), 6, kind), rtol=1e-3)
    assert not torch.equal(first[0], first[1])
    # Frame by frame is the same but for the shift, which then follows the frame's own median.
    still = replace(EstimatorNoise(), shift_share=0.0)
    one_by_one = torch.stack([distort(f, 5, kind, still, first_frame=i) for i, f in enumerate(tile())])
    torch.testing.assert_close(one_by_one, distort(tile(), 5, kind, still))


def test_without_noise_it_is_exact():
    torch.testing.assert_close(distort(tile(), 1, "depth", NONE), tile())
    torch.testing.assert_close(distort(tile(), 1, "inverse_depth", NONE), 1 / tile())


def test_scale_and_shift_are_spread_as_stated():
    flat = torch.full((1, 4, 4), 3.0)
    scales = [float(distort(flat, s, "depth", replace(NONE, scale_sigma=0.2))[0, 0, 0]) / 3 for s in range(400)]
    assert np.std(np.log(scales)) == pytest.approx(0.2, rel=0.12) and abs(np.mean(np.log(scales))) < 0.03
    shifts = [float(distort(flat, s, "depth", replace(NONE, shift_share=0.1))[0, 0, 0]) / 3 - 1 for s in range(400)]
    assert np.std(shifts) == pytest.approx(0.1, rel=0.12) and abs(np.corrcoef(scales, shifts)[0, 1]) < 0.15


def test_grain_and_jitter_are_spread_as_stated():
    flat = torch.full((100, 16, 16), 3.0)
    grain = distort(flat, 3, "depth", replace(NONE, pixel_sigma=0.01)).log()
    assert float(grain.std()) == pytest.approx(0.01, rel=0.03)
    assert abs(float(torch.corrcoef(grain[:2].flatten(1))[0, 1])) < 0.2
    jitter = distort(flat, 3, "depth", replace(NONE, jitter_sigma=0.02)).log()[:, 0, 0]
    assert float(jitter.std()) == pytest.approx(0.02, rel=0.2)


def test_waves_are_smooth_and_as_long_as_stated():
    fields = torch.stack([smooth_field(64, 64, 0.25, seed) for seed in range(60)])
    assert float(fields.std()) == pytest.approx(1, rel=0.08)
    for step, expected in ((16, np.exp(-0.5)), (32, np.exp(-2.0))):
        found = (fields[..., step:] * fields[..., :-step]).mean() / fields.square().mean()
        assert float(found) == pytest.approx(expected, abs=0.1)


def test_edges_are_blurred_over_about_two_pixels():
    row = distort(tile(), 1, "depth", replace(NONE, blur_px=2.0))[0, 24]
    share = (row.log() - row[4].log()) / (row[-4].log() - row[4].log())
    soft = int(((share > 0.16) & (share < 0.84)).sum())
    assert 3 <= soft <= 5
    torch.testing.assert_close(row[:12], tile()[0, 24, :12], rtol=1e-3, atol=1e-3)


def test_an_unknown_kind_is_refused():
    with pytest.raises(SettingsError, match="give one of depth"):
        distort(tile(), 1, "disparity")
