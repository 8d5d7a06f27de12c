"""What benchmarks share: where the repository is, which commit is measured, and how much of a GPU is in use."""

import subprocess
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def revision() -> str | None:
    """Name the commit that is measured; None outside a checkout."""
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or None


class PeakMemory:
    """Watch the memory in use on the whole GPU, fifty times a second, while a block runs: it takes turns with Python."""

    def __init__(self) -> None:
        import torch  # not every benchmark needs it

        self._memory = torch.cuda.mem_get_info
        self.gib, self._done = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            free, total = self._memory()
            self.gib = max(self.gib, (total - free) / 2**30)
