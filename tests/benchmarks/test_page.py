"""The pages of results say what the results say."""

from __future__ import annotations

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
