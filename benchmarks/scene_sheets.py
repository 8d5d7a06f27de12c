"""Intersect rays with sheets: hills, water, cloth; heights over a rectangle, sums of plane waves.

Over the point (x, z) of its own plane, a sheet lies at y = hem(x) · Σ a sin(k · (x, z) + phase) - rise(r), where ``hem``
grows from the edge that a cloth is fastened by, and ``rise`` lifts hills at a distance r from the middle. A ray steps as
far as its height over the sheet can surely not reach 0, by bounds of its first and second derivatives: it passes through
nothing. It ends with Newton's method.
"""

from dataclasses import dataclass

import numpy as np
import torch

_STEPS, _ROUND, _NEWTON = 240, 8, 4


@dataclass(frozen=True)
class Sheet:
    """Place waves over a rectangle.

    Attributes:
        center: Middle of the rectangle, metres. [3]
        rotation: Columns are the sheet's axes in the world; y is its normal. [3, 3]
        half: Half the sides along x and z, metres.
        waves: Rows of wave vector x and z, radians per metre, amplitude, metres, and phase. [K, 4]
        paint: Index of its paint.
        hem: Whether it is fastened at its edge -x, as a flag is.
        foot: Radius at which hills begin to rise, metres.
        slope: How steep they get; 0 for none.
        solid: Whether below it (+y) no viewer can be.
    """

    center: np.ndarray
    rotation: np.ndarray
    half: tuple[float, float]
    waves: np.ndarray
    paint: int
    hem: bool = False
    foot: float = 1.0
    slope: float = 0.0
    solid: bool = False

    def height(self, x: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Evaluate the sheet.

        Args:
            x: Metres in its own plane. [N]
            z: Likewise. [N]

        Returns:
            Its y and the derivatives of that along x and z. [N] each.

        Raises:
            RuntimeError: The shapes do not fit.
        """
        kx, kz, amplitude, phase = torch.from_numpy(self.waves).to(x).T[:, :, None]
        angle = torch.addcmul(torch.addcmul(phase, kx, x), kz, z)
        y, change = (amplitude * angle.sin()).sum(0), angle.cos_().mul_(amplitude)
        along_x, along_z = (kx * change).sum(0), (kz * change).sum(0)
        if self.hem:
            share = ((x + self.half[0]) / (2 * self.half[0])).clamp(0, 1)
            y, along_x, along_z = y * share, along_x * share + y / (2 * self.half[0]), along_z * share
        if self.slope:
            # A hyperbola: flat inside the foot, straight outside it.
            radius = (x * x + z * z + self.foot**2).sqrt()
            y = y - self.slope * (radius - self.foot)
            along_x, along_z = along_x - self.slope * x / radius, along_z - self.slope * z / radius
        return y, along_x, along_z

    @property
    def reach(self) -> float:
        """Radius of a ball around the middle that holds it, metres."""
        low, high = self._span()
        return float(np.linalg.norm([*self.half, max(-low, high)]))

    def place(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give what paint and light need to know.

        Args:
            points: On the sheet. float32 [3, N].

        Returns:
            Place in the sheet's own axes, and normal in the world's. float32 [3, N] each.

        Raises:
            RuntimeError: The shapes do not fit.
        """
        turn = torch.from_numpy(self.rotation).to(points)
        local = _turned(turn, points - torch.from_numpy(self.center).to(points)[:, None])
        _, along_x, along_z = self.height(local[0], local[2])
        normal = torch.stack([along_x, -torch.ones_like(along_x), along_z])
        return local, _turned(turn.T, normal / normal.norm(dim=0))

    def hold(self, points: np.ndarray, margin_m: float) -> np.ndarray:
        """Tell which points lie below it or within a margin of it. float64 [N, 3] to bool [N]."""
        x, y, z = torch.from_numpy((points - self.center) @ self.rotation).unbind(-1)
        over = (x.abs() <= self.half[0] + margin_m) & (z.abs() <= self.half[1] + margin_m)
        gap = y - self.height(x, z)[0]
        return (over & ((gap > -margin_m) if self.solid else (gap.abs() <= margin_m))).numpy()

    def meet(self, origin: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
        """Find where rays first meet it.

        Args:
            origin: Where they start. float32 [3, 1] or [3, N].
            directions: Unit vectors. float32 [3, N].

        Returns:
            Metres along each ray; infinite where it is missed. float32 [N].

        Raises:
            RuntimeError: The shapes do not fit.
        """
        turn = torch.from_numpy(self.rotation).to(directions)
        o = _turned(turn, origin - torch.from_numpy(self.center).to(directions)[:, None]).expand_as(directions)
        d = _turned(turn, directions)
        near, far = self._bounds(o, d)
        found = torch.full_like(near, torch.inf)
        live = (near < far).nonzero()[:, 0]
        t, (slope, curve) = near[live], self._bends()
        for _ in range(_STEPS // _ROUND if len(live) else 0):
            oo, dd, end = o[:, live], d[:, live], far[live]
            for _ in range(_ROUND):
                gap, change = self._gap(oo + t * dd, dd)
                safe = torch.maximum(gap / slope, (change + (change * change + 2 * curve * gap).sqrt()) / curve)
                done = gap < 2e-4 * (1 + 0.1 * t)
                t = t + safe * (~done & (t <= end))
            hit = done & (t <= end)
            found[live[hit]] = self._refined(oo[:, hit], dd[:, hit], t[hit])
            keep = (~done & (t <= end)).nonzero()[:, 0]
            live, t = live[keep], t[keep]
            if not len(live):
                break
        return found

    def _gap(self, points: torch.Tensor, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how far points are from the sheet along y, and how that changes along the rays."""
        level, along_x, along_z = self.height(points[0], points[2])
        gap, change = points[1] - level, d[1] - along_x * d[0] - along_z * d[2]
        return gap.abs(), torch.where(gap < 0, -change, change)

    def _refined(self, o: torch.Tensor, d: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the distances after Newton's method; a step stays small where a ray grazes."""
        for _ in range(_NEWTON):
            x, y, z = o + t * d
            height, along_x, along_z = self.height(x, z)
            fall = d[1] - along_x * d[0] - along_z * d[2]
            fall = torch.where(fall.abs() < 1e-3, torch.full_like(fall, torch.inf), fall)
            t = t - ((y - height) / fall).clamp(-0.02, 0.02)
        return t

    def _bounds(self, o: torch.Tensor, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where rays enter and leave the box that holds the sheet."""
        low, high = self._span()
        lower = torch.tensor([-self.half[0], low, -self.half[1]]).to(d)[:, None]
        upper = torch.tensor([self.half[0], high, self.half[1]]).to(d)[:, None]
        inverse = 1 / torch.where(d.abs() < 1e-9, torch.full_like(d, 1e-9), d)
        first, second = (lower - o) * inverse, (upper - o) * inverse
        return torch.minimum(first, second).amax(0).clamp_min(0), torch.maximum(first, second).amin(0)

    def _span(self) -> tuple[float, float]:
        """Return bounds of its y."""
        tall = float(np.abs(self.waves[:, 2]).sum()) + 1e-3
        return -tall - self.slope * max(0.0, float(np.hypot(*self.half)) - self.foot), tall

    def _bends(self) -> tuple[float, float]:
        """Return bounds of the first and second derivative of a gap along any ray."""
        amplitude, length = np.abs(self.waves[:, 2]), np.hypot(self.waves[:, 0], self.waves[:, 1])
        hem = 1 / (2 * self.half[0]) if self.hem else 0.0
        slope = (length * amplitude).sum() + self.slope + amplitude.sum() * hem
        curve = (length**2 * amplitude).sum() + self.slope / self.foot + 2 * hem * (length * amplitude).sum()
        return float(np.hypot(1.0, slope)), float(curve)


def _turned(turn: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Return vectors [3, N] in the axes that the columns of ``turn`` [3, 3] are."""
    return (turn[:, :, None] * vectors[:, None]).sum(0)


def waves(*rows: tuple[float, float, float, float]) -> np.ndarray:
    """Describe waves as one would.

    Args:
        rows: Wavelength in metres, heading in degrees from x towards z, amplitude in metres, phase in turns.

    Returns:
        What ``Sheet.waves`` holds. float64 [K, 4].

    Raises:
        ZeroDivisionError: A wavelength is 0.
    """
    return np.array([[2 * np.pi / length * np.cos(np.radians(heading)), 2 * np.pi / length * np.sin(np.radians(heading)),
                      amplitude, 2 * np.pi * phase] for length, heading, amplitude, phase in rows])
