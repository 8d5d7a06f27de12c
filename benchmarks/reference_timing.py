"""Count and time the calls of a long schedule, and stand in for the repeated ones."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from pano4d.runtime.errors import SettingsError


@dataclass
class _Part:
    calls: int = 0
    timings: list[float] = field(default_factory=list)
    result: Any = None


class Meter:
    """Time calls by name; with ``sample``, only the first few of each name are made.

    A name must stand for identical calls, on data of the same shape. The first call of a name is made twice and timed
    the second time; from the ``sample``-th on, the last result is handed out again. Without ``sample`` every call is
    made, once. The device is waited for round each call.

    Args:
        device: Where the calls run.
        sample: Calls to make of each name, or None for all.

    Raises:
        SettingsError: ``sample`` is below 1.
    """

    def __init__(self, device: torch.device, sample: int | None = None) -> None:
        if sample is not None and sample < 1:
            raise SettingsError(f"{sample} calls of each kind were to be timed; give at least 1, or None for all.")
        self._device, self._sample = device, sample
        self._parts: dict[str, _Part] = {}
        self._spent, self._begin = 0.0, self._now()

    def call(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        """Make a call, or stand in for it.

        Args:
            name: What the call is counted as.
            function: What to call.
            *args: Its arguments.

        Returns:
            Its result, or that of an earlier call of this name; not to be written to.

        Raises:
            Exception: Whatever the function raises.
        """
        part = self._parts.setdefault(name, _Part())
        part.calls += 1
        if self._sample is None:
            result, seconds = self._timed(function, args)
            part.timings.append(seconds)
            return result
        if not part.timings:
            self._timed(function, args)
        if len(part.timings) < self._sample:
            part.result, seconds = self._timed(function, args)
            part.timings.append(seconds)
        return part.result

    def report(self) -> dict:
        """Add up.

        Returns:
            ``seconds`` in total; ``parts``, each with ``name``, ``calls``, ``timed_calls``, ``seconds_each`` and
            ``seconds``, the last of them what passed between the calls; and ``multiplied``, whether ``seconds`` of a
            part is the median of its timed calls times its calls.

        Raises:
            RuntimeError: The device reports an error.
        """
        rest = self._now() - self._begin - self._spent
        parts = [_row(name, part) for name, part in self._parts.items()]
        parts.append({"name": "between calls", "calls": 1, "timed_calls": 1, "seconds_each": rest, "seconds": rest})
        return {"seconds": sum(part["seconds"] for part in parts), "parts": parts,
                "multiplied": any(part["timed_calls"] < part["calls"] for part in parts)}

    def _timed(self, function: Callable[..., Any], args: tuple) -> tuple[Any, float]:
        begin = self._now()
        result = function(*args)
        seconds = self._now() - begin
        self._spent += seconds
        return result, seconds

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _row(name: str, part: _Part) -> dict:
    complete = len(part.timings) == part.calls
    each = sum(part.timings) / part.calls if complete else median(part.timings)
    return {"name": name, "calls": part.calls, "timed_calls": len(part.timings), "seconds_each": each,
            "seconds": each * part.calls}
