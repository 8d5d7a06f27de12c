"""Hold Gaussians for optimisation so that they stay on the surface that geometry gave them.

All cameras see the scene from one point or from near it, so pictures say little about distance; free positions
would drift along their rays. A Gaussian may therefore

- slide within its own plane, by at most `SLIDE` of its first standard deviations along each axis, never off it;
- turn about its normal, never tilt;
- change both standard deviations within the plane, by a factor of at most `STRETCH`; its thickness stays;
- change opacity and colour.

So its centre is never further from the initial surface's tangent plane than rounding, whatever the pictures say.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pano4d.lifting.gaussians import SH_C0, Gaussians, concatenate
from pano4d.lifting.rotations import quats_to_matrices

SLIDE, STRETCH = 1.0, 2.5
_LOGIT_LIMIT = 7.0
RATES = {"slide": 0.02, "turn": 0.02, "log_stretch": 0.01, "logits": 0.03, "sh": 0.01}
"""Adam's step of each parameter, in its own unit, at the beginning."""


class SurfaceGaussians:
    """N Gaussians with parameters to optimise.

    Args:
        sets: Where they begin; the third axis of each is its normal. Several sets, such as those of several frames,
            make one long one.
        device: Where.

    Attributes:
        parameters: ``slide`` [N, 2], ``turn`` [N], ``log_stretch`` [N, 2], ``logits`` [N] and ``sh`` [N, 1, 3],
            float32, each a leaf that takes gradients.
    """

    def __init__(self, *sets: Gaussians, device: torch.device) -> None:
        gaussians = concatenate(list(sets)) if len(sets) > 1 else sets[0]

        def there(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(device)

        axes = there(quats_to_matrices(gaussians.quats)[:, :, :2] * gaussians.scales[:, None, :2])
        w, x, y, z = (quats := there(gaussians.quats)).unbind(-1)
        self._means, self._axes = there(gaussians.means), tuple(axis.contiguous() for axis in axes.unbind(-1))
        # A turn by t about the normal makes a quaternion q of q cos(t / 2) + q k sin(t / 2).
        self._quats, self._quats_k = quats, torch.stack([-z, y, -x, w], -1)
        scales, count = there(gaussians.scales), len(gaussians)
        self._widths, self._thickness = scales[:, :2].contiguous(), scales[:, 2:].contiguous()
        begin = {"slide": scales.new_zeros(count, 2), "turn": scales.new_zeros(count),
                 "log_stretch": scales.new_zeros(count, 2), "logits": torch.logit(there(gaussians.opacities), 1e-4),
                 "sh": there(gaussians.sh[:, :1])}
        self.parameters = {name: value.clone().requires_grad_() for name, value in begin.items()}
        self._grey = scales.new_tensor(0.5)

    def __len__(self) -> int:
        """Return the number of Gaussians N."""
        return len(self._means)

    def splats(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Give means [N, 3], quats [N, 4], scales [N, 3], opacities [N] and colours [N, 3]."""
        p = self.parameters
        first, second = p["slide"][:, None].unbind(-1)
        means = torch.addcmul(torch.addcmul(self._means, self._axes[0], first), self._axes[1], second)
        half = 0.5 * p["turn"][:, None]
        quats = torch.addcmul(self._quats * half.cos(), self._quats_k, half.sin())
        scales = torch.cat([self._widths * p["log_stretch"].exp(), self._thickness], -1)
        colors = torch.add(self._grey, p["sh"].squeeze(1), alpha=SH_C0).clamp_min(0.0)
        return means, quats, scales, torch.sigmoid(p["logits"]), colors

    @torch.no_grad()
    def hold(self) -> None:
        """Bring every parameter back within its bounds."""
        p, limit = self.parameters, math.log(STRETCH)
        p["slide"].clamp_(-SLIDE, SLIDE)
        p["log_stretch"].clamp_(-limit, limit)
        p["logits"].clamp_(-_LOGIT_LIMIT, _LOGIT_LIMIT)

    @torch.no_grad()
    def follow(self, other: "SurfaceGaussians") -> None:
        """Take over in each set what another one has learned about the same samples: its changes, upon the own beginning."""
        for name, value in self.parameters.items():
            if name != "sh":
                value.unflatten(0, (-1, len(other))).copy_(other.parameters[name])

    def divide(self, sets: Sequence[Gaussians]) -> list["SurfaceGaussians"]:
        """Cut into the sets again that this began with, each with what it has learned."""
        parts = [SurfaceGaussians(one, device=self._means.device) for one in sets]
        for name, value in self.parameters.items():
            for part, learned in zip(parts, value.detach().split([len(one) for one in sets])):
                part.restore({name: learned})
        return parts

    def learned(self) -> dict[str, np.ndarray]:
        """Give the parameters."""
        return {name: value.detach().cpu().numpy() for name, value in self.parameters.items()}

    @torch.no_grad()
    def restore(self, learned: Mapping[str, np.ndarray | Tensor]) -> None:
        """Take over what `learned` gave of the same samples, or some of it."""
        for name, value in learned.items():
            self.parameters[name].copy_(torch.as_tensor(value))

    @torch.no_grad()
    def gaussians(self) -> Gaussians:
        """Give the Gaussians as they are now."""
        made = (*self.splats()[:4], self.parameters["sh"])
        return Gaussians(*(part.cpu().numpy().copy() for part in made))


class Adam:
    """Step the parameters of one set, its rates falling to a tenth over the run.

    gsplat's SelectiveAdam on a GPU that has it: Gaussians that no view has shown stay as they are.

    Args:
        what: The Gaussians.
        steps: Steps to be taken.
        pace: What all rates are multiplied by.

    Raises:
        Nothing.
    """

    def __init__(self, what: SurfaceGaussians, steps: int, pace: float = 1.0) -> None:
        groups = [{"params": [value], "lr": RATES[name], "name": name} for name, value in what.parameters.items()]
        selective = _selective_adam() if len(what) and what.parameters["turn"].is_cuda else None
        self._selective, self._steps, self._pace, self._done = selective is not None, steps, pace, 0
        make = selective or torch.optim.Adam
        self._optimizer, self._what = make(groups, eps=1e-15, betas=(0.9, 0.99)), what

    def step(self, visible: Tensor) -> None:
        """Take a step.

        Args:
            visible: Gaussians that a view has shown. bool [N].
        """
        for group in self._optimizer.param_groups:
            group["lr"] = self._pace * RATES[group["name"]] * 0.1 ** (self._done / max(1, self._steps))
        self._done += 1
        if self._selective:
            self._optimizer.step(visible)
        else:
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._what.hold()


def _selective_adam() -> type | None:
    try:
        from gsplat.optimizers import SelectiveAdam
    except ImportError:
        return None
    return SelectiveAdam
