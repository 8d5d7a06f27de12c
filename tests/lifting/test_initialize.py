import numpy as np
import pytest

from pano4d.lifting import initialize
from pano4d.lifting.gaussians import sh_to_colors
from pano4d.lifting.edges import find_surface
from pano4d.lifting.initialize import gaussians_at, place, place_on
from pano4d.lifting.lattice import lattice_directions, lattice_spacing
from pano4d.lifting.rotations import quats_to_matrices
from pano4d.runtime.sphere import pixel_directions, sample_panorama

COUNT = 3000


def _plane_distance(height, width, normal, offset):
    """Ray distance to the plane normal . p = offset, far where the plane is not hit."""
    facing = pixel_directions(height, width) @ np.asarray(normal, float)
    return np.where(facing > 0.05, offset / np.maximum(facing, 0.05), offset / 0.05).astype(np.float32)


def test_rotations_are_orthonormal_and_footprints_fit():
    rng = np.random.default_rng(0)
    coarse = np.exp(rng.normal(size=(8, 16, 1)).astype(np.float32))
    distance = sample_panorama(coarse, pixel_directions(64, 128))[..., 0]
    placement = place(distance, COUNT)
    turns = quats_to_matrices(placement.quats)
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turns.shape), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(turns), 1.0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(placement.quats, axis=1), 1.0, atol=1e-6)
    # Seen from the centre every Gaussian is round, of the footprint's size per metre.
    axes = turns * placement.scales[:, None, :]
    across = axes - placement.directions[..., None] * np.einsum("ni,nij->nj", placement.directions, axes)[:, None]
    spread = np.linalg.svd(across[..., :2], compute_uv=False)
    reach = np.linalg.norm(placement.means, axis=1)
    sigma = initialize.SIGMA_PER_SPACING * lattice_spacing(COUNT)
    # Beside a farther thing it is smaller.
    share = spread / reach[:, None] / sigma
    rim = share[:, 0] < 0.5 * (1.0 + initialize.RIM)
    np.testing.assert_allclose(share, np.where(rim, initialize.RIM, 1.0)[:, None] * np.ones((1, 2)), rtol=1e-4)


def test_unit_sphere_faces_the_centre():
    placement = place(np.ones((32, 64), np.float32), COUNT)
    np.testing.assert_allclose(placement.means, placement.directions, atol=1e-6)
    normal = quats_to_matrices(placement.quats)[:, :, 2]
    np.testing.assert_allclose(np.einsum("ni,ni->n", normal, placement.directions), -1.0, atol=1e-6)
    np.testing.assert_allclose(placement.scales[:, 0], placement.scales[:, 1], rtol=1e-6)


def test_each_direction_may_have_a_spacing_of_its_own():
    surface, directions = find_surface(_plane_distance(128, 256, (0, 0, 1), 2.0)), lattice_directions(COUNT)
    narrow, wide = (place_on(surface, directions, spacing) for spacing in (0.02, 0.06))
    both = place_on(surface, directions, np.where(np.arange(COUNT) % 2, 0.02, 0.06))
    on_plane = directions[:, 2] > 0.4
    for start, alone in ((1, narrow), (0, wide)):
        select = np.flatnonzero(on_plane & (np.arange(COUNT) % 2 == start))
        np.testing.assert_allclose(both.scales[select], alone.scales[select], rtol=1e-5)
        np.testing.assert_array_equal(both.means[select], alone.means[select])


@pytest.mark.parametrize("normal", [(0, 1, 0), (0, -1, 0), (0, 0, -1), (0.6, 0, 0.8)])
def test_plane_gets_its_normal(normal):
    """Floor, ceiling (both contain a pole), the wall at the seam, a slanted wall."""
    placement = place(_plane_distance(256, 512, normal, 2.0), COUNT)
    facing = placement.directions @ np.asarray(normal, float)
    on_plane = facing > 0.4
    found = quats_to_matrices(placement.quats)[on_plane, :, 2] @ np.asarray(normal, float)
    assert np.degrees(np.arccos(np.clip(-found, -1, 1))).max() < 3.0
    np.testing.assert_allclose(placement.means[on_plane] @ np.asarray(normal), 2.0, rtol=0.01)


def test_grazing_surfaces_are_limited():
    placement = place(_plane_distance(64, 128, (0, 1, 0), 1.6), COUNT)
    ratio = placement.scales[:, 1] / placement.scales[:, 0]
    assert ratio.max() <= np.sqrt(1 + initialize.LARGEST_SLOPE**2) * 1.0001
    assert np.isfinite(placement.means).all() and (placement.scales > 0).all()


def test_colors_come_back(panorama):
    placement = place(np.full(panorama.shape[:2], 3.0, np.float32), COUNT)
    select = np.arange(5, COUNT, 7)
    scene = gaussians_at(placement, panorama, select)
    wanted = sample_panorama(panorama, placement.directions[select])
    np.testing.assert_allclose(255.0 * sh_to_colors(scene.sh), wanted, atol=1e-3)
    assert scene.sh.shape == (len(select), 1, 3)


def test_red_patch_on_the_right_lands_at_positive_x():
    panorama = np.zeros((64, 128, 3), np.uint8)
    panorama[28:36, 92:100, 0] = 255  # around lon +90 degrees
    panorama[:6, :, 1] = 255  # up
    panorama[28:36, 60:68, 2] = 255  # ahead
    placement = place(np.full((64, 128), 2.0, np.float32), COUNT)
    colors = sh_to_colors(gaussians_at(placement, panorama, np.arange(COUNT)).sh)
    for channel, axis in ((0, (1, 0, 0)), (1, (0, -1, 0)), (2, (0, 0, 1))):
        middle = placement.means[colors[:, channel] > 0.9].mean(0)
        assert middle @ np.array(axis) / np.linalg.norm(middle) > 0.99


def test_nothing_leans_across_a_step():
    """A disc before a wall: no Gaussian stands between them or reaches from one to the other."""
    towards = pixel_directions(128, 256) @ np.array([0.0, 0.0, 1.0])
    placement = place(np.where(towards > 0.9, 2.0, 4.0).astype(np.float32), COUNT)
    reach = np.linalg.norm(placement.means, axis=1)
    np.testing.assert_allclose(np.minimum(abs(reach - 2.0), abs(reach - 4.0)), 0.0, atol=1e-5)
    np.testing.assert_allclose(placement.scales[:, 0], placement.scales[:, 1], rtol=1e-3)
    near = placement.scales[reach < 3.0, 0]
    rim = placement.directions[reach < 3.0] @ np.array([0.0, 0.0, 1.0]) < np.cos(np.arccos(0.9) - 0.01)
    assert near[rim].max() < 0.7 * near.max()
