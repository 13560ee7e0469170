"""The rows that one model is fitted to, as arrays, with everything that should be said about them.

Rows are pooled only knowingly: simulated and real ones never, batch sizes and systems with a warning, rows whose
energy was not measured left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import FitError, InputError
from llmpower.modelling.linear import FloatArray
from llmpower.modelling.rows.boundary import IDLE, Boundary
from llmpower.modelling.rows.measurements import energy_columns
from llmpower.modelling.rows.strata import EXACT, LENGTHS, MOST_CELLS, SPANNED, TOKENS, token_digits
from llmpower.modelling.rows.tally import MOST_NAMES, Counts, Key, Tallied, Tally
from llmpower.modelling.rows.targets import Target, target_of
from llmpower.phrases import plural

# Watts outside these say that a header lies about its unit: no server runs a model on less or on more.
PLAUSIBLE_WATTS = (1.0, 1e5)
# Columns of numbers that a fit looks at beside the energies.
NUMBERS = ("input_tokens", "output_tokens", "runtime_s", "time_to_first_token_s", "batch_size", "concurrency")


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one model: their sums by cell, and those rows that errors are judged by.

    A cell is one (τin, τout), and one batch size and concurrency where those vary; where there are too many, a band of
    them (:mod:`~llmpower.modelling.rows.strata`). ``n_obs`` counts rows. ``cells`` numbers the cell of each judged row
    from 0, ``row_strata`` its stratum; ``strata`` the cell of each stratum. Arrays named ``cell_…`` have shape
    (n_cells,): token counts are those of the row, which are the whole batch's, ``cell_batch_size`` its requests, and
    ``cell_sharing`` how many requests a decode step served, those of concurrent calls included. Where cells are bands
    these are means, ``cell_spread`` (2, n_cells) has the standard deviations of both token counts, and ``row_lengths``
    the four of each judged row; where cells are exact both are ``None``. ``ranges`` has the lowest and highest of each
    of :data:`~llmpower.modelling.rows.strata.SPANNED`. ``boundary`` is what the energy covers, ``None`` when the
    measurements bring a sum of unknown parts. ``served`` is what should be said of requests served together, but for
    the form ``batched``, which says it itself.
    """

    model_name: str
    system: str
    simulated: bool
    boundary: str | None
    n_obs: int
    cells: NDArray[np.int64]
    row_strata: NDArray[np.int64]
    strata: NDArray[np.int64]
    cell_input_tokens: FloatArray
    cell_output_tokens: FloatArray
    cell_batch_size: FloatArray
    cell_sharing: FloatArray
    cell_spread: FloatArray | None
    row_lengths: FloatArray | None
    ranges: dict[str, tuple[float, float]]
    energy: Target
    runtime: Target
    served: tuple[str, ...]

    @property
    def n_cells(self) -> int:
        """Number of distinct cells."""
        return len(self.cell_input_tokens)

    @property
    def batched(self) -> bool:
        """Whether rows differ in how many requests shared a step."""
        low, high = self.ranges["sharing"]
        return low < high

    @property
    def whole(self) -> bool:
        """Whether errors are judged by all rows, at their own lengths."""
        return len(self.cells) == self.n_obs and self.row_lengths is None


Maker = Callable[[], Group]
"""Makes one model's group, which is as large as its strata: there is one at a time."""


def group_columns(group_by: str | Sequence[str] | None, found: Sequence[str]) -> list[str]:
    """What models are told apart by.

    Raises:
        InputError: not the model's name among it, or no such column.
    """
    asked = ("model_name", "system") if group_by is None else [group_by] if isinstance(group_by, str) else group_by
    columns = list(dict.fromkeys(asked))
    if "model_name" not in columns:
        raise InputError("--group-by", ",".join(columns), "must contain model_name; add it")
    for column in columns:
        if column not in found and column != "system":
            raise InputError("--group-by", column, f"is not a column here; there are: {', '.join(map(str, found))}")
    return columns


def makers_of(tally: Tally, columns: Sequence[str]) -> list[Maker]:
    """What makes the group of each model; ``columns`` are what the tally's keys are values of.

    They raise :class:`~llmpower.exceptions.FitError` where simulated and real rows are mixed, or there is no energy.
    """

    def make(key: Key) -> Group:
        return _group(dict(zip(columns, key, strict=True)), tally.model(key), tally.boundary)

    return [partial(make, key) for key in tally.model_keys()]


