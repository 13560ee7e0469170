"""What devices can draw: thermal design powers by name, and the units that a wrong power reveals.

The table follows the vendors' data sheets, W for one device; where a name stands for several boards, the largest, so
that no valid row is flagged. Sensors read up to 5 % high.
"""

from __future__ import annotations

import re

PLAUSIBLE_W = (20.0, 1500.0)
"""What one device that runs a model draws."""

LEAST_W = 1.0
MOST_W = 1200.0
MOST_DEVICES = 16
"""Where nothing is known of the devices, no more than this many and no larger ones are taken for possible."""

SENSOR = 1.05
FAR_ABOVE = 10.0
"""This many times the design power is not an excursion but another unit."""

# Longest names first where one contains another.
_TDP_W = (
    ("gb300", 1400.0),
    ("gb200", 1200.0),
    ("b300", 1400.0),
    ("b200", 1000.0),
    ("gh200", 1000.0),
    ("h200", 700.0),
    ("h100 pcie", 350.0),
    ("h100", 700.0),
    ("h800", 700.0),
    ("h20", 400.0),
    ("a100", 400.0),
    ("a800", 400.0),
    ("a40", 300.0),
    ("a30", 165.0),
    ("a10g", 300.0),
    ("a10", 150.0),
    ("a2", 60.0),
    ("l40s", 350.0),
    ("l40", 300.0),
    ("l4", 72.0),
    ("t4", 70.0),
    ("v100", 300.0),
    ("p100", 300.0),
    ("rtx 5090", 575.0),
    ("rtx 4090", 450.0),
    ("rtx 3090 ti", 450.0),
    ("rtx 3090", 420.0),
    ("rtx a6000", 300.0),
    ("rtx 6000 ada", 300.0),
    ("mi300x", 750.0),
    ("mi250x", 560.0),
)
_FACTORS = (
    ("the energy in µJ", 1e-6),
    ("the energy in mJ", 1e-3),
    ("the energy in kJ", 1e3),
    ("the energy in Wh", 3.6e3),
    ("the energy in kWh", 3.6e6),
    ("the runtime in ms", 1e3),
    ("the runtime in µs", 1e6),
    ("the runtime in ns", 1e9),
)


def tdp_w(system: str) -> float | None:
    """Design power of one device of ``system`` [W], ``None`` where its name is not known.

    Where several are named (``1× NVIDIA A100 + 1× NVIDIA H100``), the largest.
    """
    words = re.sub(r"[^a-z0-9]+", " ", system.lower())
    found = []
    for name, watts in _TDP_W:
        if re.search(rf"\b{name}\b", words):
            found.append(watts)
            words = re.sub(rf"\b{name}\b", " ", words)
    return max(found) if found else None


def device_count(system: str) -> int | None:
    """``2× NVIDIA H100 + 1× NVIDIA A100`` → 3; ``None`` where the name does not begin with a count."""
    counts = [re.match(r"(\d+)\s*[×x] ", part.strip()) for part in system.split(" + ")]
    return sum(int(count[1]) for count in counts if count) if all(counts) else None


def likely_units(watts: float) -> list[str]:
    """Which mistakes of a unit would turn what one device draws into these W."""
    low, high = PLAUSIBLE_W
    return [unit for unit, factor in _FACTORS if low <= watts * factor <= high]
