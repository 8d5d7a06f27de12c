"""Find how large the inputs of a denoiser's products get, by running it on tiles of real panoramas.

What is kept of an input is its largest value and its mean square, over all calls: no tensor is held.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pano4d.build_engines.checkpoint import Checkpoint
from pano4d.build_engines.float8 import Range, has_kernel
from pano4d.build_engines.fp8_choice import BUDGET, PRODUCTS, affordable, key_at
from pano4d.build_engines.networks import TileShape, network_specs, reference_module
from pano4d.runtime.backends.eager import EagerEngine
from pano4d.runtime.calibration import LEVELS, SEED, TILES, drawn_panorama, run_denoiser
from pano4d.runtime.errors import BackendError
from pano4d.runtime.image import read_panorama


@dataclass(frozen=True)
class Calibration:
    """Panoramas to calibrate on; the one that is drawn where there is none.

    Attributes:
        pictures: The panoramas. uint8 [H, W, 3] each.
        named: Name and SHA-256 of each.
    """

    pictures: tuple[np.ndarray, ...]
    named: tuple[dict[str, str], ...]

    @classmethod
    def of(cls, paths: Iterable[str | Path]) -> "Calibration":
        """Read panoramas.

        Raises:
            InputError: One cannot be used.
        """
        paths = [Path(path) for path in paths]
        if not paths:
            drawn = drawn_panorama()
            return cls((drawn,), ({"name": "drawn", "sha256": hashlib.sha256(drawn.tobytes()).hexdigest()},))
        read = [read_panorama(path) for path in paths]
        return cls(tuple(one.pixels for one in read),
                   tuple({"name": path.name, "sha256": one.sha256} for path, one in zip(paths, read)))

    def block(self) -> dict[str, Any]:
        """Write what decides the scales, for a manifest."""
        return {"pictures": list(self.named), "tiles": TILES, "levels": LEVELS, "seed": SEED, "method": "largest value",
                "error_budget": BUDGET}

    def ranges(self, module: nn.Module, source: Checkpoint, tile: TileShape) -> dict[str, Range]:
        """Run a denoiser, on the GPU where torch sees one.

        Args:
            module: The denoiser in float32, rewritten as it will be exported.
            source: The checkpoint; gives the other networks.
            tile: The shapes.

        Returns:
            Of every weight that shall be in fp8, by ``weight_key``, the range of what it is multiplied with.

        Raises:
            BackendError: An input is not finite, or more than float16 holds.
        """
        watch = Watch(module)
        for picture in self.pictures:
            run_denoiser(_Modules(source, tile, module, watch), picture)
        return affordable(module, watch.call, watch.ranges)


class Watch(TorchFunctionMode):
    """Look at the inputs of products while a module runs.

    Args:
        module: Its parameters give a faulty input a name.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.ranges: dict[str, Range] = {}
        self.call: tuple[Tensor, ...] = ()
        self._module, self._keys, self._distance = module, {}, np.inf

    def __enter__(self) -> "Watch":
        """Begin to look; between two times the module may have moved, and its weights lie where others lay."""
        self._keys.clear()
        return super().__enter__()

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Note the input of a product, and compute it."""
        if func in PRODUCTS:
            self._see(args[0], args[1], func is not F.linear)
        return func(*args, **(kwargs or {}))

    def keep(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        """Keep what the denoiser is called with at the level closest to 1, where noise and picture are as strong.

        Args:
            module: The denoiser.
            arguments: Of its call; the second, a quarter of the logarithm of the level, is 0 there.
        """
        distance = abs(float(arguments[1][0]))
        if distance < self._distance:
            self.call, self._distance = tuple(one.detach().cpu().clone() for one in arguments), distance

    def _see(self, x: Tensor, weight: Tensor, convolves: bool) -> None:
        if not has_kernel(convolves, x.shape, weight.shape):
            return
        x = x.detach()
        largest = float(x.abs().amax())
        if not largest <= torch.finfo(torch.float16).max:
            raise BackendError(f"What {self._name(weight)} is multiplied with reaches {largest:.3g} on the calibration's "
                               "tiles, and float16 ends at 65504: build with --precision fp32, or check the checkpoint.")
        known = self.ranges.setdefault(key_at(weight, self._keys), Range(name=self._name(weight)))
        known.largest = max(known.largest, largest)
        known.squares += float(x.square().sum(dtype=torch.float64))
        known.count += x.numel()

    def _name(self, weight: Tensor) -> str:
        storage = weight.untyped_storage().data_ptr()
        return next((name for name, own in self._module.named_parameters()
                     if own.untyped_storage().data_ptr() == storage), "a weight")


class _Modules:
    """The checkpoint's own modules in place of a bundle's engines; the denoiser is watched."""

    def __init__(self, source: Checkpoint, tile: TileShape, denoiser: nn.Module, watch: Watch) -> None:
        self.bundle = SimpleNamespace(tile=asdict(tile), sampler=dict(source.sampler))
        self._source, self._specs, self._denoiser, self._watch = source, network_specs(source, tile), denoiser, watch

    @contextlib.contextmanager
    def use(self, network: str) -> Iterator[EagerEngine]:
        """Open a module; the denoiser goes back to the CPU afterwards, to be exported."""
        watched = network == "unet"
        module = self._denoiser if watched else reference_module(self._source, network)
        inputs, outputs = map(tuple, self._specs[network])
        engine = EagerEngine(module, SimpleNamespace(inputs=inputs, outputs=outputs))
        hook = module.register_forward_pre_hook(self._watch.keep) if watched else None
        try:
            with self._watch if watched else contextlib.nullcontext():
                yield engine
        finally:
            if hook:
                hook.remove()
            engine.close()
            module.cpu()
