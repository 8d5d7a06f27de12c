"""Name the ways in which pano4d can fail.

    Pano4DError
    ├── InputError        a picture, mask, depth map or video that the user gave
    ├── OutputError       the output folder, the disk
    ├── SettingsError     an option out of its range
    ├── BundleError       an engine bundle: missing, damaged, made for something else
    ├── BackendError      an inference backend: unknown, not installed, failed to load
    │   └── DeviceMemoryError   the GPU has no room; a MemoryError too
    └── CheckpointError   a model checkpoint given to the build, or a depth model

Every message is one sentence or two: what was found, what is needed, what to type.
"""


class Pano4DError(Exception):
    """Base of every error that pano4d raises on purpose."""


class InputError(Pano4DError):
    """A picture, mask, depth map or video cannot be used."""


class OutputError(Pano4DError):
    """An output cannot be written."""


class SettingsError(Pano4DError):
    """An option lies out of its range or does not fit the others."""


class BundleError(Pano4DError):
    """An engine bundle is missing, damaged or made for something else."""


class BackendError(Pano4DError):
    """An inference backend is unknown, not installed or failed to load."""


class DeviceMemoryError(BackendError, MemoryError):
    """The GPU has not enough free memory for what was to be taken."""

    def __init__(self) -> None:
        super().__init__("The GPU has not enough free memory: use a smaller --size, a smaller --vram-limit (it composes "
                         "fewer frames at a time) or a bundle of a smaller --tile-batch, or end what else uses the GPU.")


class CheckpointError(Pano4DError):
    """A model checkpoint is incomplete, damaged or of an unknown kind."""
