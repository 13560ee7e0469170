"""Which form is kept: the best, or a simpler one that is as good."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from llmpower.modelling.fitted.models import HeldOut
from llmpower.modelling.forms import make_form
from llmpower.modelling.judging.choosing import Candidate, choose, paired_difference
from llmpower.modelling.regressing.regression import Regression
from llmpower.modelling.rows.moments import Sums

CELLS = np.arange(100)
NOISE = np.resize([0.01, -0.01], 100)

NOTHING = Sums(*(np.zeros(0) for _ in range(4)))


def candidate(form: str, errors: NDArray[np.float64] | None, negative: int = 0) -> Candidate:
    made = make_form(form)
    regression = Regression(made, np.empty((0, 0)), None, (), NOTHING, np.ones(len(made.terms)))
    if errors is None:
        return Candidate(regression, HeldOut(None, None, None, None), None, None)
    heldout = HeldOut(float(errors.mean()), float(np.median(errors)), float(errors.max()), negative)
    return Candidate(regression, heldout, errors, None)


def test_fewer_terms_win_within_one_standard_error() -> None:
    five, three = candidate("cached", np.full(100, 0.05)), candidate("recompute", 0.0505 + NOISE)
    chosen, others, reason = choose([five, three], CELLS)
    assert (chosen, others) == (three, [five])
    assert reason.startswith("recompute has 3 terms and is ")
    assert "behind cached with 5, within one standard error" in reason


def test_more_terms_win_where_they_are_better_by_more() -> None:
    five, three = candidate("cached", np.full(100, 0.05)), candidate("recompute", 0.06 + NOISE)
    chosen, _, reason = choose([three, five], CELLS)
    assert chosen is five
    assert reason.endswith("points of held-out MAPE before recompute")


def test_fewer_terms_win_nothing_by_predicting_below_zero() -> None:
    five, three = candidate("cached", np.full(100, 0.05)), candidate("paper", np.full(100, 0.04), negative=1)
    chosen, others, reason = choose([three, five], CELLS)
    assert (chosen, others) == (five, [three])
    assert "predicts no cell at or below zero, as paper would with a smaller error" in reason


def test_a_form_with_a_held_out_error_goes_before_one_without() -> None:
    unknown, known = candidate("recompute", None), candidate("cached", np.full(100, 0.5))
    assert choose([unknown, known], CELLS)[0] is known
    chosen, _, reason = choose([candidate("paper", None), unknown], CELLS)
    assert chosen is unknown
    assert reason.startswith("no form has a held-out error")


def test_one_form_alone_needs_no_reason() -> None:
    lone = candidate("cached", np.full(100, 0.05))
    assert choose([lone], CELLS) == (lone, [], "")


def test_standard_error_takes_a_cell_for_one_observation() -> None:
    difference = np.random.default_rng(2).normal(size=50)
    mean, error = paired_difference(difference, np.ones(50, dtype=int))
    assert mean == pytest.approx(difference.mean())
    assert error == pytest.approx(difference.std(ddof=1) / np.sqrt(50))
    repeated = paired_difference(20 * difference, np.full(50, 20))
    assert repeated == (pytest.approx(mean), pytest.approx(error))
