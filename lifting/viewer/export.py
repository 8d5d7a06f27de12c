"""Put the page together: as files for the server, or as one HTML file with everything inside."""

import gzip
import html
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pano4d.lifting.viewer.scene_files import SceneFiles, open_scene
from pano4d.runtime.errors import OutputError

WEB = Path(__file__).resolve().parent / "web"

# The file may start nothing and reach nothing outside itself: a browser that obeys this has no network for it.
INLINE_POLICY = ("default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob: data:; worker-src blob: data:; "
                 "style-src 'unsafe-inline'; img-src data: blob:; media-src blob:; connect-src data: blob:")

# A multiple of 7, so that pieces of text can be joined.
_PIECE_BYTES = 7 << 18
# What a parser of HTML would not pass on: NUL, CR, and < before the end of the element.
_UNSAFE = np.isin(np.arange(128), [0, 13, 60])


def export_html(container_path: str | Path, video_path: str | Path | None, out_html: str | Path, *,
                overwrite: bool = False, title: str | None = None) -> dict:
    """Write a scene as one HTML file that needs nothing else, no network either.

    Args:
        container_path: What `open_scene` opens.
        video_path: Panoramic video for the tab beside the scene, H.264 in MP4; None: the one of the output folder, if there
            is one.
        out_html: File to write, ending in .html.
        overwrite: Replace an earlier file, once the new one is complete.
        title: Title of the page. Default: the scene's name.

    Returns:
        ``file``, ``bytes``, ``frames``, ``video`` (whether there is one).

    Raises:
        InputError: The scene or the video cannot be used.
        OutputError: The file exists, or cannot be written.
    """
    out = Path(out_html)
    scene = open_scene(container_path, video_path)
    _require_writable(out, overwrite)
    partial = out.with_name(f".{out.name}.part")
    try:
        with open(partial, "wb") as file:
            for piece in _pieces(scene, title or _title(Path(container_path))):
                file.write(piece)
            size = file.tell()
        os.replace(partial, out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error.strerror}); free some space or choose another --export.") from error
    finally:
        partial.unlink(missing_ok=True)
    return {"file": str(out), "bytes": size, "frames": scene.manifest["frames"], "video": "video" in scene.manifest}


def _require_writable(out: Path, overwrite: bool) -> None:
    if out.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"--export {out.name} does not end in .html; browsers would not open it.")
    if out.is_dir() or not out.parent.is_dir():
        raise OutputError(f"{out} cannot be written; give --export a file name in a folder that exists.")
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists; add --overwrite to replace it, or choose another name with --export.")


def _title(path: Path) -> str:
    path = path.resolve()
    return f"{path.parent.name if path.name == 'scene.p4d' else path.stem} · pano4d"


def _pieces(scene: SceneFiles, title: str) -> Iterator[bytes]:
    """Give the file piece by piece, so that no more than one member lies in memory."""
    page = (WEB / "index.html").read_text(encoding="utf-8")
    head, _, rest = page.partition('<link rel="stylesheet" href="style.css">')
    body, _, tail = rest.partition('<script src="viewer.js"></script>')
    head = head.replace("<title>pano4d</title>", f"<title>{html.escape(title)}</title>")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{INLINE_POLICY}">'
    yield head.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n{policy}').encode()
    yield f"<style>\n{(WEB / 'style.css').read_text(encoding='utf-8')}</style>{body}".encode()
    yield f'<script type="application/json" id="manifest">{_json(scene.manifest)}</script>\n'.encode()
    for name in scene.names:
        yield from _element(name, scene.read(name))
    licences = (WEB / "LICENSES.txt").read_text(encoding="utf-8")
    yield f'<script type="text/plain" id="licences">\n{_escaped(licences)}</script>\n'.encode()
    yield from _element("viewer.js.gz", gzip.compress((WEB / "viewer.js").read_bytes(), mtime=0))
    yield f"<script>\n{_escaped((WEB / 'start.js').read_text(encoding='utf-8'))}</script>{tail}".encode()


def _element(name: str, data: bytes) -> Iterator[bytes]:
    """Give a file as an element of the page, which web/start.js unpacks."""
    yield f'<script type="application/octet-stream" data-name="{html.escape(name)}" data-bytes="{len(data)}">'.encode()
    for start in range(0, len(data), _PIECE_BYTES):
        yield pack_text(data[start : start + _PIECE_BYTES])
    yield b"</script>\n"


def pack_text(data: bytes) -> bytes:
    """Write bytes as text in UTF-8 that a page can hold: 7 bits a character, a sixth more than the bytes; base64: a third.

    Args:
        data: Anything; zeros are added up to a multiple of 7 bytes.

    Returns:
        8 characters for each 7 bytes, of one byte each; those that a page cannot hold stand 128 higher and take two.

    Raises:
        Nothing.
    """
    rows = np.frombuffer(data + bytes(-len(data) % 7), np.uint8).reshape(-1, 7)
    wide = np.zeros((len(rows), 9), np.uint16)
    wide[:, 1:8] = rows
    shift = np.arange(8, dtype=np.uint16)
    # Character i ends i bits into byte i: its upper bits come from the byte before.
    values = (((wide[:, :8] << (7 - shift)) | (wide[:, 1:] >> (shift + 1))) & 127).astype(np.uint8).ravel()
    unsafe = _UNSAFE[values]
    where = np.arange(len(values)) + np.cumsum(unsafe)
    text = np.full(len(values) + np.count_nonzero(unsafe), 0xC2, np.uint8)
    text[where] = np.where(unsafe, values | 128, values)
    return text.tobytes()


def _json(value: dict) -> str:
    """Write JSON that cannot end the element it stands in."""
    return json.dumps(value).replace("<", "\\u003c")


def _escaped(script: str) -> str:
    """Hide what a parser of HTML would take for the end, or for a comment, of the element; the same to JavaScript."""
    return re.sub(r"<(/script|!--)", r"<\\\1", script, flags=re.I)
