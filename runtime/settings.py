"""Collect the options of an animation and refuse what cannot work."""

import math
from dataclasses import asdict, dataclass

from pano4d.runtime.errors import SettingsError

MASK_POLICIES = ("freeze", "trained", "soft")
SOLVERS = ("euler", "dpmpp-2m", "lcm")
LEVELS = ("karras", "aligned", "lcm")
FUSIONS = ("denoised", "sample", "none")
TRAINED_STEPS = 40
"""Noise levels that AnimateLCM was distilled on."""
STAGES = ("single", "coarse-fine")


@dataclass(frozen=True)
class AnimateSettings:
    """Say how a panorama is animated. None means: as the engine bundle recommends.

    Attributes:
        width: Width of the result in pixels.
        height: Height of the result in pixels, half the width.
        seed: Seed of the noise on the sphere.
        steps: Denoising steps.
        solver: How steps are taken: ``euler``, ``dpmpp-2m`` (DPM-Solver++(2M), arXiv 2211.01095), or ``lcm`` (a step to
            the estimate and fresh noise, arXiv 2303.01469, algorithm 1), which consistency models such as AnimateLCM need.
        levels: Noise levels of the steps: ``karras`` (arXiv 2206.00364, eq. 5) or ``aligned`` (Align Your Steps, arXiv
            2404.14507, found for Stable Video Diffusion) or ``lcm`` (every n-th of those of a consistency model's training).
        mask_policy: ``freeze`` (still pixels of the result are the input's, bit for bit), ``trained``
            (binary mask, first frame still, nothing frozen afterwards) or ``soft`` (the share of moving
            pixels, first frame included).
        layout: Name of a tile layout; ``auto`` for the one that fits the width, ``fewest`` for the fewest tiles that cover
            the sphere at that width, which overlap less.
        stages: ``single``: tiles of the layout from noise to picture; ``coarse-fine``: first a coarse video with a few
            wide tiles, whose motion agrees around the sphere, which the tiles of the layout then start from. Where
            they are no narrower than the wide ones there is nothing to refine: the run is ``single``, and the report
            notes it.
        fine_sigma: Noise level at which the fine stage starts from the coarse video: the lower, the more of it is kept.
        fuse: What is fused where tiles overlap: ``denoised`` estimates, ``sample`` (MultiDiffusion,
            arXiv 2302.08113, eq. 5) or ``none``.
        shared_noise: Whether overlapping tiles start from the same noise on the sphere.
        fps: Frames per second: a condition of the model, and the rate of the video.
        motion_bucket_id: Amount of motion, a condition of the model.
        noise_aug_strength: Standard deviation of the noise put on the condition picture, range -1..1.
        min_guidance_scale: Guidance of the first frame.
        max_guidance_scale: Guidance of the last frame.
        guidance_interval: Noise levels (lo, hi] with guidance (arXiv 2404.07724); steps at others, which then cost
            half, are taken by the conditional prediction alone. None: guidance at every level.
        guidance_reuse: Guided steps that take the difference between conditional and unconditional prediction from the
            last step that evaluated both, and so cost half, after each that does (as FasterCache, arXiv 2410.19355).
        keep_detail: Whether ``freeze`` gives moving places back the detail that the autoencoder loses, as long as
            they look as in the input.
        feather_deg: Width, inside the mask's border, over which motion fades in, in degrees.
        loop: Whether the video closes on itself: its second half fades back into the first frame.
    """

    width: int = 1024
    height: int = 512
    seed: int = 0
    steps: int | None = None
    solver: str | None = None
    levels: str | None = None
    mask_policy: str = "freeze"
    layout: str = "auto"
    stages: str = "single"
    fine_sigma: float = 8.0
    fuse: str = "sample"
    shared_noise: bool = True
    fps: int | None = None
    motion_bucket_id: int | None = None
    noise_aug_strength: float | None = None
    min_guidance_scale: float | None = None
    max_guidance_scale: float | None = None
    guidance_interval: tuple[float, float] | None = None
    guidance_reuse: int = 0
    keep_detail: bool = True
    feather_deg: float = 2.0
    loop: bool = False

    def __post_init__(self) -> None:
        _check(self.width == 2 * self.height and self.height >= 32 and self.height % 2 == 0,
               f"the size is {self.width}x{self.height}, but a panorama is twice as wide as high, with an even "
               "height of at least 32: try --size 1024x512")
        _check(self.steps is None or 1 <= self.steps <= 1000, f"steps is {self.steps}; it must be 1 to 1000")
        _check(self.solver is None or self.solver in SOLVERS, f"the solver is {self.solver!r}; it must be one of "
               + ", ".join(SOLVERS))
        _check(self.levels is None or self.levels in LEVELS, f"levels is {self.levels!r}; it must be one of " + ", ".join(LEVELS))
        _check(self.mask_policy in MASK_POLICIES, f"the mask policy is {self.mask_policy!r}; it must be one of "
               + ", ".join(MASK_POLICIES))
        _check(self.stages in STAGES, f"stages is {self.stages!r}; it must be one of " + ", ".join(STAGES))
        _check(self.fine_sigma > 0, f"fine_sigma is {self.fine_sigma}; it must be positive")
        _check(self.fuse in FUSIONS, f"fuse is {self.fuse!r}; it must be one of " + ", ".join(FUSIONS))
        _check(self.fps is None or 1 <= self.fps <= 120, f"fps is {self.fps}; it must be 1 to 120")
        _check(self.motion_bucket_id is None or 0 <= self.motion_bucket_id <= 511,
               f"the motion bucket is {self.motion_bucket_id}; it must be 0 to 511")
        interval = self.guidance_interval
        _check(interval is None or len(interval) == 2 and 0 <= interval[0] < interval[1] < math.inf,
               f"the guidance interval is {interval}; it must be two noise levels, the lower one first, such as 1:50")
        _check(not (self.guidance_reuse and self.solver == "lcm"),
               "guidance is to be reused between steps of the solver lcm, which start from other noise: leave "
               "guidance_reuse out")
        _check(0 <= self.guidance_reuse <= 1000, f"guidance_reuse is {self.guidance_reuse}; it must be 0 to 1000")
        _check(self.seed >= 0, f"the seed is {self.seed}; it must not be negative")
        _check(0 <= self.feather_deg <= 45, f"feather_deg is {self.feather_deg}; it must be 0 to 45")

    def resolved(self, sampler: dict) -> "AnimateSettings":
        """Fill every None from a bundle's sampler constants.

        Args:
            sampler: The ``sampler`` block of a bundle's manifest.

        Returns:
            Settings without a None, but for ``guidance_interval``.
        """
        names = {"steps": "num_inference_steps", "solver": "solver", "fps": "fps", "motion_bucket_id": "motion_bucket_id",
                 "noise_aug_strength": "noise_aug_strength", "min_guidance_scale": "min_guidance_scale",
                 "max_guidance_scale": "max_guidance_scale"}
        values = asdict(self)
        for ours, theirs in names.items():
            if values[ours] is None:
                values[ours] = sampler[theirs]
        if values["levels"] is None:
            values["levels"] = sampler.get("levels", "karras")
        return AnimateSettings(**values)


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise SettingsError(message + ".")
