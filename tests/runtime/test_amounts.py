import pytest

from pano4d.runtime.amounts import parse_count
from pano4d.runtime.errors import SettingsError


@pytest.mark.parametrize("text, number", [("131072", 131072), ("500k", 500_000), ("0.5M", 500_000), ("2M", 2_000_000),
                                          (" 1.5 m ", 1_500_000), ("1", 1)])
def test_counts_are_read(text, number):
    assert parse_count(text) == number


@pytest.mark.parametrize("text", ["", "M", "0", "-1", "1.5", "nanM", "infk", "1G", "0.0001k", "one"])
def test_what_is_no_count_is_refused(text):
    with pytest.raises(SettingsError, match="write for instance 131072, 500k or 1.5M"):
        parse_count(text)
