"""Import TensorRT, listen to what it says, and say it in one sentence. For versions 10.16 to 11.x alike."""

import functools
import importlib
import textwrap
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from pano4d.runtime.errors import BackendError, DeviceMemoryError

FULL, LEAN = "tensorrt", "tensorrt_lean"
"""Modules: all of TensorRT, and the runtime that runs version-compatible plans only."""

INSTALL = "pip install 'pano4d[tensorrt]'"
OLDEST = (10, 16)

_FULL_MEMORY = ("out of memory", "outofmemory", "memory allocation failed", "cudaerrormemoryallocation")
_LONGEST, _LONGEST_TOLD = 300, 120
_broken: list[tuple[Any, Any]] = []


def find(name: str = FULL) -> ModuleType:
    """Import TensorRT.

    Args:
        name: ``FULL`` or ``LEAN``.

    Returns:
        The module.

    Raises:
        BackendError: It is not installed, too old, or its libraries are not to be found.
    """
    try:
        trt = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise BackendError(f"TensorRT is needed, and the Python module {error.name or name} is not installed: "
                           f"{INSTALL}.") from error
    except (ImportError, OSError) as error:
        raise BackendError(f"TensorRT's Python module {name} does not load ({one_line(error)}): put the folder of "
                           f"TensorRT's libraries into LD_LIBRARY_PATH, or {INSTALL}.") from error
    if parts(trt.__version__)[:2] < OLDEST:
        raise BackendError(f"TensorRT {trt.__version__} is installed, and {'.'.join(map(str, OLDEST))} or newer is needed: "
                           f"{INSTALL}.")
    return trt


def parts(version: str) -> tuple[int, ...]:
    """Take a version apart: ``11.4.0.106`` gives (11, 4, 0, 106)."""
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


def listen(trt: ModuleType) -> Any:
    """Make a logger that keeps what TensorRT reports as an error.

    Args:
        trt: The module.

    Returns:
        A logger for whatever takes one; ``told()`` gives the errors since it was last asked, as one line. It must outlive
        what it was given to.
    """
    return _log_class(trt)()


@functools.cache
def _log_class(trt: ModuleType) -> type:
    class Log(trt.ILogger):
        """Keeps errors, and drops the rest."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            """Called by TensorRT, from any of its threads."""
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                self.errors.append(msg)

        def told(self) -> str:
            """Give the first error, which is the cause of the others, and say how many came after it."""
            errors, self.errors = self.errors, []
            if not errors:
                return "without saying why"
            return one_line(errors[0], _LONGEST_TOLD) + (f"; {len(errors) - 1} more" if errors[1:] else "")

    return Log


def start(trt: ModuleType, log: Any, make: Callable[[], Any]) -> Any:
    """Make what everything else of TensorRT comes from.

    Args:
        trt: The module.
        log: As `listen` makes it.
        make: Makes a ``Runtime`` or a ``Builder`` with this logger.

    Returns:
        The object.

    Raises:
        BackendError: TensorRT cannot use the GPU or its driver.
    """
    try:
        made = make()
    except TypeError:  # what the bindings make of one that TensorRT does not give
        made = None
    if made is None or log.errors:
        # Where CUDA does not start it may give one all the same, which crashes the process when it is used or released.
        _broken.append((made, log))
        raise failure(trt, log, "does not start", "check the GPU and its driver with nvidia-smi")
    return made


def failure(trt: ModuleType, log: Any, what: str, remedy: str,
            causes: Iterable[tuple[str, str, str]] = ()) -> BackendError:
    """Turn what TensorRT has reported into one of our errors, with the whole text as a note for the trace.

    Args:
        trt: The module.
        log: As `listen` makes it.
        what: What it did not do, such as "cannot load unet.plan".
        remedy: What to do.
        causes: Words of a report that is known, in small letters; what to say instead of it; what to do then.

    Returns:
        The error, to be raised; one of its own where the GPU is full.
    """
    whole = "\n".join(log.errors)
    told, said = log.told(), whole.lower()
    if any(word in said for word in _FULL_MEMORY):
        error: BackendError = DeviceMemoryError()
    else:
        told, remedy = next(((meaning, then) for words, meaning, then in causes if words in said), (told, remedy))
        error = BackendError(f"TensorRT {trt.__version__} {what} ({told}): {remedy}.")
    if whole:
        error.add_note(f"TensorRT said: {whole}")
    return error


def one_line(error: Any, longest: int = _LONGEST) -> str:
    """Shorten what somebody else says to one line, which ends with a whole word and as many brackets as it opened."""
    line = textwrap.shorten(str(error), longest, placeholder=" ...") or type(error).__name__
    return line + ")" * (line.count("(") - line.count(")"))
