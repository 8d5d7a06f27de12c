"""Describe bundles, results and the machine, for `pano4d inspect` and `pano4d doctor`."""

import ctypes
import importlib.metadata
import json
import platform
import shutil
from pathlib import Path
from typing import Any

from pano4d.runtime.bundle import Bundle, default_bundle_path
from pano4d.runtime.errors import InputError, Pano4DError, SettingsError
from pano4d.runtime.settings import AnimateSettings

BASE_PACKAGES = ("numpy", "onnxruntime", "imageio", "imageio-ffmpeg", "pillow", "click", "rich", "safetensors")
EXTRA_PACKAGES = {
    "torch": "build", "diffusers": "build", "transformers": "build", "onnx": "build", "onnxscript": "build",
    "cuda-python": "gpu", "tensorrt-cu13": "tensorrt", "gsplat": "lift",
}
_MIB = 2**20


def inspect(path: str | Path, settings: AnimateSettings | None = None, moving_tiles: int | None = None) -> dict:
    """Describe an engine bundle or the output folder of a run, and check that it is complete.

    Args:
        path: Folder with a manifest.json or a report.json.
        settings: Of a bundle, say too what a run with these settings takes of the memory of a GPU.
        moving_tiles: Tiles that such a run denoises; None for all.

    Returns:
        ``kind`` ("bundle" or "output") and what was found, ready for JSON; with settings ``memory``, in bytes.

    Raises:
        SettingsError: A size for something that is no bundle, or more moving tiles than there are.
        InputError: Neither, or a report that cannot be read.
        BundleError: A file of the bundle is missing or changed.
    """
    path = Path(path)
    if (path / "manifest.json").is_file():
        return _bundle_figures(path, settings, moving_tiles)
    if settings or moving_tiles:
        raise SettingsError(f"{path} is no engine bundle, and --size and --moving-tiles ask what a run of one takes: leave "
                            "them out.")
    if (path / "report.json").is_file():
        return _output_figures(path)
    raise InputError(f"{path} holds neither a manifest.json (an engine bundle) nor a report.json (the output of a "
                     "run): give the folder that was named with --out.")


