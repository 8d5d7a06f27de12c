"""Gaussians in training stay on their surface whatever gradients say."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pano4d.lifting.initialize import gaussians_at, place  # noqa: E402
from pano4d.lifting.rotations import quats_to_matrices  # noqa: E402
from pano4d.lifting.optimize.surface_gaussians import SLIDE, STRETCH, Adam, SurfaceGaussians  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture
def placed():
    distance = np.full((16, 32), 3.0, np.float32) + np.linspace(0, 2, 32, dtype=np.float32)
    frame = np.random.default_rng(0).integers(0, 256, (16, 32, 3), np.uint8)
    return gaussians_at(place(distance, 200), frame, np.arange(200))


def test_begins_as_placed(placed):
    same = SurfaceGaussians(placed, device=CPU).gaussians()
    for name in ("means", "scales", "opacities", "sh", "quats"):
        assert np.abs(getattr(same, name) - getattr(placed, name)).max() < 1e-4, name


def test_a_hundred_wild_steps_keep_the_bounds(placed):
    trained = SurfaceGaussians(placed, device=CPU)
    adam, generator = Adam(trained, 100), torch.Generator().manual_seed(0)
    for value in trained.parameters.values():
        value.data += 3 * torch.randn(value.shape, generator=generator)
    for _ in range(100):
        loss = sum((part * torch.randn(part.shape, generator=generator)).sum() for part in trained.splats())
        loss.backward()
        adam.step(torch.ones(200, dtype=torch.bool))
    made = trained.gaussians()
    normals = quats_to_matrices(placed.quats)[:, :, 2]
    moved = made.means - placed.means
    assert np.abs((moved * normals).sum(-1)).max() < 1e-5 * np.abs(placed.means).max()
    axes = quats_to_matrices(placed.quats)[:, :, :2]
    along = np.einsum("ni,nij->nj", moved, axes) / placed.scales[:, :2]
    assert 0.1 < np.abs(along).max() <= SLIDE * 1.001
    assert np.abs(np.log(made.scales[:, :2] / placed.scales[:, :2])).max() <= math.log(STRETCH) * 1.001
    assert np.array_equal(made.scales[:, 2], placed.scales[:, 2])
    assert np.abs((quats_to_matrices(made.quats)[:, :, 2] * normals).sum(-1) - 1).max() < 1e-5


def test_rates_fall_to_a_tenth(placed):
    trained = SurfaceGaussians(placed, device=CPU)
    adam = Adam(trained, 50)
    for step in range(50):
        before = trained.parameters["turn"].detach().clone()
        trained.parameters["turn"].sum().backward()
        adam.step(torch.ones(200, dtype=torch.bool))
        moved = (trained.parameters["turn"].detach() - before).abs().max().item()
        first = moved if step == 0 else first
    assert moved == pytest.approx(0.1 * first, rel=0.1)


def test_next_frame_takes_over_everything_but_colours(placed):
    one, two = SurfaceGaussians(placed, device=CPU), SurfaceGaussians(placed, device=CPU)
    for value in one.parameters.values():
        value.data += 0.1
    two.follow(one)
    assert torch.equal(two.parameters["slide"], one.parameters["slide"])
    assert not torch.equal(two.parameters["sh"], one.parameters["sh"])


def test_several_sets_are_one_and_are_divided_again(placed):
    before, sets = SurfaceGaussians(placed, device=CPU), [placed, placed, placed]
    for value in before.parameters.values():
        value.data += 0.1
    many = SurfaceGaussians(*sets, device=CPU)
    many.follow(before)
    many.parameters["turn"].data[200:400] += 0.3
    assert len(many) == 600
    parts = many.divide(sets)
    assert [len(part) for part in parts] == [200, 200, 200]
    for number, part in enumerate(parts):
        assert torch.equal(part.parameters["slide"], before.parameters["slide"])
        assert torch.allclose(part.parameters["turn"], before.parameters["turn"] + 0.3 * (number == 1))
        for own, all_of_them in zip(part.splats(), many.splats()):
            assert torch.equal(own, all_of_them[200 * number:200 * (number + 1)])