def _group(values: dict[str, object], part: Tallied, boundary: Boundary) -> Group:
    further = ", ".join(f"{key}={_word(value)}" for key, value in values.items() if key not in ("model_name", "system"))
    name = f"{values['model_name']} [{further}]" if further else str(values["model_name"])
    if 0 < part.simulated < part.rows:
        advice = f"{name}: real and simulated rows do not mix; add --where 'simulated == False'"
        raise FitError("simulated", f"{part.simulated:,} of {plural(part.rows, 'row')}", advice)
    strata, counts = part.strata, part.counts
    if strata is None or counts is None or not counts.rows:
        raise _without_energy(name, part, boundary)
    warnings = []
    if unmeasured := part.rows - counts.rows - counts.below:
        warnings.append(f"{unmeasured:,} of {plural(part.rows, 'row')} left out: energy not measured")
    if counts.below:
        warnings.append(
            f"{counts.below:,} of {plural(part.rows, 'row')} left out: nothing is left above the idle share"
        )
    cells, rows, row_strata = strata.cells, strata.judged, strata.judged_strata
    n = strata.sums["n"]
    lengths = [strata.sums[column] / n for column in LENGTHS]
    if banded := strata.digits < EXACT:
        warnings.append(
            f"its rows have more than {MOST_CELLS} different lengths, so they are fitted and held out in {len(n)}"
            f" bands (lengths to {token_digits(strata.digits)} binary digits)"
        )
    if len(row_strata) < counts.rows:
        warnings.append(
            f"errors are judged by {len(row_strata):,} of its {counts.rows:,} rows, drawn by their own digits"
        )
    warnings += _pooled(counts, values, ("system",))
    ranges = {
        column: (float(low), float(high)) for column, low, high in zip(SPANNED, counts.low, counts.high, strict=True)
    }
    energy, runtime = (target_of(target, unit, strata, rows) for target, unit in (("energy", "J"), ("runtime", "s")))
    squares = np.stack([strata.sums[f"{column}²"] for column in TOKENS]) / n
    return Group(
        model_name=name,
        system=" + ".join(sorted(map(str, counts.values.get("system", {""})))),
        simulated=part.simulated > 0,
        boundary=part.covers,
        n_obs=counts.rows,
        cells=cells[row_strata],
        row_strata=row_strata,
        strata=cells,
        cell_input_tokens=lengths[0],
        cell_output_tokens=lengths[1],
        cell_batch_size=lengths[2],
        cell_sharing=lengths[3],
        cell_spread=np.sqrt(np.maximum(0, squares - np.square(lengths[:2]))) if banded else None,
        row_lengths=np.stack([rows[column] for column in LENGTHS]) if banded else None,
        ranges=ranges,
        energy=replace(energy, warnings=(*warnings, *_doubts(counts, rows))),
        runtime=replace(runtime, warnings=tuple(warnings)),
        served=(*_pooled(counts, values, ("batch_size", "concurrency")), *_alike(ranges)),
    )


def _without_energy(name: str, part: Tallied, boundary: Boundary) -> FitError:
    """Why there is nothing to fit."""
    covers = part.covers or energy_columns(boundary.parts_name)[0]
    if boundary.net and part.covers is not None and not (part.counts and part.counts.below):
        parts = part.covers.removesuffix(IDLE)
        column = f"{parts.split('+')[0]}_idle_energy_j"
        return FitError(column, "missing", f"no row of {name} has it to take away; choose --boundary {parts}")
    if part.apart:
        told = " and ".join(f"{plural(n, 'row')} with {covers} alone" for covers, n in part.apart.items())
        advice = f"no row of {name} has both: there are {told}; choose one of them"
        return FitError("--boundary", boundary.name, advice)
    if part.covers is None:
        advice = f"no row of {name} has it measured; choose another --boundary, or leave it out with --where"
        return FitError(covers, "empty", advice)
    return FitError(covers, "empty", f"no row of {name} has energy left; see --boundary")


def _pooled(counts: Counts, values: dict[str, object], columns: Sequence[str]) -> Iterator[str]:
    for column in columns:
        names = sorted(value for value in counts.values.get(column, ()) if value == value)  # type: ignore[type-var]
        if column not in values and len(names) > 1:
            found = ", ".join([*map(_word, names[:MOST_NAMES]), *(["…"] if len(names) > MOST_NAMES else [])])
            yield f"pools {column} {found}; separate them with --group-by model_name,{column}"


def _alike(ranges: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    """Where all requests were served alike, but not alone."""
    (few, many), (least, most) = ranges["batch_size"], ranges["sharing"]
    if 1 < few == many:
        yield f"every row says it is a batch of {many:,.0f}: predictions are of such a batch, by all its tokens"
    elif 1 < least == most:
        yield f"every request was served among {most:,.0f}: predictions are of requests so served, not alone"


def _doubts(counts: Counts, rows: Mapping[str, FloatArray]) -> Iterator[str]:
    watts = float(np.median(rows["energy_j"] / rows["runtime_s"]))
    if not PLAUSIBLE_WATTS[0] <= watts <= PLAUSIBLE_WATTS[1]:
        yield f"median power is {watts:.3g} W: check that energies are in joules and runtimes in seconds"
    if counts.allocated:
        yield f"{counts.allocated} of {counts.rows} energies are shares by rule (allocated), not measured alone"
    if counts.modelled:
        yield f"{counts.modelled} of {counts.rows} energies saw fewer than two ticks of the counter (quality modelled)"


def _word(value: object) -> str:
    """For people: a column with an empty cell, which is nan, holds its whole numbers as floats."""
    if value is None:
        return "nan"
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)