def doctor(bundle: str | Path | None = None) -> dict:
    """Say what this machine can run, and what each missing part needs.

    Args:
        bundle: An engine bundle to check; None for the demo model that comes with the package.

    Returns:
        ``ok`` (`generate` can work), ``python``, ``platform``, ``gpu_driver``, ``free_gib``, ``bundle`` (path, ok,
        detail), ``backends`` (name, ok, detail, remedy) and ``packages`` (name, version, remedy).
    """
    backends = _backends()
    checked = _check_bundle(bundle)
    return {
        "ok": any(backend["ok"] for backend in backends if backend["name"] == checked["backend"]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "gpu_driver": _gpu_driver(),
        "free_gib": round(shutil.disk_usage(Path.cwd()).free / 2**30, 1),
        "bundle": checked,
        "backends": backends,
        "packages": _packages(),
    }


def _bundle_figures(path: Path, settings: AnimateSettings | None, moving_tiles: int | None) -> dict:
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    networks = [_network_row(name, network) for name, network in manifest["networks"].items()]
    memory = {"memory": _memory(bundle, settings or AnimateSettings(), moving_tiles)} if settings or moving_tiles else {}
    for row in networks:
        row["relative_error"] = manifest.get("parity", {}).get(row["name"], {}).get("relative_error")
    return {
        "kind": "bundle",
        "path": str(path),
        "sha256": bundle.sha256,
        "hashes": "every file is as it was built",
        **{name: manifest.get(name) for name in ("key", "model", "precision", "backend", "target", "tile", "sampler")},
        "mib": round(sum(record["bytes"] for record in bundle.files()) / _MIB, 2),
        "networks": networks,
        **memory,
    }


def _memory(bundle: Bundle, settings: AnimateSettings, moving_tiles: int | None) -> dict:
    """Plan a run on a GPU; the arrays of a run on the CPU are not planned."""
    from pano4d.runtime.memory_plan import plan_memory

    plan = plan_memory(bundle, settings, moving_tiles).figures()
    if bundle.manifest["target"].get("device") == "cuda":
        return plan
    return {"size": plan["size"], "tiles": plan["tiles"], "moving_tiles": plan["moving_tiles"],
            "notes": ["these engines run on the CPU and take no memory of a GPU: report.json of a run holds the peak of "
                      "every stage"]}


def _network_row(name: str, network: dict) -> dict:
    bytes_ = network["bytes"] + sum(extra["bytes"] for extra in network.get("extra_files", []))
    return {
        "name": name,
        "file": network["file"],
        "mib": round(bytes_ / _MIB, 2),
        "inputs": "; ".join(_tensor(tensor) for tensor in network["inputs"]),
        "outputs": "; ".join(_tensor(tensor) for tensor in network["outputs"]),
    }


def _tensor(tensor: dict) -> str:
    return f"{tensor['name']} {tensor['dtype']} [{','.join(str(size) for size in tensor['shape'])}]"


def _output_figures(path: Path) -> dict:
    try:
        report = json.loads((path / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path / 'report.json'} cannot be read: {error}; run again with --overwrite.") from error
    names = ("video.mp4", "frames", "splats", "scene.p4d", "scene.html", "preview.jpg", "report.html")
    files = [_file_row(path, name) for name in names]
    return {"kind": "output", "path": str(path), "spherical": _spherical(path / "video.mp4"), **report,
            "files": [row for row in files if row]}


def _file_row(path: Path, name: str) -> dict | None:
    found = path / name
    if not found.exists():
        return None
    parts = sorted(part for part in found.iterdir() if part.is_file()) if found.is_dir() else [found]
    return {"name": name, "files": len(parts), "mib": round(sum(part.stat().st_size for part in parts) / _MIB, 2)}


def _spherical(video: Path) -> Any:
    if not video.is_file():
        return None
    from pano4d.runtime.spherical import parse

    return parse(video)


def _check_bundle(path: str | Path | None) -> dict:
    """Open a bundle, every hash included, and ask its backend whether its engines fit this machine."""
    from pano4d.runtime.backends import BACKENDS

    path = Path(path) if path else default_bundle_path()
    try:
        bundle = Bundle.open(path)
        manifest = bundle.manifest
        # Some engines are made for one kind of machine, and their backend can tell.
        if hasattr(backend := BACKENDS.get(manifest["backend"]["name"], object)(), "check_bundle"):
            backend.check_bundle(bundle)
    except Pano4DError as error:
        return {"path": str(path), "ok": False, "backend": None, "detail": str(error)}
    detail = f"{manifest['model']['name']}, {manifest['tile']['px']} px, {manifest['tile']['frames']} frames"
    return {"path": str(path), "ok": True, "backend": manifest["backend"]["name"], "detail": detail}


def _backends() -> list[dict]:
    from pano4d.runtime.backends import BACKENDS

    rows = []
    for name, load_module in BACKENDS.items():
        found = load_module().available()
        rows.append({"name": name, "ok": found.ok, "detail": found.detail, "remedy": found.remedy})
    return rows


def _packages() -> list[dict]:
    rows = []
    for name in (*BASE_PACKAGES, *EXTRA_PACKAGES):
        # The package with CUDA takes the place of the other one.
        version = _version(name) or (_version("onnxruntime-gpu") if name == "onnxruntime" else None)
        extra = f"pano4d[{EXTRA_PACKAGES[name]}]" if name in EXTRA_PACKAGES else name
        rows.append({"name": name, "version": version, "remedy": "" if version else f"pip install '{extra}'"})
    return rows


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu_driver() -> str | None:
    """Name the newest CUDA that the installed NVIDIA driver knows; None without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        version = ctypes.c_int()
        if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
