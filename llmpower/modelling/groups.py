"""The rows that one model is fitted to, as arrays, with everything that should be said about them.

Rows are pooled only knowingly: simulated and real ones never, batch sizes and systems with a warning, rows whose
energy was not measured left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import FitError, InputError
from llmpower.modelling.boundary import Boundary
from llmpower.modelling.frames import floats
from llmpower.modelling.linear import FloatArray
from llmpower.modelling.measurements import REQUIRED, check_measurements

if TYPE_CHECKING:
    import pandas as pd

# Watts outside these say that a header lies about its unit: no server runs a model on less or on more.
PLAUSIBLE_WATTS = (1.0, 1e5)
# Columns that a fit looks at beside the required ones and the energies.
CONSULTED = ("system", "simulated", "batch_size", "concurrency", "allocated", "quality", "time_to_first_token_s")


@dataclass(frozen=True, slots=True)
class Target:
    """What is fitted: joules or seconds of every row, ``y`` of shape (n_obs,), all > 0.

    ``relative_variance`` is (s/y)² where measurements bring standard deviations, NaN where a row has none. ``phases``
    are the prefill's and the decode's part of ``y``, NaN where a row does not tell them; ``phase_columns`` says where
    they would come from.
    """

    name: str
    unit: str
    y: FloatArray
    relative_variance: FloatArray | None
    phases: tuple[FloatArray, FloatArray] | None
    phase_columns: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one model; ``cells`` of shape (n_obs,) numbers each row's cell from 0.

    A cell is one (τin, τout), and one batch size and concurrency where those vary. Arrays named ``cell_…`` have shape
    (n_cells,): token counts are those of the row, which are the whole batch's, ``cell_batch_size`` its requests, and
    ``cell_sharing`` how many requests a decode step served, those of concurrent calls included. ``boundary`` is what
    the energy covers, ``None`` when the measurements bring a sum of unknown parts.
    """

    model_name: str
    system: str
    simulated: bool
    boundary: str | None
    cells: NDArray[np.intp]
    cell_input_tokens: FloatArray
    cell_output_tokens: FloatArray
    cell_batch_size: FloatArray
    cell_sharing: FloatArray
    energy: Target
    runtime: Target

    @property
    def n_cells(self) -> int:
        """Number of distinct cells."""
        return len(self.cell_input_tokens)

    @property
    def batched(self) -> bool:
        """Whether rows differ in how many requests shared a step."""
        return bool(self.cell_sharing.min() < self.cell_sharing.max())


def group_rows(measurements: pd.DataFrame, group_by: Sequence[str] | None, boundary: str) -> list[Group]:
    """Check the measurements and split them into one group per model, sorted by what they are grouped by.

    ``group_by`` defaults to ``model_name`` and, where there is such a column, ``system``.

    Raises:
        InputError: a column of ``group_by`` is not there.
        FitError: as :func:`~llmpower.modelling.measurements.check_measurements`, or a group mixes simulated and
            real rows, or has no energy measured.
    """
    covered = Boundary.parse(boundary)
    columns = list(dict.fromkeys(("model_name", "system") if group_by is None else group_by))
    if "model_name" not in columns:
        raise InputError("--group-by", ",".join(columns), "must contain model_name; add it")
    for column in columns:
        if column not in measurements.columns and column != "system":
            found = ", ".join(map(str, measurements.columns))
            raise InputError("--group-by", column, f"is no column here; there are: {found}")
    # A table has a score of columns and a copy is made of it: of those that matter.
    wanted = {*REQUIRED, *CONSULTED, *covered.consulted(), *columns}
    rows = check_measurements(measurements[[c for c in measurements.columns if c in wanted]], covered.parts_name)
    _system(rows)
    return [
        _group(dict(zip(columns, values, strict=True)), part, covered)
        for values, part in rows.groupby(columns, sort=True, dropna=False, observed=True)
    ]


def _system(rows: pd.DataFrame) -> None:
    """Make the column one of words, empty where a row does not say."""
    if "system" not in rows.columns:
        rows["system"] = ""
    elif rows["system"].isna().any() or rows["system"].dtype.kind in "iufb":
        rows["system"] = rows["system"].fillna("").astype(str)


