"""The engines of a bundle compute what the networks that measuring takes would."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from pano4d.examples.demo_model import shipped  # noqa: E402
from pano4d.examples.demo_model.networks import CLIP_MEAN, CLIP_STD  # noqa: E402
from pano4d.runtime.backends import load_engine  # noqa: E402
from pano4d.runtime.backends.fake import FakeBundle  # noqa: E402

FRAMES, CELLS = 3, 8


@pytest.fixture
def nets():
    return shipped.ShippedNetworks(FakeBundle(frames=FRAMES, batch=2), "fake")


def test_more_rows_than_a_call_takes_are_those_of_single_calls(nets):
    rng = np.random.default_rng(0)
    sample = torch.from_numpy(rng.normal(size=(5, FRAMES, 9, CELLS, CELLS)).astype(np.float32))
    level = torch.linspace(-1, 1, 5)
    context, ids = torch.zeros(5, 1, 8), torch.zeros(5, 3)
    together = nets.unet(sample, level, context, ids, return_dict=False)[0]
    for row in range(5):
        one = slice(row, row + 1)
        assert torch.equal(nets.unet(sample[one], level[one], context[one], ids[one])[0], together[one])


def test_pictures_are_normalised_once(nets):
    pixels = torch.rand(1, 3, 224, 224)
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    engine = load_engine(FakeBundle(), "image_encoder", "fake")
    wanted = shipped.run(engine, pixels=pixels * 2 - 1)[:, 0]
    torch.testing.assert_close(nets.image_encoder((pixels - mean) / std).image_embeds, wanted, atol=1e-4, rtol=1e-4)


def test_frames_of_a_clip_are_decoded_together(nets):
    pixels = torch.rand(4, 3, 64, 64)
    latents = nets.vae.encode(pixels).latent_dist.mode()
    assert latents.shape == (4, 4, CELLS, CELLS)
    clips = latents.repeat_interleave(FRAMES, 0)
    made = nets.vae.decode(clips, num_frames=FRAMES).sample
    assert made.shape == (4 * FRAMES, 3, 64, 64)
    assert torch.equal(made[0], made[1])
