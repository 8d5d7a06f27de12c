import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pano4d.lifting.rotations import matrices_to_quats, quats_to_matrices

_unit = st.floats(-1.0, 1.0)


@settings(deadline=None, max_examples=60)
@given(st.tuples(_unit, _unit, _unit, _unit).filter(lambda q: sum(x * x for x in q) > 1e-3))
def test_round_trip(quat):
    matrix = quats_to_matrices(np.array([quat]))
    np.testing.assert_allclose(matrix[0] @ matrix[0].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix[0]) > 0
    np.testing.assert_allclose(quats_to_matrices(matrices_to_quats(matrix)), matrix, atol=1e-12)


def test_half_turns_which_have_no_w():
    turns = np.array([np.diag(d) for d in ([1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1])], float)
    np.testing.assert_allclose(quats_to_matrices(matrices_to_quats(turns)), turns, atol=1e-12)


def test_known_turn():
    about_z = np.array([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    np.testing.assert_allclose(matrices_to_quats(about_z)[0], [0.5**0.5, 0, 0, 0.5**0.5], atol=1e-12)
