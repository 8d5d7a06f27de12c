"""The exported page in a real browser, from disk and without a network."""

import io
import os
import shutil
import threading
import time

import numpy as np
import pytest
from PIL import Image

from pano4d.lifting.cameras import perspective_K, viewmat
from pano4d.lifting.formats.ply import write_ply
from pano4d.lifting.render import splat
from pano4d.lifting.viewer.export import export_html
from pano4d.lifting.viewer.scene_files import open_scene
from pano4d.lifting.viewer.serve import SceneServer
from pano4d.runtime.video import write_video

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FOV_DEG = 75.0
LEAST_PSNR_DB = 25.0
LONGEST_S = 30.0
LOOK = """async ([frame, yaw, pitch, position]) => {
  pano4d.setView(yaw, pitch, position, 75);
  await pano4d.setFrame(frame);
  const bytes = new Uint8Array(await (await pano4d.still()).arrayBuffer());
  return Array.from(bytes);
}"""


@pytest.fixture(scope="module")
def browser():
    path = os.environ.get("PANO4D_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium is installed (apt-get install chromium-headless-shell)")
    with playwright.sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
        yield one
        one.close()


@pytest.fixture(scope="module")
def exported(lettered, tmp_path_factory):
    """The lettered scene as one file, with a video whose frames are told apart by their blue."""
    folder = tmp_path_factory.mktemp("exported")
    lon, lat = np.meshgrid(np.linspace(0, 255, 256), np.linspace(255, 0, 128))
    frames = [np.stack([lon, lat, np.full_like(lon, 60 + 70 * i)], -1).astype(np.uint8) for i in range(3)]
    write_video(folder / "video.mp4", frames, 7)
    export_html(lettered, folder / "video.mp4", folder / "scene.html")
    return folder / "scene.html"


@pytest.fixture(scope="module")
def page(browser, exported):
    context, one = _open(browser, exported.as_uri(), offline=True)
    yield one
    context.close()


def test_the_page_draws_frames_and_directions_as_our_rasteriser_does(page, lettered_frames):
    for frame, yaw, pitch in [(0, 0, 0), (2, 0, -20), (1, 90, 0), (1, 180, 0), (1, -90, 0), (1, 0, 89), (1, 0, -89)]:
        shown, drawn = _look(page, lettered_frames[frame], frame, yaw, pitch)
        assert _psnr(shown, drawn) >= LEAST_PSNR_DB, f"frame {frame} towards {yaw}, {pitch}"
        assert _psnr(shown[:, ::-1], drawn) < LEAST_PSNR_DB, f"frame {frame} towards {yaw}, {pitch} may be mirrored"


def test_the_place_of_the_viewer_is_ours_too(page, lettered_frames):
    shown, drawn = _look(page, lettered_frames[1], 1, 20, -10, (0.3, 0.2, -0.3))
    centre = splat(lettered_frames[1], viewmat(20, -10), perspective_K(FOV_DEG, 320, 200), 320, 200)
    assert _psnr(shown, drawn) >= LEAST_PSNR_DB
    assert _psnr(shown, centre) < LEAST_PSNR_DB


def test_frames_differ(page):
    a, b = (_still(page, frame, 0, -25) for frame in (0, 2))
    assert np.abs(a.astype(int) - b).max() > 100


def test_nothing_is_asked_of_the_network(page):
    assert page.asked
    assert all(url.startswith(("file:", "blob:", "data:")) for url in page.asked)
    assert not page.faults
    with pytest.raises(playwright.Error, match="fetch"):
        page.evaluate("fetch('http://127.0.0.1:9/')")


def test_scrubbing_shows_the_frame(page):
    for frame in (2, 0, 1):
        page.locator("#frame").fill(str(frame))
        page.evaluate("pano4d.settled()")
        assert page.evaluate("[pano4d.frame, pano4d.shown]") == [frame, frame]
    assert page.locator("#count").text_content() == "2 / 3"


def test_playing_goes_to_and_fro_through_every_frame(page):
    page.evaluate("pano4d.setFrame(0)")
    page.evaluate("""() => { window.seen = []; const watch = () => { const one = pano4d.shown;
      if (seen.at(-1) !== one) seen.push(one); window.watching = requestAnimationFrame(watch); }; watch(); }""")
    page.locator("#splats").focus()
    page.keyboard.press("Space")
    _wait(page, "seen.length >= 6 && new Set(seen).size === 3")
    page.keyboard.press("Space")
    assert not page.evaluate("(cancelAnimationFrame(watching), pano4d.playing)")


