"""Check the procedural clips: first frame, static parts, determinism, seam, motion."""

import math

import pytest

torch = pytest.importorskip("torch")

from pano4d.examples.demo_model.clips import (  # noqa: E402
    NUM_FRAMES,
    Scene,
    motion_bucket,
    motion_levels,
    panorama_directions,
    sample_clips,
    view_directions,
)
from pano4d.examples.demo_model.masks import latent_masks  # noqa: E402
from pano4d.examples.demo_model.motions import KINDS  # noqa: E402

SIZE_PX = 32
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sample():
    return sample_clips(12, seed=3, size_px=SIZE_PX)


def test_shapes_and_range(sample):
    clips, masks, kinds = sample
    assert clips.shape == (12, NUM_FRAMES, 3, SIZE_PX, SIZE_PX)
    assert masks.shape == (12, 1, SIZE_PX, SIZE_PX)
    assert len(kinds) == 12 and set(kinds) <= set(KINDS)
    assert 0 <= clips.min() and clips.max() <= 1 and torch.isfinite(clips).all()


def test_static_outside_the_mask(sample):
    clips, masks, _ = sample
    outside = (masks == 0)[:, None]
    assert outside.any()
    assert ((clips - clips[:, :1]) * outside).abs().max() == 0


def test_first_frame_is_the_picture():
    scene = Scene.random(torch.Generator().manual_seed(5), "clouds")
    views = view_directions(torch.tensor([60.0]), torch.tensor([20.0]), torch.tensor([5.0]), SIZE_PX)[0]
    alone = scene.render(views, [0])
    among = scene.render(views, [0, 3])
    torch.testing.assert_close(alone[0], among[0])
    assert (among[1] - among[0]).abs().mean() > 1e-4


def test_same_seed_same_clips(sample):
    again = sample_clips(12, seed=3, size_px=SIZE_PX)
    other = sample_clips(12, seed=4, size_px=SIZE_PX)
    assert torch.equal(again[0], sample[0]) and torch.equal(again[1], sample[1])
    assert not torch.equal(other[0], sample[0])


def test_motion_is_in_range(sample):
    levels = motion_levels(sample[0], sample[1])
    assert 4 < levels.mean() < 14
    assert levels.min() > 0.5 and levels.max() < 30


def test_motion_bucket():
    buckets = motion_bucket(torch.tensor([0.0, 4.0, 8.0, 100.0]))
    assert buckets.tolist() == [1, 64, 127, 255]


@pytest.mark.parametrize("kind", ["drift", "clouds", "water", "fire"])
def test_panorama_has_no_seam(kind):
    scene = Scene.random(torch.Generator().manual_seed(1), kind)
    height = 64
    frames = scene.render(panorama_directions(height), [0, 5], pixel_rad=math.pi / height)
    steps = (frames[:, :, 1:] - frames[:, :, :-1]).abs().mean(dim=(0, 1, 3))
    seam = (frames[:, :, 0] - frames[:, :, -1]).abs().mean()
    assert seam <= 2 * steps.max()


def test_view_agrees_with_the_conventions():
    ahead = view_directions(torch.tensor([90.0]), torch.tensor([0.0]), torch.tensor([0.0]), 2)[0]
    right_and_up = ahead[0, 1]
    assert right_and_up[0] > 0 and right_and_up[1] < 0 and right_and_up[2] > 0
    side = view_directions(torch.tensor([60.0]), torch.tensor([90.0]), torch.tensor([0.0]), 3)[0]
    torch.testing.assert_close(side[1, 1], torch.tensor([1.0, 0.0, 0.0]), atol=1e-6, rtol=0)
    above = view_directions(torch.tensor([60.0]), torch.tensor([0.0]), torch.tensor([90.0]), 3)[0]
    torch.testing.assert_close(above[1, 1], torch.tensor([0.0, -1.0, 0.0]), atol=1e-6, rtol=0)
    column = panorama_directions(4)[:, 4]
    assert column[0, 1] < 0 < column[-1, 1]


def test_a_latent_cell_moves_if_any_of_its_pixels_does():
    mask = torch.zeros(1, 1, 4, 12)
    mask[..., :3, :4] = 1
    mask[..., 3, 4] = 1
    assert latent_masks(mask).flatten().tolist() == [1, 1, 0]
    assert latent_masks(mask, soft=True).flatten().tolist() == [0.75, 0.0625, 0]
