"""The rasteriser against a float64 one that tries every pair, and against gsplat where there is a GPU."""

import math
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pano4d.lifting import pairs  # noqa: E402
from pano4d.lifting.cameras import perspective_K, viewmat  # noqa: E402
from pano4d.lifting.gaussians import Gaussians, colors_to_sh  # noqa: E402
from pano4d.lifting.rasterize import RENDER_MODES, rasterization, rasterizer  # noqa: E402
from pano4d.lifting.render import splat  # noqa: E402
from pano4d.runtime.errors import SettingsError  # noqa: E402

NAMES = ("means", "quats", "scales", "opacities", "colors")
SIZES = [(37, 29), (16, 16), (1, 1), (65, 7)]


def scene(count=60, seed=0, dtype=torch.float64, harmonics=0, device="cpu"):
    """Gaussians all around, some behind the camera, quaternions of any length; each asks for a gradient."""
    rng = np.random.default_rng(seed)
    colors = rng.uniform(0, 1, (count, 3)) if not harmonics else rng.normal(0, 0.4, (count, harmonics, 3))
    values = (rng.uniform(-2, 2, (count, 3)), rng.normal(size=(count, 4)), np.exp(rng.normal(-1.8, 0.5, (count, 3))),
              rng.uniform(0.05, 1.0, count), colors)
    made = {"dtype": dtype, "device": device, "requires_grad": True}
    return {name: torch.tensor(value, **made) for name, value in zip(NAMES, values)}


def cameras(width, height, count=1, dtype=torch.float64, device="cpu"):
    """Cameras at the edge of the scene whose axis is not the picture's middle."""
    K = perspective_K(75.0, width, height) + np.array([[0, 0, 0.1 * width], [0, 0, -0.07 * height], [0, 0, 0]])
    views = [viewmat(20.0 + 130 * i, 10.0 - 15 * i, (0.1, 0.0, -2.0)) for i in range(count)]
    return {"viewmats": torch.tensor(np.array(views), dtype=dtype, device=device),
            "Ks": torch.tensor(np.array([K] * count), dtype=dtype, device=device), "width": width, "height": height}


def all_pairs(means, quats, scales, opacities, colors, viewmats, Ks, width, height, backgrounds=None):
    """Try every Gaussian on every pixel, one after another. Picture with z-depth behind the colours, and coverage."""
    picture, coverage = [], []
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    for c, (view, K) in enumerate(zip(viewmats, Ks)):
        drawn, left = 0.0, torch.ones(height, width, dtype=means.dtype)
        done = torch.zeros(height, width, dtype=torch.bool)
        points = means @ view[:3, :3].T + view[:3, 3]
        for i in torch.argsort(points[:, 2]):
            p, z = points[i], points[i, 2]
            if not 0.01 <= z <= 1e10:
                continue
            w, a, b, e = quats[i] / quats[i].norm()
            turn = torch.stack([1 - 2 * (b * b + e * e), 2 * (a * b - w * e), 2 * (a * e + w * b), 2 * (a * b + w * e),
                                1 - 2 * (a * a + e * e), 2 * (b * e - w * a), 2 * (a * e - w * b), 2 * (b * e + w * a),
                                1 - 2 * (a * a + b * b)]).reshape(3, 3)
            beyond = 0.15 * torch.tensor([width, height], dtype=torch.float64) / K.diagonal()[:2]
            low = -K[:2, 2] / K.diagonal()[:2] - beyond
            high = (torch.tensor([width, height]) - K[:2, 2]) / K.diagonal()[:2] + beyond
            s = torch.minimum(torch.maximum(p[:2] / z, low), high)
            zero = torch.zeros_like(z)
            J = torch.stack([K[0, 0] / z, zero, -K[0, 0] * s[0] / z, zero, K[1, 1] / z, -K[1, 1] * s[1] / z])
            spread = J.reshape(2, 3) @ view[:3, :3] @ turn @ scales[i].diag()
            cov = spread @ spread.T + 0.3 * torch.eye(2, dtype=torch.float64)
            center = K.diagonal()[:2] * p[:2] / z + K[:2, 2]
            d = center - torch.stack([x, y], -1)
            sigma = 0.5 * torch.einsum("hwi,ij,hwj->hw", d, torch.linalg.inv(cov), d)
            alpha = torch.clamp(opacities[i] * torch.exp(-sigma), max=0.999)
            sigmas = min(3.33, math.sqrt(2 * max(0.0, math.log(255 * opacities[i].item()))))
            radius = torch.ceil(sigmas * cov.detach().diagonal().sqrt())
            pixel = torch.stack([x, y], -1).floor()
            tiles = (pixel >= 16 * ((center - radius) / 16).floor()) & (pixel < 16 * ((center + radius) / 16).ceil())
            drawable = (alpha >= 1 / 255) & tiles.all(-1) & ~done
            done = done | (drawable & (left * (1 - alpha) <= 1e-4))
            alpha = torch.where(drawable & ~done, alpha, 0.0)
            drawn = drawn + (left * alpha)[..., None] * torch.cat([colors[i], z[None]])
            left = left * (1 - alpha)
        background = torch.zeros(4) if backgrounds is None else torch.cat([backgrounds[c], torch.zeros(1)])
        picture.append(drawn + left[..., None] * background)
        coverage.append(1 - left[..., None])
    return torch.stack(picture), torch.stack(coverage)


