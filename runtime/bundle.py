"""Open an engine bundle: a folder with a manifest and one engine file per network.

Engine files are code. Nothing of a bundle but its manifest is read before the hash of every file holds.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pano4d.runtime.backends.base import NETWORKS, TAIL, TensorSpec
from pano4d.runtime.errors import BundleError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"

_REQUIRED = {
    "key": str, "model": dict, "weights": dict, "networks": dict, "tile": dict, "sampler": dict, "precision": dict,
    "backend": dict, "target": dict, "build": dict, "parity": dict,
}
_REQUIRED_INSIDE = {
    "model": {"name": str, "license": str, "masked": bool},
    "tile": {"px": int, "latent_px": int, "frames": int, "batch": int},
    "sampler": {name: (int, float) for name in (
        "sigma_min", "sigma_max", "rho", "scaling_factor", "num_inference_steps", "min_guidance_scale",
        "max_guidance_scale", "fps", "motion_bucket_id", "noise_aug_strength")} | {
            "prediction_type": str, "solver": str},
    "backend": {"name": str, "version": str},
}


@dataclass(frozen=True)
class Network:
    """One network of a bundle.

    Attributes:
        name: One of ``NETWORKS``, or ``TAIL``.
        path: Engine file.
        inputs: Tensors it reads.
        outputs: Tensors it writes.
    """

    name: str
    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Bundle:
    """An engine bundle whose manifest has been read and, unless asked otherwise, whose files were verified.

    Attributes:
        path: Folder of the bundle.
        manifest: Content of manifest.json.
        sha256: Digest of manifest.json, hexadecimal; it covers every file, since their digests are in it.
    """

    path: Path
    manifest: dict[str, Any]
    sha256: str

    @classmethod
    def open(cls, path: str | Path, verify: bool = True) -> "Bundle":
        """Open the bundle in a folder.

        Args:
            path: Folder with a manifest.json.
            verify: Whether to compare the digest of every file. Without it only presence and size are checked.

        Returns:
            The bundle.

        Raises:
            BundleError: No bundle is there, its schema is another one, or a file is missing or changed.
        """
        path = Path(path)
        content = _read_manifest(path)
        bundle = cls(path, _parse(content, path), hashlib.sha256(content).hexdigest())
        for record in bundle.files():
            _check_file(path, record, verify)
        return bundle

    @property
    def tile(self) -> dict[str, int]:
        """Shape of a tile: ``px``, ``latent_px``, ``frames``, ``batch``."""
        return self.manifest["tile"]

    @property
    def sampler(self) -> dict[str, Any]:
        """Constants of the sampler: sigma range, scaling factor, guidance range, steps, conditions."""
        return self.manifest["sampler"]

    @property
    def has_tail(self) -> bool:
        """Whether there is a second denoiser, ``unet_tail``, for one tile."""
        return TAIL in self.manifest["networks"]

    def network(self, name: str) -> Network:
        """Describe one network.

        Args:
            name: ``image_encoder``, ``vae_encoder``, ``unet``, ``vae_decoder``, or ``unet_tail`` if ``has_tail``.

        Returns:
            Its engine file and tensors.

        Raises:
            BundleError: The bundle has no such network.
        """
        record = self.manifest["networks"].get(name)
        if record is None:
            raise BundleError(f"{self.path} has no network {name!r}, only {sorted(self.manifest['networks'])}.")
        return Network(name, self.path / record["file"], _specs(record["inputs"]), _specs(record["outputs"]))

    def files(self) -> list[dict[str, Any]]:
        """List ``file``, ``sha256`` and ``bytes`` of every file but the manifest; one that networks share once."""
        networks = self.manifest["networks"].values()
        listed = [record for network in networks for record in (network, *network.get("extra_files", ()))]
        return list({(record["file"], record["sha256"], record["bytes"]): record for record in listed}.values())


def default_bundle_path() -> Path:
    """Give the folder of the demo model that comes with the package."""
    return Path(__file__).parent / "demo"


def file_record(folder: Path, name: str) -> dict[str, Any]:
    """Describe a file of a bundle as the manifest does.

    Args:
        folder: Folder of the bundle.
        name: File name in it.

    Returns:
        ``file``, ``sha256`` (hexadecimal) and ``bytes``.

    Raises:
        BundleError: The file cannot be read.
    """
    try:
        return {"file": name, "sha256": sha256_of_file(folder / name), "bytes": (folder / name).stat().st_size}
    except OSError as error:
        raise BundleError(f"{folder / name} cannot be read: {error.strerror or error}.") from error


def sha256_of_file(path: Path) -> str:
    """Compute the SHA-256 of a file without holding it in memory.

    Args:
        path: The file.

    Returns:
        64 lower-case hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(path: Path) -> bytes:
    try:
        return (path / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(f"{path} is no engine bundle, since its {MANIFEST} cannot be read "
                          f"({error.strerror or error}): make one with `pano4d build`.") from error


def _parse(content: bytes, path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path / MANIFEST} is not valid JSON ({error}): build the bundle again "
                          "with `pano4d build --force`.") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(f"{path / MANIFEST} has schema version {version}, and this pano4d reads version "
                          f"{SCHEMA_VERSION}: build the bundle again with `pano4d build --force`.")
    fault = _fault(manifest)
    if fault:
        raise BundleError(f"{path / MANIFEST} is incomplete: {fault}; build the bundle again with "
                          "`pano4d build --force`.")
    return manifest


