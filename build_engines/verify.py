"""Compare engines with the diffusers modules they were exported from."""

from typing import Any

import numpy as np
import torch

from pano4d.build_engines.checkpoint import Checkpoint
from pano4d.build_engines.networks import example_inputs, reference_module
from pano4d.runtime.backends import load_engine
from pano4d.runtime.backends.aotinductor import without_tf32
from pano4d.runtime.backends.base import Engine
from pano4d.runtime.bundle import Bundle
from pano4d.runtime.errors import BackendError

BOUNDS = {"fp32": 1e-4, "fp16": 1e-2, "fp8": 5e-2}
"""Largest relative error an engine may have, for each precision. Networks of random float32 weights were measured at
3e-4 to 1e-3 after rounding to float16, below 1e-5 without, and the full denoiser at 8e-3 with its products in fp8; an operator
exported wrongly costs far more."""


def verify_network(bundle: Bundle, checkpoint: Checkpoint, network: str, precision: str) -> dict[str, Any]:
    """Run one engine and its reference in float32 on the same inputs.

    Args:
        bundle: Bundle with the engine.
        checkpoint: What it was built from.
        network: Name of the network.
        precision: ``fp32`` or ``fp16``: chooses the bound.

    Returns:
        ``relative_error``, the norm of the difference over the norm of the reference, and ``max_abs_error``; of an
        engine on a GPU also ``workspace_bytes``, what it takes beyond its weights and the buffers it is given.

    Raises:
        BackendError: The engine does not run, or differs by more than the bound.
    """
    described = bundle.network(network)
    # Other inputs than those the export saw, so that nothing it froze by mistake agrees by accident.
    inputs = example_inputs(list(described.inputs), seed=1)
    with load_engine(bundle, network) as engine:
        output, taken = run_measured(engine, inputs)
        device = engine.device
    figures = parity(output, _reference(checkpoint, network, inputs, device)) | taken
    # Written so that a NaN does not pass.
    if not figures["relative_error"] <= BOUNDS[precision]:
        raise BackendError(f"The engine of {network} differs from the checkpoint by {figures['relative_error']:.1e}, and "
                           f"{BOUNDS[precision]:.0e} is allowed at {precision}: build with --precision fp32, or with "
                           "the versions of pano4d[build].")
    return figures


def run_engine(engine: Engine, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Run an engine once, wherever its buffers lie.

    Args:
        engine: The engine.
        inputs: One array per input, by name.

    Returns:
        Its output, float32.

    Raises:
        BackendError: The engine does not run.
    """
    buffers = engine.allocate()
    for name, array in inputs.items():
        engine.write(buffers[name], array)
    engine.run(buffers)
    return engine.read(buffers[engine.outputs[0].name]).astype(np.float32)


def run_measured(engine: Engine, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, int]]:
    """Run an engine for the first time, and on a GPU see what it takes.

    Args:
        engine: The engine; its weights are loaded.
        inputs: One array per input, by name.

    Returns:
        As `run_engine`, and ``workspace_bytes``: what the engine says it takes beyond weights and buffers, or the most
        that torch held at once; nothing on a CPU.

    Raises:
        BackendError: The engine does not run.
    """
    if engine.device != "cuda":
        return run_engine(engine, inputs), {}
    if engine.workspace_bytes is not None:
        return run_engine(engine, inputs), {"workspace_bytes": engine.workspace_bytes}
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    buffers = sum(int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize for spec in (*engine.inputs, *engine.outputs))
    before = torch.cuda.memory_allocated() + buffers
    output = run_engine(engine, inputs)
    # Reserved rather than allocated: what torch keeps for itself, nobody else can have.
    return output, {"workspace_bytes": max(0, torch.cuda.max_memory_reserved() - before)}


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


def _reference(checkpoint: Checkpoint, network: str, inputs: dict[str, np.ndarray], device: str) -> np.ndarray:
    """Compute in float32, on the GPU if the engine runs there: a full denoiser would keep a CPU busy for minutes."""
    module = reference_module(checkpoint, network)
    # Where plans are built torch need not see the GPU.
    device = device if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        module = module.to(device)
    arguments = [torch.from_numpy(array).to(device, torch.float32) for array in inputs.values()]
    with torch.inference_mode(), without_tf32():
        return module(*arguments).cpu().numpy()
