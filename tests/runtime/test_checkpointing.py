"""State of an interrupted run."""

import numpy as np
import pytest

from pano4d.runtime.checkpointing import clear, load_state, save_state
from pano4d.runtime.errors import OutputError


def test_round_trip(tmp_path):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    save_state(tmp_path / "s", "key", 1, {"x": x})
    save_state(tmp_path / "s", "key", 2, {"x": x + 1, "y": np.int64(7)})
    step, arrays = load_state(tmp_path / "s", "key")
    assert step == 2 and np.array_equal(arrays["x"], x + 1) and arrays["y"] == 7 and arrays["x"].dtype == np.float32
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["state.npz"]


def test_only_for_the_same_run(tmp_path):
    assert load_state(tmp_path, "key") == (0, None)
    save_state(tmp_path, "key", 2, {})
    assert load_state(tmp_path, "other") == (0, None)


@pytest.mark.parametrize("keep", [0, 10, 200, -30])
def test_damaged_state_is_no_state(tmp_path, keep):
    save_state(tmp_path, "key", 2, {"x": np.zeros(100)})
    data = (tmp_path / "state.npz").read_bytes()
    (tmp_path / "state.npz").write_bytes(data[:keep])
    assert load_state(tmp_path, "key") == (0, None)


def test_flipped_byte_is_no_state(tmp_path):
    save_state(tmp_path, "key", 2, {"x": np.zeros(1000)})
    data = bytearray((tmp_path / "state.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "state.npz").write_bytes(data)
    assert load_state(tmp_path, "key") == (0, None)


def test_clear(tmp_path):
    save_state(tmp_path / "s", "key", 2, {})
    clear(tmp_path / "s")
    clear(tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="could not be made"):
        save_state(tmp_path / "file" / "s", "key", 1, {})
