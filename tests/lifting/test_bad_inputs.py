"""Whatever is wrong with what is lifted: one sentence, no file of a new result, the former one as it was."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import pano4d
from pano4d.cli import cli
from pano4d.lifting.distances import Distances, from_maps
from pano4d.lifting.job import LiftSettings, lift_frames
from pano4d.runtime.errors import InputError
from pano4d.runtime.video import write_video

FRAMES = 3
SIZE = (64, 128)


def folder_of(path, pictures):
    path.mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(path / f"{number:04d}.png")
    return path


def mask_at(column):
    mask = np.zeros(SIZE, np.uint8)
    mask[20:40, column:column + 20] = 255
    return mask


@pytest.fixture
def made(tmp_path, panorama_pixels):
    """A folder with a good video, and everything that can be wrong with it, its mask and its distances."""
    def save_depth(name, depth):
        np.save(tmp_path / name, depth.astype(np.float32))

    frames = np.stack([panorama_pixels] * FRAMES)
    folder_of(tmp_path / "video", frames)
    folder_of(tmp_path / "square", frames[:, :, :64])
    folder_of(tmp_path / "empty", [])
    folder_of(tmp_path / "two_sizes", [frames[0], frames[0, :32, :64]])
    cut = folder_of(tmp_path / "cut_frame", frames) / "0001.png"
    cut.write_bytes(cut.read_bytes()[:300])
    write_video(tmp_path / "good.mp4", frames, 7)
    data = (tmp_path / "good.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[:len(data) * 2 // 3])
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "nothing.mp4").write_bytes(b"")

    Image.fromarray(mask_at(50)).save(tmp_path / "mask.png")
    masks = [mask_at(column) for column in (20, 50, 80, 90)]
    folder_of(tmp_path / "masks", masks[:FRAMES])
    folder_of(tmp_path / "one_mask", masks[:1])
    folder_of(tmp_path / "two_masks", masks[:2])
    folder_of(tmp_path / "four_masks", masks)
    folder_of(tmp_path / "black_masks", np.zeros((FRAMES, *SIZE), np.uint8))
    folder_of(tmp_path / "square_masks", [mask[:, :64] for mask in masks[:FRAMES]])
    colors = [np.repeat(mask[..., None], 3, -1) for mask in masks]
    write_video(tmp_path / "masks.mp4", colors[:FRAMES], 7)
    write_video(tmp_path / "two_masks.mp4", colors[:2], 7)
    pictures = [Image.fromarray(mask) for mask in masks]
    pictures[0].save(tmp_path / "four_masks.gif", save_all=True, append_images=pictures[1:])
    pictures[0].save(tmp_path / "four_masks.webp", save_all=True, append_images=pictures[1:], lossless=True)
    Image.fromarray(mask_at(50)[:, :64]).save(tmp_path / "square_mask.png")
    (tmp_path / "cut_mask.png").write_bytes((tmp_path / "mask.png").read_bytes()[:60])

    depth = np.full(SIZE, 3.0)
    save_depth("depth.npy", depth)
    save_depth("square_depth.npy", depth[:, :64])
    save_depth("two_depths.npy", np.stack([depth] * 2))
    save_depth("square_depths.npy", np.stack([depth[:, :64]] * FRAMES))
    for name, value in (("nan", np.nan), ("zero", 0.0), ("minus", -1.0), ("infinite", np.inf)):
        spoiled = depth.copy()
        spoiled[7, 9] = value
        save_depth(f"{name}_depth.npy", spoiled)
        save_depth(f"{name}_depths.npy", np.stack([depth, spoiled, depth]))
    (tmp_path / "cut_depth.npy").write_bytes((tmp_path / "depth.npy").read_bytes()[:500])
    return tmp_path


def lift(folder, video, *options):
    args = ["lift", video, "--out", "out", "--gaussians", 200, *options]
    paths = {arg for arg in args if arg == "out" or (folder / str(arg)).exists()}
    return CliRunner().invoke(cli, [str(folder / arg) if arg in paths else str(arg) for arg in args])


BAD = [
    ("nowhere.mp4", [], "does not exist"),
    ("square", [], "twice as wide as high"),
    ("empty", [], "holds no frame"),
    ("nothing.mp4", [], "nothing.mp4"),
    ("noise.mp4", [], "damaged or not a video"),
    ("cut.mp4", [], "damaged or not a video"),
    ("cut_frame", [], "0001.png"),
    ("two_sizes", [], "all frames must have one size"),
    ("video", ["--mask", "nowhere.png"], "does not exist"),
    ("video", ["--mask", "cut_mask.png"], "cut_mask.png"),
    ("video", ["--mask", "square_mask.png"], "the panorama's aspect"),
    ("video", ["--mask", "two_masks"], "two_masks holds 2 masks, the video has 3 frames"),
    ("video", ["--mask", "four_masks"], "four_masks holds 4 masks, the video has 3 frames"),
    ("video", ["--mask", "two_masks.mp4"], "two_masks.mp4 holds 2 masks, the video has 3 frames"),
    ("video", ["--mask", "four_masks.gif"], "four_masks.gif holds 4 masks, the video has 3 frames"),
    ("video", ["--mask", "four_masks.webp"], "four_masks.webp holds 4 pictures, and a mask is one"),
    ("video", ["--mask", "square_masks"], "the panorama's aspect"),
    ("video", ["--mask", "black_masks"], "nothing would move"),
    ("video", ["--mask", "empty"], "holds no frame"),
    ("video", ["--depth", "square_depth.npy"], "the same aspect"),
    ("video", ["--depth", "square_depths.npy"], "the same aspect"),
    ("video", ["--depth", "two_depths.npy"], "2 depth maps"),
    ("video", ["--depth", "cut_depth.npy"], "cut_depth.npy"),
    *[("video", ["--depth", f"{name}_{kind}.npy"], "zero, negative or not finite")
      for name in ("nan", "zero", "minus", "infinite") for kind in ("depth", "depths")],
]


@pytest.mark.parametrize("video, options, words", BAD)
def test_one_sentence_and_nothing_is_written(made, video, options, words):
    before = sorted(made.rglob("*"))
    done = lift(made, video, *options)
    assert done.exit_code == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and words in done.stderr
    assert sorted(made.rglob("*")) == before


@pytest.mark.parametrize("video, options, words", [BAD[1], BAD[2], BAD[5], BAD[11], BAD[19], BAD[23], BAD[25]])
def test_the_former_result_is_left_as_it_was(made, video, options, words):
    assert lift(made, "video", "--mask", "mask.png").exit_code == 0
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    done = lift(made, video, *options, "--overwrite")
    assert done.exit_code == 1 and words in done.stderr
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("mask, columns, name", [("mask.png", (50, 70), "mask.png"), ("masks", (20, 100), "masks"),
                                                 ("one_mask", (20, 40), "one_mask"), ("masks.mp4", (20, 100), "masks.mp4")])
def test_masks_of_all_frames_count_together(made, mask, columns, name):
    from pano4d.lifting.scene_input import read_video_and_mask

    _, moving, inputs = read_video_and_mask(made / "video", made / mask)
    found = np.flatnonzero(moving.any(0))
    assert np.abs(found[[0, -1]] - (columns[0], columns[1] - 1)).max() <= (1 if mask.endswith("mp4") else 0)
    assert inputs["mask"] == name and len(inputs["mask_sha256"]) == 64
    report = pano4d.lift(made / "video", made / "out", mask=made / mask, gaussians=200)
    assert 0 < report["splats"]["moving"] < 200


def test_an_animated_mask_is_refused_where_there_is_one_picture(made, fake_bundle):
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(made / "p.png")
    for name in ("four_masks.gif", "four_masks.webp"):
        with pytest.raises(InputError, match="holds 4 pictures"):
            pano4d.generate(made / "p.png", made / "out", mask=made / name, bundle=fake_bundle,
                            settings=pano4d.AnimateSettings(width=128, height=64))
    assert not (made / "out").exists()


def arrays(**changed):
    maps, masks = np.full((FRAMES, *SIZE), 3.0, np.float32), np.zeros((FRAMES, *SIZE), bool)
    masks[0, 20:30, 20:30] = masks[2, 30:40, 30:40] = True
    frames = np.zeros((FRAMES, *SIZE, 3), np.uint8)
    return {"frames": frames, "mask": masks, "depth": maps} | changed


def spoiled(value, kind):
    maps = np.full((FRAMES, *SIZE), 3.0, np.float32)
    if kind == "changes":
        found = from_maps(maps, np.ones(SIZE, bool))
        found.changes[1, 5] = value
        return found
    maps[1, 2, 3] = value
    return maps if kind == "maps" else maps[1] if kind == "map" else Distances(maps[1], np.empty(0, int), np.empty((0, 0), "e"))


@pytest.mark.parametrize("changed, words", [
    ({"frames": np.zeros((0, *SIZE, 3), np.uint8)}, "lifting needs uint8"),
    ({"mask": np.ones((2, *SIZE), bool)}, "masks of 2 frames, and 3 frames"),
    ({"mask": np.ones((4, *SIZE), bool)}, "masks of 4 frames, and 3 frames"),
    ({"mask": np.ones((FRAMES, 64, 64), bool)}, r"mask is \[64, 64\]"),
    ({"depth": np.ones((64, 64), np.float32)}, r"depth map is \[64, 64\]"),
    ({"depth": np.ones((2, *SIZE), np.float32)}, "distances of 2 frames"),
    *[({"depth": spoiled(value, kind)}, "zero, negative or not finite") for kind, value in (
        ("map", np.nan), ("map", 0.0), ("map", np.inf), ("maps", np.nan), ("maps", -1.0), ("static", np.nan),
        ("static", 0.0), ("changes", np.nan))],
])
def test_arrays_that_do_not_fit_write_no_file(tmp_path, changed, words):
    given = arrays(**changed)
    with pytest.raises(InputError, match=words):
        lift_frames(given["frames"], given["mask"], tmp_path / "splats", depth=given["depth"], settings=LiftSettings(200, 0))
    assert not (tmp_path / "splats").exists()


def test_masks_as_an_array_count_together(tmp_path):
    given = arrays()
    frames, masks, options = given["frames"], given["mask"], {"depth": given["depth"], "settings": LiftSettings(500, 0)}
    told = lift_frames(frames, masks, tmp_path / "a", **options)
    same = lift_frames(frames, masks.any(0), tmp_path / "b", **options)
    assert told == same and told["moving"] > 0
