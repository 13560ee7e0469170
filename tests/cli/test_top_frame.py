"""A frame fits into the terminal whatever there is to be shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statuses import answer

from llmpower.cli.layout import Line, width
from llmpower.cli.top_frame import frame
from llmpower.cli.watching import figures


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


HEAD = {"time": "2026-01-02T03:04:05.678+00:00", "connected": True}


def ticked(*answers: dict[str, Any] | None) -> dict[str, Any]:
    return HEAD | figures(*answers)


def crowd(devices: int, models: int, **changes: Any) -> dict[str, Any]:
    """A tick of a machine with this many of each."""
    status = answer(**changes)
    status["devices"] = [status["devices"][0] | {"uuid": f"GPU-{number}"} for number in range(devices)]
    status["models"] = [status["models"][0] | {"model_name": f"model-{number}"} for number in range(models)]
    return ticked(None, status)


def test_what_a_person_reads_at_80_columns() -> None:
    tick = ticked(answer(100.0), answer(110.0))
    assert texts(frame(tick, columns=80, rows=24)) == [
        "llmpower top  03:04:05 UTC  daemon 1.2.3, pid 77, up 1 min 50 s",
        "SIMULATED: the GPU is simulated, and none of its joules are real",
        "requests  2 running, 1 to be measured, 4.00/s measured, 440 in all, 3 refused",
        "meter     200 reads/s, 0 missed, late < 10 µs (p99 < 100 µs); 1.0 % CPU, 58 MiB",
        "drift     40 requests compared with their models, none drifted",
        "figures   of the last 10 s; joules are booked up to 0.5 s ago",
        "",
        "DEVICE            NOW W  LIMIT W  MEAN W  IDLE %  UNATTR %  REQ  J/REQ  J/TOKEN",
        "0 Simulated A100  251.3      400   300.0      30      10.0   40   45.0    0.900",
        "1 package-0           –        –   300.0      30      10.0   40   45.0    0.900",
        "",
        "MODEL  REQ/s  TOKENS/s  J/REQ  J/TOKEN  REQ IN ALL  OF PREDICTED",
        "llama   4.00       200   45.0    0.900         440         1.023",
    ]


def test_a_wide_terminal_shows_how_near_the_limit_a_card_is() -> None:
    (card,) = [line for line in texts(frame(crowd(1, 1), columns=120)) if line.startswith("0 ")]
    assert "  ██████████······  251.3      400" in card


def test_cards_have_the_numbers_that_the_daemon_tells_and_their_places_where_an_older_one_does_not() -> None:
    def first_words(**changes: Any) -> list[str]:
        status = answer()
        status["devices"] = [device | changes for device in status["devices"]]
        return [line.split()[0] for line in texts(frame(ticked(None, status), columns=80))[8:10]]

    assert first_words() == ["0", "1"]
    assert first_words(number=5) == ["5", "5"]


@pytest.mark.parametrize("columns", range(30, 80))
def test_a_narrow_terminal_shows_fewer_figures_and_each_of_them_whole(columns: int) -> None:
    wide, narrow = (texts(frame(crowd(2, 2), columns=room)) for room in (79, columns))
    for at, line in enumerate(wide):
        if line.startswith(("DEVICE", "0 ", "1 ", "MODEL", "model-")):
            assert set(narrow[at].split()[3:]) <= set(line.split())


def test_what_is_wrong_is_in_red_and_not_too_long() -> None:
    problems = [{"what": f"problem {number}\x1b[2J", "fix": "fix"} for number in range(5)]
    lines = frame(crowd(1, 1, problems=problems), columns=80, rows=24)
    red = [line.text for line in lines if line.style == "bad"]
    assert red == ["! problem 0?[2J", "! problem 1?[2J", "! problem 2?[2J", "! and 2 more: llmpower status"]


def test_drift_and_stalls_are_told() -> None:
    status = answer()
    status["drift"]["charts"][0]["drifted"] = True
    status["devices"][0]["stalled_s"] = 130.0
    lines = frame(ticked(None, status), columns=100)
    red = "\n".join(line.text for line in lines if line.style == "bad")
    assert "1 DRIFTED" in red
    assert "1.023 DRIFTED" in red
    assert "stalled 2 min 10 s" in red
    status["drift"] = {"models_file": None, "models": 0, "outcomes": {}, "charts": []}
    assert "llmpower daemon --models" in "\n".join(texts(frame(ticked(None, status), columns=100)))


def test_a_crowd_is_cut_and_counted() -> None:
    lines = texts(frame(crowd(16, 10), columns=80, rows=24))
    assert len(lines) <= 24
    assert [line for line in lines if line.startswith("… and ")] == ["… and 7 more", "… and 7 more"]
    assert len(texts(frame(crowd(16, 10), columns=80))) == 10 + 16 + 10


@pytest.mark.parametrize("note", ["", "NO ANSWER for 3 s"])
@given(st.integers(1, 200), st.integers(1, 60), st.integers(0, 40), st.integers(0, 10))
def test_it_fits_any_terminal(note: str, columns: int, rows: int, devices: int, models: int) -> None:
    lines = frame(crowd(devices, models), columns=columns, rows=rows, note=note)
    assert len(lines) <= rows
    assert all(width(line.text) <= columns for line in lines)


def test_before_any_request_there_is_nothing_to_tell() -> None:
    status = answer(1.0, models=[], devices=[])
    lines = texts(frame(ticked(None, status), columns=80, rows=24))
    assert lines.count("none yet") == 2
