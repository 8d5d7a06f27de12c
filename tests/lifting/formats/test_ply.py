import numpy as np
import pytest

from pano4d.lifting.formats.ply import (
    property_names, read_ply, read_properties, to_rows, write_ply, write_rows,
)
from pano4d.lifting.gaussians import Gaussians, concatenate
from pano4d.runtime.errors import InputError


def _random(count, k=1, seed=0):
    rng = np.random.default_rng(seed)
    quats = rng.normal(size=(count, 4))
    return Gaussians(
        rng.normal(size=(count, 3)).astype(np.float32),
        (quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32),
        np.exp(rng.normal(-4, 1, (count, 3))).astype(np.float32),
        rng.uniform(0.01, 0.99, count).astype(np.float32),
        rng.normal(size=(count, k, 3)).astype(np.float32),
    )


def test_header_bytes(tmp_path):
    size = write_ply(tmp_path / "a.ply", _random(3))
    header = (
        b"ply\nformat binary_little_endian 1.0\nelement vertex 3\n"
        b"property float x\nproperty float y\nproperty float z\n"
        b"property float nx\nproperty float ny\nproperty float nz\n"
        b"property float f_dc_0\nproperty float f_dc_1\nproperty float f_dc_2\n"
        b"property float opacity\nproperty float scale_0\nproperty float scale_1\n"
        b"property float scale_2\nproperty float rot_0\nproperty float rot_1\n"
        b"property float rot_2\nproperty float rot_3\nend_header\n"
    )
    data = (tmp_path / "a.ply").read_bytes()
    assert data.startswith(header) and len(data) == size == len(header) + 3 * 17 * 4
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]


def test_stored_meaning(tmp_path):
    scene = _random(5)
    write_ply(tmp_path / "a.ply", scene)
    stored = read_properties(tmp_path / "a.ply")
    np.testing.assert_allclose(stored["scale_1"], np.log(scene.scales[:, 1]), rtol=1e-6)
    np.testing.assert_allclose(
        stored["opacity"], np.log(scene.opacities / (1 - scene.opacities)), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(stored["rot_0"], scene.quats[:, 0])
    np.testing.assert_array_equal(stored["nx"], 0)


@pytest.mark.parametrize("k", [1, 4, 16])
def test_round_trip(tmp_path, k):
    scene = _random(50, k)
    write_ply(tmp_path / "a.ply", scene)
    back = read_ply(tmp_path / "a.ply")
    for name in ("means", "quats", "sh"):
        np.testing.assert_array_equal(getattr(back, name), getattr(scene, name))
    np.testing.assert_allclose(back.scales, scene.scales, rtol=2e-6)
    np.testing.assert_allclose(back.opacities, scene.opacities, rtol=2e-6)


def test_rest_harmonics_are_stored_channel_by_channel():
    rows = to_rows(_random(2, 4))
    names = property_names(4)
    assert rows.shape[1] == len(names)
    np.testing.assert_array_equal(rows[:, names.index("f_rest_3")], _random(2, 4).sh[:, 1, 1])


def test_extreme_opacities_stay_finite():
    scene = _random(2)
    scene.opacities[:] = (0.0, 1.0)
    assert np.isfinite(to_rows(scene)).all()


def test_parts_are_written_one_after_another(tmp_path):
    parts = [_random(4, seed=1), _random(0), _random(3, seed=2)]
    write_rows(tmp_path / "a.ply", [to_rows(p) for p in parts])
    write_ply(tmp_path / "b.ply", concatenate(parts))
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()


def test_damaged_files(tmp_path):
    write_ply(tmp_path / "good.ply", _random(3))
    good = (tmp_path / "good.ply").read_bytes()
    cases = {
        "cut.ply": good[:-1],
        "text.ply": b"hello",
        "ascii.ply": good.replace(b"binary_little_endian", b"ascii"),
        "points.ply": b"ply\nformat binary_little_endian 1.0\nelement vertex 0\n"
        b"property float x\nproperty float y\nproperty float z\nend_header\n",
        "bytes.ply": good.replace(b"float nx", b"uchar nx"),
        "none.ply": b"ply\nformat binary_little_endian 1.0\nend_header\n",
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
    for name in (*cases, "missing.ply"):
        with pytest.raises(InputError, match=name):
            read_ply(tmp_path / name)


def test_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(OSError):
        write_ply(tmp_path / "no" / "a.ply", _random(1))
    assert list(tmp_path.iterdir()) == []
