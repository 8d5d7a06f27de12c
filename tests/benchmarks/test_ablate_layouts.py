"""A layout is judged by how far its figures are from the truth, over what seeds make of the default's."""

import pytest

from pano4d.benchmarks.ablate_layouts import TRUE, judged


def runs(seeds, **figures):
    """Make runs of two scenes that are the truth itself, but for a figure that changes with the seed."""
    return [{"seed": seed, "scene": scene, **TRUE, "spectrum": [1.0, 1.0], **{name: by[seed] for name, by in figures.items()}}
            for seed in range(seeds) for scene in range(2)]


@pytest.mark.parametrize("figure, default, fewest, outside", [
    ("disagreement", (3.0, 3.2), (3.2, 3.3), False), ("disagreement", (3.0, 3.2), (3.4, 3.4), True),
    ("sharpness", (0.9, 0.8), (0.7, 0.6), True), ("sharpness", (0.9, 0.8), (1.1, 1.2), False),
    ("seam_ratio", (1.0, 1.1), (1.2, 1.2), True), ("spectrum", ([0.9, 1.1], [1.0, 0.8]), ([0.5, 0.7], [0.6, 0.6]), True)])
def test_what_is_further_from_the_truth_than_seeds_differ_is_outside(figure, default, fewest, outside):
    rows = judged([{"tiles": 28, "runs": runs(2, **{figure: default})}, {"tiles": 24, "runs": runs(2, **{figure: fewest})}])
    assert [row["outside"] for row in rows] == [[], [figure] if outside else []]
    assert rows[1]["tiles"] == 24 and set(rows[1]["mean"]) == set(TRUE)
