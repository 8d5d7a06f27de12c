"""Fetch checkpoints from the Hugging Face hub, each at one commit, so that the same name is the same weights for ever."""

import re
from pathlib import Path

from pano4d.runtime.errors import BackendError, CheckpointError

_ID = re.compile(r"(?P<id>\w[\w.-]*/\w[\w.-]*?)(?:@(?P<revision>.*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FILES = ["*.json", "*/*.safetensors", "README.md"]
"""Configurations, the parts' weights and the model card: no single file of the same weights, and no pickle."""


def repository(source: str) -> tuple[str, str] | None:
    """Split ORG/NAME@REVISION.

    Args:
        source: What was given for a checkpoint, and is no file or folder here.

    Returns:
        Id and revision; None where it is no id.

    Raises:
        CheckpointError: No revision is named, or one that may come to mean other files.
    """
    match = _ID.fullmatch(source)
    if match is None:
        return None
    if match["revision"] is None:
        raise CheckpointError(f"There is no folder and no file {source} here, and as an id of the Hugging Face hub it "
                              f"lacks a revision: write {source}@COMMIT, the 40 hexadecimal digits that its page shows "
                              "under 'Files and versions'.")
    if not _COMMIT.fullmatch(match["revision"]):
        raise CheckpointError(f"The revision {match['revision']!r} of {match['id']} may come to mean other files, and a "
                              f"commit is needed: write {match['id']}@COMMIT, with its 40 hexadecimal digits.")
    return match["id"], match["revision"]


def fetch(name: str, revision: str) -> Path:
    """Download a repository's folder layout into the cache of huggingface_hub, or find it there.

    Args:
        name: Id, ``org/name``.
        revision: Commit, 40 hexadecimal digits.

    Returns:
        Its folder, not to be changed.

    Raises:
        BackendError: huggingface_hub is not installed.
        CheckpointError: It cannot be fetched.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise BackendError("Checkpoints of the Hugging Face hub need the package huggingface_hub, which is not "
                           "installed: pip install 'pano4d[hub]', or give a local folder.") from error
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES))
    except Exception as error:  # errors of the network, of the hub and of the disk share no class
        reason = (str(error).strip().splitlines() or [repr(error)])[0][:200]
        raise CheckpointError(f"{name}@{revision} could not be fetched ({type(error).__name__}: {reason}): check the "
                              "name, the network and, where its licence must be accepted first, `hf auth login`; or give a local "
                              "folder.") from error
