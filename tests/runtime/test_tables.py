"""Figures as text."""

from pano4d.runtime.tables import print_figures


def test_values_and_tables(capsys):
    print_figures({"ok": True, "tile": {"px": 256, "ratio": 1.0 / 3.0}, "nothing": None, "notes": [],
                   "stages": [{"name": "encode", "seconds": 1.5}, {"name": "decode [B,3]", "seconds": 12345.6}]})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["ok", "yes"] in lines and ["tile.px", "256"] in lines and ["tile.ratio", "0.3333"] in lines
    assert ["nothing", "-"] in lines and ["notes", "-"] in lines
    assert ["stages"] in lines and ["name", "seconds"] in lines and ["decode", "[B,3]", "12346"] in lines