def gradients(draw, inputs, pull):
    """Gradients of a pull on picture and coverage, by the inputs."""
    picture, coverage = draw()[:2]
    return torch.autograd.grad((picture * pull[..., :-1]).sum() + (coverage * pull[..., -1:]).sum(), inputs)


def pull_of(shape, channels, like):
    made = torch.randn((*shape, channels + 1), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return made.to(like)


@pytest.mark.parametrize("width, height", SIZES)
def test_equals_all_pairs_and_so_do_the_gradients(width, height):
    given, camera = scene(), cameras(width, height)
    background = torch.tensor([[0.2, 0.5, 0.9]], dtype=torch.float64, requires_grad=True)
    want = all_pairs(**given, **camera, backgrounds=background)
    got = rasterization(**given, **camera, backgrounds=background, render_mode="RGB+D")
    torch.testing.assert_close(got[0], want[0], rtol=0, atol=1e-11)
    torch.testing.assert_close(got[1], want[1], rtol=0, atol=1e-11)
    inputs, pull = [*given.values(), background], pull_of((1, height, width), 4, got[0])
    found = gradients(lambda: got, inputs, pull)
    for name, mine, theirs in zip((*NAMES, "background"), found, gradients(lambda: want, inputs, pull)):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9 * theirs.abs().max().item(), msg=name)


def test_dense_scenes_end_a_pixels_list_early():
    given, camera = scene(count=300, seed=1), cameras(21, 19)
    with torch.no_grad():
        given["opacities"].clamp_(min=0.9)
        want = all_pairs(**given, **camera)
        got = rasterization(**given, **camera, render_mode="RGB+D")
    assert got[1].max() < 1 - 1e-4
    torch.testing.assert_close(got[0], want[0], rtol=0, atol=1e-11)


def test_opacity_beyond_1_reaches_to_the_borders_of_tiles():
    given, camera = scene(count=4, seed=2), cameras(70, 50)
    with torch.no_grad():
        given["means"][:, 2] += 3
        given["opacities"] += 50.0
        torch.testing.assert_close(rasterization(**given, **camera, render_mode="RGB+D")[0],
                                   all_pairs(**given, **camera)[0], rtol=0, atol=1e-11)


def test_gradcheck():
    given, camera = scene(count=6, seed=4), cameras(9, 7)
    with torch.no_grad():
        given["scales"] += 0.3

    def draw(*values):
        return rasterization(*values, **camera, render_mode="RGB+ED")[:2]

    assert torch.autograd.gradcheck(draw, tuple(given.values()), eps=1e-7, atol=1e-4, rtol=1e-3)


