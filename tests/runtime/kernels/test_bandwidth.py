"""What is measured runs on a small panorama, and takes turns and bytes as it says."""

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
    assert set(measured) == {"copy_gbps", "blend_gbps", "blend_us", "compose_gbps", "compose_us", "compose_tiles_us",
                             "compose_stage_us", "compose_detailed_us"}
    assert all(value >= 0 for value in measured.values())
    assert small.allocated_bytes == 0


def test_work_is_timed_anew_where_the_gpu_waited_for_python(small):
    if not hasattr(small, "blocks"):
        pytest.skip("the host only")
    late, copied = iter([True, True, False, False, False]), []
    small.reached = lambda event: next(late)
    small.copy = lambda source, target: copied.append(source.nbytes)
    assert bandwidth.milliseconds(small, lambda: None, repeats=4, rounds=3) == 5.0
    assert copied == [bandwidth.BALLAST_BYTES] * (16 + 32 + 3 * 64)
