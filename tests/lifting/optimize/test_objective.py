"""The loss of several frames at once is the sum of what its formulas, written out plainly, say of each."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pano4d.lifting.optimize.losses import ssim  # noqa: E402
from pano4d.lifting.optimize.objective import Objective, Target  # noqa: E402
from pano4d.lifting.optimize.settings import OptimizeSettings  # noqa: E402
from pano4d.lifting.optimize.sphere_picture import SpherePicture  # noqa: E402
from pano4d.lifting.optimize.views import PixelRays, ViewSampler  # noqa: E402
from pano4d.runtime.sphere import pixel_directions  # noqa: E402

CPU, SIZE, FRAMES = torch.device("cpu"), 20, 2


def mean(values, weight):
    return (values * weight).sum() / weight.sum().clamp(min=1.0)


def photometric(rendered, wanted, weight):
    """0.8 L1 + 0.2 (1 - SSIM), the latter of the first view (Kerbl et al. 2023, eq. 7)."""
    stand_in = torch.where(weight[:1, ..., None] > 0, wanted[:1], rendered[:1].detach())
    similar = ssim(rendered[:1].permute(0, 3, 1, 2), stand_in.permute(0, 3, 1, 2)).mean(1)
    return 0.8 * mean((rendered - wanted).abs().mean(-1), weight) + 0.2 * mean(1 - similar, weight[:1])


def curvature(distance, picture, weight):
    total = 0
    for axis in (1, 2):
        n = distance.shape[axis] - 2
        before, here, after = (distance.log().narrow(axis, k, n) for k in range(3))
        edges = (picture.narrow(axis, 2, n) - picture.narrow(axis, 0, n)).abs().mean(-1)
        total = total + mean((before - 2 * here + after).abs() * torch.exp(-10 * edges), weight.narrow(axis, 1, n))
    return total


def plain(rendered, alphas, views, frame, distance, weight, settings):
    """The loss of one frame, and its PSNR."""
    n, colors, alpha = settings.centred_views, rendered[..., :3], alphas[..., 0]
    depth, rays = rendered[..., 3] / alpha, views.rays()
    picture, rest = SpherePicture(frame.permute(2, 0, 1)), SpherePicture(torch.stack([distance, weight]))
    wanted, (known_m, counts) = picture.at(rays[:n]), rest.at(rays[:n], "nearest").unbind(-1)
    error = (depth[:n] * rays[:n].norm(dim=-1) / known_m).log().abs()
    loss = photometric(colors[:n], wanted, counts)
    loss = loss + settings.depth_weight * mean(error.clamp(max=0.5), counts * (alpha[:n] > 0.5))
    loss = loss + settings.opaque_weight * mean(1 - alpha[:n], counts)
    psnr = -10 * torch.log10(mean(((colors[:n] - wanted) ** 2).mean(-1), counts))
    if settings.off_views:
        points = views.positions[n:, None, None] + rays[n:] * depth[n:, ..., None]
        wanted, (known_m, counts) = picture.at(points.detach()), rest.at(points.detach(), "nearest").unbind(-1)
        error = (points.norm(dim=-1) / known_m).log()
        known = counts * (error.detach().abs() < 0.03) * (alpha[n:] > 0.5)
        loss = loss + settings.off_weight * photometric(colors[n:], wanted, known)
        loss = loss + settings.depth_weight * mean(error.abs(), known)
        loss = loss + settings.smooth_weight * curvature(depth[n:], colors[n:].detach(), known)
        loss = loss + settings.opaque_weight * (1 - alpha[n:]).mean()
    return loss, psnr


@pytest.fixture
def scene():
    """Panoramas, distances and weight; rendered views whose depth is about right, and see through here and there."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.from_numpy(pixel_directions(16, 32)).float()
    distances = [2.0 + 0.3 * directions[..., 0] + 0.1 * frame for frame in range(FRAMES)]
    frames = [torch.rand(16, 32, 3, generator=generator) for _ in range(FRAMES)]
    return generator, frames, distances, (torch.rand(16, 32, generator=generator) > 0.2).float()


@pytest.mark.parametrize("counts", [(3, 1), (2, 3), (1, 2), (2, 0)])
def test_is_the_sum_of_plain_formulas_and_so_are_the_gradients(scene, counts):
    generator, frames, distances, weight = scene
    settings = OptimizeSettings(centred_views=counts[0], off_views=counts[1], smooth_weight=0.3, depth_weight=0.4)
    views = [ViewSampler(SIZE, 0.3, seed, CPU, fov_deg=60.0).draw(*counts) for seed in range(FRAMES)]
    rendered = torch.rand(FRAMES, sum(counts), SIZE, SIZE, 4, generator=generator)
    for frame in range(FRAMES):
        rays = views[frame].rays()
        about = SpherePicture(distances[frame][None]).at(rays)[..., 0] / rays.norm(dim=-1)
        rendered[frame, ..., 3] = about * (1 + 0.04 * torch.randn(about.shape, generator=generator))
    alphas = 0.3 + 0.7 * torch.rand(FRAMES, sum(counts), SIZE, SIZE, 1, generator=generator)
    rendered[..., 3:] *= alphas
    inputs = rendered.requires_grad_(), alphas.requires_grad_()
    objective = Objective(Target([frame.numpy() for frame in frames], [one.numpy() for one in distances], weight.numpy(), CPU),
                          PixelRays(SIZE, 60.0, CPU), settings, CPU)
    loss, psnr = objective(*inputs, torch.stack([one.viewmats for one in views]), True)
    parts = [plain(rendered[t], alphas[t], views[t], frames[t], distances[t], weight, settings) for t in range(FRAMES)]
    wanted, wanted_psnr = sum(one for one, _ in parts), torch.stack([one for _, one in parts])
    torch.testing.assert_close(loss, wanted, rtol=1e-4, atol=0)
    torch.testing.assert_close(psnr, wanted_psnr.detach(), rtol=1e-4, atol=0)
    for mine, theirs in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(wanted, inputs)):
        assert (mine - theirs).norm() < 2e-3 * theirs.norm()


def test_grey_levels_are_colours():
    levels = np.arange(8 * 16 * 3, dtype=np.uint8).reshape(8, 16, 3)
    directions = torch.from_numpy(pixel_directions(8, 16)).float()[None]
    made = [Target([frame], [np.ones((8, 16))], np.ones((8, 16)), CPU).at(directions)
            for frame in (levels, levels / np.float32(255))]
    torch.testing.assert_close(made[0][0], made[1][0])


def test_nothing_that_counts_costs_no_more_than_light_let_through(scene):
    _, frames, distances, weight = scene
    settings = OptimizeSettings(centred_views=2, off_views=1)
    views = ViewSampler(SIZE, 0.3, 0, CPU).draw(2, 1)
    objective = Objective(Target([frames[0].numpy()], [distances[0].numpy()], 0 * weight.numpy(), CPU),
                          PixelRays(SIZE, 75.0, CPU), settings, CPU)
    rendered, alphas = torch.rand(1, 3, SIZE, SIZE, 4), torch.full((1, 3, SIZE, SIZE, 1), 0.75)
    assert objective(rendered, alphas, views.viewmats[None], False)[0].item() == pytest.approx(0.1 * 0.25, rel=1e-5)
