"""Views look where they are told to, and their rays are those of their cameras."""

import math

import pytest

torch = pytest.importorskip("torch")

from pano4d.lifting.optimize.views import PixelRays, ViewSampler, view_size, views_towards  # noqa: E402


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(7, 3, generator=generator), dim=-1)
    directions[0] = torch.tensor([0.0, 1.0, 0.0])
    positions, rolls = torch.randn(7, 3, generator=generator), torch.randn(7, generator=generator)
    return directions, positions, views_towards(directions, positions, rolls, 9, 80.0)


def test_cameras_are_proper_and_stand_where_told(views):
    directions, positions, made = views
    rotations = made.viewmats[:, :3, :3]
    assert torch.allclose(rotations @ rotations.transpose(1, 2), torch.eye(3).expand(7, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(7), atol=1e-5)
    assert torch.allclose(made.positions, positions, atol=1e-5)


def test_middle_ray_is_the_direction_and_the_border_lies_at_half_the_field_of_view(views):
    directions, _, made = views
    rays = made.rays()
    assert torch.allclose(rays[:, 4, 4], directions, atol=1e-6)
    edge = torch.nn.functional.normalize(rays[:, 4, 0], dim=-1)
    cosine = (edge * directions).sum(-1)
    assert cosine.acos().mean().item() == pytest.approx(math.atan(8 / 9 * math.tan(math.radians(40))), rel=1e-4)


def test_a_point_on_a_ray_projects_to_its_pixel(views):
    _, positions, made = views
    points = positions[:, None, None] + 3.0 * made.rays()
    there = points @ made.viewmats[:, None, :3, :3].transpose(-1, -2) + made.viewmats[:, None, None, :3, 3]
    pixel = there @ made.Ks[:, None].transpose(-1, -2)
    pixel = pixel[..., :2] / pixel[..., 2:]
    at = torch.arange(9) + 0.5
    assert torch.allclose(pixel[..., 0], at.expand(7, 9, 9), atol=1e-3)
    assert torch.allclose(pixel[..., 1], at[:, None].expand(7, 9, 9), atol=1e-3)


def test_points_lie_on_rays_and_their_ranges_are_their_distances(views):
    _, positions, made = views
    rays, depth = PixelRays(9, 80.0, torch.device("cpu")), 1 + torch.rand(7, 9, 9, generator=torch.Generator().manual_seed(0))
    points = positions[:, None, None] + depth[..., None] * made.rays()
    assert torch.allclose(rays.points(made.viewmats, depth), points, atol=1e-5)
    assert torch.allclose(rays.squared_ranges(made.viewmats, depth), points.square().sum(-1), rtol=1e-5, atol=1e-5)


def test_sampler_repeats_itself_and_keeps_within_reach():
    first, second = (ViewSampler(32, 0.5, 7, torch.device("cpu")).draw(2, 3) for _ in range(2))
    assert torch.equal(first.viewmats, second.viewmats)
    assert torch.equal(first.positions[:2], torch.zeros(2, 3))
    assert 0 < first.positions[2:].norm(dim=-1).max() <= 0.5
    other = ViewSampler(32, 0.5, 8, torch.device("cpu")).draw(2, 3)
    assert not torch.equal(first.viewmats, other.viewmats)


def test_a_series_is_what_draws_one_after_another_are():
    towards = torch.nn.functional.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(2)), dim=-1)
    for where in (None, towards):
        one, other = (ViewSampler(32, 0.5, 7, torch.device("cpu"), where) for _ in range(2))
        series = one.series(4, 2, 1)
        assert series.viewmats.shape == (4, 3, 4, 4) and series.Ks.shape == (3, 3, 3)
        for step in range(4):
            views = other.draw(2, 1)
            assert torch.allclose(series[step].viewmats, views.viewmats, atol=1e-6)
            assert torch.equal(series[step].Ks, views.Ks)


def test_sampler_looks_only_where_it_is_told_to():
    towards = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])
    views = ViewSampler(16, 0.0, 0, torch.device("cpu"), towards).draw(8, 0)
    assert {tuple(row) for row in views.viewmats[:, 2, :3].round(decimals=5).tolist()} == {(1, 0, 0), (0, 0, 1)}


def test_size_is_that_of_the_panorama_in_the_middle():
    assert view_size(4096, 75.0) == 1008
    assert view_size(64, 75.0) == 16
