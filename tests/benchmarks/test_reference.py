"""The original's schedule: its geometry, its operators against brute force, its calls, and what they are told."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from pano4d.benchmarks import reference, reference_conditions, reference_sphere
from pano4d.benchmarks.reference_timing import Meter
from pano4d.runtime import schedule as noise_levels
from pano4d.runtime.errors import SettingsError
from pano4d.runtime.sphere import pixel_directions, rotation

TRUE = reference.ReferenceSchedule()
SMALL = TRUE.scaled(16)
BRIEF = replace(SMALL, steps=2, sphere_steps=1, hr_start=1, frames=2)
SMALL_LATTICE = (40_000, 4_000)


class StubUnet(torch.nn.Module):
    """Note what it is given; predict v so that the denoised estimate is 0.5 everywhere."""

    def __init__(self):
        super().__init__()
        self.parameter = torch.nn.Parameter(torch.zeros(1))
        self.calls = []

    def forward(self, sample, timestep, embeddings, added_time_ids, return_dict):
        self.calls.append((sample, float(timestep), embeddings, added_time_ids))
        c_skip, c_out, c_in, _ = noise_levels.scalings(np.exp(4 * float(timestep)))
        return [(0.5 - c_skip / c_in * sample[:, :, 1:5]) / c_out]


@pytest.fixture(scope="module")
def models():
    """Tiny networks of the true classes, 2 px to a latent pixel. Not to be changed."""
    torch.manual_seed(0)
    unet = diffusers.UNetSpatioTemporalConditionModel(
        sample_size=8, in_channels=9, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal",) * 2, num_attention_heads=(1, 2),
        cross_attention_dim=8, addition_time_embed_dim=8, projection_class_embeddings_input_dim=24, num_frames=2)
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2, layers_per_block=1, sample_size=16,
        latent_channels=4, scaling_factor=0.25)
    clip = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, patch_size=112,
        projection_dim=8))
    return reference.ReferenceModels(unet.eval(), vae.eval(), clip.eval())


@pytest.fixture
def stubbed(models):
    return replace(models, unet=StubUnet())


@pytest.fixture(scope="module")
def picture():
    panorama = np.random.default_rng(0).integers(0, 256, (64, 128, 3)).astype(np.uint8)
    mask = np.zeros((64, 128), bool)
    mask[16:48, 40:90] = True
    return panorama, mask


def random_directions(count):
    vectors = np.random.default_rng(1).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def flat(directions):
    return torch.from_numpy(directions.reshape(-1, 3))


def test_views_have_the_originals_angle_latitudes_and_rolls():
    assert np.degrees(2 * np.arctan(reference_sphere.TAN_HALF_FOV)) == pytest.approx(97.78, abs=0.005)
    rotations = reference_sphere.view_rotations()
    lat = np.degrees(np.arcsin(-rotations[:, 1, 2]))
    assert Counter(np.round(lat, 2) + 0.0) == {69.09: 2, 35.26: 4, 20.91: 2, 0.0: 4, -20.91: 2, -35.26: 4, -69.09: 2}
    yaw = np.degrees(np.arctan2(rotations[:, 0, 2], rotations[:, 2, 2]))
    upright = np.stack([rotation(*angles) for angles in zip(yaw, lat)])
    turned = upright.transpose(0, 2, 1) @ rotations
    rolls = np.abs(np.degrees(np.arctan2(turned[:, 1, 0], turned[:, 0, 0])))
    assert Counter(np.round(rolls, 1)) == {0.0: 4, 22.2: 4, 30.0: 4, 37.8: 4, 60.0: 4}


def test_every_direction_lies_in_two_to_five_views():
    camera = np.einsum("ni,vij->nvj", random_directions(20_000), reference_sphere.view_rotations())
    inside = np.abs(camera[..., :2]).max(-1) <= camera[..., 2] * reference_sphere.TAN_HALF_FOV
    seen = inside.sum(1)
    assert seen.min() == 2 and seen.max() == 5 and seen.mean() == pytest.approx(3.84, abs=0.02)


def test_view_pixels_look_up_their_own_direction():
    from pano4d.runtime.sphere import sample_panorama

    directions = pixel_directions(128, 256).astype(np.float32)
    found = reference_sphere.sample_views(torch.from_numpy(directions).permute(2, 0, 1),
                                          reference_sphere.view_grid(16)).permute(0, 2, 3, 1).numpy()
    wanted = reference_sphere.view_directions(16)
    inland = np.abs(np.arctan2(wanted[..., 0], wanted[..., 2])) < 3.1
    assert np.abs(found - sample_panorama(directions, wanted))[inland].max() < 1e-3
    assert np.abs(found - wanted).max() < 0.03, "the border padding shifts the seam by half a pixel at most"


def test_view_noise_loses_more_than_half_of_its_variance():
    grid = reference_sphere.view_grid(TRUE.view_size)
    variance = 1.0
    for axis, size in ((0, 2 * TRUE.lr_height), (1, TRUE.lr_height)):
        at = ((grid[..., axis].double() + 1) / 2 * size - 0.5).clamp(0, size - 1)
        variance = variance * ((at - at.floor()) ** 2 + (1 - at + at.floor()) ** 2)
    assert float(variance.mean()) == pytest.approx(0.445, abs=0.002)
    noise = torch.randn(4, TRUE.lr_height, 2 * TRUE.lr_height, generator=torch.Generator().manual_seed(0))
    assert float(reference_sphere.sample_views(noise, grid).var()) == pytest.approx(0.445, abs=0.01)


def whole_lattice(lattice):
    points = [reference_sphere.lattice_points(torch.arange(count), count) for count in lattice]
    return torch.cat([some[reference_sphere.is_kept(some, dense)] for some, dense in zip(points, (True, False))])


def brute_neighbours(targets, candidates):
    """Two nearest candidates of each target and their shares, by looking at all."""
    near, at = (targets[:, None] - candidates).norm(dim=-1).topk(2, dim=1, largest=False)
    return at, (1 / near) / (1 / near).sum(1, keepdim=True)


def dense_matrix(sources, weights, count):
    return torch.zeros(len(sources), count, dtype=torch.float64).scatter_add_(1, sources, weights.double())


def test_lattice_has_the_originals_density():
    # A thousandth of the true lattice, of which 40.0 and 16.0 million points are kept.
    assert len(whole_lattice((200_000, 20_000))) == pytest.approx(56_000, abs=10)


def test_nearest_lattice_points_are_those_of_brute_force():
    pole, border = np.array([[-1.0, 0, 0], [1, 0, 0]]), random_directions(500)
    border[:, 1] = np.sign(border[:, 1]) * np.random.default_rng(2).normal(0.8, 0.02, 500)
    border[:, [0, 2]] *= (np.sqrt(1 - border[:, 1] ** 2) / np.hypot(border[:, 0], border[:, 2]))[:, None]
    round_the_axis = np.repeat(pole, 250, axis=0) + 0.15 * random_directions(500)
    round_the_axis /= np.linalg.norm(round_the_axis, axis=1, keepdims=True)
    for targets in (flat(random_directions(1000)), flat(border), flat(round_the_axis)):
        points, shares = reference_sphere.nearest_points(targets, SMALL_LATTICE)
        every = whole_lattice(SMALL_LATTICE)
        at, wanted = brute_neighbours(targets, every)
        assert (points - every[at]).abs().max() < 1e-12
        assert (shares - wanted).abs().max() < 1e-9


def test_nearest_points_of_the_true_lattice_are_those_of_all_at_about_their_height():
    targets, within = random_directions(12), 2e-3
    targets[:6, 1] = 0.8 + np.array([-3, -2, -1, 1, 2, 3]) * 1e-4  # either side of the border between the lattices
    targets[:6, [0, 2]] *= (np.sqrt(1 - targets[:6, 1] ** 2) / np.hypot(*targets[:6, [0, 2]].T))[:, None]
    points, _ = reference_sphere.nearest_points(flat(targets), TRUE.lattice)
    for target, found in zip(flat(targets), points):
        every = []
        for count, dense in zip(TRUE.lattice, (True, False)):
            centre, reach = (1 + float(target[0])) / 2 * (count - 1), within / 2 * (count - 1)
            indices = torch.arange(int(max(0, centre - reach)), int(centre + reach))
            some = reference_sphere.lattice_points(indices, count)
            every.append(some[reference_sphere.is_kept(some, dense)])
        at, _ = brute_neighbours(target[None], torch.cat(every))
        assert (torch.cat(every)[at[0]] - found).abs().max() < 1e-12


def test_nearest_pixels_are_those_of_brute_force():
    points, pixels = flat(random_directions(3000)), flat(reference_sphere.view_directions(8))
    found, shares = reference_sphere.nearest_pixels(points, 8)
    at, wanted = brute_neighbours(points, pixels)
    difference = dense_matrix(found, shares, len(pixels)) - dense_matrix(at, wanted, len(pixels))
    assert difference.abs().max() < 1e-9


@pytest.mark.parametrize("kind", ["views", "panorama"])
def test_fusion_is_both_maps_one_after_the_other(kind):
    size = 8
    targets = flat(reference_sphere.view_directions(size) if kind == "views" else pixel_directions(8, 16))
    operator = reference_sphere.fusion(targets, SMALL_LATTICE, size)
    every, pixels = whole_lattice(SMALL_LATTICE), flat(reference_sphere.view_directions(size))
    at, outer = brute_neighbours(targets, every)
    to_points = dense_matrix(*brute_neighbours(every[at.flatten()], pixels), len(pixels)).unflatten(0, at.shape)
    wanted = (outer[..., None] * to_points).sum(1)
    assert (dense_matrix(operator.sources, operator.weights, len(pixels)) - wanted).abs().max() < 1e-6
    values = torch.randn(len(pixels), 3, generator=torch.Generator().manual_seed(0))
    assert (operator(values) - wanted.float() @ values).abs().max() < 1e-5


def test_fusion_keeps_a_constant_field():
    for targets in (reference_sphere.view_directions(8), pixel_directions(8, 16)):
        operator = reference_sphere.fusion(flat(targets), SMALL.lattice, 8)
        assert (operator(torch.full((20 * 64, 2), 7.0)) - 7).abs().max() < 1e-5


def test_fusion_on_the_true_lattice_mixes_as_little_as_the_original():
    # True sizes; only the targets are a sample.
    directions, rng = flat(reference_sphere.view_directions(TRUE.view_size)), np.random.default_rng(0)
    chosen = torch.from_numpy(rng.choice(len(directions), 2000, replace=False))
    operator = reference_sphere.fusion(directions[chosen], TRUE.lattice, TRUE.view_size)
    own = (operator.weights * (operator.sources == chosen[:, None])).sum(1)
    assert float(own.mean()) == pytest.approx(0.892, abs=0.015)
    panorama = flat(pixel_directions(128, 256))[rng.choice(128 * 256, 1000, replace=False)]
    operator = reference_sphere.fusion(panorama, TRUE.lattice, TRUE.view_size)
    same = operator.sources[:, :, None] == operator.sources[:, None]
    joined = (same * operator.weights[:, None]).sum(2)
    assert float(joined.max(1).values.mean()) == pytest.approx(0.61, abs=0.02)
    assert float((joined * operator.weights).sum(1).mean()) == pytest.approx(0.535, abs=0.02)


@pytest.mark.parametrize("size, stride, height", [(64, 32, 128), (128, 64, 256)])
def test_windows_overlap_two_or_four_times(size, stride, height):
    corners = reference.windows(height, size, stride)
    assert len(corners) == 24
    count = np.zeros((height, 2 * height), int)
    for row, column in corners:
        count[row:row + size, np.arange(column, column + size) % (2 * height)] += 1
    assert set(np.unique(count)) == {2, 4} and count.mean() == 3


def test_second_pass_starts_at_the_originals_noise_level():
    sigmas = noise_levels.karras_sigmas(TRUE.steps, TRUE.sigma_min, TRUE.sigma_max)
    assert sigmas[TRUE.hr_start] == pytest.approx(182.5, abs=0.05)


def test_all_calls_are_made(stubbed, picture):
    report, frames = reference.run(stubbed, SMALL, *picture)
    assert {part["name"]: part["calls"] for part in report["parts"]} == {
        "clip": 2, "lr encode": 1, "sphere operators": 1, "view": 100, "views to views": 4, "views to panorama": 1,
        "lr window": 480, "hr encode": 1, "hr window": 480, "decode": 14, "between calls": 1}
    assert Counter(call[0].shape for call in stubbed.unet.calls) == {(2, 14, 9, 8, 8): 580, (2, 14, 9, 4, 4): 480}
    assert not report["multiplied"] and all(part["calls"] == part["timed_calls"] for part in report["parts"])
    assert frames.shape == (14, 32, 64, 3) and frames.dtype == np.uint8
    assert report["seconds"] == pytest.approx(sum(part["seconds"] for part in report["parts"]))


def test_a_perfect_denoiser_is_followed(stubbed, picture):
    _, frames = reference.run(stubbed, BRIEF, *picture)
    latents = torch.full((1, 4, BRIEF.hr_height, 2 * BRIEF.hr_height), 0.5 / stubbed.vae.config.scaling_factor)
    with torch.no_grad():
        decoded = stubbed.vae.decode(latents, num_frames=1).sample[0].permute(1, 2, 0)
    assert np.abs(frames - ((decoded.numpy() + 1) * 127.5)).max() < 1


def test_the_unet_is_told_what_the_original_tells_it(stubbed, picture):
    reference.run(stubbed, BRIEF, *picture)
    sample, timestep, embeddings, ids = stubbed.unet.calls[0]
    assert timestep == pytest.approx(0.25 * np.log(700), rel=1e-6)
    assert (ids == torch.tensor([[6, 127, 0.02]] * 2)).all()
    assert not embeddings[0].any() and embeddings[1].any()
    mask, noisy, image = sample[:, :, :1], sample[:, :, 1:5], sample[:, :, 5:]
    assert (mask[0] == mask[1]).all() and (noisy[0] == noisy[1]).all()
    assert not image[0].any() and image[1].any() and (image[:, 0] == image[:, 1]).all()
    assert 0.3 < float(torch.stack([call[0][0, :, 1:5] for call in stubbed.unet.calls[:20]]).var()) < 0.6
    last = stubbed.unet.calls[-1]
    assert last[1] == pytest.approx(0.25 * np.log(0.002), rel=1e-6)


def test_guidance_grows_from_frame_to_frame(stubbed, picture):
    class Halves(StubUnet):
        def forward(self, sample, timestep, embeddings, added_time_ids, return_dict):
            return [torch.stack([torch.zeros_like(sample[0, :, 1:5]), torch.ones_like(sample[1, :, 1:5])])]

    meter = Meter(torch.device("cpu"))
    candidate = reference._Candidate(replace(stubbed, unet=Halves()), SMALL, meter, *picture, seed=0)
    state = torch.zeros(1, 14, 4, 4, 4)
    moved = candidate._step(state, torch.zeros(2, 1, 8), torch.zeros(4, 4, 4), torch.zeros(1, 4, 4), 24)
    sigma = 0.002
    scales = -moved[0, :, 0, 0, 0] * (sigma**2 + 1) ** 0.5 / sigma
    assert np.allclose(scales, 1 + 2 * np.arange(14) / 13, rtol=1e-4)


def test_the_true_networks_give_the_same_frames_for_the_same_noise(models, picture):
    first, again, other = (reference.run(models, BRIEF, *picture, seed=seed)[1] for seed in (3, 3, 4))
    assert (first == again).all() and (first != other).any()


def test_a_sample_of_calls_is_multiplied(stubbed, picture):
    report, frames = reference.run(stubbed, SMALL, *picture, sample=2)
    parts = {part["name"]: part for part in report["parts"]}
    assert frames is None and report["multiplied"]
    assert len(stubbed.unet.calls) == 3 * (2 + 1), "three kinds, each warmed up"
    assert [(parts[name]["calls"], parts[name]["timed_calls"]) for name in ("view", "lr window", "hr window", "decode")
            ] == [(100, 2), (480, 2), (480, 2), (14, 2)]
    assert parts["view"]["seconds"] == pytest.approx(100 * parts["view"]["seconds_each"])
    assert report["seconds"] == pytest.approx(sum(part["seconds"] for part in report["parts"]))


def test_the_autoencoder_encodes_in_float32_and_is_left_as_it_was(models, picture):
    vae = diffusers.AutoencoderKLTemporalDecoder.from_config(models.vae.config).half().eval()
    with torch.no_grad():
        latent = reference_conditions.encode(vae, picture[0], 8, 0.02, torch.Generator().manual_seed(0))
    assert latent.dtype == torch.float32 and latent.shape == (4, 8, 16)
    assert vae.dtype == torch.float16


def test_masks_keep_soft_edges():
    mask = np.zeros((768, 1536), bool)
    mask[123:600, 300:900] = True  # a latent pixel is 6 wide and sampled between its third and fourth
    latent = reference_conditions.latent_mask(mask, (3072, 6144), TRUE.lr_height)
    assert latent.shape == (1, 128, 256)
    assert latent[0, 19:22, 100].tolist() == [0, 0.5, 1]
    assert latent[0, 0, 0] == 0 and set(latent.unique().tolist()) == {0, 0.5, 1}


def test_impossible_sizes_and_samples_are_refused():
    with pytest.raises(SettingsError, match="divide"):
        TRUE.scaled(3)
    with pytest.raises(SettingsError, match="at least 4"):
        TRUE.scaled(64)
    with pytest.raises(SettingsError, match="at least 1"):
        Meter(torch.device("cpu"), 0)
