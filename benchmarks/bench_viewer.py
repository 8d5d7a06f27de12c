"""Open a scene of a million Gaussians in headless Chromium, drawing in software, and time what a viewer waits for.

    python -m pano4d.benchmarks.bench_viewer --out benchmarks/results/viewer.json

The scene is that of bench_container, exported with ``export_html`` and opened from disk, each time in a new browser.
Seconds count from the navigation: ``loaded_s`` until every file is decoded, ``opened_s`` until the GPU, here two or more
cores, is done with the first complete picture of frame 0 at the size of the window. ``frame_s`` and ``turn_s`` are from
asking for the next frame, or for a view 90 degrees to the right, until it is drawn and sorted. Before anything is timed
the picture is compared with that of our own rasteriser.
"""

import argparse
import io
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pano4d.benchmarks.bench_container import scene
from pano4d.lifting.cameras import perspective_K, viewmat
from pano4d.lifting.container import Container, write_container
from pano4d.lifting.render import splat
from pano4d.lifting.viewer.export import export_html

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FOV_DEG, LIMIT_S, LEAST_PSNR_DB, LONGEST_S = 75.0, 5.0, 25.0, 300.0
STILL = "(async () => Array.from(new Uint8Array(await (await pano4d.still()).arrayBuffer())))()"


def main() -> None:
    """Run and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gaussians", type=int, default=1_000_000)
    parser.add_argument("--frames", type=int, default=14)
    parser.add_argument("--windows", nargs="+", default=["640x360", "1280x720"], metavar="WxH")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chromium", help="Chromium to start; default: the first of " + ", ".join(NAMES))
    parser.add_argument("--scene", type=Path, help="a .p4d scene to open instead of that of bench_container")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    chromium = args.chromium or os.environ.get("PANO4D_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if chromium is None:
        parser.error("no Chromium is installed (apt-get install chromium-headless-shell)")
    with tempfile.TemporaryDirectory() as folder:
        path = args.scene or Path(folder) / "scene.p4d"
        if args.scene is None:
            write_container(path, *scene(4096, 2048, args.gaussians, args.frames), 7.0)
        page = Path(folder) / "scene.html"
        figures = {"p4d_bytes": path.stat().st_size, "html_bytes": export_html(path, None, page)["bytes"],
                   **measure(page, path, [tuple(map(int, one.split("x"))) for one in args.windows], args.repeats, chromium)}
    figures |= {"command": "python -m pano4d.benchmarks.bench_viewer"}
    print(json.dumps(figures, indent=1))
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def measure(page: Path, path: Path, windows: list[tuple[int, int]], repeats: int, chromium: str) -> dict:
    """Open the page again and again.

    Args:
        page: The exported page.
        path: The scene in it.
        windows: Sizes of the window, pixels.
        repeats: Times to open it in each.
        chromium: Program to start.

    Returns:
        Where it ran, what else ran there (load averages over a minute), and for each window the seconds: median, least and most.

    Raises:
        AssertionError: The picture is not that of our rasteriser.
    """
    from playwright.sync_api import sync_playwright

    first = Container.open(path).frame(0)
    load, rows = os.getloadavg()[0], []
    with sync_playwright() as driver:
        for width, height in windows:
            runs = [open_once(driver, chromium, page, width, height) for _ in range(repeats)]
            drawn = splat(first, viewmat(0, 0), perspective_K(FOV_DEG, width, height), width, height)
            alike = psnr(runs[0]["picture"], drawn)
            assert alike >= LEAST_PSNR_DB, f"the page's picture is {alike:.1f} dB from our rasteriser's"
            told = {name: spread([run[name] for run in runs]) for name in ("loaded_s", "opened_s", "frame_s", "turn_s")}
            rows.append({"window": f"{width}x{height}", "psnr_db": round(alike, 2), **told,
                         "within_limit": told["opened_s"][0] <= LIMIT_S})
    return {"gaussians": len(first), "frames": len(Container.open(path)), "limit_s": LIMIT_S, "repeats": repeats,
            "browser": runs[0]["browser"], "renderer": runs[0]["renderer"], "cores": len(os.sched_getaffinity(0)),
            "load_before_and_after": [round(load, 2), round(os.getloadavg()[0], 2)], "windows": rows}


def open_once(driver: Any, chromium: str, page: Path, width: int, height: int) -> dict:
    """Open the page in a new browser, look at another frame and elsewhere, and tell what each took."""
    browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
    try:
        one = browser.new_context(viewport={"width": width, "height": height}, offline=True).new_page()
        one.goto(page.as_uri(), wait_until="commit")
        end = time.monotonic() + LONGEST_S
        while not one.evaluate("Boolean(window.pano4d && pano4d.ready && pano4d.loaded)"):
            assert time.monotonic() < end, "the page does not get ready"
            time.sleep(0.1)
        told = one.evaluate("pano4d.stats()")
        picture = np.asarray(Image.open(io.BytesIO(bytes(one.evaluate(STILL)))).convert("RGB"))
        return {"picture": picture, "loaded_s": told["loadedMs"] / 1000, "opened_s": told["readyMs"] / 1000,
                "frame_s": _seconds(one, "pano4d.setFrame(1)"), "turn_s": _seconds(one, "pano4d.setView(90, 0)"),
                "browser": browser.version, "renderer": told["renderer"]}
    finally:
        browser.close()


def spread(values: list[float]) -> list[float]:
    """Give the median, the least and the most."""
    return [round(one, 2) for one in (statistics.median(values), min(values), max(values))]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Compare two pictures of 8 bits, in dB."""
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def _seconds(page: Any, call: str) -> float:
    return page.evaluate(f"(async () => {{ const t = performance.now(); await {call}; return performance.now() - t; }})()") / 1000


if __name__ == "__main__":
    main()