def test_bands_do_not_show(monkeypatch):
    given, camera = scene(count=200), cameras(50, 41)
    pull = pull_of((1, 41, 50), 3, given["means"])
    whole = rasterization(**given, **camera)
    before = gradients(lambda: whole, list(given.values()), pull)
    monkeypatch.setattr(pairs, "BAND_PAIRS", 100)
    banded = rasterization(**given, **camera)
    torch.testing.assert_close(banded[0], whole[0], rtol=0, atol=1e-11)
    for mine, theirs in zip(gradients(lambda: banded, list(given.values()), pull), before):
        torch.testing.assert_close(mine, theirs)


def test_float32_is_as_good_as_its_digits():
    want = all_pairs(**scene(count=200), **cameras(61, 40))
    single = {"dtype": torch.float32}
    got = rasterization(**scene(count=200, **single), **cameras(61, 40, **single), render_mode="RGB+D")
    assert (got[0] - want[0]).abs().max() < 1e-4


def test_several_cameras_equal_single_ones():
    given, camera = scene(), cameras(33, 21, count=3)
    backgrounds = torch.rand(3, 3, dtype=torch.float64)
    many, _, meta = rasterization(**given, **camera, backgrounds=backgrounds)
    for i in range(3):
        one = camera | {name: camera[name][i:i + 1] for name in ("viewmats", "Ks")}
        single, _, its = rasterization(**given, **one, backgrounds=backgrounds[i:i + 1])
        torch.testing.assert_close(many[i:i + 1], single, rtol=0, atol=0)
        mine = meta["camera_ids"] == i
        for name in ("gaussian_ids", "means2d", "radii", "depths"):
            torch.testing.assert_close(meta[name][mine], its[name])


def several(sets=2, colors_of_cameras=False, harmonics=0, **kind):
    """Sets of Gaussians with three cameras each, all with a leading axis; leaves, and cameras."""
    scenes = [scene(seed=seed, harmonics=harmonics, **kind) for seed in range(sets)]
    given = {name: torch.stack([one[name].detach() for one in scenes]) for name in NAMES}
    if colors_of_cameras:
        given["colors"] = given["colors"][:, None] * torch.linspace(0.5, 1, 3).to(given["colors"]).reshape(-1, 1, 1)
    camera = cameras(33, 21, count=3 * sets, **kind)
    camera |= {name: camera[name].unflatten(0, (sets, 3)) for name in ("viewmats", "Ks")}
    return {name: value.requires_grad_() for name, value in given.items()}, camera


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("colors_of_cameras, harmonics", [(False, 0), (True, 0), (False, 4)])
def test_several_sets_equal_single_ones(packed, colors_of_cameras, harmonics):
    given, camera = several(colors_of_cameras=colors_of_cameras, harmonics=harmonics)
    options = {"packed": packed, "render_mode": "RGB+ED", "sh_degree": 1 if harmonics else None}
    backgrounds = torch.rand(2, 3, 3, dtype=torch.float64)
    many, coverage, meta = rasterization(**given, **camera, backgrounds=backgrounds, **options)
    assert many.shape == (2, 3, 21, 33, 4) and coverage.shape == (2, 3, 21, 33, 1)
    assert (meta["n_batches"], meta["n_cameras"]) == (2, 3)
    for i in range(2):
        own = {name: value[i] for name, value in given.items()}
        its_camera = camera | {name: camera[name][i] for name in ("viewmats", "Ks")}
        single, covered, its = rasterization(**own, **its_camera, backgrounds=backgrounds[i], **options)
        torch.testing.assert_close(many[i], single, rtol=0, atol=0)
        torch.testing.assert_close(coverage[i], covered, rtol=0, atol=0)
        mine = meta["batch_ids"] == i if packed else i
        for name in ("means2d", "radii", "depths", "conics", "opacities", *(("camera_ids", "gaussian_ids") if packed else ())):
            torch.testing.assert_close(meta[name][mine], its[name])


