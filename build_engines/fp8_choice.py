"""Choose which products of a denoiser can be in fp8 for an error that can be afforded.

Rounding both operands of a product to 3 bits moves its result by 3 to 4 %, wherever it stands. How much of that reaches the
output differs: a feed-forward adds to a stream that stays exact, a convolution between two sizes is the stream. So each kind
of product is rounded alone, and the output compared; kinds are taken from the cheapest on while the root of their squared
errors stays within the budget. A kind is a weight's name without the numbers of its blocks: all of one kind do the same work
at other depths, and there are few enough to run the denoiser once for each.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pano4d.build_engines.float8 import LARGEST, Range, fits, scale_of, weight_key
from pano4d.runtime.errors import BackendError

PRODUCTS = (F.linear, F.conv1d, F.conv2d, F.conv3d)
BUDGET = 0.03
"""Relative error of the output on the calibration's tiles; ``verify`` allows 0.05, on noise."""


def affordable(module: nn.Module, call: tuple[Tensor, ...], ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Choose products.

    Args:
        module: The denoiser in float32.
        call: What it is called with to compare outputs.
        ranges: Of every weight, by ``weight_key``, the range of what it is multiplied with.

    Returns:
        The ranges of those whose products shall be in fp8.

    Raises:
        BackendError: No product can be afforded.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module, call = module.to(device), tuple(one.to(device) for one in call)
    kinds: dict[str, dict[str, Range]] = {}
    for key, seen in ranges.items():
        if fits(seen):
            kinds.setdefault(kind_of(seen.name), {})[key] = seen
    known: dict[tuple, str] = {}
    with torch.inference_mode():
        exact = module(*call)
        errors = {kind: _error(module, call, exact, own, known) for kind, own in kinds.items()}
        order = sorted((kind for kind in kinds if errors[kind] <= BUDGET), key=errors.__getitem__)
        total, taken = 0.0, []
        for kind in order:
            total += errors[kind] ** 2
            taken += [kind] * (total <= BUDGET**2)
        # Errors need not be independent: what they come to together decides.
        while taken and not _error(module, call, exact, _of(kinds, taken), known) <= BUDGET:
            taken.pop()
    module.cpu()
    if not taken:
        raise BackendError(f"Every kind of product of the denoiser moves its output by more than {BUDGET:.1%} in fp8: build "
                           "with --precision fp16.")
    return _of(kinds, taken)


def kind_of(name: str) -> str:
    """Take the numbers of blocks out of a weight's name."""
    return re.sub(r"\.\d+", "", name)


class Rounded(TorchFunctionMode):
    """Round the operands of products as Q/DQ pairs do.

    Args:
        ranges: Of every weight, by ``weight_key``, the range of what it is multiplied with; products of others stay.
        keys: Keys found so far, by where a weight lies; added to.
    """

    def __init__(self, ranges: Mapping[str, Range], keys: dict[tuple, str]) -> None:
        super().__init__()
        self._ranges, self._keys = ranges, keys

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Compute a product with rounded operands, and anything else as it is."""
        if func in PRODUCTS:
            x, weight, *more = args
            seen = self._ranges.get(key_at(weight, self._keys))
            if seen is not None:
                args = (rounded(x, seen.largest), rounded(weight, float(weight.abs().amax())), *more)
        return func(*args, **(kwargs or {}))


def key_at(weight: Tensor, keys: dict[tuple, str]) -> str:
    """Give a weight's key, computed once for each place in memory."""
    place = weight.data_ptr(), tuple(weight.shape), weight.stride()
    if place not in keys:
        keys[place] = weight_key(weight.detach().half().cpu().numpy())
    return keys[place]


def rounded(x: Tensor, largest: float) -> Tensor:
    """Round to float8 and back."""
    scale = float(scale_of(largest))
    return (x / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn).to(x.dtype) * scale


def _of(kinds: Mapping[str, Mapping[str, Range]], taken: list[str]) -> dict[str, Range]:
    return {key: seen for kind in taken for key, seen in kinds[kind].items()}


def _error(module: nn.Module, call: tuple[Tensor, ...], exact: Tensor, ranges: Mapping[str, Range],
           keys: dict[tuple, str]) -> float:
    with Rounded(ranges, keys):
        output = module(*call)
    return float(torch.linalg.vector_norm(output - exact) / torch.linalg.vector_norm(exact))