def test_no_frame_is_held_twice(page):
    for _ in range(2):
        for frame in range(3):
            page.evaluate(f"pano4d.setFrame({frame})")
    first = page.evaluate("pano4d.stats()")
    assert first["packs"] == 4  # what stays, and three frames
    assert first["hostBytes"] == 0  # the GPU has them
    assert first["gpuBytes"] == 16 * 2048 * (2 + 1 + 1 + 1)  # rows of 2048 splats
    assert first["inlineFilesLeft"] <= 1  # the video may wait for its tab
    for frame in (0, 1, 2, 1, 0):
        page.evaluate(f"pano4d.setFrame({frame})")
    after = page.evaluate("pano4d.stats()")
    assert {name: after[name] for name in ("packs", "gpuBytes", "textures", "drawingBytes")} == \
           {name: first[name] for name in ("packs", "gpuBytes", "textures", "drawingBytes")}


def test_timeline_modes(page):
    page.evaluate("pano4d.setMode('once')")
    page.evaluate("pano4d.setFrame(0)")
    page.locator("#play").click()
    _wait(page, "!pano4d.playing")
    assert page.evaluate("pano4d.frame") == 2
    page.evaluate("pano4d.setMode('loop')")
    assert page.locator("#mode").text_content() == "loop"
    page.locator("#play").click()
    _wait(page, "pano4d.frame === 0")
    page.locator("#play").click()
    page.evaluate("pano4d.setMode('ping-pong')")


def test_mouse_keys_and_wheel(page):
    page.evaluate("pano4d.setView(0, 0, [0, 0, 0], 75)")
    page.mouse.move(40, 100)
    page.mouse.down()
    page.mouse.move(20, 110)
    page.mouse.up()
    view = page.evaluate("pano4d.view()")
    assert view["yaw"] == pytest.approx(20 * 75 / 320, abs=0.01)
    assert view["pitch"] == pytest.approx(10 * 75 / 320, abs=0.01)
    page.mouse.wheel(0, -300)
    _wait(page, "pano4d.view().fov < 74")
    page.locator("#splats").focus()
    page.keyboard.down("d")
    _wait(page, "pano4d.view().position[0] > 0.05")
    page.keyboard.up("d")
    page.keyboard.press("h")
    assert page.evaluate("pano4d.view().position") == [0, 0, 0]


def test_the_safe_range_ends(page):
    page.evaluate("pano4d.setView(0, 0, [3, 0, 4])")
    view = page.evaluate("pano4d.view()")
    assert view["range"] == pytest.approx(0.25 * 2.4)
    assert view["position"] == pytest.approx([0.36, 0, 0.48])
    _wait(page, "document.getElementById('plan').classList.contains('limit')")
    page.keyboard.press("h")


def test_a_still_is_saved(page):
    page.evaluate("pano4d.setFrame(0)")
    with page.expect_download() as download:
        page.keyboard.press("p")
    assert download.value.suggested_filename == "pano4d_frame_0000.png"
    assert Image.open(download.value.path()).size == (320, 200)


def test_readout_tells_rate_and_memory(page):
    _wait(page, "/MiB/.test(document.getElementById('readout').textContent)")


def test_the_video_is_a_sphere_beside_the_scene(page):
    page.evaluate("pano4d.setTab('both')")
    assert page.locator("#splats").is_visible() and page.locator("#sphere").is_visible()
    page.evaluate("pano4d.setTab('video')")
    for frame, yaw, pitch in [(1, 40, 10), (2, -100, -30)]:
        middle = _still(page, frame, yaw, pitch)[98:102, 158:162].mean((0, 1))
        assert np.abs(middle - [(yaw + 180) / 360 * 255, (pitch + 90) / 180 * 255, 60 + 70 * frame]).max() < 8
    page.evaluate("pano4d.setTab('scene')")
    assert not page.locator("#sphere").is_visible()
    assert page.evaluate("pano4d.stats().inlineFilesLeft") == 0


