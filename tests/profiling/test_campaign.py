from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from llmpower.profiling import (
    Campaign,
    Cell,
    CellTooLargeError,
    Journal,
    Skipped,
    StoppingRule,
    Trial,
    WarmedUp,
    make_grid,
)
from llmpower.types import Measurement, Span

GRID = make_grid((8, 16), (4, 32))
RULE = StoppingRule(ci_half_width_s=0.5, max_trials=6, min_trials=3)


class Steps:
    """A workload of given runtimes: those of cells in ``noisy`` alternate by 4 s, those in ``large`` do not fit."""

    def __init__(self, span: Span, noisy: tuple[Cell, ...] = (), large: tuple[Cell, ...] = ()) -> None:
        self.span = span
        self.noisy = noisy
        self.large = large
        self.warmed: list[Cell] = []
        self.measured: list[Cell] = []

    def warm_up(self, cell: Cell) -> None:
        if cell in self.large:
            raise CellTooLargeError("no room")
        self.warmed.append(cell)

    def measure(self, cell: Cell) -> Span:
        if cell in self.large:
            raise CellTooLargeError("no room")
        self.measured.append(cell)
        runtime_s = cell.output_tokens / 10 + (4 * (len(self.measured) % 2) if cell in self.noisy else 0)
        return structs.replace(self.span, first_token_ns=None, end_ns=self.span.start_ns + round(runtime_s * 1e9))


@pytest.fixture
def span(make_measurement: Callable[..., Measurement]) -> Span:
    return make_measurement().span


def test_quiet_cells_stop_early_and_noisy_ones_at_the_most(span: Span) -> None:
    noisy = GRID[0]
    campaign = Campaign(GRID, RULE)
    steps = Steps(span, noisy=(noisy,))
    events = list(campaign.run(steps))
    trials = {cell: sum(isinstance(event, Trial) and event.cell == cell for event in events) for cell in GRID}
    assert trials == {cell: 6 if cell == noisy else 3 for cell in GRID}
    assert [result.trials for result in campaign.results()] == [trials[cell] for cell in GRID]
    assert [result.is_narrow for result in campaign.results()] == [cell != noisy for cell in GRID]
    assert campaign.unfinished() == []


def test_each_shape_of_prompt_is_warmed_up_first_and_never_counts(span: Span) -> None:
    steps = Steps(span)
    events = list(Campaign(GRID, RULE).run(steps))
    assert [type(event) for event in events[:3]] == [WarmedUp, WarmedUp, Trial]
    assert steps.warmed == [Cell(8, 4, 1), Cell(16, 4, 1)]
    assert len(steps.measured) == 12


def test_cells_take_turns(span: Span) -> None:
    steps = Steps(span)
    list(Campaign(GRID, RULE, seed=3).run(steps))
    assert all(sorted(steps.measured[start : start + 4]) == list(GRID) for start in (0, 4, 8))


def test_a_cell_that_does_not_fit_is_left_out_and_said(span: Span) -> None:
    large = Cell(16, 32, 1)
    campaign = Campaign(GRID, RULE)
    events = list(campaign.run(Steps(span, large=(large,))))
    assert [event for event in events if isinstance(event, Skipped)] == [Skipped(large, "no room")]
    (result,) = [result for result in campaign.results() if result.cell == large]
    assert (result.trials, result.mean_runtime_s, result.half_width_s, result.skipped) == (0, None, None, "no room")


def test_a_campaign_that_was_broken_off_goes_on_as_if_it_had_not_been(tmp_path: Path, span: Span) -> None:
    large = Cell(16, 32, 1)
    whole = Steps(span, noisy=GRID[:1], large=(large,))
    list(Campaign(GRID, RULE, seed=7).run(whole))

    path = tmp_path / "journal.jsonl"
    parts = Steps(span, noisy=GRID[:1], large=(large,))
    with Journal(path, {}) as journal:
        for event in Campaign(GRID, RULE, seed=7, journal=journal).run(parts):
            if isinstance(event, Trial) and len(parts.measured) == 5:
                break
    with Journal(path, {}, resume=True) as journal:
        campaign = Campaign(GRID, RULE, seed=7, journal=journal)
        assert sum(result.trials for result in campaign.results()) == 5
        list(campaign.run(parts))
    assert parts.measured == whole.measured
    with Journal(path, {}, resume=True) as journal:
        again = Campaign(GRID, RULE, seed=7, journal=journal)
        assert list(again.run(parts)) == []
        assert again.results() == campaign.results()


def test_a_resumed_campaign_may_have_another_grid(tmp_path: Path, span: Span) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, {}) as journal:
        list(Campaign(GRID, RULE, journal=journal).run(Steps(span)))
    with Journal(path, {}, resume=True) as journal:
        campaign = Campaign((GRID[0], Cell(64, 4, 1)), RULE, journal=journal)
        assert campaign.unfinished() == [Cell(64, 4, 1)]


def test_the_time_left_is_unknown_at_first_then_follows_what_was_seen(span: Span) -> None:
    campaign = Campaign(GRID, RULE)
    assert campaign.expected_left_s() is None
    left = [campaign.expected_left_s() for event in campaign.run(Steps(span)) if isinstance(event, Trial)]
    # Two cells of 0.4 s and two of 3.2 s, three trials each; a token costs 0.1 s in all of them.
    total_s = 3 * 2 * (0.4 + 3.2)
    assert left[0] in (pytest.approx(total_s - 0.4), pytest.approx(total_s - 3.2))
    assert left[-1] == 0
    assert left == sorted(left, reverse=True)
