"""Turn one panorama into a moving 4D scene: a panoramic video and 3D Gaussians for every frame.

Ten names, and nothing heavy imported before one of them is used:

    import pano4d
    report = pano4d.generate("panorama.jpg", "out", settings=pano4d.AnimateSettings(seed=1))
"""

import importlib
from typing import Any

from pano4d.runtime.errors import BackendError, Pano4DError

__version__ = "0.1.0"
__all__ = ["__version__", "Pano4DError", "AnimateSettings", "Bundle", "generate", "animate", "lift", "build_bundle",
           "inspect", "doctor"]

_HOMES = {
    "AnimateSettings": "pano4d.runtime.settings",
    "Bundle": "pano4d.runtime.bundle",
    "generate": "pano4d.lifting.scene",
    "animate": "pano4d.lifting.scene",
    "lift": "pano4d.lifting.scene",
    "build_bundle": "pano4d.build_engines.build",
    "inspect": "pano4d.lifting.scene",
    "doctor": "pano4d.runtime.inspection",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for.

    Raises:
        AttributeError: No such public name.
        BackendError: ``build_bundle`` without the packages that only building needs.
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'pano4d' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if name != "build_bundle" or str(error.name).startswith("pano4d"):
            raise
        raise BackendError(f"Building engines needs the package {error.name}, which is not installed: "
                           "pip install 'pano4d[build]'.") from error


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
