"""Serve the viewer on this machine alone, under an address that cannot be guessed."""

import json
import re
import secrets
import webbrowser
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pano4d.lifting.viewer.export import WEB
from pano4d.lifting.viewer.scene_files import SceneFiles, open_scene
from pano4d.runtime.errors import SettingsError

HOST = "127.0.0.1"
POLICY = ("default-src 'none'; script-src 'self' 'wasm-unsafe-eval' blob: data:; worker-src blob: data:; style-src 'self'; "
          "img-src data: blob:; media-src blob:; connect-src 'self' data:; frame-ancestors 'none'")

_TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
          ".json": "application/json", ".txt": "text/plain; charset=utf-8", ".mp4": "video/mp4"}
_PAGE = {"": "index.html", "index.html": "index.html", "style.css": "style.css", "viewer.js": "viewer.js",
         "LICENSES.txt": "LICENSES.txt"}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class SceneServer(ThreadingHTTPServer):
    """A server of one scene.

    Args:
        scene: What to serve.
        port: Port of 127.0.0.1; 0: any that is free.

    Raises:
        SettingsError: The port is taken or not allowed.
    """

    daemon_threads = True

    def __init__(self, scene: SceneFiles, port: int = 0) -> None:
        self.scene, self.token = scene, secrets.token_urlsafe(16)
        # A player asks for a video in ranges; the last file read is kept for the next one.
        self.member: Callable[[str], bytes] = lru_cache(maxsize=1)(scene.read)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise SettingsError(f"Port {port} of {HOST} cannot be used ({error.strerror}); choose another --port.") from error

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"


def serve(path: str | Path, *, video: str | Path | None = None, port: int = 0, browser: bool = True,
          tell: Callable[[str], None] = print) -> None:
    """Serve the viewer of a scene until Ctrl-C.

    Args:
        path: What `open_scene` opens.
        video: Panoramic video to show beside the scene; None: the one of the output folder, if there is one.
        port: Port of 127.0.0.1; 0: any that is free.
        browser: Open the page in the browser of this machine.
        tell: Called with the page's address.

    Raises:
        InputError: The scene cannot be used.
        SettingsError: The port cannot be used.
    """
    with SceneServer(open_scene(path, video), port) as server:
        try:
            tell(server.url)
            if browser:
                webbrowser.open(server.url)
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            pass


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD under the token; nothing else is there."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "pano4d", ""
    server: SceneServer

    def do_GET(self) -> None:
        """Answer with a file."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer without its content."""
        self._answer(body=False)

    def log_message(self, *_) -> None:
        """Keep the terminal for what matters."""

    def _answer(self, body: bool) -> None:
        found = self._find()
        if isinstance(found, HTTPStatus):
            self._send(found, b"", "text/plain", body)
            return
        data, kind = found
        first, last = self._range(len(data))
        if first is None:
            self._send(HTTPStatus.OK, data, kind, body)
        elif first > last:
            self._send(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", kind, body, f"bytes */{len(data)}")
        else:
            self._send(HTTPStatus.PARTIAL_CONTENT, data[first : last + 1], kind, body, f"bytes {first}-{last}/{len(data)}")

    def _find(self) -> tuple[bytes, str] | HTTPStatus:
        """Give a file's content and type, or why there is none."""
        server = self.server
        # A page elsewhere could point a name of its own at this address: only our own names are answered.
        if self.headers.get("Host") not in {f"{name}:{server.server_port}" for name in (HOST, "localhost")}:
            return HTTPStatus.FORBIDDEN
        token, _, rest = unquote(urlsplit(self.path).path).removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), server.token.encode()):
            return HTTPStatus.NOT_FOUND
        if rest in _PAGE:
            return (WEB / _PAGE[rest]).read_bytes(), _TYPES[Path(_PAGE[rest]).suffix]
        name = rest.removeprefix("scene/")
        if rest == "scene/manifest.json":
            return json.dumps(server.scene.manifest).encode(), _TYPES[".json"]
        if rest != name and name in server.scene.names:
            return server.member(name), _TYPES.get(Path(name).suffix, "application/octet-stream")
        return HTTPStatus.NOT_FOUND

    def _range(self, size: int) -> tuple[int | None, int]:
        """Read the Range header: first and last byte; first is None where the whole is wanted."""
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if not match or not any(match.groups()):
            return None, 0
        first, last = match.groups()
        if not first:
            return max(size - int(last), 0), size - 1 if int(last) else -1
        return int(first), min(int(last), size - 1) if last else size - 1

    def _send(self, status: HTTPStatus, data: bytes, kind: str, body: bool, content_range: str | None = None) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(data)), "Accept-Ranges": "bytes",
                   "Cache-Control": "no-store", "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff",
                   "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin"}
        for name, value in headers.items():
            self.send_header(name, value)
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if body:
            try:
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
