"""Hold an output folder: everything is written aside and moved in place at the end.

While a run goes on, its files lie in a hidden staging folder inside the target, on the same
file system. `commit` moves them in place; anything else (an exception, Ctrl-C) removes
them, so the folder holds the complete former result, the complete new one, or nothing.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path

from pano4d.runtime import checkpointing
from pano4d.runtime.errors import OutputError

try:
    import fcntl
except ImportError:  # not a Unix: two runs into one folder are then not noticed
    fcntl = None

_STAGING = ".staging-"
_RESUME = ".resume"
_REPORT = "report.json"
_GAUSSIAN_BYTES = 17 * 4 + 20
_RESERVE_BYTES = 32 << 20


class OutputFolder:
    """Context manager for the output folder of one run.

        with OutputFolder("out", overwrite=False, resume=False, needs_bytes=10**9) as folder:
            write_png(folder.path("frames/frame_0000.png"), frame)
            write_report(folder.path("report.json"), report)
            folder.commit()

    Attributes:
        target: The folder the user named.
        staging: Where this run writes until `commit`; set inside the block.
        resume_folder: `<target>/.resume`, for `checkpointing`; survives an interrupted run, and
            is emptied by `commit` and by a run without `resume`.
    """

    def __init__(self, target: str | Path, *, overwrite: bool = False, resume: bool = False,
                 needs_bytes: int = 0, owns: tuple[str, ...] = ()) -> None:
        """Name the folder and say what may happen to it; nothing is touched yet.

        Args:
            target: The output folder; made if missing, with its parents.
            overwrite: Replace earlier results, at `commit` and not before.
            resume: Go on with the interrupted run whose state is in the folder.
            needs_bytes: Estimate of what will be written, in bytes (see `estimate_bytes`).
            owns: Names in the folder that `commit` removes even when this run has not written
                them, so that no stale splats of an earlier run stay beside a new video.
        """
        self.target = Path(target)
        self.resume_folder = self.target / _RESUME
        self.staging: Path | None = None
        self._resume = resume
        self._overwrite = overwrite
        self._needs_bytes = needs_bytes
        self._owns = owns
        self._made: list[Path] = []
        self._lock: int | None = None

    def __enter__(self) -> "OutputFolder":
        """Check the folder, make it and lock it.

        Raises:
            OutputError: The folder is not empty and neither --overwrite nor --resume was given,
                is a file, cannot be written, is in use by another run, or has too little space.
        """
        try:
            self._refuse_if_occupied()
            self._make()
            self._take_lock()
            self._require_space()
            self._remove_leftovers()
            self.staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self.target))
        except OSError as error:
            self._close()
            raise OutputError(f"{self.target} cannot be written: {error.strerror or error}; "
                              "choose another folder with --out.") from error
        except BaseException:
            self._close()
            raise
        return self

    def path(self, name: str) -> Path:
        """Return where to write the output `name` for now, its folder made.

        Args:
            name: Path relative to the output folder, such as "frames/frame_0000.png".

        Raises:
            OutputError: The folder cannot be made.
        """
        assert self.staging is not None, "use the output folder in a with block"
        path = self.staging / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path.parent} could not be made: {error.strerror}.") from error
        return path

    def commit(self) -> None:
        """Move everything written into place; on any failure put the former result back.

        A name that exists already is replaced as a whole, folders too; other files of the user
        in the folder are left alone. The report is moved last: where it is, all is.

        Raises:
            OutputError: The file system refuses the moves.
        """
        assert self.staging is not None, "use the output folder in a with block"
        names = sorted(os.listdir(self.staging), key=lambda name: (name == _REPORT, name))
        former = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self.target))
        moved: list[tuple[Path, Path]] = []
        try:
            for name in dict.fromkeys((*self._owns, *names)):
                if (self.target / name).exists():
                    _move(self.target / name, former / name, moved)
            for name in names:
                _move(self.staging / name, self.target / name, moved)
        except BaseException as error:
            for source, destination in reversed(moved):
                os.replace(destination, source)
            shutil.rmtree(former, ignore_errors=True)
            if isinstance(error, OSError):
                raise OutputError(f"{self.target} could not be filled: {error.strerror}; "
                                  "it was left as it was.") from error
            raise
        self._made = []
        shutil.rmtree(former, ignore_errors=True)
        checkpointing.clear(self.resume_folder)

    def __exit__(self, kind, error, trace) -> None:
        """Remove what was not committed, and the folder too if this run made it and it is empty.

        Raises:
            OutputError: The block ran out of disk space.
        """
        self._close()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"No space is left for {self.target}; free some space or choose "
                              "another folder with --out.") from error

    def _refuse_if_occupied(self) -> None:
        if self.target.exists() and not self.target.is_dir():
            raise OutputError(f"{self.target} is a file; --out needs a folder.")
        held = [name for name in os.listdir(self.target) if not name.startswith(_STAGING)] \
            if self.target.is_dir() else []
        if not held or self._overwrite:
            return
        if _RESUME in held and not self._resume:
            raise OutputError(f"{self.target} holds an interrupted run; add --resume to go on with it "
                              "or --overwrite to begin again.")
        if _RESUME not in held:
            wanted = "holds no interrupted run to resume; add --overwrite to replace its results" \
                if self._resume else "is not empty; add --overwrite to replace its results"
            raise OutputError(f"{self.target} {wanted}, or choose another folder with --out.")

    def _make(self) -> None:
        missing = [folder for folder in (self.target, *self.target.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self._made.insert(0, folder)

    def _take_lock(self) -> None:
        if fcntl is None:
            return
        self._lock = os.open(self.target, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{self.target} is being written by another run; wait for it "
                              "or choose another folder with --out.") from None
        except OSError:
            # Some network file systems have no locks; a run without one is better than none.
            pass

    def _require_space(self) -> None:
        free = shutil.disk_usage(self.target).free
        needed = self._needs_bytes + _RESERVE_BYTES
        if self._needs_bytes and free < needed:
            raise OutputError(f"{self.target} has {free / 2**20:.0f} MiB free and about "
                              f"{needed / 2**20:.0f} MiB are needed; free some space, choose another "
                              "folder with --out, or a smaller --size.")

    def _remove_leftovers(self) -> None:
        # The lock is held, so whatever lies here belongs to a run that was killed.
        for path in self.target.glob(f"{_STAGING}*"):
            shutil.rmtree(path, ignore_errors=True)
        if not self._resume:
            checkpointing.clear(self.resume_folder)

    def _close(self) -> None:
        if self.staging is not None:
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        for folder in self._made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        self._made = []


def estimate_bytes(frames: int, height: int, width: int, *, gaussians: int = 0) -> int:
    """Estimate, generously, what a run writes.

    Args:
        frames: Frames of the video.
        height: Panorama height, in pixels.
        width: Panorama width, in pixels.
        gaussians: Gaussians in each frame; 0 without lifting.

    Returns:
        Size in bytes: uncompressed frames (PNG of a noisy picture hardly gains), a tenth of that
        for video and preview, the PLY files, and the one file of the whole scene without its compression.
    """
    raw = frames * height * width * 3
    return raw + raw // 10 + frames * gaussians * _GAUSSIAN_BYTES


def _move(source: Path, destination: Path, moved: list[tuple[Path, Path]]) -> None:
    os.replace(source, destination)
    moved.append((source, destination))
