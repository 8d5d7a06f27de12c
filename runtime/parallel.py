"""Do the same for many frames at once. NumPy and the codecs let other threads run while they work."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

MOST = 8
"""Threads at most, since each of them holds a frame or two."""


def each(function: Callable[[Any], Any], items: Iterable[Any], advance: Callable[[int, int], None] | None = None) -> list:
    """Call a function for every item, several at a time.

    Args:
        function: What to call.
        items: Its arguments, one a call.
        advance: Called in this thread after each item with the number done and the number of all.

    Returns:
        What the calls returned, in the order of the items.

    Raises:
        Exception: The first that a call raises; calls that have not begun are left out, the others have ended.
    """
    items = list(items)
    with ThreadPoolExecutor(max(1, min(MOST, cores(), len(items)))) as pool:
        waiting = [pool.submit(function, item) for item in items]
        try:
            for done, future in enumerate(as_completed(waiting), start=1):
                future.result()
                if advance:
                    advance(done, len(items))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in waiting]


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
