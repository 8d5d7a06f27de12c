"""Hold weights still while the rest of a network is trained."""

from __future__ import annotations

import torch
from torch import nn


class Wires:
    """Collect entries of parameters that training must leave as they are."""

    def __init__(self):
        self.held: dict[nn.Parameter, torch.Tensor] = {}

    def hold(self, module: nn.Module, rows: torch.Tensor | None = None, columns: torch.Tensor | None = None) -> None:
        """Hold a layer's entries.

        Args:
            module: A convolution, linear layer or normalisation.
            rows: Output channels whose weights and biases are held. int64 [n].
            columns: Input channels, of the weights alone. int64 [m].
        """
        free = self._free(module.weight)
        if columns is not None:
            free[:, columns] = 0
        if rows is not None:
            free[rows] = 0
            self._free(module.bias)[rows] = 0

    def _free(self, parameter: nn.Parameter) -> torch.Tensor:
        return self.held.setdefault(parameter, torch.ones_like(parameter))

    @torch.no_grad()
    def quiet(self) -> None:
        """Zero the gradients of what is held; layers without gradients are passed over."""
        pairs = [(p.grad, free) for p, free in self.held.items() if p.grad is not None]
        torch._foreach_mul_([grad for grad, _ in pairs], [free for _, free in pairs])
