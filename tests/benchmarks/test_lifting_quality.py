"""The judges of lifting find planted faults and pass what is right."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pano4d.benchmarks.lifting_quality import Truth, compare, flicker, judged_views  # noqa: E402

CPU = torch.device("cpu")


def test_views_stand_off_by_what_they_are_told_and_look_around():
    views = judged_views(16, 0.3, CPU)
    assert torch.allclose(views.positions.norm(dim=-1), torch.full((12,), 0.3), atol=1e-5)
    ahead = views.viewmats[:, 2, :3]
    assert ahead.sum(0).norm() < 1e-4
    assert torch.equal(judged_views(16, 0.0, CPU).positions, torch.zeros(12, 3))


def test_compare_tells_faults_of_known_size():
    truth = np.random.default_rng(0).integers(20, 235, (3, 24, 24, 3), np.uint8)
    truths = [Truth(picture, np.ones((24, 24), bool)) for picture in truth]
    off_by_ten = torch.from_numpy(truth).float() + 10
    opacity = torch.ones(3, 24, 24)
    opacity[0, :12] = 0.2
    found = compare(off_by_ten, opacity, truths)
    assert found["psnr_db"] == pytest.approx(20 * np.log10(25.5), abs=1e-4)
    assert found["holes"] == pytest.approx(1 / 6)
    assert 0.9 < found["ssim"] < 1
    assert compare(torch.from_numpy(truth).float(), opacity, truths)["ssim"] == pytest.approx(1, abs=1e-5)


def test_flicker_counts_still_parts_alone():
    pictures = iter(torch.tensor([10.0, 12.0, 12.0]).reshape(3, 1, 1, 1, 1).expand(3, 2, 4, 4, 3).clone())

    def render(_, views):
        picture = next(pictures)
        picture[:, :, 2:] = 255 * torch.rand(2, 4, 2, 3)
        return picture, None

    still = np.zeros((2, 4, 4), bool)
    still[:, :, :2] = True
    assert flicker([None] * 3, judged_views(4, 0.0, CPU), still, render) == pytest.approx(1.0)
