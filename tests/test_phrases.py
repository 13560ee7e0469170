from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmpower.phrases import duration, joules, number, percent, plural, quantity


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 s"),
        (59.4, "59 s"),
        (60.0, "1 min 0 s"),
        (119.9, "1 min 59 s"),
        (3599.0, "59 min 59 s"),
        (7384.2, "2 h 3 min"),
        (86400 * 4 + 3600 * 7, "4 d 7 h"),
    ],
)
def test_durations_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("energy_j", "std_j", "said"),
    [
        (1.234, 0.0217, "1.23 ± 0.02 J"),
        (412.3, 3.3, "412 ± 3 J"),
        (1.2345, 0.0123, "1.234 ± 0.012 J"),
        (5.0, 0.0997, "5.00 ± 0.10 J"),
        (12345.0, 123.0, "12345 ± 123 J"),
        (0.0012, 0.00019, "0.00120 ± 0.00019 J"),
        (1.5, None, "1.5 J"),
        (0.0, 0.0, "0 J"),
    ],
)
def test_joules_to_the_digit_that_is_known(energy_j: float, std_j: float | None, said: str) -> None:
    assert joules(energy_j, std_j) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0 J"),
        (1.0, "1.00 J"),
        (12.34, "12.3 J"),
        (999.4, "999 J"),
        (999.6, "1.00 kJ"),
        (-1234.0, "-1.23 kJ"),
        (1.5e6, "1.50 MJ"),
        (0.00123, "1.23 mJ"),
        (5e15, "5000 TJ"),
    ],
    ids=str,
)
def test_quantities_have_three_digits_and_a_prefix(value: float, said: str) -> None:
    assert quantity(value, "J") == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0"), (0.012345, "0.01235"), (999.94, "999.9"), (1234.5, "1,234"), (1e-7, "1e-07")],
    ids=str,
)
def test_numbers_have_four_digits_that_count(value: float, said: str) -> None:
    assert number(value) == said


@pytest.mark.parametrize(
    ("digits", "said"), [(2, ["0.12", "99", "100", "1,234"]), (3, ["0.123", "99.4", "99.6", "1,234"])], ids=str
)
def test_numbers_have_as_many_digits_as_are_asked_for_and_all_before_the_point(digits: int, said: list[str]) -> None:
    assert [number(value, digits) for value in (0.1234, 99.4, 99.6, 1234.4)] == said


@pytest.mark.parametrize(
    ("fraction", "said"), [(0.0, "0.0 %"), (0.345, "34.5 %"), (0.00123, "0.12 %"), (-0.5, "-50.0 %")], ids=str
)
def test_fractions_in_percent(fraction: float, said: str) -> None:
    assert percent(fraction) == said


@pytest.mark.parametrize(("count", "said"), [(0, "0 rows"), (1, "1 row"), (1234, "1,234 rows")], ids=str)
def test_one_is_not_many(count: int, said: str) -> None:
    assert plural(count, "row") == said
    assert plural(count, "query") == said.replace("row", "query").replace("querys", "queries")


def test_what_is_said_has_a_space_before_the_sign() -> None:
    """Python's own format for percentages has none."""
    sources = (Path(__file__).parents[1] / "llmpower").rglob("*.py")
    assert [str(source) for source in sources if re.search(r":[^{}\"%]*%\}", source.read_text("utf-8"))] == []
