import numpy as np
import pytest

from pano4d.lifting.cameras import perspective_K, viewmat
from pano4d.lifting.gaussians import Gaussians, colors_to_sh
from pano4d.lifting.initialize import gaussians_at, place
from pano4d.lifting.prior import prior_distance
from pano4d.lifting.render import splat
from pano4d.lifting.rotations import quats_to_matrices
from pano4d.runtime.sphere import sample_panorama

VIEWS = [(0, 0), (180, 0), (90, -30), (-120, 40), (0, 90), (30, -90)]


def _crop(panorama, view, K, width, height):
    """The perspective picture that the panorama shows in that view. float32 [h, w, 3]."""
    y, x = np.mgrid[:height, :width] + 0.5
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    return sample_panorama(panorama, rays @ view[:3, :3])


def _splat_ref(scene, view, K, width, height):
    """Composite every Gaussian over every pixel, one after another. float64."""
    picture, left = np.zeros((height, width, 3)), np.ones((height, width))
    points = scene.means.astype(np.float64) @ view[:3, :3].T + view[:3, 3]
    turns = quats_to_matrices(scene.quats)
    y, x = np.mgrid[:height, :width] + 0.5
    for i in np.argsort(points[:, 2]):
        px, py, pz = points[i]
        if pz <= 0.02:
            continue
        M = turns[i] * scene.scales[i]
        u = np.clip(px / pz, -0.65 * width / K[0, 0], 0.65 * width / K[0, 0])
        v = np.clip(py / pz, -0.65 * height / K[1, 1], 0.65 * height / K[1, 1])
        J = np.array([[K[0, 0], 0, -K[0, 0] * u], [0, K[1, 1], -K[1, 1] * v]]) / pz
        cov = J @ view[:3, :3] @ M @ M.T @ view[:3, :3].T @ J.T + 0.3 * np.eye(2)
        d = np.stack([x - K[0, 0] * px / pz - K[0, 2], y - K[1, 1] * py / pz - K[1, 2]], -1)
        alpha = scene.opacities[i] * np.exp(-0.5 * np.einsum("hwi,ij,hwj->hw", d, np.linalg.inv(cov), d))
        alpha = np.minimum(alpha, 0.999)
        alpha[alpha <= 1 / 255] = 0
        boxed = (np.abs(d) <= 3.33 * np.sqrt(np.diag(cov))).all(-1)
        alpha *= boxed
        color = 0.5 + 0.28209479177387814 * scene.sh[i, 0]
        picture += (left * alpha)[..., None] * color
        left *= 1 - alpha
    return 255.0 * picture


def test_equals_the_obvious_reference():
    rng = np.random.default_rng(0)
    quats = rng.normal(size=(150, 4))
    scene = Gaussians(
        rng.uniform(-2, 2, (150, 3)).astype(np.float32), quats.astype(np.float32),
        np.exp(rng.normal(-2, 0.7, (150, 3))).astype(np.float32),
        rng.uniform(0.1, 1.0, 150).astype(np.float32), colors_to_sh(rng.uniform(0, 1, (150, 3))),
    )
    K, view = perspective_K(75.0, 37, 29), viewmat(20.0, 10.0, (0.1, 0.0, -3.0))
    got = splat(scene, view, K, 37, 29).astype(float)
    assert np.abs(got - _splat_ref(scene, view, K, 37, 29)).max() <= 0.51


def test_bands_do_not_show(panorama, monkeypatch):
    scene = gaussians_at(place(prior_distance(panorama), 3000), panorama, np.arange(3000))
    K, view = perspective_K(90.0, 50, 40), viewmat(10.0, 0.0)
    whole = splat(scene, view, K, 50, 40)
    monkeypatch.setattr("pano4d.lifting.render._BAND_PIXELS", 150)
    np.testing.assert_array_equal(splat(scene, view, K, 50, 40), whole)


@pytest.mark.parametrize("yaw_deg, pitch_deg", VIEWS)
def test_centre_view_resembles_the_perspective_crop(panorama, yaw_deg, pitch_deg):
    """Upright, not mirrored, in its place: ahead, over the seam, at both poles."""
    scene = gaussians_at(place(prior_distance(panorama), 8000), panorama, np.arange(8000))
    K, view = perspective_K(80.0, 64, 48), viewmat(yaw_deg, pitch_deg)
    got, want = splat(scene, view, K, 64, 48), _crop(panorama, view, K, 64, 48)
    psnr = 10 * np.log10(255.0**2 / np.mean((got - want) ** 2))
    mirrored = 10 * np.log10(255.0**2 / np.mean((got[:, ::-1] - want) ** 2))
    assert psnr > 30.0 and psnr > mirrored + 6.0


@pytest.mark.parametrize("yaw_deg, pitch_deg", VIEWS)
def test_no_holes_from_the_centre(landscape, yaw_deg, pitch_deg):
    white = np.full_like(landscape, 255)
    scene = gaussians_at(place(prior_distance(landscape), 8000), white, np.arange(8000))
    assert splat(scene, viewmat(yaw_deg, pitch_deg), perspective_K(90.0, 80, 80), 80, 80).min() > 225


def test_nearer_things_move_more_off_the_centre():
    means = np.array([[0, 0, 2], [0.5, 0, 8]], np.float32)
    scene = Gaussians(
        means, np.tile(np.float32([1, 0, 0, 0]), (2, 1)), np.full((2, 3), 0.05, np.float32),
        np.full(2, 0.99, np.float32), colors_to_sh(np.array([[1, 0, 0], [0, 1, 0]])),
    )
    K = perspective_K(60.0, 80, 60)
    middle = []
    for x in (0.0, 0.4):
        picture = splat(scene, viewmat(0, 0, (x, 0, 0)), K, 80, 60)
        middle.append([np.average(np.arange(80), weights=picture[..., c].sum(0) + 1e-9) for c in (0, 1)])
    shift = np.array(middle[1]) - middle[0]
    assert shift[0] < shift[1] < 0


def test_empty_view_is_background():
    scene = Gaussians(*(np.zeros((0, *s), np.float32) for s in ((3,), (4,), (3,), (), (1, 3))))
    picture = splat(scene, np.eye(4), perspective_K(60.0, 9, 7), 9, 7, background=(0.0, 0.5, 1.0))
    np.testing.assert_array_equal(picture, np.broadcast_to(np.uint8([0, 128, 255]), (7, 9, 3)))
