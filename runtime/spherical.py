"""Mark an MP4 as a 360° video: spherical metadata V1 and V2 on its video track.

Both are described in Google's spatial-media RFCs. V1 is a `uuid` box with RDF XML at the end
of the track; V2 is a pair of boxes, `st3d` (mono) and `sv3d` (equirectangular, whole
sphere), in the visual sample entry. Players read one or the other, so both are written.
"""

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pano4d.runtime.errors import InputError
from pano4d.runtime.files import atomic_file

V1_UUID = bytes.fromhex("ffcc8263f8554a938814587a02521fdd")
_V1_XML = (
    '<?xml version="1.0"?><rdf:SphericalVideo xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    'xmlns:GSpherical="http://ns.google.com/videos/1.0/spherical/">'
    "<GSpherical:Spherical>true</GSpherical:Spherical><GSpherical:Stitched>true</GSpherical:Stitched>"
    "<GSpherical:StitchingSoftware>pano4d</GSpherical:StitchingSoftware>"
    "<GSpherical:ProjectionType>equirectangular</GSpherical:ProjectionType></rdf:SphericalVideo>")
_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_SAMPLE_ENTRY_BYTES = 78


class _Box(NamedTuple):
    kind: bytes
    start: int
    body: int
    end: int


def inject(path: str | Path) -> None:
    """Add the metadata to an MP4 file, replacing what it had; the file is swapped whole.

    Args:
        path: MP4 file with one video track that matters (the first one found).

    Raises:
        InputError: Not an MP4 file, or one without a video track.
        OutputError: The file system refuses the write.
    """
    data = _read(path)
    moov, trak = _video_track(path, data)
    # The new moov has the same length whatever the offsets in it, so build it twice.
    grown = len(_edited(data, moov, trak, moov.end, 0)) - (moov.end - moov.start)
    edited = _edited(data, moov, trak, moov.end, grown)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(memoryview(data)[:moov.start])
        file.write(edited)
        file.write(memoryview(data)[moov.end:])


def parse(path: str | Path) -> dict:
    """Read the spherical metadata of an MP4 file.

    Args:
        path: MP4 file.

    Returns:
        {"v1": None or {"Spherical": "true", "ProjectionType": ...},
         "v2": None or {"stereo_mode": 0, "projection": "equi", "pose_deg": (yaw, pitch, roll),
                        "bounds": (top, bottom, left, right), "source": "pano4d"}}

    Raises:
        InputError: Not an MP4 file, or one without a video track.
    """
    data = _read(path)
    _, trak = _video_track(path, data)
    v1 = next((data[box.body + 16:box.end].decode("utf-8", "replace") for box in _boxes(data, trak.body, trak.end)
               if _is_v1(data, box)), None)
    tags = None if v1 is None else dict(re.findall(r"<GSpherical:(\w+)>([^<]*)<", v1))
    return {"v1": tags, "v2": _parse_v2(data, trak)}


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def _boxes(data: bytes, begin: int, end: int) -> Iterator[_Box]:
    while begin + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, begin)
        body = begin + 8
        if size == 1 and begin + 16 <= end:
            size, body = struct.unpack_from(">Q", data, body)[0], body + 8
        elif size == 0:
            size = end - begin
        if size < body - begin or begin + size > end:
            raise InputError("The MP4 is damaged: a box reaches beyond its parent; write the video again.")
        yield _Box(kind, begin, body, begin + size)
        begin += size


def _find(data: bytes, parent: _Box, *kinds: bytes) -> _Box | None:
    for kind in kinds:
        parent = next((box for box in _boxes(data, parent.body, parent.end) if box.kind == kind), None)
        if parent is None:
            return None
    return parent


def _video_track(path: str | Path, data: bytes) -> tuple[_Box, _Box]:
    moov = _find(data, _Box(b"", 0, 0, len(data)), b"moov")
    for trak in _boxes(data, moov.body, moov.end) if moov else ():
        handler = _find(data, trak, b"mdia", b"hdlr") if trak.kind == b"trak" else None
        if handler and data[handler.body + 8:handler.body + 12] == b"vide":
            return moov, trak
    raise InputError(f"{path} is not an MP4 with a video track; write it with pano4d or convert it with ffmpeg.")


