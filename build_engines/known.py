"""Know published checkpoints by their names: what they recommend and under which licence, where their files do not say.

Licences are those that the models' pages name; none of them was read for what it permits. A model card that lies with the
weights is believed before this table, and ``unknown`` stands wherever neither says.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Known:
    """A published checkpoint.

    Attributes:
        pattern: Regular expression that its names match whole, in lower case, other characters than letters and digits
            written as ``-``.
        channels: Input channels of its denoiser.
        license: Its licence, or ``unknown``.
        recommends: Entries as of pano4d.json.
    """

    pattern: str
    channels: int
    license: str
    recommends: Mapping[str, Any] = field(default_factory=dict)


LCM_SCHEDULER = "AnimateLCMSVDStochasticIterativeScheduler"
LCM = {"num_inference_steps": 4, "solver": "lcm", "levels": "lcm", "min_guidance_scale": 1.0, "max_guidance_scale": 1.2}
"""What the demonstration of AnimateLCM-SVD takes; its authors name 1 to 8 steps and a guidance of 1 to 1.5."""

KNOWN = (
    Known(r"animatelcm-svd.*", 8, UNKNOWN, {"num_frames": 25, **LCM}),
    Known(r"animate-anything-svd.*", 9, UNKNOWN, {"num_frames": 14}),
    Known(r"(stable-video-diffusion-img2vid-xt-1-1|svd-xt-1-1)(-fp16)?", 8,
          "stable-video-diffusion-1-1-community", {"num_frames": 25}),
    Known(r"(stable-video-diffusion-img2vid-xt|svd-xt)(-fp16)?", 8,
          "stable-video-diffusion-community", {"num_frames": 25}),
    Known(r"(stable-video-diffusion-img2vid|svd)(-fp16)?", 8,
          "stable-video-diffusion-community", {"num_frames": 14}),
)


def recognise(names: Iterable[str], channels: int) -> Known | None:
    """Find the published checkpoint that something is.

    Args:
        names: Names that it goes by, such as that of its folder; the first that is known counts.
        channels: Input channels of its denoiser: a model tuned from another often keeps that one's name in a file.

    Returns:
        What is known of it; None for others.
    """
    plain = [re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") for name in names]
    return next((known for name in plain for known in KNOWN
                 if known.channels == channels and re.fullmatch(known.pattern, name)), None)


def card_license(folder: Path) -> str | None:
    """Read the licence that a model card names in the lines between its first two ``---``.

    Args:
        folder: Folder of the checkpoint.

    Returns:
        ``license_name`` where ``license`` is ``other``, else ``license``; None where there is no card or no licence.
    """
    try:
        lines = (folder / "README.md").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    if not lines or lines[0].strip() != "---":
        return None
    entries = {}
    for line in lines[1:]:
        if line.strip() == "---":
            break
        key, colon, value = line.partition(":")
        if colon and value.strip():
            entries[key] = value.strip().strip("'\"")
    named = entries.get("license_name") if entries.get("license") in (None, "other") else None
    return named or entries.get("license")