def _fault(manifest: dict[str, Any]) -> str | None:
    """Say what is missing from a manifest, or None."""
    fault = _missing(manifest, _REQUIRED, "")
    for block, required in _REQUIRED_INSIDE.items():
        fault = fault or _missing(manifest[block], required, f"{block}.")
    for name in NETWORKS:
        fault = fault or _network_fault(name, manifest["networks"].get(name))
    return fault or _tail_fault(manifest)


def _tail_fault(manifest: dict[str, Any]) -> str | None:
    """Say why the second denoiser, if there is one, is not the first one for a single tile."""
    networks, batch = manifest["networks"], manifest["tile"]["batch"]
    if TAIL not in networks:
        return None
    fault = _network_fault(TAIL, networks[TAIL])
    for side in () if fault else ("inputs", "outputs"):
        batched = [{**spec, "shape": [size * (1 if axis else batch) for axis, size in enumerate(spec["shape"])]}
                   for spec in networks[TAIL][side]]
        if batched != networks["unet"][side]:
            return f"networks.{TAIL}.{side} are not those of networks.unet for one tile of {batch}"
    return fault


def _missing(block: dict[str, Any], required: dict[str, Any], prefix: str) -> str | None:
    for name, kind in required.items():
        # bool is an int to Python, but true is no count of pixels.
        if not isinstance(block.get(name), kind) or (isinstance(block[name], bool) and kind is not bool):
            return f"{prefix}{name} is missing or of the wrong type"
    return None


def _network_fault(name: str, network: Any) -> str | None:
    if not isinstance(network, dict):
        return f"networks.{name} is missing"
    extra = network.get("extra_files", [])
    for record in (network, *(extra if isinstance(extra, list) else [extra])):
        fault = _missing(record if isinstance(record, dict) else {}, {"file": str, "sha256": str, "bytes": int},
                         f"networks.{name}.")
        if fault:
            return fault
        # A manifest from elsewhere must not make us read outside its folder.
        if PurePosixPath(record["file"]).name != record["file"] or "\\" in record["file"]:
            return f"networks.{name}.file {record['file']!r} is not a plain file name"
    workspace = network.get("workspace_bytes", 0)
    if type(workspace) is not int or workspace < 0:
        return f"networks.{name}.workspace_bytes is {workspace!r} and no count of bytes"
    for side in ("inputs", "outputs"):
        if not _are_specs(network.get(side)):
            return f"networks.{name}.{side} is missing or not a list of name, dtype and shape"
    return None


def _are_specs(records: Any) -> bool:
    return isinstance(records, list) and bool(records) and all(
        isinstance(record, dict) and isinstance(record.get("name"), str) and isinstance(record.get("dtype"), str)
        and isinstance(record.get("shape"), list) and all(type(size) is int and size > 0 for size in record["shape"])
        for record in records)


def _specs(records: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(record["name"], record["dtype"], tuple(record["shape"])) for record in records)


def _check_file(folder: Path, record: dict[str, Any], verify: bool) -> None:
    path = folder / record["file"]
    if not path.is_file():
        raise BundleError(f"{path} is missing, though {MANIFEST} lists it: copy the whole bundle or build it again "
                          "with `pano4d build --force`.")
    found = file_record(folder, record["file"])["sha256"] if verify else record["sha256"]
    if path.stat().st_size != record["bytes"] or found != record["sha256"]:
        raise BundleError(f"{path} is not the file that was built, since its SHA-256 or size differs from {MANIFEST}: "
                          "copy the bundle afresh or build it again with `pano4d build --force`.")
