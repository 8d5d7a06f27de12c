"""Time the stages of a run, take their peak memory, and write report.json."""

import contextlib
import json
import math
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pano4d.runtime.files import atomic_file

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


class StageTimer:
    """Collect the seconds and the peak resident memory of named stages.

    A stage entered several times adds its seconds and keeps its highest peak, so work that
    is interleaved frame by frame can still be told apart. Stages do not nest, because the
    kernel keeps a single high-water mark per process.

        stages = StageTimer()
        with stages("encode"):
            ...
        stages.entries  # [{"name": "encode", "seconds": 1.25, "peak_mib": 812.4}]
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._peak_mib: dict[str, float] = {}
        self._running: str | None = None

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure the block as the stage `name`, also when it raises.

        Args:
            name: Name of the stage, as it will stand in the report.

        Raises:
            AssertionError: Another stage is running.
        """
        assert self._running is None, f"stage {name} was entered inside stage {self._running}"
        self._running = name
        _reset_peak()
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - begin
            self._peak_mib[name] = max(self._peak_mib.get(name, 0.0), peak_mib())
            self._running = None

    @property
    def entries(self) -> list[dict]:
        """The stages in the order in which they were first entered: name, seconds, peak_mib."""
        return [{"name": name, "seconds": round(seconds, 3), "peak_mib": round(self._peak_mib[name], 1)}
                for name, seconds in self._seconds.items()]

    @property
    def total_seconds(self) -> float:
        """The sum of all stages, in seconds."""
        return sum(self._seconds.values())

    @property
    def peak_mib(self) -> float:
        """The highest peak of any stage, in MiB; 0 before the first stage."""
        return max(self._peak_mib.values(), default=0.0)


def peak_mib() -> float:
    """Return the peak resident memory of this process, in MiB.

    Since the stage began where Linux lets a process reset its high-water mark, since the
    process began elsewhere.
    """
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_report(path: str | Path, report: dict) -> None:
    """Write a report as JSON, keys in the order in which they were put in.

    Args:
        path: The file to write, replaced as a whole.
        report: Nested dictionaries and lists of plain or NumPy values. Figures that are not
            finite become null, because JSON knows neither NaN nor infinity.

    Raises:
        OutputError: The file system refuses the write.
        TypeError: A value has no JSON form.
    """
    text = json.dumps(_plain(report), indent=2, allow_nan=False) + "\n"
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _reset_peak() -> None:
    # 5 resets VmHWM. Containers may forbid it; the peak then covers the whole process.
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text("5")
