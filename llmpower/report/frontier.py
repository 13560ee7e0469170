"""Efficient plans out of a table that ``llmpower route --frontier`` wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llmpower.exceptions import InputError
from llmpower.report.plans import Plans, Step
from llmpower.routing.problem.accuracy import Weighting
from llmpower.routing.problem.rates import AMOUNTS, PER_POINT, Weigh
from llmpower.tables import number_of, shown_cell

if TYPE_CHECKING:
    import pandas as pd


def read_steps(frontier: pd.DataFrame, *, simulated: bool, weighting: Weighting = "tokens") -> Plans:
    """Plans of a table that ``route --frontier`` wrote, pursuing that mean accuracy.

    Raises:
        InputError: a row lacks a figure, or has one that no plan has.
    """
    names = [column.removeprefix("share:") for column in frontier.columns if column.startswith("share:")]
    # Of what is pursued, and of nothing else, a front says what a point of accuracy is worth.
    weighs: Weigh = next((kind for kind, column in PER_POINT.items() if column in frontier.columns), "energy")
    rows = enumerate(frontier.to_dict("records"), start=1)
    steps = sorted((_read(row, number, names, weighs) for number, row in rows), key=lambda step: step.zeta)
    found = Plans(steps, names, weighting, 0, simulated, {}, weighs=weighs)
    amount, accuracy = np.array([(found.amount(step), found.accuracy(step)) for step in steps]).T
    # The knee: furthest from the line between the ends, both aims scaled to what is achieved.
    spans = np.ptp(amount) or 1.0, np.ptp(accuracy) or 1.0
    return replace(found, chosen=int(np.argmax(accuracy / spans[1] - amount / spans[0])))


def _read(row: Mapping[Any, Any], number: int, names: Sequence[str], weighs: Weigh) -> Step:
    """One row of a frontier, counted from 1."""

    def needed(column: str, *, fraction: bool = False) -> float:
        value = number_of(row.get(column))
        if not (0 <= value <= 1 if fraction else 0 < value < np.inf):
            advice = f"row {number} holds no plan's {column}; write the file again with llmpower route --frontier"
            raise InputError("--frontier", shown_cell(row.get(column)), advice)
        return value

    known: dict[str, Any] = {name: _number(row.get(name)) for name in ("accuracy_query_mean", *AMOUNTS.values())}
    if (amount := AMOUNTS.get(weighs)) is not None:
        known[amount] = needed(amount)
    by_token = _number(row.get("accuracy_token_weighted"))
    if by_token is None and known["accuracy_query_mean"] is None:
        by_token = needed("accuracy_token_weighted", fraction=True)
    return Step(
        zeta=needed("zeta", fraction=True),
        energy_j=needed("energy_j"),
        runtime_s=needed("runtime_s"),
        accuracy_token_weighted=by_token,
        **known,
        amount_per_point=_number(row.get(PER_POINT.get(weighs, "joules_per_point"))),
        shares={name: needed(f"share:{name}", fraction=True) for name in names},
    )


def _number(value: object) -> float | None:
    found = number_of(value)
    return found if np.isfinite(found) else None
