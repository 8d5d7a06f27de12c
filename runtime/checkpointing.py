"""Keep the state of an interrupted run, so that --resume can go on from it."""

import contextlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pano4d.runtime.errors import OutputError
from pano4d.runtime.files import atomic_file

_FILE = "state.npz"
_HEADER = "header_json"


class State(NamedTuple):
    """A point of a run: how many steps are done, and the arrays to go on with (None: none)."""

    step: int
    arrays: dict[str, np.ndarray] | None


def save_state(folder: str | Path, key: str, step: int, arrays: dict[str, np.ndarray]) -> None:
    """Save the state after a step; the one before stays until the new one is complete.

    Args:
        folder: Where to keep it; made if missing.
        key: Names everything that decides the result (inputs, settings, bundle). A state is
            only ever given back to a run with the same key.
        step: Steps done.
        arrays: What the next step needs, by name.

    Raises:
        OutputError: The file system refuses the write.
    """
    assert _HEADER not in arrays
    header = np.frombuffer(json.dumps({"key": key, "step": int(step)}).encode(), np.uint8)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} could not be made: {error.strerror}; "
                          "choose another folder with --out.") from error
    with atomic_file(folder / _FILE) as temporary, temporary.open("wb") as file:
        np.savez(file, **{_HEADER: header}, **arrays)


def load_state(folder: str | Path, key: str) -> State:
    """Load the state saved last, if it belongs to this run.

    Args:
        folder: The folder given to `save_state`.
        key: The key given to `save_state`.

    Returns:
        Steps done and arrays; (0, None) where nothing is saved, where it belongs to other inputs
        or settings, or where the file is damaged: the run then begins at the first step.
    """
    damaged = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
    with contextlib.suppress(*damaged), np.load(Path(folder) / _FILE, allow_pickle=False) as saved:
        header = json.loads(saved[_HEADER].tobytes())
        if header["key"] == key:
            return State(header["step"], {name: saved[name] for name in saved.files if name != _HEADER})
    return State(0, None)


def clear(folder: str | Path) -> None:
    """Remove the state folder and everything in it; a missing one is fine.

    Args:
        folder: The folder given to `save_state`.
    """
    shutil.rmtree(folder, ignore_errors=True)