def _edited(data: bytes, box: _Box, trak: _Box, threshold: int, shift: int, in_video: bool = False) -> bytes:
    """Rebuild a box of the moov: metadata in the video track, chunk offsets moved everywhere."""
    in_video = in_video or box == trak
    payload = data[box.body:box.end]
    if box.kind in _PARENTS:
        children = [child for child in _boxes(data, box.body, box.end) if not (box == trak and _is_v1(data, child))]
        payload = b"".join(_edited(data, child, trak, threshold, shift, in_video) for child in children)
        if box == trak:
            payload += _box(b"uuid", V1_UUID + _V1_XML.encode())
    elif box.kind in (b"stco", b"co64"):
        payload = _shifted(payload, "I" if box.kind == b"stco" else "Q", threshold, shift)
    elif box.kind == b"stsd" and in_video:
        entries = _boxes(data, box.body + 8, box.end)
        payload = payload[:8] + b"".join(_sample_entry(data, entry) for entry in entries)
    return _box(box.kind, payload)


def _sample_entry(data: bytes, entry: _Box) -> bytes:
    begin = entry.body + _SAMPLE_ENTRY_BYTES
    kept = b"".join(data[box.start:box.end] for box in _boxes(data, begin, entry.end)
                    if box.kind not in (b"st3d", b"sv3d"))
    return _box(entry.kind, data[entry.body:begin] + kept + _v2_boxes())


def _shifted(payload: bytes, code: str, threshold: int, shift: int) -> bytes:
    count = struct.unpack_from(">I", payload, 4)[0]
    offsets = struct.unpack_from(f">{count}{code}", payload, 8)
    # Chunks before the moov stay where they are.
    moved = [offset + shift if offset >= threshold else offset for offset in offsets]
    if code == "I" and moved and max(moved) >= 2**32:
        raise InputError("The video is larger than 4 GiB with 32-bit chunk offsets; write a shorter one.")
    return payload[:8] + struct.pack(f">{count}{code}", *moved)


def _v2_boxes() -> bytes:
    source = _full_box(b"svhd", b"pano4d\0")
    pose = _full_box(b"prhd", struct.pack(">3i", 0, 0, 0))
    bounds = _full_box(b"equi", struct.pack(">4I", 0, 0, 0, 0))
    return _full_box(b"st3d", b"\0") + _box(b"sv3d", source + _box(b"proj", pose + bounds))


def _parse_v2(data: bytes, trak: _Box) -> dict | None:
    stsd = _find(data, trak, b"mdia", b"minf", b"stbl", b"stsd")
    entry = next(_boxes(data, stsd.body + 8, stsd.end), None) if stsd else None
    if entry is None:
        return None
    inner = entry._replace(body=entry.body + _SAMPLE_ENTRY_BYTES)
    stereo, sphere = _find(data, inner, b"st3d"), _find(data, inner, b"sv3d")
    pose = _find(data, sphere, b"proj", b"prhd") if sphere else None
    equi = _find(data, sphere, b"proj", b"equi") if sphere else None
    if stereo is None or pose is None or equi is None:
        return None
    source = _find(data, sphere, b"svhd")
    return {"stereo_mode": data[stereo.body + 4], "projection": "equi",
            "pose_deg": tuple(angle / 65536 for angle in struct.unpack_from(">3i", data, pose.body + 4)),
            "bounds": struct.unpack_from(">4I", data, equi.body + 4),
            "source": data[source.body + 4:source.end].rstrip(b"\0").decode("utf-8", "replace") if source else ""}


def _is_v1(data: bytes, box: _Box) -> bool:
    return box.kind == b"uuid" and data[box.body:box.body + 16] == V1_UUID


def _box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", len(payload) + 8, kind) + payload


def _full_box(kind: bytes, payload: bytes) -> bytes:
    return _box(kind, bytes(4) + payload)
