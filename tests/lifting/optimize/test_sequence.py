"""A short video is optimised: closer to its frames, still where nothing moves, and the same after an interruption."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pano4d.lifting.distances import from_maps, unchanging  # noqa: E402
from pano4d.lifting.layers import lay  # noqa: E402
from pano4d.lifting.optimize.sequence import SequenceOptimizer, grow  # noqa: E402
from pano4d.lifting.optimize.settings import OptimizeSettings  # noqa: E402
from pano4d.lifting.optimize.sphere_picture import SpherePicture  # noqa: E402
from pano4d.lifting.optimize.views import ViewSampler  # noqa: E402
from pano4d.lifting.rasterize import rasterization  # noqa: E402
from pano4d.runtime.sphere import pixel_directions  # noqa: E402

HEIGHT, COUNT = 64, 900
SETTINGS = OptimizeSettings(iterations=24, moving_iterations=6, centred_views=2, off_views=1)


@pytest.fixture(scope="module")
def video():
    """Stripes on a box, and a patch whose colour and distance change. Frames, mask, distances."""
    d = pixel_directions(HEIGHT, 2 * HEIGHT)
    distance = (2.0 / np.abs(d).max(-1)).astype(np.float32)
    picture = 127 + 100 * np.sin(4 * d[..., [0, 1, 2]] * distance[..., None])
    mask = np.zeros(distance.shape, bool)
    mask[24:40, 20:50] = True
    frames = np.stack([np.where(mask[..., None], 60 + 60 * t + 0.3 * picture, picture) for t in range(3)])
    maps = np.stack([np.where(mask, 1.6 - 0.1 * t, distance) for t in range(3)]).astype(np.float32)
    return np.rint(frames.clip(0, 255)).astype(np.uint8), mask, from_maps(maps, mask)


def opened(video, store=None, report=lambda *_: None, settings=SETTINGS):
    frames, mask, distances = video
    maps = np.stack([distances.frame(t) for t in range(len(frames))])
    return SequenceOptimizer(frames, mask, distances, lay(frames, mask, maps, COUNT), settings, "cpu", store, report)


def psnr(static, moving, video, frame):
    """From the centre, over the sphere, in dB."""
    frames, _, _ = video
    target = SpherePicture(torch.from_numpy(frames[frame] / np.float32(255)).permute(2, 0, 1))
    views = ViewSampler(48, 0.0, 5, torch.device("cpu")).draw(6, 0)
    parts = [torch.from_numpy(np.concatenate(pair)) for pair in zip(*[
        (part.means, part.quats, part.scales, part.opacities, part.sh) for part in (static, moving)])]
    with torch.no_grad():
        rendered, _, _ = rasterization(*parts, views.viewmats, views.Ks, 48, 48, sh_degree=0)
    return float(-10 * torch.log10(((rendered - target.at(views.rays())) ** 2).mean()))


class Kept(dict):
    """A store in memory that breaks when told to."""

    def __init__(self, saves=99):
        super().__init__()
        self.saves = saves

    def load(self, name):
        return self.get(name)

    def save(self, name, arrays):
        if len(self) == self.saves:
            raise KeyboardInterrupt
        self[name] = arrays


@pytest.fixture(scope="module")
def optimized(video):
    told = []
    optimizer = opened(video, report=lambda *one: told.append(one))
    return optimizer, optimizer.static(), [optimizer.moving(t) for t in range(3)], told


def test_every_frame_gets_closer_to_its_picture(video, optimized):
    optimizer, static, moving, _ = optimized
    for t in range(3):
        before = psnr(optimizer._layers.static, optimizer._layers.moving(t), video, t)
        assert psnr(static, moving[t], video, t) > before + 0.5


def test_progress_ends_at_its_total_and_tells_psnr(optimized):
    optimizer, _, _, told = optimized
    assert told[-1][:2] == (optimizer.steps, optimizer.steps) == (24 + 12 + 6 + 6, 48)
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert len(optimizer.psnr_db) == 4 and all(15 < value < 60 for value in optimizer.psnr_db)


@pytest.mark.parametrize("saves", [2, 3])
def test_an_interrupted_run_ends_as_one_that_was_not(video, optimized, saves):
    _, static, moving, _ = optimized
    store = Kept(saves)
    first = opened(video, store)
    first.static(), first.moving(0)
    with pytest.raises(KeyboardInterrupt):
        first.moving(1)
    store.saves, told = 99, []
    second = opened(video, store, lambda *one: told.append(one))
    assert np.array_equal(second.static().sh, static.sh)
    for t in range(3):
        assert np.array_equal(second.moving(t).sh, moving[t].sh)
    assert told[0][0] > 24 + 12 and told[-1][0] == second.steps


def test_as_many_frames_at_once_as_are_asked_for(video):
    told = []
    optimizer = opened(video, report=lambda *one: told.append(one), settings=dataclasses.replace(SETTINGS, frames_at_once=1))
    optimizer.static()
    assert len(optimizer.moving(0)) == len(optimizer.moving(1)) and len(optimizer.psnr_db) == 3
    optimizer.moving(2)
    assert len(optimizer.psnr_db) == 4 and [done for done, _, _ in told][-3:] == [36, 42, 48]


def test_nothing_moving_and_everything_moving(video):
    frames, mask, distances = video
    still = unchanging(distances.static)
    for moves in (np.zeros_like(mask), np.ones_like(mask)):
        layers = lay(frames[:1], moves, distances.static, 200)
        settings = OptimizeSettings(iterations=2, moving_iterations=1, centred_views=1, off_views=1)
        optimizer = SequenceOptimizer(frames[:1], moves, still, layers, settings, "cpu")
        assert len(optimizer.static()) + len(optimizer.moving(0)) == 200
        assert optimizer.steps == (2 if moves.any() else 2)


def test_masks_grow_across_the_seam_and_not_over_the_poles():
    mask = torch.zeros(8, 16, dtype=torch.bool)
    mask[0, 0] = True
    assert grow(mask, 2).nonzero().tolist() == [[row, column] for row in range(3) for column in (0, 1, 2, 14, 15)]
