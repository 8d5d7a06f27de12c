"""The single HTML file, and the bundle in it."""

import gzip
import hashlib
import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pano4d.cli import cli
from pano4d.lifting.viewer.export import WEB, _escaped, export_html, pack_text
from pano4d.lifting.viewer.scene_files import open_scene
from pano4d.runtime.errors import OutputError


@pytest.fixture(scope="module")
def exported(lettered, tmp_path_factory):
    out = tmp_path_factory.mktemp("html") / "scene.html"
    return out, export_html(lettered, None, out, title="<b>&")


def test_members_are_whole(lettered, exported):
    text = exported[0].read_bytes().decode()
    members = re.findall(r'data-name="([^"]+)" data-bytes="(\d+)">([^<]*)</script>', text)
    found = {name: _unpacked(data)[: int(size)] for name, size, data in members}
    scene = open_scene(lettered)
    assert gzip.decompress(found.pop("viewer.js.gz")) == (WEB / "viewer.js").read_bytes()
    assert found == {name: scene.read(name) for name in scene.names}
    assert json.loads(re.search(r'id="manifest">(.+?)</script>', text).group(1)) == scene.manifest


@given(st.binary(max_size=64))
def test_any_bytes_can_be_packed(data):
    text = pack_text(data)
    assert not set(text.decode()) & {"\0", "\r", "<"}
    assert _unpacked(text.decode())[: len(data)] == data


def test_packing_adds_a_sixth():
    data = np.random.default_rng(0).bytes(70_000)
    assert len(pack_text(data)) < 1.171 * len(data)
    assert pack_text(data) == pack_text(data[:35_000]) + pack_text(data[35_000:])


def test_figures_and_title(exported):
    out, figures = exported
    assert figures == {"file": str(out), "bytes": out.stat().st_size, "frames": 3, "video": False}
    assert "<title>&lt;b&gt;&amp;</title>" in out.read_text(encoding="utf-8")


def test_nothing_outside_is_named_or_allowed(exported):
    text = exported[0].read_text(encoding="utf-8")
    assert not re.search(r'<[^>]+\b(?:src|href)="(?!data:)', text)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text).group(1)
    assert policy.startswith("default-src 'none'") and "http" not in policy and "'self'" not in policy


def test_scripts_end_where_they_should(exported):
    text = exported[0].read_text(encoding="utf-8")
    assert len(re.findall("<script", text)) <= len(re.findall("</script>", text))
    assert text.count("</script>") == 1 + 4 + 1 + 2  # manifest, members, licences, program and what unpacks it
    assert _escaped('"</script><!-- </SCRIPT>"') == '"<\\/script><\\!-- <\\/SCRIPT>"'


def test_licences_travel_with_the_file(exported):
    text = exported[0].read_text(encoding="utf-8")
    for name in ("@sparkjsdev/spark", "three", "fflate"):
        assert name in text
    assert text.count("Permission is hereby granted") >= 3


def test_an_earlier_file_stays_unless_told_otherwise(lettered, exported, tmp_path):
    with pytest.raises(OutputError, match="--overwrite"):
        export_html(lettered, None, exported[0])
    with pytest.raises(OutputError, match="html"):
        export_html(lettered, None, tmp_path / "scene.txt")
    with pytest.raises(OutputError, match="folder that exists"):
        export_html(lettered, None, tmp_path / "no" / "scene.html")
    assert not list(tmp_path.iterdir())


def test_the_command_prints_what_it_wrote(lettered, tmp_path):
    done = CliRunner().invoke(cli, ["view", str(lettered), "--export", str(tmp_path / "scene.html"), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.output)["bytes"] == (tmp_path / "scene.html").stat().st_size


def test_the_bundle_is_made_of_these_sources():
    """Versions are pinned, and `npm ci && npm run build` has been run since the last change."""
    package = json.loads((WEB / "package.json").read_text())
    lock = json.loads((WEB / "package-lock.json").read_text())["packages"]
    banner = (WEB / "viewer.js").open(encoding="utf-8").readline()
    for name, version in package["dependencies"].items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version) and lock[f"node_modules/{name}"]["version"] == version
        assert f"{name} {version} (MIT)" in banner
    digest = hashlib.sha256()
    for path in (WEB / "build.mjs", WEB / "package-lock.json", *sorted((WEB / "src").iterdir())):
        digest.update(path.read_bytes())
    assert digest.hexdigest() in banner


def _unpacked(text):
    """Join the lowest 7 bits of each character."""
    bits = "".join(f"{ord(one) & 127:07b}" for one in text)
    return int(bits or "0", 2).to_bytes(len(bits) // 8, "big")
