"""Run the ONNX that TensorRT is given, network by network, and compare it with the modules of diffusers.

    python -m pano4d.benchmarks.full_model full --device cuda
    python -m pano4d.benchmarks.onnx_parity full

The files are those of ``pano4d build --backend tensorrt``, float16, run by onnxruntime instead: on the GPU by its CUDA
provider, on buffers of our own, or with ``--device cpu`` on the CPU. Errors are taken against the module in float32; what
float16 costs without any export is the error of the module in float16. Each network is exported by a process of its own,
whose peak memory is told, ``--jobs`` of them at once. It is compared by another, one at a time, whichever is ready: a
network that fails, or brings its process down, leaves the others.
"""

import argparse
import collections
import json
import multiprocessing
import platform
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import torch

from pano4d.build_engines.aot_export import typed_specs
from pano4d.build_engines.checkpoint import Checkpoint, read_checkpoint
from pano4d.build_engines.networks import example_inputs, network_specs, reference_module, tile_shape
from pano4d.build_engines.shortcuts import simplify
from pano4d.build_engines.typed_onnx import export_typed
from pano4d.build_engines.verify import parity
from pano4d.runtime.backends import onnxruntime_, onnxruntime_cuda
from pano4d.runtime.backends.aotinductor import without_tf32
from pano4d.runtime.backends.base import NETWORKS, Engine, TensorSpec

MOST_TIMES_EAGER = 2.0
"""How many times the error of eager float16 an engine may have."""


def specs_of(source: Checkpoint, network: str, batch: int) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """List inputs and outputs of a network as plans of TensorRT have them, for so many tiles at once."""
    inputs, outputs = network_specs(source, tile_shape(source, None, None, batch))[network]
    return typed_specs(inputs, "fp16", "cuda"), typed_specs(outputs, "fp16", "cuda")


def export(checkpoint: Path, network: str, batch: int, path: Path) -> dict[str, Any]:
    """Write a network as ONNX, and let ONNX check the file.

    Args:
        checkpoint: Folder of the model.
        network: Name of the network.
        batch: Tiles at once.
        path: The .onnx file to write.

    Returns:
        ``export_seconds``, ``host_gib``, the peak memory of this process, and ``operators``, how often each occurs.

    Raises:
        BackendError: The network cannot be exported.
        onnx.checker.ValidationError: The file is not valid.
    """
    begin, source = time.perf_counter(), read_checkpoint(checkpoint)
    inputs, outputs = specs_of(source, network, batch)
    module = simplify(reference_module(source, network))
    export_typed(module, example_inputs(inputs), outputs, path, "fp16")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = time.perf_counter() - begin
    onnx.checker.check_model(path, full_check=True)
    nodes = onnx.load(path, load_external_data=False).graph.node
    return {"export_seconds": round(seconds, 1), "host_gib": round(peak, 2),
            "operators": dict(sorted(collections.Counter(node.op_type for node in nodes).items()))}


def load(path: Path, inputs: list[TensorSpec], outputs: list[TensorSpec], device: str) -> Engine:
    """Load a file with onnxruntime, for ``cuda`` or ``cpu``."""
    if device == "cpu":
        return onnxruntime_.OnnxruntimeEngine(path, tuple(inputs), tuple(outputs))
    return onnxruntime_cuda.load_file(SimpleNamespace(path=path, inputs=tuple(inputs), outputs=tuple(outputs)))


