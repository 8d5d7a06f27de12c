"""Write and read a moving scene as one file or folder: what stays, what moves in each frame, and a manifest.

The format is written down in docs/p4d.md; every part is an SPZ file that any viewer opens.
"""

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pano4d.lifting.formats import spz
from pano4d.lifting.formats.archive import read_member
from pano4d.lifting.formats.delta import fits, pack_delta, unpack_delta
from pano4d.lifting.formats.p4d_manifest import AXES, FORMAT, MOST_BYTES, SCHEMA_VERSION, UNITS, UP, parse_manifest
from pano4d.lifting.formats.spz_codes import Codes, decode, encode, fitting_bits
from pano4d.lifting.gaussians import Gaussians, concatenate, take
from pano4d.lifting.ordering import curve_order
from pano4d.runtime.errors import InputError

FINEST = 1024
"""Steps of the positions to the distance of what is near: at most 0.5 mrad from there, a third of a pixel of 4096."""

COARSE_ROTATIONS = 4
"""Steps of SPZ's that rotations are rounded to, a degree at most: flat Gaussians show no more, and files lose a tenth."""

_MANIFEST = "manifest.json"
_HEADROOM = 2.0


def write_container(path: Path, static: Gaussians, moving: Iterable[Gaussians], fps: float, source: dict | None = None,
                    licence: str | None = None, folder: bool = False, deltas: bool = False,
                    generator: str = "pano4d") -> int:
    """Write a scene.

    Args:
        path: File or folder to write; a file is replaced if it exists, a folder must be new.
        static: What all frames share.
        moving: What moves in each frame; Gaussian i is the same in all.
        fps: Frames per second.
        source: ``name`` and ``sha256`` of what the scene was made of.
        licence: What the scene may be used for.
        folder: Write a folder instead of a zip file.
        deltas: Store frames as what differs from a keyframe where that is smaller; other viewers cannot open these parts.
        generator: What writes it.

    Returns:
        Size of all files in bytes.

    Raises:
        ValueError: There is no frame or no Gaussian, or frames have different numbers of them.
        OSError: It cannot be written.
    """
    with ContainerWriter(path, static, fps, source, licence, folder, deltas, generator) as writer:
        for gaussians in moving:
            writer.add(gaussians)
        return writer.commit()


