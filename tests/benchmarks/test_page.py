"""The pages of results say what the results say."""

from __future__ import annotations

from types import ModuleType


def test_the_accuracy_page_is_up_to_date(accuracy_page: ModuleType) -> None:
    written = accuracy_page.PAGE.read_text(encoding="utf-8")
    assert written == accuracy_page.accuracy_page(), "run python benchmarks/make_accuracy_page.py"


def test_the_page_on_the_paper_s_case_is_up_to_date(paper_case_page: ModuleType) -> None:
    written = paper_case_page.PAGE.read_text(encoding="utf-8")
    assert written == paper_case_page.paper_case_page(), "run python benchmarks/make_paper_case_page.py"


def test_the_page_of_benchmarks_is_up_to_date(benchmarks_page: ModuleType) -> None:
    written = benchmarks_page.PAGE.read_text(encoding="utf-8")
    assert written == benchmarks_page.benchmarks_page(), "run python benchmarks/make_benchmarks_page.py"
