"""Frames that are optimised together share their memory, their views stay their own, and neighbours hold each other."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pano4d.lifting.gaussians import concatenate  # noqa: E402
from pano4d.lifting.initialize import gaussians_at, place  # noqa: E402
from pano4d.lifting.optimize import moving as module  # noqa: E402
from pano4d.lifting.optimize.moving import MovingOptimizer  # noqa: E402
from pano4d.lifting.optimize.objective import Target  # noqa: E402
from pano4d.lifting.optimize.settings import OptimizeSettings  # noqa: E402
from pano4d.lifting.optimize.surface_gaussians import SurfaceGaussians  # noqa: E402
from pano4d.lifting.rasterize import rasterization  # noqa: E402

CPU, COUNT = torch.device("cpu"), 40
SETTINGS = OptimizeSettings(moving_iterations=3, centred_views=2, off_views=1)


@pytest.fixture
def scene():
    """Still Gaussians, moving ones of three frames, their directions, and panoramas."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 32, 3), np.uint8)
    placement = place(np.full((16, 32), 3.0, np.float32), 400)
    moves = np.argsort(-placement.directions[:, 2])[:COUNT]
    still = gaussians_at(placement, frames[0], np.setdiff1d(np.arange(400), moves))
    return still, [gaussians_at(placement, frame, moves) for frame in frames], placement.directions[moves], frames


def opened(scene, settings=SETTINGS):
    return MovingOptimizer(scene[0], scene[2], 32, 0.2, rasterization, CPU, settings)


def target(frames):
    return Target(list(frames), [np.full((16, 32), 3.0)] * len(frames), np.ones((16, 32)), CPU)


def test_batches_are_all_frames_in_order_and_no_larger_than_they_may_be(scene, monkeypatch):
    for most, count in [(13, 14), (5, 14), (1, 4), (13, 1), (13, 2), (4, 30)]:
        batches = opened(scene, dataclasses.replace(SETTINGS, frames_at_once=most)).batches(count)
        assert [number for batch in batches for number in batch] == list(range(count))
        assert batches[0] == range(1) and max(map(len, batches)) <= most
        sizes = [len(batch) for batch in batches[1:]]
        assert not sizes or max(sizes) - min(sizes) <= 1
    monkeypatch.setattr(module, "_CPU_BYTES", 1)
    assert opened(scene).batches(3) == [range(0, 1), range(1, 2), range(2, 3)]


def test_all_frames_of_full_size_are_taken_at_once(scene):
    optimizer = opened(scene, OptimizeSettings())
    optimizer._width = 4096
    optimizer._towards = torch.empty(75_000, 0)
    optimizer._still = [torch.empty(925_000, 0)]
    assert 13 * optimizer._frame_bytes() <= module._GPU_BYTES < 16e9


def test_first_batch_learns_alone_as_it_does_beside_others_without_a_frame_before(scene):
    _, placed, _, frames = scene
    together = opened(scene).optimize(range(1, 4), placed, target(frames), lambda *_: None)
    for number in range(3):
        alone = opened(scene).optimize(range(number + 1, number + 2), placed[number:number + 1],
                                       target(frames[number:number + 1]), lambda *_: None)
        for name, value in alone[0].parameters.items():
            torch.testing.assert_close(together[number].parameters[name], value, rtol=0, atol=2e-3)


def test_each_frame_is_held_near_the_one_before_it_and_both_feel_it(scene):
    optimizer = opened(scene)
    optimizer.before, many = (SurfaceGaussians(*sets, device=CPU) for sets in (scene[1][:1], scene[1]))
    generator = torch.Generator().manual_seed(0)
    for part in (optimizer.before, many):
        for value in part.parameters.values():
            value.data += torch.randn(value.shape, generator=generator)
    change = optimizer._carry()(many)
    wanted = 0
    for name, value in many.parameters.items():
        if name != "sh":
            frames = [optimizer.before.parameters[name].detach(), *value.split(COUNT)]
            wanted = wanted + 0.02 * sum(((b - a) ** 2).mean() for a, b in zip(frames, frames[1:]))
    torch.testing.assert_close(change, wanted)
    parameters = [value for name, value in many.parameters.items() if name != "sh"]
    for mine, theirs in zip(*(torch.autograd.grad(loss, parameters) for loss in (change, wanted))):
        torch.testing.assert_close(mine, theirs)


def test_frames_after_the_first_take_a_third_of_the_steps():
    for iterations, wanted in [(600, [300, 200, 200]), (7, [4, 3, 3]), (0, [0, 0, 0])]:
        assert [OptimizeSettings(iterations).steps_of_frame(frame) for frame in range(3)] == wanted
    assert [SETTINGS.steps_of_frame(frame) for frame in range(2)] == [6, 3]


def test_fewer_steps_are_larger():
    settings = OptimizeSettings(600)
    assert [settings.pace(steps) for steps in (600, 300, 200, 20, 900, 0)] == [1.0, 2.0, 3.0, 4.0, 1.0, 4.0]


def test_psnr_is_told_of_each_frame(scene):
    told = []
    opened(scene).optimize(range(1, 4), scene[1], target(scene[3]), lambda *one: told.append(one))
    assert [(done, total, len(psnr)) for done, total, psnr in told] == [(3, 3, 3)]
    assert len(concatenate(scene[1])) == 3 * COUNT
