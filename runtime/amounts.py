"""Read and write amounts of memory, and large numbers."""

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


def parse_count(text: str) -> int:
    """Read a number of things.

    Args:
        text: A whole number, or one in thousands or millions, as in ``131072``, ``500k`` or ``1.5M``.

    Returns:
        The number, at least 1.

    Raises:
        SettingsError: It is none.
    """
    plain = text.strip().upper()
    factor = {"K": 10**3, "M": 10**6}.get(plain[-1:], 1)
    try:
        value = float(plain[:-1]) * factor if factor > 1 else int(plain)
        if not 1 <= value < math.inf:
            raise ValueError
    except ValueError:
        raise SettingsError(f"{text!r} is no number: write for instance 131072, 500k or 1.5M.") from None
    return round(value)


def amount(size_bytes: float) -> str:
    """Write an amount of memory for people, such as ``12.8 GB``."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.3g} {unit}" if size_bytes < 100 * factor else f"{size_bytes / factor:.0f} {unit}"
    return f"{size_bytes:.0f} B"
