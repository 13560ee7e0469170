"""A plan read back into the workload's own rows: which model each query goes to.

Queries of one cell are interchangeable. Where a cell is divided, its first queries in input order go to the first of
its models, by name. A row that stands for several queries may itself be divided, and then appears once a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmpower.routing.plans.plan import RoutingPlan, check_plan
from llmpower.routing.pointers import MODELS_END, Choices
from llmpower.routing.problem import row_kernels
from llmpower.routing.problem.rates import UNITS
from llmpower.routing.problem.workload import IntArray, Workload

if TYPE_CHECKING:
    import pandas as pd

    from llmpower.routing.plans.loaded import Assigned
    from llmpower.routing.solving.assignment import Assignment


def models_per_query(plan: RoutingPlan) -> list[str]:
    """The model of each query in input order, of length n_queries (a row's ``count`` written out)."""
    check_plan(plan)
    names: list[str] = np.array(plan.model_names, dtype=object)[choice_per_query(plan)].tolist()
    return names


def choice_per_query(plan: RoutingPlan) -> Choices:
    """As :func:`models_per_query`, as numbers in ``plan.choices``, shape (n_queries,)."""
    return choices_of_rows(plan.workload, plan.assignment)


def choices_of_rows(workload: Workload, assigned: Assignment) -> Choices:
    """As :func:`choice_per_query`, of an assignment that is not a plan yet."""
    _, models, counts = runs(workload, assigned)
    return models if len(models) == workload.n_queries else np.repeat(models, counts)


def rows_table(plan: RoutingPlan, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``frame``, which the plan's workload was made from, with ``model_name`` as their last column.

    Where a model stands on several systems, ``system`` follows. A ``model_name`` or ``system`` that the frame had
    already is kept as ``workload_model_name`` or ``workload_system``, in place of an earlier one of that name. With a
    column ``count``, a row divided among models appears once for each, with its part of the count.

    Raises:
        InputError: the plan is not of these rows.
    """
    import pandas as pd

    check_plan(plan)
    plan.workload.check_rows(frame)
    rows, models, counts = runs(plan.workload, plan.assignment)
    table = (frame if rows is None else frame.iloc[rows]).reset_index(drop=True)
    if "count" in table.columns:
        table["count"] = counts
    for column, (names, codes) in name_columns(plan).items():
        if column in table.columns:
            table[f"workload_{column}"] = table.pop(column)
        # A few names, millions of times: categories take a byte per row in memory and in Parquet.
        table[column] = pd.Categorical.from_codes(codes[models], pd.Index(names))
    return table


def name_columns(plan: RoutingPlan | Assigned) -> dict[str, tuple[list[str], NDArray[Any]]]:
    """By column that a plan adds to its rows: the names that occur, and which of them each choice has."""
    found: dict[str, tuple[list[str], NDArray[Any]]] = {}
    for column, values in _names(plan).items():
        names: list[str] = list(dict.fromkeys(values))
        kind = np.int8 if len(names) < 2**7 else np.int32
        found[column] = names, np.array([names.index(value) for value in values], kind)
    return found


def cells_table(plan: RoutingPlan) -> pd.DataFrame:
    """A row for each cell and model that has queries: ``input_tokens, output_tokens, model_name, count``.

    Where a model stands on several systems, ``system`` follows it; where queries have a class, ``query_class``; where
    they came with rates, those.
    """
    import pandas as pd

    check_plan(plan)
    cells, models = np.nonzero(plan.assigned)
    return pd.DataFrame(
        {
            "input_tokens": plan.workload.input_tokens[cells],
            "output_tokens": plan.workload.output_tokens[cells],
            **{column: values[models] for column, values in _names(plan).items()},
            **_classes(plan, cells),
            **_rates(plan.workload, cells),
            "count": plan.assigned[cells, models],
        }
    )


def _names(plan: RoutingPlan | Assigned) -> dict[str, NDArray[np.object_]]:
    """What the tables say of each choice: its model, and its system where the model alone does not tell."""
    names = {"model_name": np.array([choice.model.model_name for choice in plan.choices], dtype=object)}
    if names["model_name"].tolist() != list(plan.model_names):
        names["system"] = np.array([choice.model.system for choice in plan.choices], dtype=object)
    return names


def _classes(plan: RoutingPlan, cells: IntArray) -> dict[str, NDArray[np.object_]]:
    if plan.workload.classes == ("",):
        return {}
    return {"query_class": np.array(plan.workload.classes, dtype=object)[plan.workload.cell_class[cells]]}


def _rates(workload: Workload, cells: IntArray) -> dict[str, NDArray[np.float64]]:
    if workload.cell_rate is None:
        return {}
    rate = workload.cell_rate[cells]
    return {UNITS[kind].column: of_kind.per_kwh[rate] for kind, of_kind in workload.rates.by_kind.items()}


def runs(workload: Workload, assigned: Assignment) -> tuple[IntArray | None, Choices, IntArray]:
    """Row, model and number of queries of each run of queries that share both, in input order.

    No rows where each is one run: as a rule none is divided, and then nothing needs to be copied.
    """
    model_of_cell, divided = assigned.choice, np.zeros(0, np.int64)
    if len(assigned.divided):
        # Few cells are divided, and only their rows need care: a number that no model has marks them on the way.
        model_of_cell = model_of_cell.copy()
        model_of_cell[assigned.divided] = MODELS_END - 1
    models = row_kernels.read_back(model_of_cell, workload.row_cells)
    if len(assigned.divided):
        divided = np.flatnonzero(models == MODELS_END - 1)
    if not len(divided):
        return None, models, workload.row_counts
    part_rows, part_models, part_counts = _divide(workload, assigned, divided)
    if len(part_rows) == len(divided):
        models[part_rows] = part_models
        return None, models, workload.row_counts
    rows = np.concatenate([np.delete(np.arange(len(models)), divided), part_rows])
    order = np.argsort(rows, kind="stable")
    models = np.concatenate([np.delete(models, divided), part_models.astype(np.uint16)])
    counts = np.concatenate([np.delete(workload.row_counts, divided), part_counts])
    return rows[order], models[order], counts[order]


def _divide(workload: Workload, assigned: Assignment, rows: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """:func:`runs` of all rows of some cells.

    Lay the queries out cell by cell, once divided into rows and once into models: both divisions end where a cell
    ends, so every stretch between two neighbouring ends belongs to one row and one model.
    """
    rows = rows[np.argsort(workload.row_cells[rows], kind="stable")]
    row_ends = np.cumsum(workload.row_counts[rows])
    model_ends = np.cumsum(assigned.queries.ravel())
    ends = np.sort(np.concatenate((row_ends, model_ends)))
    ends = ends[np.diff(ends, prepend=0) > 0]  # np.union1d would import numpy.ma for this
    row = rows[np.searchsorted(row_ends, ends)]
    model = np.searchsorted(model_ends, ends) % assigned.queries.shape[1]
    order = np.argsort(row, kind="stable")
    return row[order], model[order], np.diff(ends, prepend=0)[order]
