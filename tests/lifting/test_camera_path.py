import json

import numpy as np
import pytest

from pano4d.lifting.camera_path import Pose, dolly, orbit, still, through_keyframes
from pano4d.lifting.path_file import read_path
from pano4d.runtime.errors import InputError


def pose(yaw=0.0, pitch=0.0, position=(0.0, 0.0, 0.0), fov=75.0):
    return Pose(yaw, pitch, np.array(position, float), fov)


def test_orbit_is_a_level_circle_that_looks_across_the_centre():
    poses = orbit(48, 75.0, 0.4)
    places = np.array([p.position for p in poses])
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), 0.4)
    np.testing.assert_allclose(places[:, 1], 0.0, atol=1e-12)
    for p in poses:
        center = p.viewmat() @ [0, 0, 0, 1]
        np.testing.assert_allclose(center[:3], [0, 0, 0.4], atol=1e-12)
    steps = np.linalg.norm(np.diff(np.vstack([places, places[:1]]), axis=0), axis=1)
    np.testing.assert_allclose(steps, steps[0])


@pytest.mark.parametrize("count", [1, 2, 25])
def test_dolly_goes_ahead_from_rest_to_rest(count):
    z = np.array([p.position for p in dolly(count, 75.0, 0.3)])
    assert (np.diff(z[:, 2]) > 0).all() and not z[:, :2].any()
    np.testing.assert_allclose(z[:, 2], -z[::-1, 2], atol=1e-12)
    if count > 2:
        assert z[0, 2] == -0.3 and np.diff(z[:, 2])[0] < 0.3 * np.diff(z[:, 2]).max()


def test_still_stands_in_the_centre():
    assert all(not p.position.any() and p.yaw_deg == 0 for p in still(5, 60.0)) and len(still(5, 60.0)) == 5


def test_keyframes_are_met_and_never_passed():
    times, frames = [0.0, 1.0, 1.5, 4.0], [pose(0, 0), pose(90, 10, (1, 2, 3), 60), pose(90, -10), pose(40, 0, (0, 0, 1))]
    met = through_keyframes(times, frames, times)
    for got, want in zip(met, frames):
        np.testing.assert_allclose([got.yaw_deg, got.pitch_deg, got.fov_deg, *got.position],
                                   [want.yaw_deg, want.pitch_deg, want.fov_deg, *want.position], atol=1e-12)
    at = np.linspace(-1, 5, 601)
    path = through_keyframes(times, frames, at)
    yaw = np.array([p.yaw_deg for p in path])
    assert yaw.max() <= 90 + 1e-9 and yaw.min() >= -1e-9 and yaw[0] == 0 and yaw[-1] == pytest.approx(40)
    assert np.abs(np.diff(yaw, 2)).max() < 0.1, "no jerk"
    np.testing.assert_allclose(yaw[(at > 1.01) & (at < 1.49)], 90)


def test_yaw_goes_the_short_way_round():
    yaw = [p.yaw_deg for p in through_keyframes([0, 1, 2], [pose(170), pose(-170), pose(170)], np.linspace(0, 2, 21))]
    assert min(yaw) == pytest.approx(170) and max(yaw) == pytest.approx(190)


def test_one_keyframe_stands_still():
    assert [p.yaw_deg for p in through_keyframes([3.0], [pose(5)], [0, 9])] == [5, 5]


def test_eyes_stand_across_the_view():
    p = pose(30, 20, (1, 2, 3))
    left, right = p.viewmat(-0.5), p.viewmat(0.5)
    np.testing.assert_allclose(left - right, [[0, 0, 0, 1], [0] * 4, [0] * 4, [0] * 4], atol=1e-12)


def test_a_file_is_read(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps([{"time": 1}, {"time": 2.5, "yaw": -9, "pitch": 4, "fov": 50,
                                                              "position": [1, 2, 3]}]))
    times, frames = read_path(tmp_path / "p.json", 80.0)
    assert times == [1.0, 2.5] and (frames[0].fov_deg, frames[1].fov_deg, frames[1].yaw_deg) == (80.0, 50.0, -9.0)
    assert frames[1].position.tolist() == [1, 2, 3]


@pytest.mark.parametrize("text, words", [
    ("{", "not JSON"), ("{}", "list of keyframes"), ("[]", "list of keyframes"), ("[3]", "keyframe 0"),
    ('[{"yaw": 1}]', '"time" is missing'), ('[{"time": 0, "jaw": 1}]', '"jaw" is unknown'),
    ('[{"time": 0, "fov": 200}]', '"fov" is 200'), ('[{"time": 0, "pitch": "up"}]', '"pitch" is "up"'),
    ('[{"time": 0, "position": [1, 2]}]', '"position"'),
    ('[{"time": 0, "position": [1, 2, null]}]', '"position" is null'),
    ('[{"time": true}]', '"time" is true'), ('[{"time": NaN}]', '"time" is NaN'),
    ('[{"time": 2}, {"time": 2}]', "keyframe 1"), ("\udcff", "not JSON")])
def test_a_file_that_cannot_be_used_is_named_with_its_key(tmp_path, text, words):
    path = tmp_path / "p.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as caught:
        read_path(path, 75.0)
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_a_missing_file_says_what_could_be_given(tmp_path):
    with pytest.raises(InputError, match="orbit, dolly, still"):
        read_path(tmp_path / "no.json", 75.0)
