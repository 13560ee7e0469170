from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path

import pytest
from msgspec import structs

from llmpower.exceptions import LlmpowerError
from llmpower.profiling import (
    Campaign,
    Cell,
    CellTooLargeError,
    Joules,
    Journal,
    Readings,
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
    """A workload of given runtimes: those of cells in ``noisy`` alternate by 4 s, those in ``large`` do not fit.

    A trial costs 10 W; its joules are known ``late`` trials after it, or when they are waited for.
    """

    patience_s = 1.0

    def __init__(self, span: Span, noisy: tuple[Cell, ...] = (), large: tuple[Cell, ...] = ()) -> None:
        self.span = span
        self.noisy = noisy
        self.large = large
        self.late = 0
        self.remembers = True
        self.waits = 0
        self.runtimes_s: dict[str, float] = {}
        self.warmed: list[Cell] = []
        self.measured: list[Cell] = []

    def warm_up(self, cell: Cell) -> None:
        if cell in self.large:
            raise CellTooLargeError("no room")
        self.warmed.append(cell)

    def probe(self, cell: Cell) -> float:
        if cell.input_tokens in [large.input_tokens for large in self.large]:
            raise CellTooLargeError("no room")
        return cell.output_tokens / 10

    def joules(self, span: Span, wait_s: float) -> Joules | None:
        self.waits += wait_s > 0
        if wait_s == 0 and int(span.span_id) > len(self.measured) - self.late:
            return None
        return Joules(10 * span.runtime_s, 0.01)

    def joules_of(self, span_id: str) -> Joules | None:
        return Joules(10 * self.runtimes_s[span_id], 0.01) if self.remembers else None

    def measure(self, cell: Cell) -> Span:
        if cell in self.large:
            raise CellTooLargeError("no room")
        self.measured.append(cell)
        runtime_s = cell.output_tokens / 10 + (4 * (len(self.measured) % 2) if cell in self.noisy else 0)
        self.runtimes_s[str(len(self.measured))] = runtime_s
        end_ns = self.span.start_ns + round(runtime_s * 1e9)
        return structs.replace(self.span, span_id=str(len(self.measured)), first_token_ns=None, end_ns=end_ns)


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
    prepared, again = Campaign(GRID, RULE), Steps(span)
    list(prepared.prepare(again))
    assert isinstance(next(prepared.run(again)), Trial), "once is enough"


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
        assert campaign.plan().expected_s is not None, "what trials take is known from those that were run"
        list(campaign.run(parts))
    assert parts.measured == whole.measured
    with Journal(path, {}, resume=True) as journal:
        again = Campaign(GRID, RULE, seed=7, journal=journal)
        assert list(again.run(parts)) == []
        assert again.results() == campaign.results()
    with Journal(path, {}) as journal:
        assert journal.trials == {}, "it was complete, so the next one may take its place"


def test_a_resumed_campaign_may_have_another_grid(tmp_path: Path, span: Span) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, {}) as journal:
        list(Campaign(GRID, RULE, journal=journal).run(Steps(span)))
    with Journal(path, {}, resume=True) as journal:
        campaign = Campaign((GRID[0], Cell(64, 4, 1)), RULE, journal=journal)
        assert campaign.unfinished() == [Cell(64, 4, 1)]


def test_the_time_left_is_unknown_at_first_then_follows_what_was_seen(span: Span) -> None:
    campaign = Campaign(GRID, RULE)
    assert (campaign.plan().expected_trials, campaign.plan().expected_s, campaign.plan().most_s) == (12, None, None)
    steps = Steps(span)
    list(campaign.prepare(steps))
    # Two cells of 0.4 s and two of 3.2 s, three trials each, six at most; the probes have shown that a token is 0.1 s.
    total_s = 3 * 2 * (0.4 + 3.2)
    plan = campaign.plan(pause_s=1.0)
    assert (plan.cells, plan.done, plan.expected_trials, plan.most_trials) == (4, 0, 12, 24)
    assert (plan.expected_s, plan.most_s) == (pytest.approx(total_s + 12), pytest.approx(2 * total_s + 24))
    left = [campaign.plan().expected_s for event in campaign.run(steps) if isinstance(event, Trial)]
    assert left[0] in (pytest.approx(total_s - 0.4), pytest.approx(total_s - 3.2))
    assert left[-1] == 0
    assert left == sorted(left, reverse=True)


