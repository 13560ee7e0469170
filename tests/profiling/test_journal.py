from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.exceptions import InputError
from llmpower.profiling import Cell, Joules, Journal, asked_before
from llmpower.profiling.journal import Kept
from llmpower.types import Measurement

SETTINGS = {"model_name": "llama", "kv_cache": True}
CELL, OTHER = Cell(8, 4, 1), Cell(16, 4, 1)

MakeMeasurement = Callable[..., Measurement]


def an_unfinished(path: Path, make_measurement: MakeMeasurement) -> None:
    with Journal(path, SETTINGS) as journal:
        journal.trial(CELL, make_measurement().span)
        journal.joules("span-0", Joules(100.0, 1.0))
        journal.skip(OTHER, "out of GPU memory")


def test_a_resumed_journal_holds_what_was_written(tmp_path: Path, make_measurement: MakeMeasurement) -> None:
    path = tmp_path / "journal.jsonl"
    an_unfinished(path, make_measurement)
    with Journal(path, SETTINGS, resume=True) as journal:
        assert journal.trials == {"span-0": Kept(CELL, 2.0, Joules(100.0, 1.0))}
        assert journal.skipped == {OTHER: "out of GPU memory"}
        journal.trial(OTHER, make_measurement(1).span)
        journal.complete()
    assert [next(iter(json.loads(line))) for line in path.read_text().splitlines()] == [
        "schema",
        "span_id",
        "joules_of",
        "skipped",
        "span_id",
        "complete",
    ]


def test_a_line_that_a_kill_tore_is_dropped(tmp_path: Path, make_measurement: MakeMeasurement) -> None:
    path = tmp_path / "journal.jsonl"
    an_unfinished(path, make_measurement)
    whole = path.read_bytes()
    torn = b'{"span_id": "torn \xc3\xa9", "input_tokens": 8'
    for n in range(1, len(torn) + 1):
        path.write_bytes(whole + torn[:n])
        with Journal(path, SETTINGS, resume=True) as journal:
            assert journal.trials == {"span-0": Kept(CELL, 2.0, Joules(100.0, 1.0))}
        assert path.read_bytes() == whole


def test_a_journal_that_a_kill_tore_anywhere_goes_on(tmp_path: Path, make_measurement: MakeMeasurement) -> None:
    """With the first line too, which was to say what it is."""
    path = tmp_path / "journal.jsonl"
    an_unfinished(path, make_measurement)
    whole = path.read_bytes()
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        with Journal(path, SETTINGS, resume=True) as journal:
            assert set(journal.trials) == ({"span-0"} if whole.count(b"\n", 0, n) > 1 else set())
        assert path.read_bytes().endswith(b"\n")


def test_an_unfinished_campaign_is_not_overwritten(tmp_path: Path, make_measurement: MakeMeasurement) -> None:
    path = tmp_path / "journal.jsonl"
    an_unfinished(path, make_measurement)
    before = path.read_bytes()
    with pytest.raises(InputError, match="a campaign with 1 trial done is unfinished there; add --resume"):
        Journal(path, SETTINGS)
    assert path.read_bytes() == before


def test_a_complete_campaign_is_started_anew_or_resumed(tmp_path: Path, make_measurement: MakeMeasurement) -> None:
    path = tmp_path / "journal.jsonl"
    an_unfinished(path, make_measurement)
    with Journal(path, SETTINGS, resume=True) as journal:
        journal.complete()
    with Journal(path, SETTINGS, resume=True) as journal:
        assert len(journal.trials) == 1
        journal.trial(OTHER, make_measurement(1).span)
    # The grid has grown since: what was complete no longer is.
    with pytest.raises(InputError, match="--resume"):
        Journal(path, SETTINGS)
    with Journal(path, SETTINGS, resume=True) as journal:
        journal.complete()
    with Journal(path, SETTINGS) as journal:
        assert journal.trials == {}
    assert len(path.read_text().splitlines()) == 1


