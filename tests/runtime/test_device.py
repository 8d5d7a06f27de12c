"""The device layer: what it says where there is no GPU, and on one, memory, streams and other libraries' arrays."""

import numpy as np
import pytest

from pano4d.runtime import device as devices
from pano4d.runtime.device import Device, DeviceArray, as_device_array
from pano4d.runtime.errors import BackendError


def has_gpu():
    try:
        Device().close()
    except BackendError:
        return False
    return True


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_without_a_driver_one_sentence_says_what_to_do():
    with pytest.raises(BackendError, match="(No NVIDIA driver|does not start).*install") as caught:
        Device()
    assert "\n" not in str(caught.value)


def test_without_the_bindings_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings", None)
    with pytest.raises(BackendError, match=r"pip install 'pano4d\[gpu\]'"):
        devices.driver()


def test_every_code_is_checked(monkeypatch):
    class Codes(int):
        name = "CUDA_ERROR_OUT_OF_MEMORY"

    class Bindings:
        class CUresult:
            CUDA_ERROR_OUT_OF_MEMORY = Codes(2)

        @staticmethod
        def cuGetErrorString(code):
            return 0, b"bad luck"

    monkeypatch.setattr(devices, "driver", lambda: Bindings)
    assert devices.call(lambda: (Codes(0),)) is None
    assert devices.call(lambda: (Codes(0), 5)) == 5
    assert devices.call(lambda: (Codes(0), 5, 6)) == (5, 6)
    with pytest.raises(BackendError, match="--vram-limit"):
        devices.call(lambda: (Codes(2),))
    with pytest.raises(BackendError, match="bad luck"):
        devices.call(lambda: (Codes(700),))


def test_arrays_of_others_are_viewed_or_refused():
    class Foreign:
        def __init__(self, **described):
            self.__cuda_array_interface__ = {"shape": (2, 3), "typestr": "<f4", "data": (64, False), "version": 3} | described

    seen = as_device_array(Foreign())
    assert (seen.pointer, seen.shape, seen.nbytes) == (64, (2, 3), 24)
    assert as_device_array(Foreign(strides=(12, 4))).shape == (2, 3)
    assert seen[1].pointer == 76 and seen[1].shape == (3,)
    with pytest.raises(IndexError):
        seen[2]
    with pytest.raises(BackendError, match="C order"):
        as_device_array(Foreign(strides=(4, 8)))
    for other in (np.zeros(3), 7):
        with pytest.raises(BackendError, match="GPU array"):
            as_device_array(other)


def test_a_scope_gives_back_what_it_does_not_keep(device):
    with devices.Scope(device) as scope:
        kept, lost = scope.upload(np.arange(3)), scope.zeros((2, 2), "float32")
        foreign = scope.hold(device.empty((1,), "uint8"))
        scope.keep(kept)
    assert not device.download(kept[0]).any()
    assert not hasattr(device, "blocks") or list(device.blocks) == [kept.pointer]
    assert lost.pointer != foreign.pointer
    with pytest.raises(ZeroDivisionError), devices.Scope(device) as scope:
        scope.empty((5,), "uint8")
        raise ZeroDivisionError
    assert not hasattr(device, "blocks") or len(device.blocks) == 1
    with devices.Scope(device) as scope:
        scope.empty((5,), "uint8")
        scope.keep()
    assert not hasattr(device, "blocks") or len(device.blocks) == 2


@pytest.mark.gpu
def test_memory_goes_there_and_back(gpu):
    values = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    array = gpu.upload(values)
    assert (gpu.download(array) == values).all() and (gpu.download(array[2]) == values[2]).all()
    twin = gpu.zeros(values.shape, values.dtype)
    assert not gpu.download(twin).any()
    gpu.copy(array, twin)
    assert (gpu.download(twin) == values).all()
    with pytest.raises(BackendError, match="one size"):
        gpu.upload(values[:1], twin)


@pytest.mark.gpu
def test_memory_is_counted_and_given_back(gpu):
    array = gpu.empty((1 << 20,), np.float32)
    assert gpu.allocated_bytes == 4 << 20
    gpu.free(array)
    assert gpu.allocated_bytes == 0
    with pytest.raises(BackendError, match="not enough free memory"):
        gpu.empty((1 << 44,), np.uint8)
    assert gpu.allocated_bytes == 0


@pytest.mark.gpu
def test_there_is_no_such_gpu(gpu):
    with pytest.raises(BackendError, match="GPU 99"):
        Device(99)


@pytest.mark.gpu
def test_takes_part_in_the_callers_stream_and_arrays(gpu):
    torch = pytest.importorskip("torch")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        tensor = torch.arange(12, dtype=torch.float32, device="cuda").reshape(3, 4) * 2
        guest = Device(stream=stream.cuda_stream)
        assert guest.stream == stream.cuda_stream
        assert (guest.download(as_device_array(tensor)) == tensor.cpu().numpy()).all()
        ours = guest.upload(np.arange(6, dtype=np.float32))
        guest.synchronize()
        assert (torch.from_dlpack(ours).cpu().numpy() == np.arange(6)).all()
        assert (torch.as_tensor(ours, device="cuda").cpu().numpy() == np.arange(6)).all()
        guest.close()
    assert (tensor.sum() == 132).item()


@pytest.mark.gpu
def test_events_time_the_stream(gpu):
    begin = gpu.event()
    gpu.zeros((1 << 26,), np.uint8)
    end = gpu.event()
    gpu.synchronize()
    assert gpu.reached(begin) and gpu.reached(end)
    assert gpu.elapsed_ms(begin, end) > 0


@pytest.mark.gpu
def test_views_keep_their_owner(gpu):
    view = gpu.upload(np.arange(4))[1]
    assert isinstance(view, DeviceArray) and view.owner is gpu
