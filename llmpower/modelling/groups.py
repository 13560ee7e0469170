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
from llmpower.modelling.frames import Rows, read_rows
from llmpower.modelling.linear import FloatArray
from llmpower.modelling.measurements import REQUIRED, check_measurements, energy_columns

if TYPE_CHECKING:
    import pandas as pd

# Watts outside these say that a header lies about its unit: no server runs a model on less or on more.
PLAUSIBLE_WATTS = (1.0, 1e5)
# Columns of numbers that a fit looks at beside the energies.
NUMBERS = ("input_tokens", "output_tokens", "runtime_s", "time_to_first_token_s", "batch_size", "concurrency")


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
    # A table has a score of columns; only those that are checked are copied, and only numbers go on from here.
    wanted = {*REQUIRED, *energy_columns(covered.parts_name), "energy_j", "simulated"}
    checked = check_measurements(measurements[[c for c in measurements.columns if c in wanted]], covered.parts_name)
    rows = read_rows(measurements, checked, sorted({*NUMBERS, *covered.consulted()}))
    codes, keys = _keys(measurements, rows, columns)
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(keys) + 1))
    rows = rows if (order[:-1] < order[1:]).all() else rows.take(order)
    return [
        _group(dict(zip(columns, values, strict=True)), rows.between(start, end), covered)
        for values, start, end in zip(keys, ends[:-1], ends[1:], strict=True)
    ]


def _keys(
    measurements: pd.DataFrame, rows: Rows, columns: Sequence[str]
) -> tuple[NDArray[np.integer[Any]], list[tuple[object, ...]]]:
    """Each row's group, numbered in the order of their keys, and the keys."""
    import pandas as pd

    codes, parts = np.zeros(len(rows), dtype=np.int64), []
    for name in columns:
        if name == "system":
            of_column, values = rows["system"], list(rows.systems)
        else:
            of_column, found = pd.factorize(measurements[name], sort=True, use_na_sentinel=False)
            values = list(found)
        codes = codes * len(values) + of_column
        parts.append(values)
    numbers, present = pd.factorize(codes, sort=True)
    places = np.unravel_index(present, [len(values) for values in parts])
    keys = [tuple(v[p] for v, p in zip(parts, place, strict=True)) for place in zip(*places, strict=True)]
    # Small numbers are sorted by counting.
    return numbers.astype(np.int16 if len(keys) < 2**15 else np.int64), keys


def _group(values: dict[str, object], rows: Rows, boundary: Boundary) -> Group:
    further = ", ".join(f"{key}={_word(value)}" for key, value in values.items() if key not in ("model_name", "system"))
    name = f"{values['model_name']} [{further}]" if further else str(values["model_name"])
    simulated = int(rows["simulated"].sum())
    if 0 < simulated < len(rows):
        advice = f"{name}: real and simulated rows do not mix; add --where 'simulated == False'"
        raise FitError("simulated", f"{simulated} of {len(rows)} rows", advice)
    energy_j, covers = boundary.energy(name, rows.numbers())
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
        rows, energy_j = rows.take(kept), energy_j[kept]
    batch_size, sharing = _sharing(rows)
    tokens = [rows["input_tokens"], rows["output_tokens"]]
    shared = [column for column in (batch_size, sharing) if (column != column[0]).any()]
    cells, first = _number(*tokens, *shared)
    pooled = tuple(_pooled(rows, values))
    return Group(
        model_name=name,
        system=" + ".join(map(str, rows.names_of("system"))),
        simulated=simulated > 0,
        boundary=covers,
        cells=cells,
        cell_input_tokens=tokens[0][first],
        cell_output_tokens=tokens[1][first],
        cell_batch_size=batch_size[first],
        cell_sharing=sharing[first],
        energy=_energy_target(rows, energy_j, boundary, (*warnings, *pooled)),
        runtime=_runtime_target(rows, (*warnings, *pooled)),
    )


def _energy_target(rows: Rows, energy_j: FloatArray, boundary: Boundary, warnings: tuple[str, ...]) -> Target:
    std_j = boundary.std(rows.numbers())
    phases = None
    if boundary.name == "gpu" and "prefill_energy_j" in rows and "decode_energy_j" in rows:
        phases = _phases(rows["prefill_energy_j"], rows["decode_energy_j"])
    return Target(
        name="energy",
        unit="J",
        y=energy_j,
        relative_variance=None if std_j is None else (std_j / energy_j) ** 2,
        phases=phases,
        phase_columns="prefill_energy_j, decode_energy_j",
        warnings=(*warnings, *_doubts(rows, energy_j)),
    )


def _runtime_target(rows: Rows, warnings: tuple[str, ...]) -> Target:
    y, phases = rows["runtime_s"], None
    if "time_to_first_token_s" in rows:
        first = rows["time_to_first_token_s"]
        phases = _phases(first, y - first)
    return Target("runtime", "s", y, None, phases, "time_to_first_token_s", warnings)


def _phases(prefill: FloatArray, decode: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Both, where at least one row tells both."""
    return (prefill, decode) if ((prefill > 0) & (decode > 0)).any() else None


def _sharing(rows: Rows) -> tuple[FloatArray, FloatArray]:
    """Requests in a row, and requests that its decode steps served; 1 where a row does not say."""
    counts = [
        np.where(rows[column] >= 1, rows[column], 1.0) if column in rows else np.ones(len(rows))
        for column in ("batch_size", "concurrency")
    ]
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


def _pooled(rows: Rows, values: dict[str, object]) -> Iterator[str]:
    for column in ("system", "batch_size", "concurrency"):
        if column in rows and column not in values and len(names := rows.names_of(column)) > 1:
            found = ", ".join(map(_word, names))
            yield f"pools {column} {found}; separate them with --group-by model_name,{column}"


def _doubts(rows: Rows, energy_j: FloatArray) -> Iterator[str]:
    watts = float(np.median(energy_j / rows["runtime_s"]))
    if not PLAUSIBLE_WATTS[0] <= watts <= PLAUSIBLE_WATTS[1]:
        yield f"median power is {watts:.3g} W: check that energies are in joules and runtimes in seconds"
    if "allocated" in rows and (allocated := int(rows["allocated"].sum())):
        yield f"{allocated} of {len(rows)} energies are shares by rule (allocated), not measured alone"
    if "modelled" in rows and (modelled := int(rows["modelled"].sum())):
        yield f"{modelled} of {len(rows)} energies saw fewer than two ticks of the counter (quality modelled)"


def _word(value: object) -> str:
    """A column with an empty cell holds its whole numbers as floats; people still call them whole."""
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)
