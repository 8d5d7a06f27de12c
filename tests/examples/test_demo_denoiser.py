"""The demo model's denoiser as training finds it: it repeats its picture, and a few steps improve it."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from pano4d.examples.demo_model import networks, speed, train_unet  # noqa: E402
from pano4d.examples.demo_model.clips import NUM_FRAMES, sample_clips  # noqa: E402
from pano4d.examples.demo_model.denoiser import denoiser_wires  # noqa: E402
from pano4d.examples.demo_model.diffusion import clip_pixels, embed, frame_masks, predict_v, time_ids  # noqa: E402
from pano4d.examples.demo_model.masks import latent_masks  # noqa: E402
from pano4d.examples.demo_model.pools import latent_rows  # noqa: E402
from pano4d.examples.demo_model.state import Trainer  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def nets():
    return networks.build(0)


@pytest.fixture(scope="module")
def batch():
    clips, masks, _ = sample_clips(1, 3, size_px=16)
    generator = torch.Generator().manual_seed(0)
    rows = latent_rows(clips, masks, generator)
    clean = rows["latents"].float()
    return {
        "clean": clean,
        "noise": torch.randn(clean.shape, generator=generator),
        "sigma": torch.tensor([3.0]),
        "masks": frame_masks(latent_masks(masks, 2)),
        "image": rows["image"].float(),
        "pixels": clip_pixels(rows["picture"].float() / 255),
        "ids": time_ids(rows["bucket"], rows["aug"]),
    }


def predict(nets, batch, sigma):
    noisy = batch["clean"] + sigma * batch["noise"]
    with torch.no_grad():
        context = embed(nets, batch["pixels"])
        return predict_v(nets.unet, noisy, torch.tensor([sigma]), batch["masks"], batch["image"], context, batch["ids"])


@pytest.mark.parametrize("sigma", [0.01, 1.0, 80.0])
def test_begins_by_repeating_the_picture(nets, batch, sigma):
    v = predict(nets, batch, sigma)
    error = (v + batch["image"][:, None]).square().mean().sqrt()
    assert v.shape == (1, NUM_FRAMES, 4, 8, 8) and error < 0.1 * batch["image"].std()


def test_faster_ways_change_nothing(nets, batch):
    plain = predict(nets, batch, 1.0)
    for way in train_unet.WAYS:
        speed.ready(nets.unet, *way)
        torch.testing.assert_close(predict(nets, batch, 1.0), plain, rtol=1e-3, atol=1e-4)


def test_training_lowers_the_loss_and_leaves_the_wires(nets, batch):
    wires = denoiser_wires(nets.unet)
    before = {p: p.detach().clone() for p in wires.held}
    parameters = [*nets.unet.parameters(), *nets.image_encoder.parameters()]
    step, trainer = train_unet.Step(nets, parameters, graph=False), Trainer(parameters, wires, 0.9)
    values = []
    for _ in range(6):
        values.append(step(batch).item())
        trainer.step(3e-4)
    assert values[-1] < 0.9 * values[0]
    assert all(((p - before[p]) * (1 - free) == 0).all() for p, free in wires.held.items())


def test_gradients_that_are_not_finite_move_nothing(nets, batch):
    parameters = list(nets.image_encoder.parameters())
    trainer = Trainer(parameters, denoiser_wires(nets.unet), 0.9)
    before = [p.detach().clone() for p in parameters]
    for p in parameters:
        p.grad = torch.full_like(p, float("nan"))
    nets.unet.conv_in.weight.grad = torch.zeros_like(nets.unet.conv_in.weight)
    trainer.step(1e-3)
    assert all(torch.equal(p, b) for p, b in zip(parameters, before))


def test_any_moving_pixel_moves_its_cell():
    masks = torch.zeros(1, 1, 8, 8)
    masks[0, 0, 3, 5] = 0.1
    assert latent_masks(masks).tolist() == [[[[0, 1], [0, 0]]]]
    assert latent_masks(masks, soft=True)[0, 0, 0, 1] == pytest.approx(0.1 / 16)
