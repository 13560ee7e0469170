"""The measuring campaign: one trial after another, until the order says that there are enough.

It knows no model and no meter. A :class:`~llmpower.profiling.workload.Workload` runs one trial of a cell and returns
its span, which by then is on its way to whoever measures it; its joules are known when the counters have moved past its
end, most of a second later. A campaign that waited for them after each trial would spend more time waiting than
measuring, so it goes on with what is decided already, and waits only where the next decision depends on joules that are
still to come.

Every step is yielded as an event, so that whoever drives it can show progress, or stop: what was done is in the
journal. A trial is written there when it has run and its joules when they are known; one that a kill caught in between
is asked about when the campaign goes on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean

from llmpower.exceptions import LlmpowerError
from llmpower.profiling.events import CellResult, Event, Plan, Skipped, Trial, WarmedUp
from llmpower.profiling.grid import Cell
from llmpower.profiling.journal import Journal
from llmpower.profiling.orders import EveryCell, Order
from llmpower.profiling.pace import Pace
from llmpower.profiling.readings import Joules, Readings
from llmpower.profiling.stopping import StoppingRule, half_width
from llmpower.profiling.workload import CellTooLargeError, Workload
from llmpower.types import Span

PATIENCE = 3
"""Trials in a row whose joules stay unknown, after which a campaign that decides by joules gives up."""

PROBE_TOKENS = (1, 8)


class Campaign:
    """The trials of ``cells``; those already in ``journal`` count.

    Args:
        cells: the grid.
        rule: when a cell is known well enough.
        seed: of the order.
        journal: where trials are kept, and come from when one goes on.
        order: which trial is next; by default every cell until ``rule`` has enough of it.
        now_s: a clock that is never set.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        rule: StoppingRule,
        *,
        seed: int = 0,
        journal: Journal | None = None,
        order: Order | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rule = rule
        self._order: Order = order or EveryCell(cells, rule, seed)
        self._journal = journal
        self._now_s = now_s
        self._between_s: list[float] = []
        self._pace = Pace()
        self._readings = {cell: Readings() for cell in cells}
        self._left_out: dict[Cell, str] = {}
        self._waiting: deque[tuple[Cell, int, Span]] = deque()
        self._orphans: list[tuple[Cell, int, str]] = []
        self._unknown = 0
        self._is_warm = False
        if journal is not None:
            self._left_out = {cell: reason for cell, reason in journal.skipped.items() if cell in self._readings}
            for span_id, kept in journal.trials.items():
                self._pace.saw(kept.cell, kept.runtime_s)
                # A resumed campaign may have a smaller grid; what it does not ask for is left alone.
                if kept.cell in self._readings:
                    readings = self._readings[kept.cell]
                    readings.runtimes_s.append(kept.runtime_s)
                    readings.joules.append(kept.joules)
                    if kept.joules is None:
                        self._orphans.append((kept.cell, len(readings) - 1, span_id))

    def prepare(self, workload: Workload) -> Iterator[Event]:
        """Warm up every shape of prompt, and see how long the shortest and the longest take."""
        self._is_warm = True
        shapes = _shapes(self._readings.keys() - self._left_out.keys()) if self.unfinished() else []
        for cell in shapes:
            try:
                workload.warm_up(cell)
            except CellTooLargeError:
                # Its own trial will find out, and say so.
                continue
            yield WarmedUp(cell)
        for cell in dict.fromkeys((*shapes[:1], *shapes[-1:])):
            for output_tokens in PROBE_TOKENS:
                probe = Cell(cell.input_tokens, output_tokens, cell.batch_size, cell.concurrency)
                try:
                    self._pace.saw(probe, workload.probe(probe))
                except CellTooLargeError:
                    continue

    def run(self, workload: Workload) -> Iterator[Event]:
        """Measure until there have been enough trials, an event after each step.

        Raises:
            LlmpowerError: joules are needed and stay unknown.
        """
        if not self._is_warm:
            yield from self.prepare(workload)
        self._ask_about_orphans(workload)
        ended_s = self._now_s()
        while True:
            self._settle(workload, 0.0)
            wanted = self._order.wanted(self._readings, self._left_out)
            if not wanted and not self._waiting:
                break
            cell = self._order.choose(wanted, self._readings) if wanted else None
            if cell is None or self._hangs_on_joules(cell):
                # What is known next may end the cell, or choose another.
                self._settle(workload, workload.patience_s)
                continue
            try:
                span = workload.measure(cell)
            except CellTooLargeError as error:
                yield self._skip(cell, str(error))
                ended_s = self._now_s()
                continue
            before_s, ended_s = ended_s, self._now_s()
            self._between_s.append(max(ended_s - before_s - span.runtime_s, 0.0))
            readings = self._readings[cell]
            self._pace.saw(cell, span.runtime_s)
            readings.runtimes_s.append(span.runtime_s)
            readings.joules.append(None)
            if self._order.needs_energy:
                self._waiting.append((cell, len(readings) - 1, span))
            if self._journal is not None:
                self._journal.trial(cell, span)
            yield Trial(cell, len(readings), span)
        if self._journal is not None:
            self._journal.complete()

    def unfinished(self) -> list[Cell]:
        """The cells that want a trial now."""
        return self._order.wanted(self._readings, self._left_out)

    @property
    def is_choosing(self) -> bool:
        """Whether each trial decides where the next one is, instead of rounds over all cells."""
        return not isinstance(self._order, EveryCell)

    @property
    def trials(self) -> int:
        """Trials so far."""
        return sum(map(len, self._readings.values()))

    def plan(self, pause_s: float = 0.0) -> Plan:
        """What is still to come, each trial after a pause; or after what has come between trials by now, with the
        joules that are waited for.
        """
        if self._between_s:
            pause_s = fmean(self._between_s)
        expected = self._order.expected(self._readings, self._left_out)
        most = self._order.most(self._readings, self._left_out)
        return Plan(
            cells=len(self._readings) - len(self._left_out),
            done=self.trials,
            expected_trials=round(sum(expected.values())),
            most_trials=round(sum(most.values())),
            expected_s=self._time_s(expected, pause_s),
            most_s=self._time_s(most, pause_s),
        )

    def results(self) -> list[CellResult]:
        """Where every cell stands."""
        return [
            CellResult(
                cell=cell,
                trials=len(readings),
                mean_runtime_s=readings.mean_runtime_s,
                half_width_s=half_width(readings.runtimes_s),
                mean_energy_j=readings.mean_energy_j,
                half_width_j=half_width(readings.energies_j, readings.stds_j),
                is_narrow=self._rule.is_narrow(readings),
                skipped=self._left_out.get(cell),
            )
            for cell, readings in self._readings.items()
        ]

    def _time_s(self, trials: Mapping[Cell, float], pause_s: float) -> float | None:
        paces_s = self._pace.expected_s(trials)
        if paces_s is None:
            return None
        means_s = (self._readings[cell].mean_runtime_s for cell in trials)
        return sum(
            count * (pause_s + (pace_s if mean_s is None else mean_s))
            for count, pace_s, mean_s in zip(trials.values(), paces_s, means_s, strict=True)
        )

    def _hangs_on_joules(self, cell: Cell) -> bool:
        if not self._order.needs_energy or not self._waiting:
            return False
        # Rounds go on without the joules of other cells; a design that is fitted to all of them does not.
        return self.is_choosing or any(
            waiting == cell and len(self._readings[cell]) >= self._rule.min_trials for waiting, _, _ in self._waiting
        )

    def _settle(self, workload: Workload, wait_s: float) -> None:
        """Take what is known of the trials that wait, in their order, waiting for the first one of them."""
        while self._waiting:
            cell, number, span = self._waiting[0]
            joules = workload.joules(span, wait_s)
            if joules is None and wait_s <= 0:
                return
            wait_s = 0.0
            self._waiting.popleft()
            self._known(cell, number, span.span_id, joules)
            self._unknown = 0 if joules is not None else self._unknown + 1
            if self._unknown >= PATIENCE:
                raise LlmpowerError(
                    f"no joules are known of the last {PATIENCE} trials; 'llmpower doctor' says why, "
                    "and --ci-half-width with --cells all measures runtimes without them"
                )

    def _ask_about_orphans(self, workload: Workload) -> None:
        """What became of the trials whose joules an earlier run did not live to see; a daemon keeps the latest."""
        if self._order.needs_energy:
            for cell, number, span_id in self._orphans:
                self._known(cell, number, span_id, workload.joules_of(span_id))
        self._orphans.clear()

    def _known(self, cell: Cell, number: int, span_id: str, joules: Joules | None) -> None:
        self._readings[cell].joules[number] = joules
        if self._journal is not None and joules is not None:
            self._journal.joules(span_id, joules)

    def _skip(self, cell: Cell, reason: str) -> Skipped:
        self._left_out[cell] = reason
        if self._journal is not None:
            self._journal.skip(cell, reason)
        return Skipped(cell, reason)


def _shapes(cells: Iterable[Cell]) -> list[Cell]:
    """One cell for each shape of prompt: a first call of a shape costs many times as much as the next.

    The one with the fewest output tokens, since a warm-up need not be long.
    """
    shapes: dict[tuple[int, int, int], Cell] = {}
    for cell in sorted(cells):
        shapes.setdefault((cell.input_tokens, cell.batch_size, cell.concurrency), cell)
    return list(shapes.values())