def test_the_time_left_includes_what_has_come_between_trials(span: Span) -> None:
    now_s = 100.0

    class Slow(Steps):
        def measure(self, cell: Cell) -> Span:
            nonlocal now_s
            found = super().measure(cell)
            # Two seconds of its own, whatever pause is asked for, and one more for what its joules hold up.
            now_s += found.runtime_s + 2.0 + len(self.measured) % 2
            return found

    campaign = Campaign(GRID, RULE, now_s=lambda: now_s)
    left_s = [(now_s, campaign.plan(pause_s=0.25).expected_s) for _ in campaign.run(Slow(span))]
    for at_s, each_s in left_s[3::2]:
        assert each_s == pytest.approx(now_s - at_s)


BY_ENERGY = StoppingRule(ci_half_width_s=None, energy_precision=0.05, max_trials=6, min_trials=3)


@pytest.mark.parametrize("late", [0, 1, 3])
def test_joules_that_come_late_cost_no_trial(span: Span, late: int) -> None:
    steps = Steps(span, noisy=GRID[:1])
    steps.late = late
    campaign = Campaign(GRID, BY_ENERGY)
    list(campaign.run(steps))
    assert [result.trials for result in campaign.results()] == [6, 3, 3, 3]
    assert [result.mean_energy_j for result in campaign.results()][1:] == [
        pytest.approx(cell.output_tokens) for cell in GRID[1:]
    ]
    if late < 2:
        assert steps.waits <= 4, "rounds go on meanwhile, and only the last trials of cells are waited for"


def test_joules_that_stay_unknown_end_a_campaign_that_decides_by_them(span: Span) -> None:
    class Blind(Steps):
        def joules(self, _span: Span, _wait_s: float) -> None:
            return None

    with pytest.raises(LlmpowerError, match="doctor"):
        list(Campaign(GRID, BY_ENERGY).run(Blind(span)))
    campaign = Campaign(GRID, RULE)
    list(campaign.run(Blind(span)))
    assert [result.mean_energy_j for result in campaign.results()] == [None] * 4


@pytest.mark.parametrize("remembers", [True, False])
def test_joules_that_came_after_the_kill_are_asked_for(tmp_path: Path, span: Span, remembers: bool) -> None:
    path = tmp_path / "journal.jsonl"
    steps = Steps(span)
    steps.late = 2
    with Journal(path, {}) as journal:
        for event in Campaign(GRID, BY_ENERGY, journal=journal).run(steps):
            if isinstance(event, Trial) and len(steps.measured) == 7:
                break
    with Journal(path, {}, resume=True) as journal:
        unknown = [kept for kept in journal.trials.values() if kept.joules is None]
        assert (len(journal.trials), len(unknown)) == (7, 3)
        steps.remembers = remembers
        list(Campaign(GRID, BY_ENERGY, journal=journal).run(steps))
    with Journal(path, {}, resume=True) as journal:
        known = sum(kept.joules is not None for kept in journal.trials.values())
    assert len(steps.measured) == (known if remembers else known + 3)
    assert len(steps.measured) == 12 or not remembers


class Twice:
    """An order of its own: the first cell, twice."""

    needs_energy = True

    def wanted(self, readings: Mapping[Cell, Readings], left_out: Container[Cell]) -> list[Cell]:
        return [GRID[0]] if len(readings[GRID[0]]) < 2 and GRID[0] not in left_out else []

    def choose(self, wanted: Sequence[Cell], _readings: Mapping[Cell, Readings]) -> Cell:
        return wanted[0]

    def expected(self, readings: Mapping[Cell, Readings], _left_out: Container[Cell]) -> dict[Cell, float]:
        return {GRID[0]: 2.0 - len(readings[GRID[0]])}

    most = expected


def test_whoever_chooses_cells_one_by_one_knows_all_joules_before_the_next(span: Span) -> None:
    steps = Steps(span)
    steps.late = 5
    campaign = Campaign(GRID, BY_ENERGY, order=Twice())
    list(campaign.run(steps))
    assert campaign.is_choosing
    assert steps.waits == 2, "the joules of one trial before the next"
    assert steps.measured == [GRID[0]] * 2
