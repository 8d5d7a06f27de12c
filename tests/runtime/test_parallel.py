import threading
import time

import pytest

from pano4d.runtime import parallel
from pano4d.runtime.parallel import each


def test_results_come_in_the_order_of_the_items():
    later = threading.Event()

    def call(item):
        if item == 0 and parallel.cores() > 1:
            assert later.wait(10)
        later.set()
        return item * item

    seen = []
    assert each(call, iter(range(5)), lambda *told: seen.append(told)) == [0, 1, 4, 9, 16]
    assert seen == [(done, 5) for done in range(1, 6)]


def test_nothing_to_do():
    assert each(lambda _: pytest.fail("called"), [], lambda *_: pytest.fail("told")) == []


def test_an_error_ends_it(monkeypatch):
    monkeypatch.setattr(parallel, "cores", lambda: 1)
    begun = []

    def call(item):
        begun.append(item)
        time.sleep(1e-3)
        if item == 1:
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        each(call, range(1000))
    assert begun[:2] == [0, 1] and len(begun) < 1000
