"""Read and write amounts of memory."""

import math

from pano4d.runtime.errors import SettingsError

_UNITS = {"GB": 10**9, "GIB": 2**30, "MB": 10**6, "MIB": 2**20}


def parse_bytes(text: str) -> int:
    """Read an amount of memory.

    Args:
        text: A number and ``GB``, ``GiB``, ``MB`` or ``MiB``, as in ``24GB`` or ``1.5 GiB``.

    Returns:
        Bytes.

    Raises:
        SettingsError: It is none.
    """
    plain = text.strip().upper()
    unit = next((unit for unit in _UNITS if plain.endswith(unit)), None)
    try:
        value = float(plain.removesuffix(unit)) * _UNITS[unit]
        if not 1 <= value < math.inf:
            raise ValueError
    except (TypeError, KeyError, ValueError):
        raise SettingsError(f"{text!r} is no amount of memory: write for instance 24GB, 24GiB or 800MiB.") from None
    return int(value)


def amount(size_bytes: float) -> str:
    """Write an amount of memory for people, such as ``12.8 GB``."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.3g} {unit}" if size_bytes < 100 * factor else f"{size_bytes / factor:.0f} {unit}"
    return f"{size_bytes:.0f} B"
