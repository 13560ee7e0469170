"""Progress is for whoever watches, and costs nobody else anything."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from llmpower.cli.progress import counted, shown, told

WORK = """
import sys
from llmpower.cli.progress import counted, shown, told
with shown("work") as progress:
    assert (progress is None) is not sys.stderr.isatty()
    items = range(1000)
    total = sum(items if progress is None else told(items, 1000, progress))
with shown("nothing") as progress:
    assert list(told((), 0, progress)) == []
with shown("stages") as progress:
    done = counted(progress, 3)
    done(), done(), done()
print(total)
"""


def test_a_bar_ends_full_also_where_there_was_nothing_to_do(on_terminal: Callable[..., Any]) -> None:
    terminal = on_terminal(sys.executable, "-c", WORK)
    assert terminal.wait() == 0
    assert [(line.split()[0], line.count("-"), line.split()[-1]) for line in terminal.lines[:3]] == [
        ("work", 0, "1000/1000"),
        ("nothing", 0, "1/1"),
        ("stages", 0, "3/3"),
    ]
    assert terminal.lines[3] == "499500"


def test_where_nobody_watches_there_is_nothing_to_call(capfd: pytest.CaptureFixture[str]) -> None:
    with shown("work") as progress:
        assert progress is None
        done = counted(progress, 2)
        done()
    assert capfd.readouterr() == ("", "")


def test_progress_is_told_now_and_then_and_at_the_end() -> None:
    heard: list[tuple[int, int]] = []
    # Rows may come while they are counted.
    assert list(told(range(105), 100, lambda done, total: heard.append((done, total)), steps=4)) == list(range(105))
    assert heard == [(25, 100), (50, 100), (75, 100), (100, 100), (105, 105)]
