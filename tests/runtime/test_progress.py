"""Progress bars: on a terminal, and nowhere else."""

import io
import sys

from pano4d.runtime.progress import stage_bars


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_no_bars_without_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with stage_bars() as progress:
        assert progress is None
    assert sys.stderr.getvalue() == ""


def test_no_bars_when_quiet(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with stage_bars(quiet=True) as progress:
        assert progress is None


def test_a_bar_per_stage_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with stage_bars() as progress:
        for scene in range(2):
            progress("scenes", scene, 2)
            for done in (0, 3):
                progress("denoise", done, 3)
    drawn = sys.stderr.getvalue()
    assert "scenes" in drawn and "denoise" in drawn and "3/3" in drawn
