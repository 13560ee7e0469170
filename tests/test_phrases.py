from __future__ import annotations

import pytest

from llmpower.phrases import duration, joules


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