def test_packed_or_not_is_the_same_picture_with_the_same_gradients():
    given, camera = several()
    pull = pull_of((2, 3, 21, 33), 3, given["means"])
    drawn, found = [], []
    for packed in (True, False):
        drawn.append(rasterization(**given, **camera, packed=packed))
        drawn[-1][2]["means2d"].retain_grad()
        found.append(gradients(lambda: drawn[-1], [*given.values(), drawn[-1][2]["means2d"]], pull))
    torch.testing.assert_close(drawn[0][0], drawn[1][0], rtol=0, atol=0)
    meta, spread = drawn[0][2], drawn[1][2]
    where = meta["batch_ids"], meta["camera_ids"], meta["gaussian_ids"]
    for mine, theirs in zip(found[0][:-1], found[1][:-1]):
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(found[1][-1][where], found[0][-1])
    seen = torch.zeros(2, 3, 60, dtype=torch.bool)
    seen[where] = True
    assert torch.equal((spread["radii"] > 0).all(-1), seen) and spread["gaussian_ids"] is None
    torch.testing.assert_close(spread["radii"][where], meta["radii"])


def test_modes_of_depth():
    given, camera = scene(), cameras(30, 20, count=2)
    drawn = {mode: rasterization(**given, **camera, render_mode=mode) for mode in RENDER_MODES}
    depth, coverage = drawn["D"][:2]
    torch.testing.assert_close(drawn["RGB+D"][0], torch.cat([drawn["RGB"][0], depth], -1))
    torch.testing.assert_close(drawn["ED"][0], depth / coverage.clamp_min(1e-10))
    torch.testing.assert_close(drawn["RGB+ED"][0][..., 3:], drawn["ED"][0])
    backgrounds = torch.ones(2, 3, dtype=torch.float64)
    torch.testing.assert_close(rasterization(**given, **camera, backgrounds=backgrounds, render_mode="D")[0], depth)


@pytest.mark.parametrize("empty", ["no Gaussian", "behind", "faint", "clipped"])
def test_an_empty_view_is_background(empty):
    given, camera = scene(count=0 if empty == "no Gaussian" else 20), cameras(9, 7)
    options = {"radius_clip": 1e4} if empty == "clipped" else {}
    with torch.no_grad():
        given["means"][:, 2] -= 90.0 * (empty == "behind")
        given["opacities"] *= 0.001 if empty == "faint" else 1.0
    backgrounds = torch.full((1, 3), 0.25, dtype=torch.float64)
    picture, coverage, meta = rasterization(**given, **camera, backgrounds=backgrounds, **options)
    assert (picture == 0.25).all() and (coverage == 0).all() and len(meta["gaussian_ids"]) == 0
    (picture.sum() + coverage.sum()).backward()
    assert not given["means"].grad.any()


def test_gradients_of_the_picture_plane_can_be_asked_for():
    given, camera = scene(), cameras(30, 20, count=2)
    picture, _, meta = rasterization(**given, **camera)
    meta["means2d"].retain_grad()
    picture.square().sum().backward()
    assert meta["means2d"].grad.shape == meta["radii"].shape and meta["means2d"].grad.abs().max() > 0
    assert (meta["radii"] > 0).all() and (torch.diff(meta["camera_ids"]) >= 0).all()


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_harmonics_are_orthonormal_and_agree_with_the_constant_one(degree):
    from pano4d.lifting.harmonics import _bases

    # Gauss-Legendre by equal steps integrates these exactly.
    z, weight = np.polynomial.legendre.leggauss(8)
    phi = np.arange(16) / 16 * 2 * np.pi
    z, phi, weight = (a.ravel() for a in np.broadcast_arrays(z[:, None], phi[None], weight[:, None] * 2 * np.pi / 16))
    unit = torch.tensor(np.stack([np.sqrt(1 - z * z) * np.cos(phi), np.sqrt(1 - z * z) * np.sin(phi), z], -1))
    bases = _bases(degree, unit)
    products = (bases.T * torch.tensor(weight)) @ bases
    torch.testing.assert_close(products, torch.eye((degree + 1) ** 2, dtype=torch.float64))
    given, camera = scene(harmonics=16), cameras(20, 20)
    with torch.no_grad():
        given["colors"][:, 1:] = 0
        plain = given | {"colors": (0.5 + 0.28209479177387814 * given["colors"][:, 0]).clamp_min(0)}
        torch.testing.assert_close(rasterization(**given, **camera, sh_degree=degree)[0],
                                   rasterization(**plain, **camera)[0])


