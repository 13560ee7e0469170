"""What it costs to start the command line, as ratios against importing Click and against a statistics stack.

Every command is run as a fresh process, in turn with the others, so that a machine whose speed drifts slows all of
them alike; the figures are medians of wall time. ``llmpower status`` runs with no daemon: it imports, connects, and
says in one line that nobody answers.

    python benchmarks/startup.py [--runs 15] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "import click": [sys.executable, "-c", "import click"],
    "llmpower --help": [sys.executable, "-m", "llmpower.cli.main", "--help"],
    "llmpower status": [sys.executable, "-m", "llmpower.cli.main", "status", "--socket", "/dev/null/none.sock"],
    "import statsmodels": [sys.executable, "-c", "import statsmodels.api"],
}


def main() -> None:
    """Measure, print a table, and write the figures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(arguments.runs + 1):
        for name, command in COMMANDS.items():
            start_s = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            if number:  # the first round warms the disk cache
                seconds[name].append(time.perf_counter() - start_s)
    medians = {name: statistics.median(values) for name, values in seconds.items()}

    base_s = medians["import click"]
    print(f"{'':20}{'median':>10}{'× import click':>17}{'of statsmodels':>17}")
    for name, median_s in medians.items():
        against = median_s / medians["import statsmodels"]
        print(f"{name:20}{median_s * 1e3:>7.0f} ms{median_s / base_s:>17.2f}{against:>16.0%}")
    if arguments.json:
        result = {
            "what": "wall time to start a process, median",
            "runs": arguments.runs,
            "python": platform.python_version(),
            "processors": os.cpu_count(),
            "median_s": medians,
            "ratio_to_import_click": {name: median_s / base_s for name, median_s in medians.items()},
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
