"""What is measured runs on a small panorama, and takes turns and bytes as it says."""

import numpy as np
import pytest

from pano4d.benchmarks import bandwidth

SMALL = {"FRAMES": 9, "TILE_PX": 16, "LATENT_PX": 4, "COPY_BYTES": 64, "BALLAST_BYTES": 64, "CELL_PX": 3.0}


@pytest.fixture
def small(device, monkeypatch):
    """A device on which 9 frames of small tiles are measured; on the host each repeat takes a millisecond."""
    for name, value in SMALL.items():
        monkeypatch.setattr(bandwidth, name, value)
    if hasattr(device, "blocks"):
        device.reached = lambda event: False
        device.elapsed_ms = lambda begin, end: 20.0
    return device


def test_every_figure_is_measured_and_all_memory_given_back(small):
    measured = bandwidth.measure(small, 64)
    kernel = {"gbps", "us", "copy_us", "moves_us"}
    assert {name: set(units) for name, units in measured.items()} == {
        "copy": {"gbps"}, "blend": kernel, "compose": kernel | {"tiles_us", "stage_us", "detailed_us"}}
    assert all(value >= 0 for units in measured.values() for value in units.values())
    assert small.allocated_bytes == 0


def test_work_is_timed_anew_where_the_gpu_waited_for_python(small):
    if not hasattr(small, "blocks"):
        pytest.skip("the host only")
    late, copied = iter([True, True, False, False, False]), []
    small.reached = lambda event: next(late)
    small.copy = lambda source, target: copied.append(source.nbytes)
    assert bandwidth.milliseconds(small, lambda: None, repeats=4, rounds=3) == 5.0
    assert copied == [bandwidth.BALLAST_BYTES] * (16 + 32 + 3 * 64)


def test_kernels_that_only_move_write_every_byte_that_they_say_and_no_other(small, monkeypatch):
    if not hasattr(small, "blocks"):
        pytest.skip("the host only")
    seen = []

    def once(device, enqueue):
        rng = np.random.default_rng(0)
        for memory in device.blocks.values():
            memory[:] = rng.integers(0, 256, memory.size, np.uint8)
        before = [memory.copy() for memory in device.blocks.values()]
        enqueue()
        seen.extend((memory != was)[:-1].reshape(-1, 16).any(axis=1) for memory, was in zip(device.blocks.values(), before))
        return 1e-3

    monkeypatch.setattr(bandwidth, "milliseconds", once)
    assert bandwidth.moves_us(small, (1600, 800, 320), (400, 1440, 0)) == 1.0
    source, middle, target, *others = seen
    assert not source.any() and len(source) == 100
    assert middle[:50].all() and not middle[50:].any() and len(middle) == 55  # 5 octets more than it writes are read next
    assert target.all() and len(target) == 90
    assert not any(other.any() for other in others)
