"""Decide by a bundle's manifest whether this machine can run its plans, and describe the machine that builds some."""

from types import ModuleType

from pano4d.runtime.backends.tensorrt_bindings import FULL, LEAN, find, parts
from pano4d.runtime.bundle import Bundle, Network
from pano4d.runtime.device import Device
from pano4d.runtime.errors import BackendError

REBUILD = "build one here with `pano4d build --backend tensorrt`"


def check_version(bundle: Bundle, described: Network) -> ModuleType:
    """Find the TensorRT that can run a plan.

    Args:
        bundle: The bundle; its manifest says what it was made for.
        described: The network.

    Returns:
        TensorRT, or its lean runtime for a version-compatible plan where all of TensorRT is missing or too old.

    Raises:
        BackendError: Says what was found, what is needed and what to do.
    """
    backend, name = bundle.manifest["backend"], described.path.name
    if described.path.suffix != ".plan":
        raise BackendError(f"{name} is no TensorRT plan: use --backend {backend['name']} or {REBUILD}.")
    built, plan = backend["version"], bundle.manifest["target"].get("plan", {})
    compatible = bool(plan.get("version_compatible"))
    found, refused = None, None
    for module in (FULL, LEAN) if compatible else (FULL,):
        try:
            trt = find(module)
        except BackendError as error:
            refused = refused or error
            continue
        if trt.__version__ == built or (compatible and _runs_older(trt.__version__, built)):
            return trt
        found = found or f"TensorRT {trt.__version__}"
    if found is None:
        raise _lean_does_not_do(name, built) or refused
    needed = f"{built} or newer, up to {parts(built)[0] + 1}.x" if compatible else f"exactly {built}"
    package = f"pip install 'tensorrt-cu13{'>=' if compatible else '=='}{built}'"
    raise BackendError(f"{name} was built with TensorRT {built} and this is {found}, which is not {needed}: {package}, or "
                       f"{REBUILD}.")


def check_device(bundle: Bundle, described: Network, device: Device) -> None:
    """Refuse a plan that this GPU or its driver cannot run, before any of it is loaded.

    Args:
        bundle: The bundle; its manifest says what it was made for.
        described: The network.
        device: The GPU.

    Raises:
        BackendError: Says what was found, what is needed and what to do.
    """
    target, name = bundle.manifest["target"], described.path.name
    found, needed = compute_capability(device), target.get("compute_capability")
    if found != needed:
        raise BackendError(f"{name} was built for a GPU of compute capability {needed} and this machine's {device.name} has "
                           f"{found}: use a GPU of that kind or {REBUILD}.")
    known, built = device.driver_cuda(), str(target.get("cuda", ""))
    if parts(known)[:1] < parts(built)[:1]:
        raise BackendError(f"{name} was built under a driver for CUDA {built} and this machine's is for CUDA {known}: "
                           f"install a newer NVIDIA driver or {REBUILD}.")


def this_machine() -> dict[str, str]:
    """Describe the GPU for which plans are built here.

    Returns:
        ``device``, ``compute_capability``, ``gpu`` and ``cuda``, the newest CUDA that the driver knows.

    Raises:
        BackendError: There is no GPU.
    """
    with Device() as device:
        return {"device": "cuda", "compute_capability": compute_capability(device), "gpu": device.name,
                "cuda": device.driver_cuda()}


def compute_capability(device: Device) -> str:
    """Write the compute capability of a GPU as manifests do, such as 9.0."""
    digits = device.arch.removeprefix("sm_")
    return f"{digits[:-1]}.{digits[-1:]}"


def _lean_does_not_do(name: str, built: str) -> BackendError | None:
    """Say, of a plan that is not version-compatible, that the lean runtime is there and does not run it; None without."""
    try:
        lean = find(LEAN).__version__
    except BackendError:
        return None
    return BackendError(f"{name} needs all of TensorRT {built}, since it was not built with --version-compatible, and only "
                        f"the lean runtime {lean} is installed: pip install 'tensorrt-cu13=={built}', or {REBUILD} "
                        "--version-compatible where all of TensorRT is.")


def _runs_older(found: str, built: str) -> bool:
    """Say whether a version runs version-compatible plans of another: newer ones do, up to the next major version."""
    return parts(found) >= parts(built) and parts(found)[0] - parts(built)[0] <= 1
