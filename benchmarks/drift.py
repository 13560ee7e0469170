"""How often the chart of drift raises a false alarm, and how soon a true one: by simulation with the daemon's own code.

The worst case for false alarms: the true ratio lies exactly on the edge of what the model claims, for ever. Blocks err
together as an autoregressive process of first order, whose correlation the chart is not given. For an alarm that no run
had in its blocks, a bound is given: with 95 % confidence it is rarer than three in all of them.

    python benchmarks/drift.py --json benchmarks/results/drift.json      (half a minute on one core)
"""

from __future__ import annotations

import argparse
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np

from llmpower.daemon.comparing.drift import BLOCK_S, BLOCK_SPANS, MIN_BLOCKS, SIGMAS, WEIGHT, Chart

COURSES = 200
BLOCKS = 2000
CORRELATIONS = (0.0, 0.5, 0.7, 0.8, 0.9)
SHIFTS = (1.0, 2.0, 3.0, 5.0, 20.0)
"""Beyond the tolerance, in standard deviations of a block."""

NOISE = 0.02
TOLERANCE = 0.05
SETTLED, AFTER = 100, 400
"""Blocks before and after a shift."""


def courses(seed: int, n_courses: int, n_blocks: int, ρ: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Shape (n_courses, n_blocks), of standard deviation 1 and correlation ρ from block to block."""
    steps = np.random.default_rng(seed).normal(size=(n_courses, n_blocks))
    y = steps.copy()
    for t in range(1, n_blocks):
        y[:, t] = ρ * y[:, t - 1] + math.sqrt(1 - ρ**2) * steps[:, t]
    return y


def false_alarms(ρ: float, n_courses: int, n_blocks: int) -> dict[str, float | int | None]:
    """First alarms of courses on the edge of the tolerance; the time to one as that of a process without memory."""
    first = [first_alarm(Chart(TOLERANCE), course) for course in TOLERANCE + NOISE * courses(1, n_courses, n_blocks, ρ)]
    alarms = [block for block in first if block is not None]
    watched = sum(n_blocks if block is None else block for block in first)
    return {
        "correlation": ρ,
        "courses_with_an_alarm": len(alarms),
        "mean_blocks_to_an_alarm": watched / len(alarms) if alarms else None,
        "more_than_blocks": None if alarms else watched / 3,
    }


def delays(shift: float, ρ: float, n_courses: int) -> dict[str, float | int | None]:
    """Blocks from a shift of the mean from 0 to beyond the tolerance until the alarm."""
    found = []
    for course in NOISE * courses(2, n_courses, SETTLED + AFTER, ρ):
        chart = Chart(TOLERANCE)
        if first_alarm(chart, course[:SETTLED]) is None:
            found.append(first_alarm(chart, course[SETTLED:] + TOLERANCE + shift * NOISE))
    seen = [block for block in found if block is not None]
    return {
        "shift_sigmas": shift,
        "correlation": ρ,
        "found_within_400_blocks": len(seen) / len(found),
        "median_blocks": median(seen) if seen else None,
    }


def first_alarm(chart: Chart, blocks: np.ndarray[tuple[int], np.dtype[np.float64]]) -> int | None:
    """After how many blocks the chart first says that it has drifted."""
    for number, y in enumerate(blocks.tolist(), 1):
        chart.add_block(y)
        if chart.drifted:
            return number
    return None


def main() -> None:
    """Run, show, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--courses", type=int, default=COURSES, help="How many are simulated.")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="How long they are.")
    parser.add_argument("--json", type=Path, help="Write the figures to this file.")
    arguments = parser.parse_args()
    result = {
        "what": "false alarms on the edge of the tolerance, and blocks until a shift beyond it is found",
        "date": datetime.now(UTC).date().isoformat(),
        "courses": arguments.courses,
        "blocks": arguments.blocks,
        "settings": {
            "block_s": BLOCK_S,
            "block_spans": BLOCK_SPANS,
            "weight": WEIGHT,
            "sigmas": SIGMAS,
            "min_blocks": MIN_BLOCKS,
        },
        "false_alarms": [false_alarms(ρ, arguments.courses, arguments.blocks) for ρ in CORRELATIONS],
        "delays": [delays(shift, ρ, max(arguments.courses // 4, 1)) for shift in SHIFTS for ρ in (0.0, 0.5)],
    }
    print(json.dumps(result, indent=2))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
