"""Run the networks of a bundle. Each backend is a module, imported when asked for, with ``load``, ``available``, ``DEVICE``.

``DEVICE`` is where its engines hold their tensors, ``cpu`` or ``cuda``; None where that is as the bundle was built.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

from pano4d.runtime.backends.base import Engine
from pano4d.runtime.errors import BackendError

if TYPE_CHECKING:
    from pano4d.runtime.bundle import Bundle

BACKENDS: dict[str, Callable[[], ModuleType]] = {
    name: partial(importlib.import_module, f"pano4d.runtime.backends.{module}")
    for name, module in (("onnxruntime", "onnxruntime_"), ("onnxruntime-cuda", "onnxruntime_cuda"),
                         ("tensorrt", "tensorrt_"), ("aotinductor", "aotinductor"), ("eager", "eager"), ("fake", "fake"))
}
"""Name of each backend, and a function that imports its module."""


def get_backend(name: str) -> ModuleType:
    """Import the module of a backend.

    Args:
        name: One of ``BACKENDS``.

    Returns:
        The module, with ``load(bundle, network)``, ``available()`` and ``DEVICE``.

    Raises:
        BackendError: No backend has this name.
    """
    if name not in BACKENDS:
        raise BackendError(f"There is no backend {name!r}: choose one of {', '.join(BACKENDS)} with --backend.")
    return BACKENDS[name]()


def device_of(bundle: "Bundle", backend: str | None = None) -> str:
    """Say where the engines of a bundle hold their tensors; nothing is loaded.

    Args:
        bundle: Opened bundle.
        backend: What runs them; None for the bundle's own.

    Returns:
        ``cpu`` or ``cuda``.

    Raises:
        BackendError: No backend has this name.
    """
    where = get_backend(backend or bundle.manifest["backend"]["name"]).DEVICE
    return where or ("cuda" if bundle.manifest["target"].get("device") == "cuda" else "cpu")


def load_engine(bundle: "Bundle", network: str, backend: str | None = None) -> Engine:
    """Load one network of a bundle.

    Args:
        bundle: Opened bundle.
        network: ``image_encoder``, ``vae_encoder``, ``unet``, ``vae_decoder``, or ``unet_tail`` where there is one.
        backend: What runs it; None for the bundle's own.

    Returns:
        An engine, ready to run. Use it as a context manager.

    Raises:
        BackendError: The backend is unknown, not installed, or cannot load this engine.
        BundleError: The bundle has no such network.
    """
    module = get_backend(backend or bundle.manifest["backend"]["name"])
    found = module.available()
    if not found.ok:
        raise BackendError(f"The backend {backend or bundle.manifest['backend']['name']!r} cannot run here, since "
                           f"{found.detail}: {found.remedy}.")
    return module.load(bundle, network)


class Engines:
    """The engines of a bundle: each loaded when it is used, and closed after it, or kept for the next use.

    Args:
        bundle: Opened bundle.
        backend: What runs them; None for the bundle's own.
        keep: Keep what was loaded until ``close``.
    """

    def __init__(self, bundle: "Bundle", backend: str | None = None, keep: bool = False) -> None:
        self.bundle, self.backend, self.keep = bundle, backend, keep
        self._kept: dict[str, Engine] = {}

    @contextlib.contextmanager
    def use(self, network: str) -> Iterator[Engine]:
        """Give an engine, ready to run.

        Args:
            network: As for ``load_engine``.

        Raises:
            BackendError, BundleError: As ``load_engine``.
        """
        if not self.keep:
            with load_engine(self.bundle, network, self.backend) as engine:
                yield engine
            return
        if network not in self._kept:
            self._kept[network] = load_engine(self.bundle, network, self.backend)
        yield self._kept[network]

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Keep what is loaded within the block until its end, where nothing is kept beyond it."""
        before, self.keep = self.keep, True
        try:
            yield
        finally:
            self.keep = before
            if not before:
                self.close()

    def close(self) -> None:
        """Close what was kept."""
        while self._kept:
            self._kept.popitem()[1].close()
