"""Holes beside the centre, in scenes with planted ones."""

from dataclasses import replace

import numpy as np
import pytest

from pano4d.lifting.cameras import perspective_K, viewmat
from pano4d.lifting.drawing import NumpyRenderer, open_renderer
from pano4d.lifting.formats.ply import to_rows, write_rows
from pano4d.lifting.gaussians import Gaussians, colors_to_sh
from pano4d.lifting.holes import find_holes
from pano4d.lifting.lattice import lattice_directions


@pytest.fixture(scope="module")
def shell():
    """A closed sphere of round Gaussians, 4 m away."""
    directions = lattice_directions(6000)
    size = 4.0 * np.sqrt(4.0 * np.pi / len(directions)) * 0.8
    quats = np.tile(np.array([1, 0, 0, 0], np.float32), (len(directions), 1))
    return Gaussians((4.0 * directions).astype(np.float32), quats, np.full((len(directions), 3), size, np.float32),
                     np.full(len(directions), 0.99, np.float32), colors_to_sh(np.full((len(directions), 3), 0.5)))


def _kept(gaussians, which):
    return Gaussians(*(getattr(gaussians, name)[which] for name in Gaussians.__dataclass_fields__))


def _files(folder, *scenes):
    for number, scene in enumerate(scenes):
        write_rows(folder / f"{number}.ply", [to_rows(scene)])
    return sorted(folder.glob("*.ply"))


def test_a_closed_scene_has_none(shell, tmp_path):
    assert find_holes(_files(tmp_path, shell), NumpyRenderer()).percent.tolist() == [0]


def test_a_planted_hole_is_found_with_its_size(shell, tmp_path):
    """A cap of 20 degrees is 3 % of the sphere; the Gaussians at its rim reach in a little."""
    ahead = shell.means[:, 2] / 4.0 > np.cos(np.radians(20))
    found = find_holes(_files(tmp_path, shell, _kept(shell, ~ahead), shell), NumpyRenderer())
    assert found.frames.tolist() == [0, 1, 2] and found.percent[[0, 2]].tolist() == [0, 0]
    assert 2.0 < found.percent[1] < 3.2
    assert "frame 1" in found.view and "looking +0°" in found.view
    painted = (found.picture == (255, 0, 255)).all(-1)
    assert painted[len(painted) // 2, len(painted) // 2] and not painted[0].any()


def test_thin_gaussians_are_seen_through(shell, tmp_path):
    assert find_holes(_files(tmp_path, replace(shell, opacities=shell.opacities * 0.1)), NumpyRenderer()).percent[0] > 90


def test_a_long_scene_is_looked_at_four_times(shell, tmp_path):
    told = []
    found = find_holes(_files(tmp_path, *[shell] * 9), NumpyRenderer(), lambda *done: told.append(done))
    assert found.frames.tolist() == [0, 3, 5, 8] and told[-1] == ("holes", 4, 4)


def test_coverage_is_that_of_the_picture(shell):
    """Of white Gaussians on black the picture is the coverage; torch draws the same."""
    K, views = perspective_K(80.0, 48, 40), np.stack([viewmat(10.0, 20.0, (0.3, 0.1, 0.2))])
    white = replace(_kept(shell, slice(None, None, 3)), scales=shell.scales[::3] / 2, sh=colors_to_sh(np.ones((2000, 3))))
    renderer = NumpyRenderer()
    renderer.show(white)
    covered = renderer.cover(views, K, 48, 40)
    assert covered.shape == (1, 40, 48) and covered.dtype == np.float32 and covered.min() < 0.5 < covered.max()
    assert np.abs(covered - renderer.draw(views, K, 48, 40)[..., 0] / 255.0).max() < 0.005
    pytest.importorskip("torch")
    other = open_renderer("cpu")
    other.show(white)
    assert np.abs(other.cover(views, K, 48, 40) - covered).max() < 0.02