def test_headset_button_is_there_with_a_headset_only(page, browser, exported):
    assert not page.locator("#headset").is_visible()
    script = "Object.defineProperty(navigator, 'xr', {value: {isSessionSupported: async () => true, addEventListener() {}}})"
    context, other = _open(browser, exported.as_uri(), offline=True, script=script, width=800)
    assert other.locator("#headset").is_visible()
    context.close()


def test_without_webgl2_the_page_says_so(browser, exported):
    script = "HTMLCanvasElement.prototype.getContext = () => null"
    context, page = _open(browser, exported.as_uri(), offline=True, script=script, wait=False)
    assert "WebGL2" in page.locator("#message").text_content()
    assert page.locator("#message").is_visible()
    assert not page.locator("#play").is_visible()
    context.close()


def test_fingers_look_on_a_phone_and_nothing_hangs_out(browser, exported):
    context, page = _open(browser, exported.as_uri(), offline=True, width=360, height=640, has_touch=True, is_mobile=True)
    session = context.new_cdp_session(page)
    for kind, points in [("touchStart", [(200, 200)]), ("touchMove", [(100, 200)]), ("touchEnd", [])]:
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})
    _wait(page, "pano4d.view().yaw > 5")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    boxes = [page.locator(f"#{name}").bounding_box() for name in ("tab-scene", "help", "plan", "play", "mode")]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 360 and box["y"] + box["height"] <= 640 for box in boxes)
    context.close()


def test_the_served_page_plays_too(browser, exported, lettered, lettered_frames):
    with SceneServer(open_scene(lettered, exported.parent / "video.mp4")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        context, page = _open(browser, server.url)
        shown, drawn = _look(page, lettered_frames[1], 1, 0, -20)
        assert _psnr(shown, drawn) >= LEAST_PSNR_DB
        page.evaluate("pano4d.setTab('video')")
        assert abs(_still(page, 0, 0, 0)[98:102, 158:162, 2].mean() - 60) < 8
        assert all(url.startswith((server.url, "blob:", "data:")) for url in page.asked)
        assert not page.faults
        context.close()
        server.shutdown()


def test_ply_files_play_too(browser, lettered_frames, tmp_path):
    for i, frame in enumerate(lettered_frames):
        write_ply(tmp_path / f"frame_{i:04d}.ply", frame)
    export_html(tmp_path, None, tmp_path / "scene.html")
    context, page = _open(browser, (tmp_path / "scene.html").as_uri(), offline=True)
    shown, drawn = _look(page, lettered_frames[2], 2, 0, -20)
    assert _psnr(shown, drawn) >= LEAST_PSNR_DB
    assert page.locator("#tab-video").is_disabled()
    context.close()


def test_a_scene_may_lack_what_stays_and_frames_may_be_empty(browser, write_scene, empty, patch, tmp_path):
    write_scene(tmp_path / "scene.p4d", empty, [patch(0), empty, patch(2)])
    export_html(tmp_path, None, tmp_path / "scene.html")
    context, page = _open(browser, (tmp_path / "scene.html").as_uri(), offline=True)
    for frame in (0, 1, 2):
        assert (_still(page, frame, 0, -25).max() > 100) == (frame != 1)
    context.close()


def _open(browser, url, *, script=None, wait=True, width=320, height=200, **options):
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    page = context.new_page()
    page.asked, page.faults = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    if script:
        page.add_init_script(script)
    page.goto(url)
    if wait:
        _wait(page, "window.pano4d && pano4d.ready && pano4d.loaded")
    return context, page


def _wait(page, expression):
    """Wait for the page; its policy forbids what playwright does for that."""
    end = time.monotonic() + LONGEST_S
    while not page.evaluate(f"Boolean({expression})"):
        assert time.monotonic() < end, f"{expression} did not come true; {page.faults}"
        time.sleep(0.05)


def _look(page, gaussians, frame, yaw, pitch, position=(0.0, 0.0, 0.0)):
    """What the page shows, and what our rasteriser draws."""
    shown = _still(page, frame, yaw, pitch, position)
    height, width = shown.shape[:2]
    return shown, splat(gaussians, viewmat(yaw, pitch, position), perspective_K(FOV_DEG, width, height), width, height)


def _still(page, frame, yaw, pitch, position=(0.0, 0.0, 0.0)):
    png = bytes(page.evaluate(LOOK, [frame, yaw, pitch, list(position)]))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def _psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))
