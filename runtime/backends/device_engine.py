"""What engines share that hold their buffers in arrays of our own on the GPU."""

import numpy as np

from pano4d.runtime.backends.base import Engine
from pano4d.runtime.device import Device, DeviceArray


class DeviceEngine(Engine):
    """An engine with a `Device` of its own, which is closed with it and gives back the arrays of ``allocate``."""

    device = "cuda"
    _device: Device

    def allocate(self) -> dict[str, DeviceArray]:
        """Make arrays on the GPU. See ``Engine.allocate``.

        Raises:
            DeviceMemoryError: The GPU has no room for them.
        """
        made = {spec.name: self._device.zeros(spec.shape, spec.dtype) for spec in (*self.inputs, *self.outputs)}
        # Another stream may use them next.
        self._device.synchronize()
        return made

    def write(self, buffer: DeviceArray, values: np.ndarray) -> None:
        """Copy to the GPU. See ``Engine.write``."""
        self._device.upload(values, buffer)
        self._device.synchronize()

    def read(self, buffer: DeviceArray) -> np.ndarray:
        """Copy from the GPU. See ``Engine.read``."""
        return self._device.download(buffer)
