"""An interrupted lifting goes on where it was, and only for the same video, mask and distances."""

import numpy as np
import pytest
from PIL import Image

import pano4d

pytest.importorskip("torch")


@pytest.fixture
def video(tmp_path, panorama_pixels):
    """A folder of three frames, and two masks."""
    (tmp_path / "video").mkdir()
    for number in range(3):
        Image.fromarray(np.roll(panorama_pixels, number, axis=1)).save(tmp_path / "video" / f"{number}.png")
    for name, rows in (("mask.png", slice(20, 40)), ("other.png", slice(20, 44))):
        mask = np.zeros((64, 128), np.uint8)
        mask[rows, 50:80] = 255
        Image.fromarray(mask).save(tmp_path / name)
    return tmp_path


def lift(folder, out, interrupted=False, mask="mask.png", **options):
    """Lift; interrupt while the frames after the first one are optimised, when what they begin with has been learned."""
    steps = []

    def tell(stage, done, total):
        steps.extend([done] if stage.startswith("optimize") else [])
        if interrupted and len(steps) == 3:
            raise KeyboardInterrupt

    report = pano4d.lift(folder / "video", folder / out, mask=folder / mask, gaussians=300, iterations=10, device="cpu",
                         progress=tell, **options)
    return report, steps


def test_an_interrupted_run_goes_on_and_gives_the_same(video):
    whole, all_steps = lift(video, "whole")
    with pytest.raises(KeyboardInterrupt):
        lift(video, "parts", interrupted=True)
    assert [path.name for path in (video / "parts").iterdir()] == [".resume"]
    resumed, steps = lift(video, "parts", resume=True)
    assert 0 < len(steps) < len(all_steps) and resumed["splats"]["psnr_db"] == whole["splats"]["psnr_db"]
    for path in (video / "whole" / "splats").iterdir():
        assert path.read_bytes() == (video / "parts" / "splats" / path.name).read_bytes()


@pytest.mark.parametrize("what", ["mask", "frame", "depth"])
def test_what_was_learned_of_something_else_is_not_used(video, what):
    with pytest.raises(KeyboardInterrupt):
        lift(video, "parts", interrupted=True)
    options = {}
    if what == "mask":
        options["mask"] = "other.png"
    elif what == "depth":
        np.save(video / "depth.npy", np.full((64, 128), 4.0))
        options["depth"] = video / "depth.npy"
    else:
        Image.new("RGB", (128, 64)).save(video / "video" / "2.png")
    _, steps = lift(video, "parts", resume=True, **options)
    _, fresh = lift(video, "fresh", **options)
    assert steps == fresh
