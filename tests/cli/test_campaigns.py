"""The table after a campaign."""

from __future__ import annotations

from llmpower.cli.campaigns import summary
from llmpower.profiling import Cell
from llmpower.profiling.campaign import CellResult


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
