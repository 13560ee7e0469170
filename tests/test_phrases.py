from __future__ import annotations

import pytest

from llmpower.phrases import duration


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
