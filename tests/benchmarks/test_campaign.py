"""A campaign and its grid, interleaved: a machine that becomes slower while they are measured affects both."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmpower.profiling import Campaign, Cell, Joules, Trial, make_grid
from llmpower.types import Span

CELLS = make_grid((8, 32, 64, 128, 256, 512), (4, 8, 16, 32))
TRIALS = 3


class Slowing:
    """Trials that cost what their lengths say, and more from one to the next: half as much again in the end."""

    patience_s = 0.0

    def __init__(self) -> None:
        self.trials = 0
        self._random = np.random.default_rng(0)

    def warm_up(self, cell: Cell) -> None:
        pass

    def probe(self, cell: Cell) -> float:
        return self._cost(cell)

    def measure(self, cell: Cell) -> Span:
        self.trials += 1
        runtime_s = self._cost(cell) * (1 + self.trials / 180) * self._random.normal(1, 0.02)
        tokens = (cell.input_tokens, cell.output_tokens, 1)
        return Span(str(self.trials), "m", None, 0, None, round(runtime_s * 1e9), *tokens, "", 0)

    def joules(self, span: Span, _wait_s: float) -> Joules:
        return Joules(100 * span.runtime_s)

    def joules_of(self, _span_id: str) -> None:
        return None

    def _cost(self, cell: Cell) -> float:
        return 0.05 + 0.001 * cell.input_tokens + cell.output_tokens * (0.02 + 1e-5 * cell.input_tokens)


def measured(events: Sequence[tuple[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (name, "m", of.span.input_tokens, of.span.output_tokens, of.span.runtime_s, 100 * of.span.runtime_s)
            for name, of in events
            if isinstance(of, Trial)
        ],
        columns=["campaign", "model_name", "input_tokens", "output_tokens", "runtime_s", "gpu_energy_j"],
    )


@pytest.fixture
def campaigns(turns: ModuleType) -> dict[str, Campaign]:
    orders = turns.orders(CELLS, TRIALS, 0)
    return {name: Campaign(CELLS, turns.rule_of(TRIALS), order=order) for name, order in orders.items()}


def test_each_chosen_trial_stands_amid_its_part_of_the_grid(
    turns: ModuleType, judging: ModuleType, grids: ModuleType, campaigns: dict[str, Campaign]
) -> None:
    rows = measured(list(turns.in_turns(campaigns, Slowing())))
    (chosen,) = np.nonzero(rows["campaign"] == "chosen")
    assert len(chosen) == 18
    assert len(rows) == 18 + TRIALS * len(CELLS)
    assert list(chosen // 5) == list(range(18)), "one in five, all along"
    judged = judging.judge(real(grids, rows, together=True))
    assert judged.share == 0.25
    assert abs(judged.drift) < 0.03
    assert judged.excess < 0.03
    grid = judging.fitted(rows[rows["campaign"] == "grid"]).energy
    assert grid.label == "paper+intercept"
    assert judged.grid_error == pytest.approx(grid.heldout.mape), "the form's intercept is part of it"


def test_after_its_grid_a_campaign_is_held_against_another_machine(
    judging: ModuleType, grids: ModuleType, campaigns: dict[str, Campaign]
) -> None:
    workload = Slowing()
    events = [(name, event) for name in ("grid", "chosen") for event in campaigns[name].run(workload)]
    judged = judging.judge(real(grids, measured(events), together=False))
    assert judged.drift > 0.1
    assert judged.excess > 0.1


def test_who_knows_the_grids_model_but_for_one_factor_is_off_by_what_the_trials_are(
    judging: ModuleType, grids: ModuleType
) -> None:
    factors = (0.9, 1.0, 1.1)
    rows = pd.DataFrame(
        [
            ("m", c.input_tokens, c.output_tokens, 1.0, (1 + 0.02 * c.output_tokens) * by)
            for c in CELLS
            for by in factors
        ],
        columns=["model_name", "input_tokens", "output_tokens", "runtime_s", "gpu_energy_j"],
    )
    grid, costly = grids.Grid("test", "m", "cached", rows), list(rows.index[2::9])
    off = [abs(1.1 / by - 1) for by in factors]
    assert judging.one_factor(grid, costly) == pytest.approx(np.mean(off), rel=1e-6)
    assert judging.anew(grid, costly) == pytest.approx(np.mean(off), rel=1e-6)


def real(grids: ModuleType, rows: pd.DataFrame, *, together: bool) -> Any:
    of = {name: part.reset_index(drop=True) for name, part in rows.groupby("campaign")}
    return grids.Real(grids.Grid("test", "m", "cached", of["grid"]), of["chosen"], together=together)
