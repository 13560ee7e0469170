"""The rows that one model is fitted to, as arrays, with everything that should be said about them.

Rows are pooled only knowingly: simulated and real ones never, batch sizes and systems with a warning, rows whose
energy was not measured left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import FitError, InputError
from llmpower.modelling.forms import FloatArray
from llmpower.modelling.measurements import check_measurements, energy_columns

if TYPE_CHECKING:
    import pandas as pd

# Watts outside these say that a header lies about its unit: no server runs a model on less or on more.
PLAUSIBLE_WATTS = (1.0, 1e5)


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one model; arrays have shape (n_obs,), ``cells`` numbers each row's (τin, τout) from 0.

    ``boundary`` is what ``energy_j`` covers, ``None`` when the measurements bring a sum of unknown parts.
    ``energy_warnings`` concern the energy alone, ``warnings`` both targets.
    """

    model_name: str
    system: str
    simulated: bool
    boundary: str | None
    input_tokens: FloatArray
    output_tokens: FloatArray
    cells: NDArray[np.intp]
    energy_j: FloatArray
    runtime_s: FloatArray
    warnings: tuple[str, ...]
    energy_warnings: tuple[str, ...]

    @property
    def n_cells(self) -> int:
        """Number of distinct (τin, τout)."""
        return int(self.cells.max()) + 1


def group_rows(measurements: pd.DataFrame, group_by: Sequence[str] | None, boundary: str) -> list[Group]:
    """Check the measurements and split them into one group per model, sorted by what they are grouped by.

    ``group_by`` defaults to ``model_name`` and, where there is such a column, ``system``.

    Raises:
        InputError: a column of ``group_by`` is not there.
        FitError: as :func:`~llmpower.modelling.measurements.check_measurements`, or a group mixes simulated and
            real rows, or has no energy measured.
    """
    rows = check_measurements(measurements, boundary)
    rows["system"] = rows["system"].fillna("").astype(str) if "system" in rows.columns else ""
    columns = list(dict.fromkeys(("model_name", "system") if group_by is None else group_by))
    if "model_name" not in columns:
        raise InputError("--group-by", ",".join(columns), "must contain model_name; add it")
    for column in columns:
        if column not in rows.columns:
            found = ", ".join(map(str, measurements.columns))
            raise InputError("--group-by", column, f"is no column here; there are: {found}")
    return [
        _group(dict(zip(columns, values, strict=True)), part, boundary)
        for values, part in rows.groupby(columns, sort=True, dropna=False)
    ]


def _group(values: dict[str, object], rows: pd.DataFrame, boundary: str) -> Group:
    further = ", ".join(f"{key}={_word(value)}" for key, value in values.items() if key not in ("model_name", "system"))
    name = f"{values['model_name']} [{further}]" if further else str(values["model_name"])
    if rows["simulated"].nunique() > 1:
        counts = f"{int(rows['simulated'].sum())} of {len(rows)} rows"
        advice = f"{name}: real and simulated rows do not mix; add --where 'simulated == False'"
        raise FitError("simulated", counts, advice)
    energy_j, covers = _energy(name, rows, boundary)
    measured = energy_j.notna()
    kept, energy_j = rows[measured], energy_j[measured]
    left_out = [] if measured.all() else [f"{int((~measured).sum())} of {len(rows)} rows left out: energy not measured"]
    tokens = kept[["input_tokens", "output_tokens"]].to_numpy(dtype=np.float64)
    return Group(
        model_name=name,
        system=" + ".join(sorted(kept["system"].unique())),
        simulated=bool(kept["simulated"].iloc[0]),
        boundary=covers,
        input_tokens=tokens[:, 0],
        output_tokens=tokens[:, 1],
        cells=np.unique(tokens, axis=0, return_inverse=True)[1].reshape(-1),
        energy_j=np.asarray(energy_j, dtype=np.float64),
        runtime_s=np.asarray(kept["runtime_s"], dtype=np.float64),
        warnings=(*left_out, *_pooled(kept, values)),
        energy_warnings=tuple(_doubts(kept, energy_j)),
    )


def _energy(name: str, rows: pd.DataFrame, boundary: str) -> tuple[pd.Series[float], str | None]:
    """Joules per row within ``boundary``, and what they cover.

    A sum takes the parts that any of the model's rows has; a row that lacks one of them is not measured, lest sums
    of different things be fitted together.
    """
    columns = [column for column in energy_columns(boundary) if column in rows.columns]
    present = [column for column in columns if rows[column].notna().any()]
    if present:
        return rows[present].sum(axis=1, skipna=False), "+".join(c.removesuffix("_energy_j") for c in present)
    if not columns and rows["energy_j"].notna().any():
        return rows["energy_j"], None
    column = columns[0] if columns else "energy_j"
    advice = f"no row of {name} has it measured; choose another --boundary, or leave the model out with --where"
    raise FitError(column, "empty", advice)


def _pooled(rows: pd.DataFrame, values: dict[str, object]) -> Iterator[str]:
    for column in ("system", "batch_size"):
        if column in rows.columns and column not in values and rows[column].nunique() > 1:
            found = ", ".join(map(_word, sorted(rows[column].dropna().unique())))
            yield f"pools {column} {found}; separate them with --group-by model_name,{column}"


def _doubts(rows: pd.DataFrame, energy_j: pd.Series[float]) -> Iterator[str]:
    watts = float((energy_j / rows["runtime_s"]).median())
    if not PLAUSIBLE_WATTS[0] <= watts <= PLAUSIBLE_WATTS[1]:
        yield f"median power is {watts:.3g} W: check that energies are in joules and runtimes in seconds"
    if "allocated" in rows.columns:
        allocated = int(rows["allocated"].astype("string").str.lower().isin(["true", "1", "1.0"]).sum())
        if allocated:
            yield f"{allocated} of {len(rows)} energies are shares by rule (allocated), not measured alone"
    if "quality" in rows.columns:
        modelled = int((rows["quality"] == "modelled").sum())
        if modelled:
            yield f"{modelled} of {len(rows)} energies saw fewer than two ticks of the counter (quality modelled)"


def _word(value: object) -> str:
    """A column with an empty cell holds its whole numbers as floats; people still call them whole."""
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)
