"""The server: who is answered, and with what."""

import functools
import http.client
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from pano4d.lifting.viewer.scene_files import open_scene
from pano4d.lifting.viewer.serve import HOST, SceneServer
from pano4d.runtime.errors import SettingsError


@pytest.fixture(scope="module")
def server(lettered):
    with SceneServer(open_scene(lettered)) as one:
        threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield one
        one.shutdown()


def test_the_page_and_its_parts_have_their_types(server):
    for name, kind in [("", "text/html"), ("style.css", "text/css"), ("viewer.js", "text/javascript"),
                       ("LICENSES.txt", "text/plain"), ("scene/manifest.json", "application/json"),
                       ("scene/static.spz", "application/octet-stream")]:
        response, data = _ask(server, name)
        assert response.status == 200 and data
        assert response.headers["Content-Type"].startswith(kind)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert json.loads(_ask(server, "scene/manifest.json")[1]) == server.scene.manifest


@pytest.mark.parametrize("name", ["scene/../../../etc/passwd", "scene/%2e%2e/serve.py", "static.spz", "scene/", "src/main.js",
                                  "scene/video.mp4"])
def test_nothing_else_is_there(server, name):
    assert _ask(server, name)[0].status == 404


def test_without_the_token_there_is_nothing(server):
    for path in ("/", "/viewer.js", "/x/scene/manifest.json", f"/{server.token}x/", f"/{server.token[:-1]}/"):
        assert _ask(server, path=path)[0].status == 404
    assert len(server.token) >= 20
    with SceneServer(server.scene) as other:
        assert other.token != server.token


@pytest.mark.parametrize("host, status", [("127.0.0.1:{}", 200), ("localhost:{}", 200), ("evil.example:{}", 403),
                                          ("127.0.0.1", 403), ("127.0.0.1:1", 403)])
def test_only_our_own_names_are_answered(server, host, status):
    assert _ask(server, host=host.format(server.server_port))[0].status == status


@pytest.mark.parametrize("asked, first, last", [("bytes=0-9", 0, 9), ("bytes=10-", 10, None), ("bytes=-5", -5, None),
                                                ("bytes=3-99999999", 3, None)])
def test_ranges(server, asked, first, last):
    whole = _ask(server, "scene/static.spz")[1]
    response, data = _ask(server, "scene/static.spz", headers={"Range": asked})
    assert response.status == 206
    assert data == whole[first:] if last is None else data == whole[first : last + 1]
    start = first % len(whole)
    assert response.headers["Content-Range"] == f"bytes {start}-{start + len(data) - 1}/{len(whole)}"


def test_a_range_beyond_the_end_is_refused(server):
    assert _ask(server, "scene/static.spz", headers={"Range": "bytes=99999999-"})[0].status == 416
    assert _ask(server, "scene/static.spz", headers={"Range": "lines=1-2"})[0].status == 200


def test_head_has_no_content_and_other_methods_no_answer(server):
    response, data = _ask(server, "viewer.js", method="HEAD")
    assert response.status == 200 and int(response.headers["Content-Length"]) > 1e6 and not data
    assert _ask(server, method="POST")[0].status == 501


def test_a_taken_port_is_named(server):
    with pytest.raises(SettingsError, match="--port"):
        SceneServer(server.scene, server.server_port)


def test_ctrl_c_ends_the_command_quietly(lettered):
    command = [sys.executable, "-m", "pano4d.cli", "view", str(lettered), "--no-browser"]
    # Where tests run in a shell's background, Ctrl-C is ignored, and so would it be by what they start.
    heeding = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeding) as running:
        try:
            assert running.stdout.readline().startswith(f"http://{HOST}:")
            os.kill(running.pid, signal.SIGINT)
            out, err = running.communicate(timeout=20)
        finally:
            running.kill()
    assert (running.returncode, out, err) == (0, "", "")


def _ask(server, name="", *, path=None, host=None, method="GET", headers=None):
    connection = http.client.HTTPConnection(HOST, server.server_port, timeout=10)
    connection.putrequest(method, path or f"/{server.token}/{name}", skip_host=True)
    connection.putheader("Host", host or f"{HOST}:{server.server_port}")
    for key, value in (headers or {}).items():
        connection.putheader(key, value)
    connection.endheaders()
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response, data
