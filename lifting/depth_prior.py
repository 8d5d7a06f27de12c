"""Offer the weight-free guess as an estimator."""

import numpy as np

from pano4d.lifting.prior import prior_distance


class PriorDepth:
    """Guess distances from whole panoramas, without a model.

    Attributes:
        name: What reports call it.
        kind: Its distances claim to be metres.
        geometry: They are along the ray.
        panoramic: It sees whole panoramas.
    """

    name, kind, geometry, panoramic = "prior", "metric", "ray", True

    def __call__(self, panoramas: np.ndarray, fov_deg: float = 360.0) -> np.ndarray:
        """Guess the distances of panoramas.

        Args:
            panoramas: uint8 [B, H, W, 3].
            fov_deg: Not used.

        Returns:
            Metres. float32 [B, H, W].

        Raises:
            Nothing.
        """
        return np.stack([prior_distance(panorama) for panorama in panoramas])
