"""The demo model's autoencoder as training finds it: linear, exact, and able to learn."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from pano4d.examples.demo_model import speed, train_vae  # noqa: E402
from pano4d.examples.demo_model.autoencoder import decoder_wires, encode_cells, make_autoencoder  # noqa: E402
from pano4d.examples.demo_model.clips import sample_clips  # noqa: E402
from pano4d.examples.demo_model.state import Trainer  # noqa: E402

SIZE_PX = 48
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return make_autoencoder().eval()


def smooth_pictures():
    y, x = torch.meshgrid(torch.linspace(0, 1, SIZE_PX), torch.linspace(0, 1, SIZE_PX), indexing="ij")
    one = torch.stack([0.2 + 0.6 * x, 0.5 + 0.3 * torch.sin(2 * y + x), 0.9 - 0.7 * y * x])
    return torch.stack([one, 1 - one.flip(0)])


def encode(vae, pictures):
    with torch.no_grad():
        return vae.encode(pictures * 2 - 1).latent_dist.mode()


def test_encoder_is_encode_cells(vae):
    torch.manual_seed(1)
    for pictures in (torch.rand(2, 3, SIZE_PX, 32), torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)):
        wanted = encode_cells(torch.nn.functional.avg_pool2d(pictures, 2))
        error = (encode(vae, pictures) - wanted).abs()
        assert error.max() < 0.01, "interior"
        for edge in (error[..., 0, :], error[..., -1, :], error[..., 0], error[..., -1]):
            assert edge.max() < 0.01, "border"


def test_decoder_begins_as_interpolation(vae):
    pictures = smooth_pictures()
    with torch.no_grad():
        made = vae.decode(encode(vae, pictures), num_frames=2).sample / 2 + 0.5
    error = (made - pictures)[..., 8:-8, 8:-8].square().mean((1, 2, 3))
    assert (-10 * error.log10()).min() >= 40


def test_training_lowers_the_loss_and_leaves_the_wires():
    torch.manual_seed(0)
    vae = make_autoencoder()
    speed.ready(vae.decoder)
    clips = sample_clips(1, 7, size_px=32)[0][:, :2]
    wires = decoder_wires(vae)
    before = {p: p.detach().clone() for p in wires.held}
    trainer, values = Trainer(vae.decoder.parameters(), wires, 0.9), []
    for _ in range(8):
        value = train_vae.loss(vae, clips, torch.Generator().manual_seed(0))
        vae.decoder.zero_grad()
        value.backward()
        trainer.step(1e-4)
        values.append(value.item())
    assert values[-1] < 0.8 * values[0]
    assert all(((p - before[p]) * (1 - free) == 0).all() for p, free in wires.held.items())
    assert any((p != before[p]).any() for p in wires.held)