def test_what_does_not_fit_is_refused():
    with pytest.raises(SettingsError, match="RGB"):
        rasterization(**scene(), **cameras(9, 7), render_mode="XYZ")
    for degree, count in ((4, 25), (2, 4)):
        with pytest.raises(SettingsError, match="harmonics"):
            rasterization(**scene(harmonics=count), **cameras(9, 7), sh_degree=degree)


def test_agrees_with_the_renderer_of_the_base_install():
    rng = np.random.default_rng(5)
    made = Gaussians(rng.uniform(-2, 2, (400, 3)).astype(np.float32), rng.normal(size=(400, 4)).astype(np.float32),
                     np.exp(rng.normal(-2, 0.6, (400, 3))).astype(np.float32),
                     rng.uniform(0.05, 0.95, 400).astype(np.float32), colors_to_sh(rng.uniform(0, 1, (400, 3))))
    K, view = perspective_K(75.0, 61, 47), viewmat(20.0, 10.0, (0.1, 0.0, -3.0))
    values = (torch.tensor(getattr(made, name)) for name in ("means", "quats", "scales", "opacities", "sh"))
    picture = rasterization(*values, torch.tensor(view[None], dtype=torch.float32),
                            torch.tensor(K[None], dtype=torch.float32), 61, 47, near_plane=0.02, sh_degree=0)[0][0]
    grey = 255 * picture.clamp(0, 1).numpy()
    assert np.abs(grey - splat(made, view, K, 61, 47).astype(float)).max() <= 1.0


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_gsplat_is_never_imported_without_a_gpu(device, monkeypatch):
    monkeypatch.setitem(sys.modules, "gsplat", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert rasterizer(device) is rasterization


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["RGB", "RGB+ED"])
@pytest.mark.parametrize("harmonics", [0, 16])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_gsplat(seed, harmonics, mode):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    pytest.importorskip("gsplat", reason="gsplat is not installed: pip install 'pano4d[lift]'")
    kind = {"dtype": torch.float32, "device": "cuda"}
    given, camera = scene(count=400, seed=seed, harmonics=harmonics, **kind), cameras(121, 83, count=3, **kind)
    # No backgrounds: gsplat 1.5.3 refuses them in its packed form.
    options = {"render_mode": mode, "sh_degree": 3 if harmonics else None}
    want, got = (draw(**given, **camera, **options) for draw in (rasterizer("cuda"), rasterization))
    assert rasterizer("cuda") is not rasterization
    assert (want[0] - got[0]).abs().max() <= 1e-4 and (want[1] - got[1]).abs().max() <= 1e-4
    torch.testing.assert_close(want[2]["gaussian_ids"], got[2]["gaussian_ids"], check_dtype=False)
    inputs, pull = list(given.values()), pull_of((3, 83, 121), want[0].shape[-1], got[0])
    for name, theirs, mine in zip(NAMES, gradients(lambda: want, inputs, pull), gradients(lambda: got, inputs, pull)):
        assert (theirs - mine).norm() <= 1e-3 * theirs.norm(), name


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["RGB", "RGB+D"])
def test_several_sets_agree_with_gsplat(mode):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    pytest.importorskip("gsplat", reason="gsplat is not installed: pip install 'pano4d[lift]'")
    # Not packed: there gsplat 1.5.3 cuts the Gaussians of all sets where the opacities of the first would end.
    given, camera = several(dtype=torch.float32, device="cuda")
    want, got = (draw(**given, **camera, packed=False, render_mode=mode) for draw in (rasterizer("cuda"), rasterization))
    assert (want[0] - got[0]).abs().max() <= 1e-4 and (want[1] - got[1]).abs().max() <= 1e-4
    assert want[2]["gaussian_ids"] is None and want[2]["radii"].shape == got[2]["radii"].shape == (2, 3, 60, 2)
    assert torch.equal((want[2]["radii"] > 0).all(-1), (got[2]["radii"] > 0).all(-1))
    inputs, pull = list(given.values()), pull_of((2, 3, 21, 33), want[0].shape[-1], got[0])
    for name, theirs, mine in zip(NAMES, gradients(lambda: want, inputs, pull), gradients(lambda: got, inputs, pull)):
        assert (theirs - mine).norm() <= 1e-3 * theirs.norm(), name
