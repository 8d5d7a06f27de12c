"""Fetch the real Python bindings of TensorRT and dump what they offer; the libraries behind them are stubs.

The bindings are packages of their own. libnvinfer does not come with them, and is not needed to look up names and
signatures: a library with the symbols that the bindings ask for, and nothing behind these, is enough to import them.

    python trt_bindings.py       fetch both versions again and write bindings_*.json
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
VERSIONS = {"10.16": "10.16.1.11", "11.4": "11.4.0.106"}
PACKAGES = {"tensorrt": "tensorrt-cu13-bindings", "tensorrt_lean": "tensorrt-lean-cu13-bindings"}
LEAN_LIBRARIES = "tensorrt-lean-cu13-libs"
LIBRARIES = {"tensorrt": ("nvinfer", "nvonnxparser", "nvinfer_plugin"), "tensorrt_lean": ("nvinfer_lean",)}
SYMBOLS = ("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
           "createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry",
           "getPluginRegistry", "initLibNvInferPlugins", "getNvOnnxParserVersion")


class NotToBeHad(Exception):
    """The wheels cannot be downloaded here, or there is no C compiler."""


def cache() -> Path:
    """Name the folder where wheels are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pano4d" / "tensorrt_bindings"


def fetch(release: str, module: str, folder: Path | None = None) -> Path:
    """Give a folder from which a module of the real bindings can be imported.

    Args:
        release: A key of ``VERSIONS``.
        module: A key of ``PACKAGES``.
        folder: Where to keep it; None for ``cache()``.

    Returns:
        The folder.

    Raises:
        NotToBeHad: pip finds no such wheel, or there is no C compiler.
    """
    kept = (folder or cache()) / f"{module}-{VERSIONS[release]}-py{sys.version_info.minor}"
    if (kept / "ready").exists():
        return kept
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NotToBeHad("no C compiler")
    _unpack(release, PACKAGES[module], kept)
    source = kept / "symbols.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in SYMBOLS))
    for library in LIBRARIES[module]:
        target = kept / f"{module}_bindings" / f"lib{library}.so.{release.split('.')[0]}"
        subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(target)], check=True)
    (kept / "ready").touch()
    return kept


def fetch_lean(release: str, folder: Path | None = None) -> Path:
    """Give a folder from which the real lean runtime can be imported, its library included: 45 MB to download.

    Raises:
        NotToBeHad: pip finds no such wheels.
    """
    kept = (folder or cache()) / f"lean-{VERSIONS[release]}-py{sys.version_info.minor}"
    if not (kept / "ready").exists():
        _unpack(release, PACKAGES["tensorrt_lean"], kept)
        _unpack(release, LEAN_LIBRARIES, kept, keep=True)
        (kept / "ready").touch()
    return kept


def _unpack(release: str, package: str, folder: Path, keep: bool = False) -> None:
    """Download a wheel and unpack it into a folder, which is emptied first unless it is to be kept."""
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary", ":all:", "--dest", str(folder), f"{package}=={VERSIONS[release]}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise NotToBeHad(f"pip cannot download {package} {VERSIONS[release]} here")
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(folder)
    wheels[0].unlink()


def dump(folder: Path, module: str) -> dict:
    """Import a module of the bindings in a process of its own, and say what is in it, as ``dump_bindings`` does."""
    done = subprocess.run([sys.executable, str(HERE / "dump_bindings.py"), str(folder), f"{module}_bindings"],
                          capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def committed(release: str) -> dict:
    """Read the dumps that are kept beside this file: by module, and ``source``."""
    return json.loads((HERE / f"bindings_{release}.json").read_text(encoding="utf-8"))


def write(release: str) -> None:
    """Fetch both modules of a release and write their dumps, a line for each class."""
    lines = [json.dumps({"source": {module: f"{package} {VERSIONS[release]}" for module, package in PACKAGES.items()}}
                        )[1:-1]]
    for module in PACKAGES:
        found = dump(fetch(release, module), module)
        classes = ",\n".join(f"{json.dumps(name)}: {json.dumps(about, sort_keys=True)}"
                             for name, about in found["classes"].items())
        lines.append(f'{json.dumps(module)}: {{"version": {json.dumps(found["version"])},\n"values": '
                     f'{json.dumps(found["values"])},\n"classes": {{\n{classes}}}}}')
    (HERE / f"bindings_{release}.json").write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    for name in VERSIONS:
        write(name)
