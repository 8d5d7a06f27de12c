"""Thresholds: defaults, files, what a run's settings change."""

import json

import pytest

from pano4d.runtime.check_figures import FIGURES, thresholds
from pano4d.runtime.errors import InputError, SettingsError


def _file(folder, text, name="limits.toml"):
    path = folder / name
    path.write_text(text)
    return path


def test_every_figure_cites_its_formula():
    assert all(figure.formula and figure.source and figure.meaning and figure.needs for figure in FIGURES)
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)


def test_toml_and_json_say_the_same(tmp_path):
    toml = thresholds(_file(tmp_path, "[flicker]\nat_most = 0.5\n[motion]\n[seam_ratio]\nat_least = 0.7\n"), {})
    as_json = {"flicker": {"at_most": 0.5}, "motion": {}, "seam_ratio": {"at_least": 0.7}}
    assert toml == thresholds(_file(tmp_path, json.dumps(as_json), "limits.json"), {})
    assert (toml["flicker"].at_least, toml["flicker"].at_most) == (None, 0.5)
    assert (toml["motion"].at_least, toml["motion"].at_most) == (None, None)
    assert (toml["seam_ratio"].at_least, toml["seam_ratio"].at_most) == (0.7, None)
    assert toml["pole_ratio"] == thresholds(None, {})["pole_ratio"]


def test_a_file_overrides_what_the_settings_lift(tmp_path):
    path = _file(tmp_path, "[loop_ratio]\nat_most = 2\n[static_drift]\nat_most = 4\n")
    report = {"settings": {"mask_policy": "trained", "loop": False}}
    assert thresholds(None, report)["static_drift"].at_most is None
    assert thresholds(None, report)["loop_ratio"].at_most is None
    assert thresholds(path, report)["loop_ratio"].at_most == 2 and thresholds(path, report)["static_drift"].at_most == 4
    assert thresholds(None, {"settings": {"loop": True}})["loop_ratio"].at_most == 1.5


def test_a_codec_may_leave_a_seam(tmp_path):
    path = _file(tmp_path, "[seam_ratio]\nat_most = 1.1\n")
    assert thresholds(None, {}, True)["seam_ratio"].at_most > thresholds(None, {})["seam_ratio"].at_most
    assert thresholds(path, {}, True)["seam_ratio"].at_most == 1.1


@pytest.mark.parametrize("text", ["[sharpness]\nat_most = 1", "motion = 3", "[motion]\nat_leats = 3",
                                  '[motion]\nat_least = "3"', "[motion]\nat_least = true",
                                  "[motion]\nat_least = 3\nat_most = 2"])
def test_wrong_thresholds_are_refused(tmp_path, text):
    with pytest.raises(SettingsError, match="limits.toml"):
        thresholds(_file(tmp_path, text), {})


@pytest.mark.parametrize("text, name", [("[motion", "limits.toml"), ("{", "limits.json"), ("[motion]", "limits.txt")])
def test_what_cannot_be_read_is_refused(tmp_path, text, name):
    with pytest.raises(InputError, match=name):
        thresholds(_file(tmp_path, text, name), {})


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        thresholds(tmp_path / "none.toml", {})


def test_what_is_no_number_does_not_pass():
    assert not thresholds(None, {})["motion"].passes(float("nan"))
