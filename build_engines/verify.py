"""Compare engines with the diffusers modules they were exported from."""

import numpy as np
import torch

from pano4d.build_engines.checkpoint import Checkpoint
from pano4d.build_engines.networks import example_inputs, reference_module
from pano4d.runtime.backends import load_engine
from pano4d.runtime.bundle import Bundle
from pano4d.runtime.errors import BackendError

BOUNDS = {"fp32": 1e-4, "fp16": 1e-2}
"""Largest relative error an engine may have, for each precision. Networks of random float32 weights were measured at
3e-4 to 1e-3 after rounding to float16, and below 1e-5 without; an operator exported wrongly costs far more."""


def verify_network(bundle: Bundle, checkpoint: Checkpoint, network: str, precision: str) -> dict[str, float]:
    """Run one engine and its reference in float32 on the same inputs.

    Args:
        bundle: Bundle with the engine.
        checkpoint: What it was built from.
        network: Name of the network.
        precision: ``fp32`` or ``fp16``: chooses the bound.

    Returns:
        ``relative_error``, the norm of the difference over the norm of the reference, and ``max_abs_error``.

    Raises:
        BackendError: The engine does not run, or differs by more than the bound.
    """
    described = bundle.network(network)
    # Other inputs than those the export saw, so that nothing it froze by mistake agrees by accident.
    inputs = example_inputs(list(described.inputs), seed=1)
    with torch.inference_mode():
        arguments = [torch.from_numpy(array) for array in inputs.values()]
        reference = reference_module(checkpoint, network)(*arguments).numpy()
    output = np.zeros(reference.shape, reference.dtype)
    with load_engine(bundle, network) as engine:
        engine.run(inputs | {described.outputs[0].name: output})
    figures = parity(output, reference)
    # Written so that a NaN does not pass.
    if not figures["relative_error"] <= BOUNDS[precision]:
        raise BackendError(f"The engine of {network} differs from the checkpoint by {figures['relative_error']:.1e}, and "
                           f"{BOUNDS[precision]:.0e} is allowed at {precision}: build with --precision fp32, or with "
                           "the versions of pano4d[build].")
    return figures


def parity(output: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Measure how far an output lies from its reference.

    Args:
        output: What the engine returned.
        reference: What it should be. Same shape.

    Returns:
        ``relative_error`` and ``max_abs_error``, to two digits.
    """
    difference = output.astype(np.float64) - reference
    norm = max(float(np.linalg.norm(reference.astype(np.float64))), np.finfo(np.float32).tiny)
    return {"relative_error": float(f"{np.linalg.norm(difference) / norm:.1e}"),
            "max_abs_error": float(f"{np.abs(difference).max():.1e}")}
