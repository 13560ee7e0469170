"""The pages of results say what the results say."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType


def test_the_accuracy_page_is_up_to_date(accuracy_page: ModuleType) -> None:
    written = accuracy_page.PAGE.read_text(encoding="utf-8")
    assert written == accuracy_page.accuracy_page(), "run python benchmarks/make_accuracy_page.py"


def test_the_page_on_the_paper_s_case_is_up_to_date(paper_case_page: ModuleType) -> None:
    written = paper_case_page.PAGE.read_text(encoding="utf-8")
    assert written == paper_case_page.paper_case_page(), "run python benchmarks/make_paper_case_page.py"


def test_the_page_of_a_real_card_is_up_to_date(h100_page: ModuleType) -> None:
    written = h100_page.PAGE.read_text(encoding="utf-8")
    assert written == h100_page.h100_page(), "run python benchmarks/make_h100_page.py"


def test_the_page_of_benchmarks_is_up_to_date(benchmarks_page: ModuleType) -> None:
    written = benchmarks_page.PAGE.read_text(encoding="utf-8")
    assert written == benchmarks_page.benchmarks_page(), "run python benchmarks/make_benchmarks_page.py"


def test_figures_of_the_comparison_are_those_of_the_benchmark(accuracy_page: ModuleType) -> None:
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in accuracy_page.accuracy_page().split("## Without a counter")[0].splitlines()
        if line.startswith(("| card", "| a100", "| h100", "| rtx4090", "| v100"))
    ]
    head, *rows = table
    page = " ".join(accuracy_page.PAGE.with_name("comparison.md").read_text(encoding="utf-8").split())

    def errors(tool: str, span: str) -> tuple[float, float]:
        found = [float(row[head.index(tool)]) for row in rows if row[3] == span]
        return min(found), max(found)

    for text, tool, span in (
        ("at 5 s its mean error was {:.1f} to {:.1f} %", "ZeusMonitor", "5 s"),
        ("At 100 ms it was {:.0f} to {:.0f} %", "ZeusMonitor", "100 ms"),
        ("llmpower, which divides the ticks, was off by {:.1f} to {:.1f} %", "llmpower", "100 ms"),
        ("off by {:.1f} to {:.1f} % for tasks of 5 s", "CodeCarbon", "5 s"),
        ("by {:.0f} to {:.0f} % for tasks of 100 ms", "CodeCarbon", "100 ms"),
    ):
        assert text.format(*errors(tool, span)) in page


def test_figures_of_the_readme_are_those_of_the_results(benchmarks: Path) -> None:
    page = " ".join((benchmarks.parent / "README.md").read_text(encoding="utf-8").split())
    accuracy, daemon, allocation, case, card = (
        json.loads((benchmarks / "results" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("accuracy", "daemon", "allocation", "paper_case", "gpu-nvidia-h100-80gb-hbm3")
    )

    def errors(tool: str, span_s: float) -> list[float]:
        return [100 * row["tools"][tool]["error"] for row in accuracy["rows"] if row["span_s"] == span_s]

    second, tenth = errors("llmpower", 1.0), errors("llmpower", 0.1)
    assert f"of 1 s are off by {min(second):.2f} to {max(second):.2f} % on average" in page
    assert f"requests of 100 ms by {min(tenth):.1f} to {max(tenth):.1f} %" in page
    assert f"up to {max(errors('nvidia-ml-py', 1.0)):.1f} and {max(errors('nvidia-ml-py', 0.1)):.0f} %" in page
    of_all = accuracy["coverage"]["all"]
    covered = [100 * row["tools"]["llmpower"]["coverage"] for row in accuracy["rows"]]
    assert f"truth in {100 * of_all['coverage']:.1f} % of {of_all['windows']:,} windows" in page
    assert f"{min(covered):.1f} to {max(covered):.1f} % of every kind" in page

    idle = daemon["idle"]["llmpower"]
    assert f"{100 * idle['cpu_share']:.2f} % of one processor and {idle['rss_bytes'] / 2**20:.0f} MiB at rest" in page

    at_16 = {rule: f"{100 * error:.0f} %" for rule, error in allocation["tables"]["by concurrency"]["16"].items()}
    assert f"they were off by {at_16['llmpower']}; equal shares were off by {at_16['equal']}" in page
    assert f"shares by tokens by {at_16['tokens']}" in page

    tenth_s, third_s = card["repeated"][2:4]
    for found in (
        f"work came out {100 * tenth_s['llmpower']['spread']:.0f} % apart at 0.1 s",
        f"{100 * tenth_s['zeus']['spread']:.0f} % at 0.1 s and {100 * third_s['zeus']['spread']:.0f} % at 0.3 s",
    ):
        assert found in page

    saved = {
        workload: max(
            row["saving"] for of in case["equal_accuracy"] if of["workload"] == workload for row in of["rows"]
        )
        for workload in ("published", "azure")
    }
    assert f"takes up to {100 * saved['published']:.0f} % less energy" in page
    assert f"up to {100 * saved['azure']:.0f} % less on real conversations" in page