def _group(values: dict[str, object], rows: pd.DataFrame, boundary: Boundary) -> Group:
    further = ", ".join(f"{key}={_word(value)}" for key, value in values.items() if key not in ("model_name", "system"))
    name = f"{values['model_name']} [{further}]" if further else str(values["model_name"])
    if rows["simulated"].nunique() > 1:
        counts = f"{int(rows['simulated'].sum())} of {len(rows)} rows"
        advice = f"{name}: real and simulated rows do not mix; add --where 'simulated == False'"
        raise FitError("simulated", counts, advice)
    energy_j, covers = boundary.energy(name, rows)
    warnings = []
    kept = energy_j > 0
    if not kept.all():
        unmeasured = int(np.isnan(energy_j).sum())
        if unmeasured:
            warnings.append(f"{unmeasured} of {len(rows)} rows left out: energy not measured")
        if below := int((~kept).sum()) - unmeasured:
            warnings.append(f"{below} of {len(rows)} rows left out: nothing is left above the idle share")
        if not kept.any():
            raise FitError(covers or "energy_j", "empty", f"no row of {name} has energy left; see --boundary")
        rows, energy_j = rows[kept], energy_j[kept]
    batch_size, sharing = _sharing(rows)
    tokens = [rows["input_tokens"].to_numpy(), rows["output_tokens"].to_numpy()]
    shared = [column for column in (batch_size, sharing) if (column != column[0]).any()]
    cells, first = _number(*tokens, *shared)
    pooled = tuple(_pooled(rows, values))
    return Group(
        model_name=name,
        system=" + ".join(sorted(rows["system"].unique())),
        simulated=bool(rows["simulated"].iloc[0]),
        boundary=covers,
        cells=cells,
        cell_input_tokens=tokens[0][first].astype(np.float64),
        cell_output_tokens=tokens[1][first].astype(np.float64),
        cell_batch_size=batch_size[first],
        cell_sharing=sharing[first],
        energy=_energy_target(rows, energy_j, boundary, (*warnings, *pooled)),
        runtime=_runtime_target(rows, (*warnings, *pooled)),
    )


def _energy_target(rows: pd.DataFrame, energy_j: FloatArray, boundary: Boundary, warnings: tuple[str, ...]) -> Target:
    std_j = boundary.std(rows)
    phases = None
    if boundary.name == "gpu" and {"prefill_energy_j", "decode_energy_j"} <= set(rows.columns):
        phases = _phases(floats(rows, "prefill_energy_j"), floats(rows, "decode_energy_j"))
    return Target(
        name="energy",
        unit="J",
        y=energy_j,
        relative_variance=None if std_j is None else (std_j / energy_j) ** 2,
        phases=phases,
        phase_columns="prefill_energy_j, decode_energy_j",
        warnings=(*warnings, *_doubts(rows, energy_j)),
    )


def _runtime_target(rows: pd.DataFrame, warnings: tuple[str, ...]) -> Target:
    y, phases = floats(rows, "runtime_s"), None
    if "time_to_first_token_s" in rows.columns:
        first = floats(rows, "time_to_first_token_s")
        phases = _phases(first, y - first)
    return Target("runtime", "s", y, None, phases, "time_to_first_token_s", warnings)


def _phases(prefill: FloatArray, decode: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Both, where at least one row tells both."""
    return (prefill, decode) if ((prefill > 0) & (decode > 0)).any() else None


def _sharing(rows: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
    """Requests in a row, and requests that its decode steps served; 1 where a row does not say."""
    counts = []
    for column in ("batch_size", "concurrency"):
        if column in rows.columns:
            values = floats(rows, column)
            counts.append(np.where(values >= 1, values, 1.0))
        else:
            counts.append(np.ones(len(rows)))
    return counts[0], counts[0] * counts[1]


def _number(*columns: NDArray[np.generic]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Number the distinct rows of these columns in the order of their values; where each is first found.

    Sorting a million rows of pairs costs a second; hashing each column and sorting what is distinct, a tenth.
    """
    import pandas as pd

    cells = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        codes, values = pd.factorize(column, sort=True)
        # Distinct so far × distinct here stays far below 2⁶³ as long as each is below the number of rows.
        cells, _ = pd.factorize(cells * len(values) + codes, sort=True)
    first = np.empty(int(cells.max()) + 1, dtype=np.intp)
    first[cells[::-1]] = np.arange(len(cells) - 1, -1, -1)
    return cells.astype(np.intp, copy=False), first


def _pooled(rows: pd.DataFrame, values: dict[str, object]) -> Iterator[str]:
    for column in ("system", "batch_size", "concurrency"):
        if column in rows.columns and column not in values and rows[column].nunique() > 1:
            found = ", ".join(map(_word, sorted(rows[column].dropna().unique())))
            yield f"pools {column} {found}; separate them with --group-by model_name,{column}"


def _doubts(rows: pd.DataFrame, energy_j: FloatArray) -> Iterator[str]:
    watts = float(np.median(energy_j / rows["runtime_s"].to_numpy()))
    if not PLAUSIBLE_WATTS[0] <= watts <= PLAUSIBLE_WATTS[1]:
        yield f"median power is {watts:.3g} W: check that energies are in joules and runtimes in seconds"
    if "allocated" in rows.columns:
        allocated = _count_true(rows["allocated"])
        if allocated:
            yield f"{allocated} of {len(rows)} energies are shares by rule (allocated), not measured alone"
    if "quality" in rows.columns:
        modelled = int((rows["quality"] == "modelled").sum())
        if modelled:
            yield f"{modelled} of {len(rows)} energies saw fewer than two ticks of the counter (quality modelled)"


def _count_true(flags: pd.Series[Any]) -> int:
    if flags.dtype == bool:
        return int(flags.sum())
    return int(flags.astype("string").str.lower().isin(["true", "1", "1.0"]).sum())


def _word(value: object) -> str:
    """A column with an empty cell holds its whole numbers as floats; people still call them whole."""
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)
