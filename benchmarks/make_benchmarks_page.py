"""Writes docs/benchmarks.md from the committed results; run it after any benchmark whose results you keep.

python benchmarks/make_benchmarks_page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sections import measuring, planning

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"

SECTIONS = (
    measuring.daemon,
    measuring.scrape,
    measuring.startup,
    measuring.overhead,
    measuring.slow_counter,
    planning.fitting,
    planning.fleet,
    planning.campaign,
    planning.routing,
    planning.online,
    measuring.allocation,
)
"""In their order; each is called as its results are."""

HEAD = """# Benchmarks

Written by `python benchmarks/make_benchmarks_page.py` from `benchmarks/results/*.json`. Each section is one program and
one run, with its peers in the same minutes on the same machine: two shared processors of a virtual machine without a
GPU. So ratios within a section are meaningful; measure seconds on your own machine with `make bench`. Bars that are
missed are named. [Accuracy](accuracy.md), [allocation](allocation.md), [drift](drift.md) and [the paper's
case](paper_case.md) have pages of their own.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(benchmarks_page(), encoding="utf-8")
    print(PAGE)


def benchmarks_page() -> str:
    """The page as it has to be."""
    return "\n".join([HEAD, *(section(read(section.__name__)) for section in SECTIONS)])


def read(name: str) -> dict[str, Any]:
    """The results of a benchmark."""
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return document


if __name__ == "__main__":
    main()
