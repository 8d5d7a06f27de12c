"""Keep what has been learned where an interruption does not reach it."""

from typing import Protocol

import numpy as np


class Store(Protocol):
    """Where it is kept."""

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """Give what was saved under a name; None if nothing was."""

    def save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Save."""
