"""Over which hours of the day a plan's energy lies, and what a kWh is then.

Queries of one cell are alike but for their hour, and a plan says how many of a cell go where, not which. So each hour
has of a cell's energy the part that it has of the cell's queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.forms import FloatArray
from llmpower.routing.costing.costs import Costs
from llmpower.routing.problem.rates import Weigh
from llmpower.routing.problem.tariff import HOURS, Tariff
from llmpower.routing.problem.workload import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Hours:
    """The hour of the day, 0 to 23, at which each row of a workload came: ``of_row`` (n_rows,).

    ``place`` says where, and is empty where times are taken as they stand.
    ``per_kwh`` has the least, mean and largest rate at each hour, each (24,), NaN where the tariff has none.
    """

    of_row: IntArray
    place: str
    per_kwh: Mapping[Weigh, tuple[FloatArray, FloatArray, FloatArray]]

    @classmethod
    def of(cls, tariff: Tariff, timestamps: NDArray[Any] | Any) -> Hours:
        """Of the workload's times, dates or seconds (n_rows,)."""
        place = tariff.zone.key if tariff.zone is not None else "" if tariff.day else "UTC"
        return cls(tariff.hours(timestamps), place, tariff.by_hour())

    def queries(self, row_counts: IntArray) -> FloatArray:
        """Of each hour (24,)."""
        return np.bincount(self.of_row, row_counts, HOURS).astype(np.float64)

    def energy_j(self, costs: Costs, divisions: Iterable[FloatArray | IntArray]) -> FloatArray:
        """Joules of each division of the queries, (n_cells, n_models) each: (n_divisions, 24, n_models)."""
        workload = costs.workload
        met, of_row = np.unique(workload.row_cells.astype(np.int64) * HOURS + self.of_row, return_inverse=True)
        cell, hour = np.divmod(met, HOURS)
        part = np.bincount(of_row.ravel(), workload.row_counts) / workload.count[cell]
        return np.array(
            [
                np.column_stack([np.bincount(hour, part * of_cell[cell], HOURS) for of_cell in (x * costs.energy_j).T])
                for x in divisions
            ]
        )
