"""Write files so that a reader sees the old one or the new one, never half of one."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pano4d.runtime.errors import OutputError


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block succeeds.

    The temporary name keeps the suffix, since encoders choose their format by it. When the
    block raises, Ctrl-C included, the temporary file is removed and `path` stays as it was.

    Args:
        path: The file to write. Its folder must exist.

    Yields:
        The path to write to.

    Raises:
        OutputError: The file system refuses the write (no space, no permission, no folder).
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise _refused(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        _publish(temporary, path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(data: bytes | bytearray | memoryview) -> str:
    """Return the SHA-256 of bytes in memory.

    Args:
        data: The bytes.

    Returns:
        The digest as 64 lower-case hexadecimal digits.
    """
    return hashlib.sha256(data).hexdigest()


def _publish(temporary: Path, path: Path) -> None:
    # mkstemp makes files that only their owner can read; a new file follows the umask.
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    # Without the fsync a power cut can leave the new name on an empty file.
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _refused(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path} could not be written: {error.strerror or error}; "
                       "free some space or choose another folder with --out.")
