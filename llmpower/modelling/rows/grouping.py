"""A table's rows into what is fitted: checked, summed, and a group made of each model's sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.rows.boundary import Boundary
from llmpower.modelling.rows.frames import STRETCH, read_rows
from llmpower.modelling.rows.groups import NUMBERS, Group, Maker, group_columns, makers_of
from llmpower.modelling.rows.measurements import check_measurements
from llmpower.modelling.rows.strata import JUDGED_ROWS
from llmpower.modelling.rows.tally import Key, Tally, processors
from llmpower.tables import check_frame

if TYPE_CHECKING:
    import pandas as pd

Numbered = tuple[NDArray[np.integer[Any]], Sequence[object]]
"""A column as numbers of its distinct values in their order, and the values."""


def group_rows(
    measurements: pd.DataFrame, group_by: str | Sequence[str] | None, boundary: str, *, whole: bool = False
) -> list[Group]:
    """Check the measurements and split them into one group per model, sorted by what they are grouped by.

    ``group_by`` defaults to ``model_name`` and, where there is such a column, ``system``. ``whole`` keeps all rows to
    judge errors by, however many.

    Raises:
        InputError: a column of ``group_by`` is not there.
        FitError: as :func:`~llmpower.modelling.rows.measurements.check_measurements`, or a group mixes simulated and
            real rows, or has no energy measured.
    """
    return [make() for make in makers_of_rows(measurements, group_by, boundary, whole=whole)]


def makers_of_rows(
    measurements: pd.DataFrame, group_by: str | Sequence[str] | None, boundary: str, *, whole: bool = False
) -> list[Maker]:
    """As :func:`group_rows`, with each group made when it is asked for."""
    check_frame(measurements, "measurements")
    covered = Boundary.parse(boundary)
    columns = group_columns(group_by, list(measurements.columns))
    return makers_of(_tallied(measurements, columns, covered, whole=whole), columns)


def _tallied(measurements: pd.DataFrame, columns: Sequence[str], covered: Boundary, *, whole: bool) -> Tally:
    """The sums of a table; each stretch of it is summed while the next is read."""
    checked = check_measurements(measurements, covered.parts_name)
    threads = min(processors(), 1 + len(checked) // STRETCH)
    tally = Tally(covered, judged_rows=None if whole else JUDGED_ROWS, threads=threads, held_rows=len(checked))
    further, summed = {name: checked[name] for name in columns if name != "system"}, 0
    further["model_name"] = checked["model_name"].astype(str)  # 7 in one file and "7" in another are one model
    for rows in read_rows(checked, sorted({*NUMBERS, *covered.consulted()})):
        stretch, systems = slice(summed, summed + len(rows)), (rows["system"], rows.systems)
        codes, keys = keys_of(
            [systems if name == "system" else _numbered(further[name].iloc[stretch]) for name in columns]
        )
        tally.add(keys, codes, rows, np.bincount(codes, minlength=len(keys)))
        summed += len(rows)
    return tally


def _numbered(column: pd.Series[Any]) -> Numbered:
    import pandas as pd

    codes, values = pd.factorize(column, sort=True, use_na_sentinel=False)
    # What is empty is one key in all stretches, though no NaN is another.
    return codes, [None if pd.isna(value) else value for value in values]


def keys_of(columns: Sequence[Numbered]) -> tuple[NDArray[np.int64], list[Key]]:
    """Each row's group, numbered in the order of their keys, and the keys."""
    import pandas as pd

    codes: NDArray[np.integer[Any]] = np.zeros(len(columns[0][0]), dtype=np.int64)
    together = False
    for of_column, values in columns:
        # Where a column says one thing only, as most do, there is nothing to put together.
        if len(values) > 1:
            codes, together = (codes * len(values) + of_column, True) if codes.any() else (of_column, together)
    parts = [values for _, values in columns]
    # Of one column all values are there.
    numbers, present = pd.factorize(codes, sort=True) if together else (codes, np.arange(max(map(len, parts))))
    places = np.unravel_index(present, [len(values) for values in parts])
    keys = [tuple(v[p] for v, p in zip(parts, place, strict=True)) for place in zip(*places, strict=True)]
    return numbers.astype(np.int64, copy=False), keys
