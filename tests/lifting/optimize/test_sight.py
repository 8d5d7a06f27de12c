"""What is told to be out of sight is in no view."""

import math

import pytest

torch = pytest.importorskip("torch")

from pano4d.lifting.optimize.sight import in_sight  # noqa: E402
from pano4d.lifting.optimize.views import ViewSampler  # noqa: E402
from pano4d.lifting.rasterize import rasterization  # noqa: E402

CPU, FOV_DEG, REACH_M = torch.device("cpu"), 42.0, 0.4


def around(count, generator):
    """Directions all around, unit."""
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)


@pytest.mark.parametrize("spread", [0.05, 0.6])
def test_leaving_out_what_is_out_of_sight_changes_no_view(spread):
    generator = torch.Generator().manual_seed(0)
    towards = torch.nn.functional.normalize(torch.tensor([0.2, -0.5, 1.0]) + spread * around(50, generator), dim=-1)
    distances = 0.3 + 4 * torch.rand(3000, 1, generator=generator) ** 2
    means, quats = around(3000, generator) * distances, torch.randn(3000, 4, generator=generator)
    scales = 0.1 * distances * torch.rand(3000, 3, generator=generator)
    scales[:20] *= 10
    splats = means, quats, scales, torch.rand(3000, generator=generator), torch.rand(3000, 3, generator=generator)
    seen = in_sight(means, scales.amax(-1), towards, REACH_M, FOV_DEG)
    assert 0.1 < seen.float().mean() < 0.9
    views = ViewSampler(48, REACH_M, 0, CPU, towards, FOV_DEG).draw(4, 60)
    whole, fewer = (rasterization(*(part[which] for part in splats), views.viewmats, views.Ks, 48, 48)[2]["gaussian_ids"]
                    for which in (torch.ones_like(seen), seen))
    assert torch.equal(whole, seen.nonzero()[:, 0][fewer])


def test_what_is_near_or_large_is_in_sight_and_what_is_behind_is_not():
    ahead = torch.tensor([[0.0, 0, 1]])
    means = torch.tensor([[0.0, 0, -0.3], [0.0, 0, -5.0], [0.0, 0, -5.0], [0.0, 0, 5.0]])
    seen = in_sight(means, torch.tensor([0.01, 2.0, 0.01, 0.01]), ahead, REACH_M, FOV_DEG)
    assert seen.tolist() == [True, True, False, True]


def test_what_lies_at_a_corner_is_in_sight():
    corner = math.tan(math.radians(FOV_DEG / 2))
    means = 3 * torch.nn.functional.normalize(torch.tensor([[corner, corner, 1.0]]), dim=-1)
    assert in_sight(means, torch.tensor([0.001]), torch.tensor([[0.0, 0, 1]]), 0.0, FOV_DEG).all()