def compare(checkpoint: Path, network: str, batch: int, path: Path, device: str) -> dict[str, Any]:
    """Run a file and both modules on the same inputs.

    Args:
        checkpoint: Folder of the model.
        network: Name of the network.
        batch: Tiles at once.
        path: Its .onnx file.
        device: ``cuda`` or ``cpu``.

    Returns:
        ``rows``; errors against float32 of the file (``relative_error``, ``max_abs_error``) and of eager float16
        (``eager_relative_error``); ``ms`` of a run; ``within``, whether the error is at most ``MOST_TIMES_EAGER`` times
        that of eager float16.

    Raises:
        BackendError: onnxruntime does not run the file.
    """
    source = read_checkpoint(checkpoint)
    inputs, outputs = specs_of(source, network, batch)
    given = example_inputs(inputs, seed=1)
    with torch.inference_mode(), without_tf32():
        module = reference_module(source, network).to(device)
        tensors = [torch.from_numpy(array).to(device) for array in given.values()]
        exact = module(*(tensor.float() for tensor in tensors)).cpu().numpy()
        eager = module.half()(*tensors).float().cpu().numpy()
    del module, tensors
    if device == "cuda":
        torch.cuda.empty_cache()
    with load(path, inputs, outputs, device) as engine:
        buffers, times = engine.allocate(), []
        for name, array in given.items():
            engine.write(buffers[name], array)
        for _ in range(4):  # the first makes everything ready
            begin = time.perf_counter()
            engine.run(buffers)
            times.append(1e3 * (time.perf_counter() - begin))
        made = engine.read(buffers[outputs[0].name]).astype(np.float32)
    found, plain = parity(made, exact), parity(eager, exact)["relative_error"]
    return {"rows": int(next(iter(given.values())).shape[0]), **found, "eager_relative_error": plain,
            "ms": round(float(np.median(times[1:])), 2), "within": bool(found["relative_error"] <= MOST_TIMES_EAGER * plain)}


def apart(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Call a function in a new process, and raise here what it raises there."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(checkpoint: Path, networks: Iterable[str], batch: int, folder: Path, device: str,
            jobs: int = 1) -> Iterator[dict[str, Any]]:
    """Export networks, and compare each once it is there.

    Args:
        checkpoint: Folder of the model.
        networks: Names of the networks.
        batch: Tiles at once.
        folder: Where to put the files.
        device: ``cuda`` or ``cpu``.
        jobs: Exports at once.

    Yields:
        ``network`` and what `export` and `compare` say of it, or ``failed``, what went wrong.
    """
    with ThreadPoolExecutor(jobs) as pool:
        paths = {network: folder / f"{network}.onnx" for network in networks}
        exports = {pool.submit(apart, export, checkpoint, network, batch, path): network for network, path in paths.items()}
        for done in as_completed(exports):
            network = exports[done]
            try:
                exported = done.result()
                yield {"network": network, **exported,
                       **apart(compare, checkpoint, network, batch, paths[network], device)}
            except Exception as error:
                traceback.print_exception(error)  # with the cause, which other processes told
                yield {"network": network, "failed": f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"}


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tile-batch", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="exports at once, each with the memory of its network")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "onnx.json")
    args = parser.parse_args()
    result = {"command": f"python -m pano4d.benchmarks.onnx_parity {' '.join(sys.argv[1:])}".strip(),
              "machine": torch.cuda.get_device_name() if args.device == "cuda" else platform.machine(),
              "provider": onnxruntime_cuda.PROVIDER if args.device == "cuda" else onnxruntime_.PROVIDER,
              "onnxruntime": onnxruntime_.import_onnxruntime().__version__,
              "versions": {name: metadata.version(name) for name in ("torch", "diffusers", "onnx", "onnxscript")}, "rows": []}
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for row in measure(args.checkpoint, args.networks, args.tile_batch, Path(folder), args.device, args.jobs):
            if "failed" in row:
                failed = True
                print(f"{row['network']:14} {row['failed']}", file=sys.stderr, flush=True)
                continue
            result["rows"] = sorted([*result["rows"], row], key=lambda row: NETWORKS.index(row["network"]))
            args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
            print(f"{row['network']:14} error {row['relative_error']:.1e}, eager float16 {row['eager_relative_error']:.1e}; "
                  f"{row['ms']:.0f} ms; exported in {row['export_seconds']:.0f} s with {row['host_gib']:.1f} GiB", flush=True)
    if failed:
        sys.exit("a network failed")
    if not all(row["within"] for row in result["rows"]):
        sys.exit(f"an error is more than {MOST_TIMES_EAGER:g} times that of eager float16")


if __name__ == "__main__":
    main()
