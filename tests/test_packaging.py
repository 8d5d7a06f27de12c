"""What the installed package consists of."""

import ast
import re


def test_every_package_is_listed(root):
    folders = [path.parent for room in ("build_engines", "lifting", "runtime") for path in
               (root / room).rglob("__init__.py")]
    found = {"pano4d", *(".".join(("pano4d", *folder.relative_to(root).parts)) for folder in folders)}
    assert set(_constant(root, "PACKAGES")) == found


def test_every_folder_with_code_is_a_package(root):
    for room in ("build_engines", "lifting", "runtime"):
        for path in (root / room).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), f"{path.parent} needs an __init__.py"


def test_base_install_holds_no_framework(root):
    text = (root / "setup.py").read_text(encoding="utf-8")
    base = text.split("install_requires=[")[1].split("]")[0]
    assert not re.search(r"torch|diffusers|transformers|onnx\b|scipy|cuda", base)


def _constant(root, name):
    for node in ast.parse((root / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"setup.py has no {name}")
