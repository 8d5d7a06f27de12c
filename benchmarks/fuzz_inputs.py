"""Make damaged and hostile files of Gaussians: of the bytes as they lie, and of what lies under gzip, zip and hashes."""

import hashlib
import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from pano4d.lifting.container import Container, write_container
from pano4d.lifting.formats import spz
from pano4d.lifting.formats.delta import pack_delta, unpack_delta
from pano4d.lifting.formats.p4d_manifest import parse_manifest
from pano4d.lifting.formats.ply import unpack_ply, write_ply
from pano4d.lifting.formats.sog import pack_sog
from pano4d.lifting.formats.sog_read import unpack_sog
from pano4d.lifting.formats.splat import unpack_splat, write_splat
from pano4d.lifting.formats.spz_codes import Codes, decode, encode
from pano4d.lifting.gaussians import Gaussians, take

KINDS = ("ply", "splat", "spz", "delta", "manifest", "p4d", "sog")
SHARES = (0.24, 0.2, 0.24, 0.1, 0.12, 0.07, 0.03)
_HOSTILE = (0, 1, 2, 127, 128, 255, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_VALUES = (None, True, False, -1, 0, 1, 2**31, 2**63, 10**30, -(10**400), 1e308, float("inf"), float("nan"), "", "a", [], {},
           [[]], "../../etc/passwd", "/etc/passwd", "static.spz", "moving_0000.spz", "moving_0001.delta", "a/b.spz",
           "C:\\a.spz", "\0.spz", ".hidden.spz", "x.spz\n", "manifest.json", "0" * 64, "é.spz")


def sample(count: int, k: int = 1, seed: int = 0) -> Gaussians:
    """Draw Gaussians.

    Args:
        count: How many, N.
        k: Harmonics.
        seed: Of the draw.

    Returns:
        N Gaussians between 1 and 50 m.

    Raises:
        Nothing.
    """
    rng = np.random.default_rng(seed)
    means, quats = rng.normal(size=(count, 3)), rng.normal(size=(count, 4))
    means *= (np.exp(rng.uniform(0, 3.9, count)) / np.linalg.norm(means, axis=1))[:, None]
    return Gaussians(means.astype(np.float32), (quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32),
                     np.exp(rng.uniform(-7, 0, (count, 3))).astype(np.float32),
                     rng.uniform(0, 1, count).astype(np.float32),
                     rng.uniform(-0.9, 0.9, (count, k, 3)).astype(np.float32))


class Corpus:
    """Sound files, and what damages and reads them."""

    def __init__(self, folder: Path) -> None:
        """Write the sound files.

        Args:
            folder: Where files may be written.
        """
        self._file = folder / "input.p4d"
        few, keyframe = sample(8), sample(12, seed=1)
        write_ply(folder / "a", few)
        write_ply(folder / "b", sample(3, 16))
        write_splat(folder / "c", few)
        self._keyframe: Codes = encode(keyframe, 12)
        later = take(keyframe, np.arange(12))
        later.sh[:] += 0.1
        source = {"name": "p.jpg", "sha256": "0" * 64}
        write_container(folder / "d", few, [keyframe, later, later], 7.0, source, deltas=True)
        with zipfile.ZipFile(folder / "d") as archive:
            self._scene = {name: archive.read(name) for name in archive.namelist()}
        self._seeds = {
            "ply": [(folder / name).read_bytes() for name in "ab"], "splat": [(folder / "c").read_bytes()],
            "spz": [spz.compress(spz.to_bytes(encode(sample(n, k), 12))) for n, k in ((0, 1), (8, 1), (4, 16))],
            "delta": [pack_delta(encode(later, 12), self._keyframe)], "manifest": [self._scene["manifest.json"]],
            "p4d": [(folder / "d").read_bytes()], "sog": [pack_sog(few)]}
        with zipfile.ZipFile(io.BytesIO(self._seeds["sog"][0])) as archive:
            self._sog = {name: archive.read(name) for name in archive.namelist()}

    def make(self, kind: str, rng: np.random.Generator) -> bytes:
        """Make one input.

        Args:
            kind: One of KINDS.
            rng: What decides.

        Returns:
            Its bytes.

        Raises:
            Nothing.
        """
        data = self._seeds[kind][int(rng.integers(len(self._seeds[kind])))]
        deep = rng.random() < 0.6
        if deep and kind in ("spz", "delta"):
            payload = damage(zlib.decompress(data, 31), rng)
            if rng.random() < 0.05:
                payload += bytes(int(rng.integers(2**20)))
            packer = zlib.compressobj(1, zlib.DEFLATED, 31)
            return packer.compress(payload) + packer.flush()
        if deep and kind in ("p4d", "sog"):
            return self._rezip(dict(self._scene if kind == "p4d" else self._sog), kind, rng)
        if deep and kind == "manifest":
            return json.dumps(_damage_json(json.loads(data), rng)).encode()
        return damage(data, rng)

    def read(self, kind: str, data: bytes) -> None:
        """Read an input whole.

        Args:
            kind: One of KINDS.
            data: Its bytes.

        Raises:
            InputError: It is refused.
        """
        if kind == "p4d":
            self._file.write_bytes(data)
            scene = Container.open(self._file)
            for frame in range(min(len(scene), 4)):
                scene.frame(frame)
            return
        {"ply": unpack_ply, "splat": unpack_splat, "sog": unpack_sog, "manifest": parse_manifest,
         "spz": lambda data, name: decode(spz.unpack(data, name)),
         "delta": lambda data, name: decode(unpack_delta(data, self._keyframe, name))}[kind](data, "input")

    def _rezip(self, members: dict[str, bytes], kind: str, rng: np.random.Generator) -> bytes:
        """Damage a member, or the list of them, and zip all again; hashes are made to fit, mostly."""
        names = list(members)
        about = "manifest.json" if kind == "p4d" else "meta.json"
        chosen = names[int(rng.integers(len(names)))]
        if rng.random() < 0.4:
            members[about] = json.dumps(_damage_json(json.loads(members[about]), rng)).encode()
        elif chosen != about:
            members[chosen] = damage(members[chosen], rng)
            if kind == "p4d" and rng.random() < 0.9:
                told = json.loads(members[about])
                for entry in (told["static"], *told["moving"]):
                    if entry["file"] == chosen:
                        entry |= {"bytes": len(members[chosen]), "sha256": hashlib.sha256(members[chosen]).hexdigest()}
                members[about] = json.dumps(told).encode()
        packed = io.BytesIO()
        with warnings_off(), zipfile.ZipFile(packed, "w") as archive:
            for name, data in members.items():
                odd = str(_VALUES[int(rng.integers(len(_VALUES)))]) if rng.random() < 0.03 else name
                how = zipfile.ZIP_DEFLATED if rng.random() < 0.03 else zipfile.ZIP_STORED
                archive.writestr(zipfile.ZipInfo(odd or "x"), data, how)
        return damage(packed.getvalue(), rng) if rng.random() < 0.2 else packed.getvalue()


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip, cut, repeat or overwrite, once to four times.

    Args:
        data: Bytes.
        rng: What decides.

    Returns:
        Other bytes, mostly.

    Raises:
        Nothing.
    """
    made = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at, how = int(rng.integers(len(made) + 1)), int(rng.integers(6))
        # Half of the time near the front, where the headers are.
        at = at % 32 if rng.random() < 0.5 else at
        if how == 0 and made:
            made[at % len(made)] ^= 1 << int(rng.integers(8))
        elif how == 1:
            del made[at:]
        elif how == 2:
            made[at:at] = rng.bytes(int(rng.integers(1, 16)))
        elif how == 3:
            made[at : at + 4] = _HOSTILE[int(rng.integers(len(_HOSTILE)))].to_bytes(4, "little")
        elif how == 4:
            del made[at : at + int(rng.integers(1, 16))]
        else:
            made[at : at + 1] = str(_HOSTILE[int(rng.integers(len(_HOSTILE)))]).encode() * int(rng.integers(1, 4))
    return bytes(made)


def _damage_json(told: Any, rng: np.random.Generator) -> Any:
    """Replace or remove a value somewhere."""
    if isinstance(told, (dict, list)) and told and rng.random() < 0.85:
        keys = list(told) if isinstance(told, dict) else range(len(told))
        key = keys[int(rng.integers(len(keys)))]
        if rng.random() < 0.1:
            told.pop(key)
        else:
            told[key] = _damage_json(told[key], rng)
        return told
    return _VALUES[int(rng.integers(len(_VALUES)))]


def warnings_off():
    """Silence zipfile, which warns of the doubled names that are made here on purpose."""
    import warnings

    return warnings.catch_warnings(action="ignore")
