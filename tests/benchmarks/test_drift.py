"""The page on drift says what the simulation found, and the simulation runs."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from llmpower.daemon.comparing.drift import Chart

DOCS = Path(__file__).parents[2] / "docs"


def test_it_runs_and_finds_a_large_shift(benchmarks: Path, tmp_path: Path) -> None:
    command = [sys.executable, benchmarks / "drift.py", "--courses=4", "--blocks=60", f"--json={tmp_path}/drift.json"]
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    result = json.loads((tmp_path / "drift.json").read_text())
    assert [row["correlation"] for row in result["false_alarms"]] == [0.0, 0.5, 0.7, 0.8, 0.9]
    assert all(row["found_within_400_blocks"] == 1 for row in result["delays"] if row["shift_sigmas"] >= 3)


def test_the_page_has_the_figures(benchmarks: Path) -> None:
    result = json.loads((benchmarks / "results" / "drift.json").read_text())
    page = (DOCS / "drift.md").read_text(encoding="utf-8")
    assert f"{result['courses']} runs of {result['blocks']:,} blocks each" in " ".join(page.split())
    alarms = re.findall(r"^\| ([\d.]+) \| (\d+) of 200 \| (?:over|about)? ?([\d,]+) blocks", page, re.MULTILINE)
    for row, (correlation, courses, blocks) in zip(result["false_alarms"], alarms, strict=True):
        assert (row["correlation"], row["courses_with_an_alarm"]) == (float(correlation), int(courses))
        found = row["mean_blocks_to_an_alarm"] or row["more_than_blocks"]
        assert abs(int(blocks.replace(",", "")) / found - 1) < 0.02
    delays = re.findall(r"^\| (\d+) σ \| (\d+)[^|]*\| (\d+)", page, re.MULTILINE)
    medians = [row["median_blocks"] for row in result["delays"]]
    assert [(float(shift), float(a), float(b)) for shift, a, b in delays] == [
        (row["shift_sigmas"], first, second)
        for row, first, second in zip(result["delays"][::2], medians[::2], medians[1::2], strict=True)
    ]


def test_the_pages_example_takes_as_long_as_it_says() -> None:
    page = (DOCS / "drift.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"costs 10 % more, where the model claims 5\s%, is then found after some (\d+) minutes", page)
    noise, blocks = np.random.default_rng(3).normal(0, 0.01, (40, 300)), []
    for course in noise:
        chart = Chart(math.log1p(0.05))
        for number, y in enumerate(course, start=-199):
            chart.add_block(y + math.log(1.1) * (number > 0))
            if chart.drifted:
                blocks.append(number)
                break
    assert len(blocks) == 40
    assert 0.8 < float(np.median(blocks)) / int(said) < 1.2
