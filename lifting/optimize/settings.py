"""Settle how Gaussians are optimised."""

from dataclasses import dataclass

_FASTEST = 4.0  # pace of a run


@dataclass(frozen=True)
class OptimizeSettings:
    """How to optimise.

    Attributes:
        iterations: Steps of the still Gaussians; 0 leaves all as they were placed.
        moving_iterations: Steps of the moving ones of each frame, twice as many for the first; None: half of those for the
            first, a third for the others, which begin with what it has learned; rounded up.
        centred_views: Views from the centre in a step.
        off_views: Views off the centre in a step.
        reach: How far off, as a share of the median distance.
        off_weight: Weight of the views off the centre.
        depth_weight: Weight of the distance that views show.
        smooth_weight: Weight of its smoothness off the centre.
        opaque_weight: Weight of what views let through.
        carry_weight: Weight of what a moving Gaussian does otherwise than in the frame before.
        frames_at_once: Frames after the first whose moving Gaussians are optimised together, at most.
        seed: Of the views.
    """

    iterations: int = 600
    moving_iterations: int | None = None
    centred_views: int = 3
    off_views: int = 1
    reach: float = 0.1
    off_weight: float = 0.5
    depth_weight: float = 0.05
    smooth_weight: float = 0.02
    opaque_weight: float = 0.1
    carry_weight: float = 0.02
    frames_at_once: int = 13
    seed: int = 0

    def steps_of_frame(self, frame: int) -> int:
        """Steps of the moving Gaussians of a frame."""
        if self.moving_iterations is not None:
            return self.moving_iterations * (1 if frame else 2)
        return -(-self.iterations // (3 if frame else 2))

    def pace(self, steps: int) -> float:
        """Say how much larger than others the steps of a run of so many are: a shorter one has as far to go in all."""
        return min(_FASTEST, max(1.0, self.iterations / max(1, steps)))