def test_notes_are_kept_and_do_not_hide_that_a_campaign_is_complete(
    tmp_path: Path, make_measurement: MakeMeasurement
) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, SETTINGS) as journal:
        journal.note("idle_before_w", 61.5)
        journal.trial(CELL, make_measurement().span)
        journal.complete()
        journal.note("idle_after_w", None)
    with Journal(path, SETTINGS, resume=True) as journal:
        assert journal.notes == {"idle_before_w": 61.5, "idle_after_w": None}
        assert journal.trials == {"span-0": Kept(CELL, 2.0)}
    with Journal(path, SETTINGS) as journal:
        assert (journal.trials, journal.notes) == ({}, {})


def test_a_plan_that_was_only_looked_at_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for model_name in ("one", "another"):
        with Journal(path, {"model_name": model_name}) as journal:
            assert journal.trials == {}


def test_what_was_asked_for_last_is_what_a_campaign_goes_on_with(
    tmp_path: Path, make_measurement: MakeMeasurement
) -> None:
    path = tmp_path / "journal.jsonl"
    assert asked_before(path) == {}
    with Journal(path, SETTINGS, asked={"input_tokens": "8,16"}):
        assert asked_before(path) == {"input_tokens": "8,16"}
    # Nothing has begun, so another may be asked for.
    with Journal(path, SETTINGS, asked={"input_tokens": "8"}) as journal:
        journal.trial(CELL, make_measurement().span)
        journal.complete()
    with Journal(path, SETTINGS, resume=True, asked={"input_tokens": "8,16"}) as journal:
        assert journal.trials.keys() == {"span-0"}
    path.write_bytes(path.read_bytes() + b'{"asked": {"input_tokens": "torn')
    assert asked_before(path) == {"input_tokens": "8,16"}
    with Journal(path, SETTINGS) as journal:
        assert journal.trials == {}, "it was complete, whatever was asked for since"
    assert asked_before(path) == {}


@given(text=st.text())
def test_what_is_no_journal_asks_for_nothing(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "no-journal.jsonl"
    path.write_text(text, encoding="utf-8", errors="replace")
    assert asked_before(path) == {}


def test_a_journal_of_before_there_was_concurrency_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, SETTINGS):
        pass
    line = {"span_id": "a", "input_tokens": 8, "output_tokens": 4, "batch_size": 1, "runtime_s": 2.0}
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    with Journal(path, SETTINGS, resume=True) as journal:
        assert journal.trials == {"a": Kept(Cell(8, 4, 1, 1), 2.0)}


def test_resuming_what_never_began_begins(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl", SETTINGS, resume=True) as journal:
        assert journal.trials == {}


def test_a_campaign_with_other_settings_is_not_mixed_in(tmp_path: Path, make_measurement: MakeMeasurement) -> None:
    path = tmp_path / "journal.jsonl"
    an_unfinished(path, make_measurement)
    with pytest.raises(InputError, match='"kv_cache": false'):
        Journal(path, SETTINGS | {"kv_cache": False}, resume=True)


def test_two_campaigns_do_not_share_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, SETTINGS), pytest.raises(InputError, match="another campaign"):
        Journal(path, SETTINGS, resume=True)


def test_a_journal_that_cannot_be_written_is_said_as_such(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--journal"):
        Journal(tmp_path / "nowhere" / "journal.jsonl", SETTINGS)


@given(data=st.binary(max_size=60) | st.sampled_from([b"hello\n", b"[]\n", b'{"schema": "x"}\n', b"\n"]))
def test_a_file_that_is_no_journal_is_refused_and_kept(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("journal") / "file"
    path.write_bytes(data)
    if not data:
        return
    with pytest.raises(InputError, match="not a campaign's journal"):
        Journal(path, SETTINGS, resume=True)
    assert path.read_bytes() == data


A_TRIAL = '{"span_id": "a", "input_tokens": 8, "output_tokens": 4, "batch_size": 1, "runtime_s": %s}'


@pytest.mark.parametrize(
    "line",
    [
        '{"input_tokens": 8}',
        '{"skipped": "x"}',
        "[]",
        '{"runtime_s": "x"}',
        A_TRIAL % "NaN",
        A_TRIAL % "-1",
        '{"joules_of": "nobody", "energy_j": 1, "energy_std_j": 0}',
        '{"note": "idle", "value": "low"}',
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, SETTINGS):
        pass
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match="line 2"):
        Journal(path, SETTINGS, resume=True)
