"""The page of results says what the results say."""

from __future__ import annotations

from types import ModuleType


def test_the_accuracy_page_is_up_to_date(accuracy_page: ModuleType) -> None:
    written = accuracy_page.PAGE.read_text(encoding="utf-8")
    assert written == accuracy_page.accuracy_page(), "run python benchmarks/make_accuracy_page.py"
