"""Figures in readable form, for logs, ``status`` and tables."""

from __future__ import annotations

from math import floor, log10

PREFIXES = {-3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T"}
"""Of the powers of a thousand, for :func:`quantity`."""

SIMULATED = "SIMULATED: joules of a simulated device. They say nothing about real hardware."
"""Above any table whose joules are none."""

SIMULATED_GPU = "SIMULATED: the GPU is simulated, and none of its joules are real"
"""Wherever somebody looks at what is measured now."""


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


def number(value: float, digits: int = 4, *, zeros: bool = False) -> str:
    """``0.01234``, ``12.34``, ``1,234``, ``1.234e-07``: this many significant digits, and all before the point.

    With ``zeros`` those at the end too, by which a column shows how far each of its figures is known: ``1.500``.
    """
    whole = 10 ** min(digits, 3) * (1 - 0.5 * 10**-digits)
    if abs(value) >= whole:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".removesuffix(".") if zeros and value else f"{value:.{digits}g}"


def plural(count: int, noun: str) -> str:
    """``1 row``, ``1,234 rows``, ``2 queries``."""
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else many}"


def quantity(value: float, unit: str) -> str:
    """``12.3 kJ``, ``4.56 mJ``, ``0 J``: three digits and the prefix that leaves one to three before the point."""
    if not value:
        return f"0 {unit}"
    power = min(max(floor(log10(abs(value) * 1.0005) / 3), -3), 4)
    scaled = value / 1000.0**power
    return f"{scaled:.{max(0, 2 - floor(log10(abs(scaled) * 1.0005)))}f} {PREFIXES[power]}{unit}"


def percent(fraction: float) -> str:
    """``1.2 %``, ``0.012 %``, ``34.5 %``: a decimal, and two digits that count where that is less."""
    value = 100 * fraction
    return f"{value:.1f} %" if abs(value) >= 0.95 or not value else f"{value:.2g} %"
