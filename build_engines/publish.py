"""Put a bundle in its place whole, or not at all."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pano4d.runtime.bundle import MANIFEST, Bundle
from pano4d.runtime.errors import BundleError


def built_already(out: Path, key: str, force: bool) -> Bundle | None:
    """Look whether a build would make what is there.

    Args:
        out: Folder of the bundle.
        key: Cache key of the build.
        force: Whether something else there may be replaced.

    Returns:
        The bundle that is there, verified, if it has this key; else None.

    Raises:
        BundleError: Something else is there, and ``force`` is not given.
    """
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        there = Bundle.open(out)
        if there.manifest["key"] == key:
            return there
        found = f"another bundle ({there.manifest['model']['name']})"
    except BundleError:
        found = "a damaged bundle" if (out / MANIFEST).exists() else "something that is no bundle"
    # A slip in a path must not cost somebody's folder, so --force replaces bundles only.
    if not force or not (out / MANIFEST).exists():
        raise BundleError(f"{out} holds {found}: choose another folder with --out"
                          + (", or replace it with --force." if (out / MANIFEST).exists() else "."))
    return None


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``out`` when the block succeeds, and vanishes when it does not.

    Args:
        out: Folder of the bundle; what is there is replaced at the end.

    Yields:
        A folder on the same file system.

    Raises:
        BundleError: The file system refuses.
    """
    out = Path(out).absolute()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # A folder inside the temporary one, so that it is made with the usual permissions.
        holder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise _refused(out, error) from error
    try:
        (holder / "new").mkdir()
        yield holder / "new"
        _sync(holder / "new")
        if os.path.lexists(out):
            out.rename(holder / "old")
        (holder / "new").rename(out)
        _sync_folder(out.parent)
    except OSError as error:
        raise _refused(out, error) from error
    finally:
        if (holder / "old").exists() and not out.exists():
            (holder / "old").rename(out)
        shutil.rmtree(holder, ignore_errors=True)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> Bundle:
    """Write manifest.json: the same content gives the same bytes.

    Args:
        folder: Folder that holds every file the manifest lists.
        manifest: Its content.

    Returns:
        The bundle, opened and verified.

    Raises:
        BundleError: The manifest is incomplete, or does not fit the files.
    """
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return Bundle.open(folder)


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refused(out: Path, error: OSError) -> BundleError:
    return BundleError(f"{out} could not be written ({error.strerror or error}): free some space or choose another "
                       "folder with --out.")