class ContainerWriter:
    """Write a scene frame by frame, in a with block; without `commit` nothing stays."""

    def __init__(self, path: Path, static: Gaussians, fps: float, source: dict | None = None, licence: str | None = None,
                 folder: bool = False, deltas: bool = False, generator: str = "pano4d") -> None:
        """See `write_container`; nothing is touched yet."""
        self._path, self._folder, self._deltas, self._static = Path(path), folder, deltas, static
        self._partial = self._path.with_name(f".{self._path.name}.part")
        self._about = {"generator": generator, "fps": fps, "source": source, "licence": licence}
        self._former: Codes | None = None
        self._keyframe: tuple[str, Codes] | None = None
        self._written: list[dict] = []
        self._frames = 0

    def __enter__(self) -> "ContainerWriter":
        """Open a temporary file or folder beside the target.

        Raises:
            OSError: It cannot be made.
        """
        self._remove_partial()
        self._archive = None if self._folder else zipfile.ZipFile(self._partial, "w", zipfile.ZIP_STORED)
        if self._folder:
            self._partial.mkdir()
        return self

    def __exit__(self, *_) -> None:
        """Remove what was not committed."""
        if self._archive:
            self._archive.close()
        self._remove_partial()

    def add(self, moving: Gaussians) -> None:
        """Add a frame.

        Args:
            moving: What moves in it; as many Gaussians as in the frames before.

        Raises:
            ValueError: The number of Gaussians changes, or there is none in the whole scene.
            OSError: It cannot be written.
        """
        if not self._frames:
            self._begin(moving)
        if len(moving) != len(self._order):
            raise ValueError(f"a frame moves {len(moving)} Gaussians, the first one {len(self._order)}")
        self._widen(moving)
        if len(moving):
            self._add_moving(f"moving_{self._frames:04d}", take(moving, self._order))
        self._frames += 1

    def commit(self) -> int:
        """Write the manifest and put all in place.

        Returns:
            Size of all files in bytes.

        Raises:
            ValueError: No frame was added.
            OSError: It cannot be written.
        """
        if not self._frames:
            raise ValueError("a scene has at least one frame")
        static, *moving = self._written
        bounds = {end: [round(float(v), 6) for v in at] for end, at in zip(("min", "max"), self._bounds)}
        manifest = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "generator": self._about["generator"],
                    "fps": float(self._about["fps"]), "frames": self._frames, "axes": AXES, "units": UNITS, "up": UP,
                    "bounds": bounds, "near_m": self._near_m, "median_m": self._median_m, "static": static, "moving": moving,
                    "source": self._about["source"], "licence": self._about["licence"]}
        self._store(_MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
        if self._archive:
            self._archive.close()
            size = self._partial.stat().st_size
        else:
            size = sum(part.stat().st_size for part in self._partial.iterdir())
        os.replace(self._partial, self._path)
        return size

    def _begin(self, moving: Gaussians) -> None:
        """Choose steps and orders by the first frame, and write what stays."""
        everything = concatenate([self._static, moving])
        if not len(everything):
            raise ValueError("a scene has at least one Gaussian")
        near, median = np.quantile(np.linalg.norm(everything.means, axis=1), [0.02, 0.5])
        self._near_m, self._median_m = round(float(near), 6), round(float(median), 6)
        farthest = float(np.abs(everything.means).max())
        wanted = int(np.ceil(np.log2(FINEST / max(near, 2.0**-12))))
        self._bits = fitting_bits(_HEADROOM * farthest, max(wanted, 0))
        self._bounds = np.full(3, np.inf), np.full(3, -np.inf)
        self._widen(self._static)
        self._order = curve_order(moving.means)
        codes = encode(take(self._static, curve_order(self._static.means)), self._bits, coarse=COARSE_ROTATIONS)
        self._add_file("static.spz", spz.compress(spz.to_bytes(codes)), len(codes.alphas))

    def _add_moving(self, stem: str, moving: Gaussians) -> None:
        """Write one frame: by itself, or as a delta if that is asked for and smaller."""
        fitting = fitting_bits(float(np.abs(moving.means).max()), self._bits)
        codes = self._former = encode(moving, fitting, self._former, COARSE_ROTATIONS)
        data = spz.compress(spz.to_bytes(codes))
        if self._deltas and self._keyframe and fits(codes, self._keyframe[1]):
            delta = pack_delta(codes, self._keyframe[1])
            if len(delta) < len(data):
                self._add_file(f"{stem}.delta", delta, len(moving), keyframe=self._keyframe[0])
                return
        self._keyframe = f"{stem}.spz", codes
        self._add_file(f"{stem}.spz", data, len(moving))

    def _add_file(self, name: str, data: bytes, count: int, **more: str) -> None:
        self._store(name, data)
        self._written.append({"file": name, "gaussians": count, "bytes": len(data),
                              "sha256": hashlib.sha256(data).hexdigest(), **more})

    def _store(self, name: str, data: bytes) -> None:
        if self._archive:
            self._archive.writestr(zipfile.ZipInfo(name), data)
        else:
            (self._partial / name).write_bytes(data)

    def _widen(self, gaussians: Gaussians) -> None:
        if len(gaussians):
            low, high = self._bounds
            self._bounds = np.minimum(low, gaussians.means.min(0)), np.maximum(high, gaussians.means.max(0))

    def _remove_partial(self) -> None:
        if self._partial.is_dir():
            shutil.rmtree(self._partial, ignore_errors=True)
        else:
            self._partial.unlink(missing_ok=True)


class Container:
    """A scene on disk. Parts are read and their hashes checked when they are asked for.

    Attributes:
        path: File or folder.
        manifest: As docs/p4d.md describes, checked.
    """

    def __init__(self, path: Path, manifest: dict) -> None:
        """Use `open`."""
        self.path, self.manifest = path, manifest
        self._static: Gaussians | None = None

    @staticmethod
    def open(path: str | Path) -> "Container":
        """Open a scene.

        Args:
            path: File or folder.

        Returns:
            The scene; so far only its manifest has been read.

        Raises:
            InputError: It is no such scene, or its manifest is wrong.
        """
        path = Path(path)
        if not path.exists():
            raise InputError(f"{path} does not exist; name a .p4d scene.")
        return Container(path, parse_manifest(read_member(path, _MANIFEST, None, MOST_BYTES), str(path)))

    def __len__(self) -> int:
        """Return the number of frames."""
        return self.manifest["frames"]

    def static(self) -> Gaussians:
        """Read what all frames share, once.

        Raises:
            InputError: The part is missing, changed or damaged.
        """
        if self._static is None:
            self._static = decode(self._codes(self.manifest["static"]))
        return self._static

    def moving(self, frame: int) -> Gaussians | None:
        """Read what moves.

        Args:
            frame: Number of the frame, from 0.

        Returns:
            The Gaussians; Gaussian i is the same in all frames. None where nothing moves in the whole scene.

        Raises:
            IndexError: There is no such frame.
            InputError: The part is missing, changed or damaged.
        """
        if not 0 <= frame < len(self):
            raise IndexError(f"frame {frame} of {len(self)}")
        return decode(self._codes(self.manifest["moving"][frame])) if self.manifest["moving"] else None

    def frame(self, frame: int) -> Gaussians:
        """Read all of a frame: what stays, then what moves.

        Args:
            frame: Number of the frame, from 0.

        Returns:
            The Gaussians.

        Raises:
            IndexError: There is no such frame.
            InputError: A part is missing, changed or damaged.
        """
        moving, static = self.moving(frame), self.static()
        if moving is None:
            return static
        if moving.sh.shape[1] != static.sh.shape[1]:
            raise InputError(f"{self.path}: what moves has other harmonics than what stays; fetch or write the "
                             "scene again.")
        return concatenate([static, moving])

    def spz(self, entry: dict) -> bytes:
        """Give a part as an SPZ file, as which most are stored.

        Args:
            entry: The manifest's ``static``, or one of its ``moving``; a delta is put together with its keyframe.

        Returns:
            The bytes of the file, whose hash holds.

        Raises:
            InputError: The part is missing, changed or damaged.
        """
        is_delta = entry["file"].endswith(".delta")
        return spz.compress(spz.to_bytes(self._codes(entry))) if is_delta else self._stored(entry)

    def verify(self) -> int:
        """Read every part.

        Returns:
            Bytes of all parts.

        Raises:
            InputError: A part is missing, changed or damaged.
        """
        entries = [self.manifest["static"], *self.manifest["moving"]]
        for entry in entries:
            self._codes(entry)
        return sum(entry["bytes"] for entry in entries)

    def _codes(self, entry: dict) -> Codes:
        """Read a part, and its keyframe if it is a delta."""
        name, data = f"{self.path}: {entry['file']}", self._stored(entry)
        if entry["file"].endswith(".delta"):
            keyframe = next(one for one in self.manifest["moving"] if one["file"] == entry["keyframe"])
            codes = unpack_delta(data, self._codes(keyframe), name)
        else:
            codes = spz.unpack(data, name)
        if len(codes.alphas) != entry["gaussians"]:
            raise InputError(f"{name} holds {len(codes.alphas)} Gaussians and the manifest says {entry['gaussians']}; "
                             "fetch or write the scene again.")
        return codes

    def _stored(self, entry: dict) -> bytes:
        """Read a part as it is stored."""
        data = read_member(self.path, entry["file"], entry["bytes"], entry["bytes"])
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise InputError(f"{self.path}: {entry['file']} is not what the manifest says (its SHA-256 differs); fetch or "
                             "write the scene again.")
        return data
