"""A table's columns as arrays: what a fit looks at, and nothing else of the table.

Numbers are arrays where they lie. Words are made numbers, a stretch of the table at a time: the rows before it are
summed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.kernels import COUNTS
from llmpower.modelling.linear import FloatArray
from llmpower.tables import NO_NUMBERS

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]

STRETCH = 1 << 17
"""Rows that are looked at together: a cache holds their columns."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns by name, all of one length: numbers as floats (NaN where empty), flags as booleans.

    ``system`` numbers the words of ``systems``.
    """

    columns: dict[str, Array]
    systems: tuple[str, ...]

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __len__(self) -> int:
        return len(self.columns["runtime_s"])

    def take(self, rows: Array) -> Rows:
        """These rows, by position or by a mask."""
        return Rows({name: column[rows] for name, column in self.columns.items()}, self.systems)

    def numbers(self) -> dict[str, FloatArray]:
        """The columns of numbers."""
        return {name: column for name, column in self.columns.items() if column.dtype == np.float64}


def read_rows(checked: pd.DataFrame, numbers: Sequence[str]) -> Iterator[Rows]:
    """``numbers`` and flags of a table that was checked, stretch by stretch; a column that is missing is left out."""
    columns: dict[str, Array] = {
        name: _counts(checked, name) if name in COUNTS else floats(checked, name)
        for name in numbers
        if name in checked.columns
    }
    columns["simulated"] = checked["simulated"].to_numpy(dtype=bool)
    if "allocated" in checked.columns:
        columns["allocated"] = _true(checked["allocated"])
    quality = checked["quality"] if "quality" in checked.columns else None
    system = words(checked, "system")
    for start in range(0, len(checked), STRETCH):
        part = slice(start, start + STRETCH)
        of_part = {name: column[part] for name, column in columns.items()}
        if quality is not None:
            of_part["modelled"] = (quality.iloc[part] == "modelled").to_numpy(dtype=bool, na_value=False)
        of_part["system"], systems = _numbered(system.iloc[part])
        yield Rows(of_part, systems)


def _numbered(column: pd.Series[str]) -> tuple[Array, tuple[str, ...]]:
    """Words as numbers of the distinct ones in their order, and those: mostly one, which is compared in less time."""
    import pandas as pd

    first = column.iloc[0]
    if (column == first).all():
        return np.zeros(len(column), dtype=np.int64), (first,)
    codes, names = pd.factorize(column, sort=True)
    return codes, tuple(names)


def _counts(rows: pd.DataFrame, column: str) -> Array:
    """A column of whole numbers as it stands, as :func:`floats` otherwise."""
    return rows[column].to_numpy() if rows[column].dtype == np.int64 else floats(rows, column)


def floats(rows: pd.DataFrame, column: str) -> FloatArray:
    """The column as floats of shape (n_rows,); what is empty or no number is NaN."""
    import pandas as pd

    values = rows[column]
    if values.dtype == np.float64:
        return values.to_numpy()
    if values.dtype.kind in NO_NUMBERS:
        return np.full(len(values), np.nan)
    if values.dtype.kind not in "iuf":
        values = pd.to_numeric(values, errors="coerce")
    return values.to_numpy(dtype=np.float64, na_value=np.nan)


def words(rows: pd.DataFrame, column: str) -> pd.Series[str]:
    """The column as words, empty where a row does not say or there is no such column."""
    import pandas as pd

    if column not in rows.columns:
        return pd.Series("", index=rows.index, dtype="str")
    values = rows[column]
    if values.dtype == "category":
        values = values.astype(object)
    return values.fillna("").astype(str) if values.isna().any() or values.dtype != "str" else values


def _true(flags: pd.Series[Any]) -> Array:
    if flags.dtype == bool:
        return flags.to_numpy()
    return flags.astype("string").str.lower().isin(["true", "1", "1.0"]).to_numpy(dtype=bool)
