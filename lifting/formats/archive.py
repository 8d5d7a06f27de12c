"""Read single files of a folder or of a zip, and nothing that lies or points elsewhere."""

import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from pano4d.runtime.errors import InputError

PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", re.ASCII)
"""What a file within a container may be called: no folder, nothing hidden."""

_FAULTS = (zipfile.BadZipFile, zipfile.LargeZipFile, struct.error, zlib.error, EOFError, ValueError, KeyError, IndexError,
           RuntimeError, NotImplementedError, OverflowError, UnicodeError)


def read_member(path: Path, name: str, wanted_bytes: int | None, most_bytes: int) -> bytes:
    """Read one file of a container.

    Args:
        path: Folder, or a zip whose members are stored as they are.
        name: Plain name of the file.
        wanted_bytes: What its size must be; None: any.
        most_bytes: Largest size to read.

    Returns:
        Its bytes.

    Raises:
        InputError: There is none, it is no ordinary file, or it has another size.
    """
    require_plain(name, str(path))
    try:
        if path.is_dir():
            with _open_plain(path / name) as file:
                size = os.fstat(file.fileno()).st_size
                _require_size(f"{path / name}", size, wanted_bytes, most_bytes)
                data = file.read(size + 1)
        else:
            with open(path, "rb") as file, open_zip(file, str(path)) as members:
                if name not in members.NameToInfo:
                    raise InputError(f"{path} holds no {name}; fetch or write the scene again.")
                size = members.getinfo(name).file_size
                _require_size(f"{path}: {name}", size, wanted_bytes, most_bytes)
                data = read_zipped(members, name, str(path))
    except OSError as error:
        raise InputError(f"{path}: {name} cannot be read ({error.strerror or error}); fetch or write the scene "
                         "again.") from error
    if len(data) != size:
        raise InputError(f"{path}: {name} changed while it was read; read it again.")
    return data


@contextmanager
def open_zip(file, name: str, stored: bool = True) -> Iterator[zipfile.ZipFile]:
    """Open a zip and check its list of members before any is read.

    Args:
        file: Open binary file, or the bytes of one.
        name: What to call it in an error.
        stored: Refuse members that are compressed; else those that are not stored or deflated to a sensible size.

    Yields:
        The archive, with members whose names are plain and different, and which together are no larger than it.

    Raises:
        InputError: It is no such archive.
    """
    file = BytesIO(file) if isinstance(file, bytes) else file
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        archive = zipfile.ZipFile(file)
    except _FAULTS as error:
        raise InputError(f"{name} is no zip file, or cut short or damaged; fetch or write it again.") from error
    with archive:
        members = archive.infolist()
        if len({member.filename for member in members}) < len(members):
            raise InputError(f"{name} holds several files of one name; fetch or write it again.")
        for member in members:
            require_plain(member.filename, name)
            _require_honest(member, name, stored)
        if sum(member.compress_size for member in members) > size:
            raise InputError(f"{name} holds files that overlap; fetch or write it again.")
        yield archive


def read_zipped(archive: zipfile.ZipFile, member: str, name: str) -> bytes:
    """Read a member of an archive from `open_zip`.

    Args:
        archive: The archive.
        member: Name of the member.
        name: What to call the archive in an error.

    Returns:
        Its bytes.

    Raises:
        InputError: It is not there or damaged.
    """
    try:
        return archive.read(member)
    except _FAULTS as error:
        raise InputError(f"{name}: {member} is missing or damaged; fetch or write it again.") from error


def require_plain(name: str, where: str) -> None:
    """Refuse names that could lead out of a container.

    Args:
        name: Name of a file in it.
        where: What to call the container.

    Raises:
        InputError: The name is not plain.
    """
    if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name):
        raise InputError(f"{where} names the file {str(name)[:60]!a}; only plain names within it can be read.")


def _require_honest(member: zipfile.ZipInfo, name: str, stored: bool) -> None:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if member.flag_bits & 0x1 or kind not in (0, stat.S_IFREG):
        raise InputError(f"{name}: {member.filename} is encrypted or no ordinary file; write it again.")
    plain = member.compress_type == zipfile.ZIP_STORED and member.file_size == member.compress_size
    # WebP hardly deflates; the little JSON beside it does.
    packed = member.compress_type == zipfile.ZIP_DEFLATED and member.file_size <= 4 * member.compress_size + 2**16
    if not (plain or packed and not stored):
        raise InputError(f"{name}: {member.filename} is compressed, and its members are to be stored; write it again.")


def _open_plain(path: Path):
    """Open a file that is no link, pipe or device."""
    # A link is not followed, and a pipe does not keep us waiting, where the system knows how.
    careful = [getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")]
    handle = os.open(path, os.O_RDONLY | careful[0] | careful[1] | careful[2])
    file = os.fdopen(handle, "rb")
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        file.close()
        raise InputError(f"{path} is no ordinary file; fetch or write the scene again.")
    return file


def _require_size(name: str, size: int, wanted: int | None, most: int) -> None:
    if size > most or wanted not in (None, size):
        right = f"at most {most}" if wanted is None else wanted
        raise InputError(f"{name} has {size} bytes instead of {right}; fetch or write the scene again.")
