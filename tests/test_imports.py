"""The one-way rule between the rooms, read off the imports, and what importing pano4d must not load."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("runtime", "lifting", "build_engines")
SHIPPED = sorted([ROOT / "__init__.py", ROOT / "cli.py",
                  *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))])

# What each room may import of ours: a module named here, or anything below it.
ALLOWED = {
    "cli": ("pano4d",),
    "pano4d": ("pano4d",),
    "scene": ("pano4d.lifting", "pano4d.runtime", "pano4d.__version__"),
    "build_engines": ("pano4d.build_engines", "pano4d.runtime.bundle", "pano4d.runtime.errors",
                      "pano4d.runtime.backends", "pano4d.runtime.memory_plan", "pano4d.runtime.settings",
                      "pano4d.runtime.amounts", "pano4d.runtime.calibration", "pano4d.runtime.image"),
    "lifting": ("pano4d.lifting", "pano4d.runtime.sphere", "pano4d.runtime.tiles", "pano4d.runtime.image",
                "pano4d.runtime.video", "pano4d.runtime.exr", "pano4d.runtime.parallel", "pano4d.runtime.errors"),
    "runtime": ("pano4d.runtime", "pano4d.__version__"),
}
JOIN_BOTH_ROOMS = {Path(f"lifting/{name}.py") for name in ("scene", "scene_input", "scene_lift", "scene_options")}
BASE_INSTALL = {"numpy", "onnxruntime", "imageio", "imageio_ffmpeg", "PIL", "click", "rich", "safetensors"}
HEAVY = {"torch", "torchvision", "diffusers", "transformers", "onnx", "onnxscript", "gsplat"}
MAY_TALK_TO_THE_GPU = {Path("runtime/device.py"), Path("runtime/kernels/compiler.py")}
MAY_BE_HEAVY = {Path("runtime/backends/eager.py"), Path("runtime/backends/aotinductor.py"), Path("lifting/rasterize.py"),
                Path("lifting/projection.py"), Path("lifting/pairs.py"), Path("lifting/compositing.py"),
                Path("lifting/harmonics.py"), Path("lifting/torch_drawing.py"),
                Path("lifting/depth_transformers.py"), Path("lifting/torch_deconvolve.py"),
                *(path.relative_to(ROOT) for path in (ROOT / "lifting/optimize").glob("*.py"))}
BY_NAME = [str(path.relative_to(ROOT)) for path in SHIPPED]


@pytest.mark.parametrize("name", BY_NAME)
def test_imports_follow_the_one_way_rule(name):
    room = _room(Path(name))
    ours = [module for module in _imports(ROOT / name) if module.split(".")[0] == "pano4d"]
    wrong = [module for module in ours if not any(f"{module}.".startswith(f"{allowed}.") for allowed in ALLOWED[room])]
    assert not wrong, f"{name} imports {wrong}; {room} may import {ALLOWED[room]}"


@pytest.mark.parametrize("name", [name for name in BY_NAME if not name.startswith("build_engines")])
def test_base_install_is_enough_outside_the_build(name):
    if Path(name) in MAY_BE_HEAVY:
        return
    foreign = {module.split(".")[0] for module in _imports(ROOT / name)} - sys.stdlib_module_names - {"pano4d"}
    # Lifting may read rare depth formats with what happens to be there, but never a framework.
    foreign -= {"cuda"} if Path(name) in MAY_TALK_TO_THE_GPU else set()
    wrong = foreign & HEAVY if name.startswith("lifting") else foreign - BASE_INSTALL
    assert not wrong, f"{name} imports {sorted(wrong)}"


@pytest.mark.parametrize("name", BY_NAME)
def test_imports_are_absolute(name):
    nodes = ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8")))
    assert not [node.lineno for node in nodes if isinstance(node, ast.ImportFrom) and node.level]


@pytest.mark.parametrize("name", [name for name in BY_NAME if not name.startswith("build_engines")])
def test_heavy_modules_are_imported_late(name):
    """What needs a framework is reached from inside a function, so that the base install can import all else."""
    heavy = {".".join(("pano4d", *path.with_suffix("").parts)) for path in MAY_BE_HEAVY} | HEAVY
    if Path(name) not in MAY_BE_HEAVY:
        imported = _imports(ROOT / name, late=False)
        early = [module for module in imported if any(f"{module}.".startswith(f"{one}.") for one in heavy)]
        assert not early, f"{name} imports {early} at its top"


def test_every_module_of_the_base_install_can_be_imported_without_a_framework():
    modules = [".".join(("pano4d", *Path(name).with_suffix("").parts)) for name in BY_NAME
               if name.startswith(("runtime", "lifting")) and Path(name) not in MAY_BE_HEAVY]
    code = f"import sys, importlib; sys.modules.update(dict.fromkeys({sorted(HEAVY)}))\n" \
           f"for name in {modules}: importlib.import_module(name.removesuffix('.__init__'))"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("line", [
    "import pano4d",
    "from pano4d.cli import cli; cli(['--help'], standalone_mode=False)",
    "from pano4d.cli import cli; cli(['generate', '-h'], standalone_mode=False)",
])
def test_importing_and_help_load_nothing_heavy(line):
    code = f"import sys; {line}; print('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert "pano4d" in loaded
    assert not loaded & (HEAVY | {"numpy", "onnxruntime", "PIL", "imageio", "rich", "scipy"})


def test_a_forbidden_import_would_be_seen(tmp_path):
    module = tmp_path / "module.py"
    module.write_text("def f():\n    from pano4d.runtime import sphere, job\n    import torch.nn\n")
    assert list(_imports(module)) == ["pano4d.runtime.sphere", "pano4d.runtime.job", "torch.nn"]
    assert not list(_imports(module, late=False))


def _room(path: Path) -> str:
    if path in JOIN_BOTH_ROOMS:
        return "scene"
    if len(path.parts) > 1:
        return path.parts[0]
    return "pano4d" if path.name == "__init__.py" else path.stem


def _imports(path: Path, late: bool = True) -> Iterator[str]:
    """Name every imported module, wherever in the file or outside of functions only; names taken from a package count as
    its modules."""
    waiting = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop(0)
        if late or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
