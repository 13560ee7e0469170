"""Figures as people say them, for logs, ``status`` and tables."""

from __future__ import annotations

from math import floor, log10


def duration(seconds: float) -> str:
    """``12 s``, ``3 min 20 s``, ``2 h 3 min``, ``4 d 7 h``."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(seconds) % 60} s" if minutes else f"{seconds:.0f} s"


def joules(energy_j: float, std_j: float | None) -> str:
    """``1.23 ± 0.02 J``, ``412 ± 3 J``: to the first digit of the deviation, to its second where that is a 1."""
    if not std_j:
        return f"{energy_j:.3g} J"
    place = floor(log10(std_j))
    # 0.0997 rounds to 0.1, whose first digit is a place higher.
    if round(std_j, -place) >= 10 ** (place + 1):
        place += 1
    leading_one = std_j < 2 * 10**place
    decimals = max(0, -place + leading_one)
    return f"{energy_j:.{decimals}f} ± {std_j:.{decimals}f} J"
