"""CUDA graphs: what was recorded runs when it is launched, and not before."""

import numpy as np
import pytest

from pano4d.runtime.errors import BackendError
from pano4d.runtime.graph import Graph


@pytest.mark.gpu
def test_a_graph_does_what_was_recorded_on_the_arrays_as_they_are_then(gpu):
    source, target = gpu.upload(np.arange(6, dtype=np.float32)), gpu.zeros((6,), np.float32)
    graph = Graph.record(gpu.stream, lambda: gpu.copy(source, target))
    assert not gpu.download(target).any()
    gpu.upload(np.full(6, 7, np.float32), source)
    gpu.synchronize()
    graph.launch(gpu.stream)
    assert (gpu.download(target) == 7).all()
    graph.close()
    graph.close()


@pytest.mark.gpu
def test_the_stream_can_be_used_after_a_recording_that_failed(gpu):
    with pytest.raises(BackendError, match="CAPTURE"):
        Graph.record(gpu.stream, gpu.synchronize)
    assert (gpu.download(gpu.upload(np.arange(3))) == np.arange(3)).all()


def test_a_recording_ends_whatever_happens_in_it(tensorrt_room):
    def fails():
        assert list(tensorrt_room.recorded) == [5]
        raise KeyError("x")

    with pytest.raises(KeyError):
        Graph.record(5, fails)
    assert not tensorrt_room.recorded and not tensorrt_room.driver.live
    graph = Graph.record(5, lambda: None)
    assert len(tensorrt_room.driver.live) == 1
    graph.close()
    assert not tensorrt_room.driver.live
