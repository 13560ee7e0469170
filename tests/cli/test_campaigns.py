"""What is said of a campaign: how it began, and the table after it."""

from __future__ import annotations

from dataclasses import replace

from llmpower.cli.campaigns import settled_notes, settled_text, summary, warmth_text
from llmpower.profiling import Cell, CellResult, Settled


def result(trials: int = 3, *, is_narrow: bool = True, skipped: str | None = None, **sides: int) -> CellResult:
    cell = Cell(**{"input_tokens": 128, "output_tokens": 2048, "batch_size": 1, "concurrency": 1} | sides)
    figures = (12.3456, 0.123, 23456.7, 12.0) if trials else (None, None, None, None)
    return CellResult(cell, trials, *figures, is_narrow, skipped)


def test_what_is_one_everywhere_has_no_column() -> None:
    lines = summary([result(), result(is_narrow=False), result(0, skipped="too long")], chosen=False)
    assert lines == [
        "τin  τout  TRIALS  RUNTIME [s]  ± 95 % [s]  ENERGY [J]  ± 95 % [J]  NOTE",
        "128  2048       3        12.35        0.12      23,457          12",
        "128  2048       3        12.35        0.12      23,457          12  still wide",
        "128  2048       0            –           –           –           –  too long",
    ]
    assert max(map(len, lines)) <= 80
    beside = summary([result(), result(concurrency=16)], chosen=False)
    assert beside[0].split()[:6] == ["τin", "τout", "AT", "A", "TIME", "TRIALS"]
    assert [line.split()[2] for line in beside[1:]] == ["1", "16"]


def test_of_nothing_there_is_no_table() -> None:
    assert summary([result(0)], chosen=False) == []
    (_, line) = summary([result(is_narrow=False)], chosen=True)
    assert not line.endswith("wide")


def test_how_warm_the_devices_were_when_trials_began() -> None:
    assert settled_text(Settled(7.0, None, False)) == "power not known after 7 s"
    warmth = Settled(21.0, 226.31, True, 52.0, 1.0)
    assert settled_text(warmth) == "226.3 W, 52 °C, moved by 1 °C lately after 21 s"
    assert warmth_text({}) is None
    notes = settled_notes(warmth)
    begun = "trials began at 226.3 W, 52 °C, moved by 1 °C lately after 21 s of work"
    assert warmth_text(notes) == begun
    assert warmth_text(settled_notes(replace(warmth, is_steady=False))) == f"{begun}, not yet steady"
