"""Say how plans of TensorRT are built."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from pano4d.runtime.errors import BackendError

LEVELS = range(6)
"""Optimisation levels of TensorRT; 3 is its default."""


@dataclass(frozen=True)
class PlanOptions:
    """Say how plans are built.

    Attributes:
        workspace_bytes: Memory of the GPU that a kernel may use beside its operands; None for all there is.
        optimization_level: One of ``LEVELS``: the higher, the longer TensorRT looks for faster kernels.
        refit: Let other weights be put into the plan when it is loaded.
        version_compatible: Let newer versions of TensorRT, and its lean runtime, run the plan.
        strip: Leave the weights out of the plan; the bundle holds them once, as ONNX.
        weight_streaming: Let the weights stay in host memory and be copied while the plan runs.

    Raises:
        BackendError: An option is out of its range, or two of them exclude each other.
    """

    workspace_bytes: int | None = None
    optimization_level: int = 3
    refit: bool = False
    version_compatible: bool = False
    strip: bool = False
    weight_streaming: bool = False

    def __post_init__(self) -> None:
        if self.optimization_level not in LEVELS:
            raise BackendError(f"TensorRT has no optimisation level {self.optimization_level}: give 0 to {LEVELS[-1]} with "
                               "--optimization-level.")
        if self.version_compatible and (self.refit or self.strip):
            raise BackendError("A version-compatible plan cannot be given weights when it is loaded: leave out "
                               "--version-compatible, or --refit and --strip.")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "PlanOptions":
        """Make it of a mapping.

        Raises:
            BackendError: There is no such option, or as for the class.
        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise BackendError(f"Plans have no option {name!r}: choose from {', '.join(known)}.")
        return cls(**options)

    def block(self) -> dict[str, bool]:
        """Write what a runtime must know of it: the ``plan`` block of a manifest's target."""
        return {"version_compatible": self.version_compatible, "stripped": self.strip, "refittable": self.refit,
                "weight_streaming": self.weight_streaming}

    def command(self) -> str:
        """Write the options that were chosen as the command line takes them; each begins with a space."""
        chosen = {name: value for name, value in asdict(self).items() if value != getattr(PlanOptions(), name)}
        words = {"workspace_bytes": f" --workspace {(self.workspace_bytes or 0) / 2**20:.12g}MiB",
                 "optimization_level": f" --optimization-level {self.optimization_level}"}
        return "".join(words.get(name, f" --{name.replace('_', '-')}") for name in chosen)


NAMES = frozenset(field.name for field in fields(PlanOptions))
"""Names of the options, as a library call takes them."""
