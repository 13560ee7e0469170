"""Measurements from files, joined and checked row by row before anything is computed from them.

Tables of energies go wrong in known ways: rows of model loading among the trials, token counts that are missing,
CPU joules below zero after an idle subtraction. A mean hides every one of them, so a row that cannot be what it
claims stops the fit with its column, value and place; ``--where`` and ``--leave-out`` leave it out on purpose. What
only looks wrong is for :mod:`~llmpower.modelling.screening` to find.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import FitError, InputError
from llmpower.modelling.rows.where import select_rows
from llmpower.places import matches
from llmpower.tables import NO_NUMBERS, read_table, shown_cell

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = ("model_name", "input_tokens", "output_tokens", "runtime_s")
SCREENED = (*REQUIRED, "gpu_energy_j", "cpu_energy_j", "energy_j")
"""Columns for whose impossible values screening has a kind of finding, by which their rows can be left out."""

BOUNDARIES = ("gpu", "cpu", "gpu+cpu")
"""What the energy of a fit covers. A sum takes the parts that the model's rows have measured."""

LEAST, MOST = 1e-30, 1e30
"""Joules or seconds beyond these are no measurement, and what a fit makes of them (y⁴, 1/y⁴) would be no number."""
_RANGE = f"from {LEAST:g} to {MOST:g}"

MOST_COUNT = 2.0**53
"""Above it not every whole number is a float."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The ``least`` and the ``most`` that a number may be where there is one, and how people are told."""

    least: float
    most: float
    rule: str

    def beyond(self, values: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Which of the values cannot be, an empty one never; ``None`` where all can, which their extremes tell."""
        if not (np.fmin.reduce(values) < self.least or np.fmax.reduce(values) > self.most):
            return None
        return np.asarray((values < self.least) | (values > self.most))


_ENERGY = Bounds(LEAST, MOST, f"an energy is a number of joules > 0, or empty where it was not measured, {_RANGE}")
_STD = Bounds(0, MOST, "a standard deviation is a number of joules ≥ 0, or empty where it is not known")
_IDLE = Bounds(0, MOST, "an idle share is a number of joules ≥ 0, or empty where it is not known")
_FIRST_TOKEN = Bounds(0, MOST, "a time to the first token is a number of seconds ≥ 0, or empty where it is not known")
_REQUESTS = Bounds(1, MOST_COUNT, "requests at the same time are a number ≥ 1, or empty for one alone")

_AT_ONCE = 1 << 16
"""Values that are hashed together: on the way each is an object of its own."""

Reader = Callable[[Path], "pd.DataFrame"]


def load_measurements(
    sources: str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    columns: Mapping[str, str] | None = None,
    where: str | None = None,
    readers: Mapping[str, Reader] | None = None,
    option: str = "SOURCE",
) -> pd.DataFrame:
    """Read, join and filter measurements.

    ``sources`` are files or globs, or one; ``columns`` maps our names to the files' headers; ``readers`` reads further
    suffixes (a daemon's store, which belongs to another station); ``option`` is how complaints call a source. The
    frame's index is (source, row), with rows
    counted from 1 after the header, so that later complaints can name them.

    Raises:
        InputError: a source cannot be read, lacks a required column, or ``where`` is not a condition.
        FitError: no rows, or one span read twice.
    """
    import pandas as pd

    def read(path: Path) -> pd.DataFrame:
        if readers and path.suffix in readers:
            table = readers[path.suffix](path)
        else:
            table = read_table(path, columns=columns, required=REQUIRED, what=option)
        if len(table) == 0:
            raise FitError(option, path, "holds no rows; measure first, or give another file")
        return table.set_index(pd.RangeIndex(1, len(table) + 1))

    frame = _joined({str(path): read(path) for path in _paths(sources, option)})
    if "span_id" in frame.columns and _may_repeat(frame["span_id"]):
        repeated = frame["span_id"].notna() & frame["span_id"].duplicated()
        if repeated.any():
            advice = f"{_place(frame, repeated)} repeats a span that was read before; give each source once"
            raise FitError("span_id", frame.loc[repeated, "span_id"].iloc[0], advice)
    if where is not None:
        frame = select_rows(frame, where)
        if len(frame) == 0:
            raise FitError("--where", where, "no row satisfies it; loosen the condition")
    return frame


def _joined(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """All rows by their source and number; of one table its own columns, as it may fill half of the memory."""
    import pandas as pd

    names = ["source", "row"]
    if len(tables) > 1:
        return pd.concat(tables, names=names)
    ((source, table),) = tables.items()
    return table.set_index(pd.MultiIndex.from_product([[source], table.index], names=names))


def _may_repeat(values: pd.Series[Any]) -> bool:
    """Whether two values have one hash; that of each is a tenth of what a table of them all takes."""
    import pandas as pd

    parts = (values.iloc[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))
    hashes = np.concatenate([pd.util.hash_pandas_object(part, index=False, categorize=False) for part in parts])
    hashes.sort()
    return bool((hashes[1:] == hashes[:-1]).any())


def check_measurements(frame: pd.DataFrame, boundary: str = "gpu") -> pd.DataFrame:
    """A copy of ``frame`` with numbers as numbers, ``simulated`` as booleans, and every row plausible.

    Raises:
        InputError: ``boundary`` is none of :data:`BOUNDARIES`.
        FitError: no rows, a column missing, or a row with tokens that are not whole numbers ≥ 0, a runtime or an
            energy ≤ 0, no model name, or beyond one of :func:`bounds_of`. An empty energy is left as it is: not
            measured.
    """
    if boundary not in BOUNDARIES:
        raise InputError("--boundary", boundary, f"unknown; use one of {', '.join(BOUNDARIES)}")
    if len(frame) == 0:
        raise FitError("measurements", "0 rows", "there is nothing to fit; measure first")
    for column in REQUIRED:
        if column not in frame.columns:
            raise FitError("column", column, "is missing; name its header with --column or rename the column")
    energies = [column for column in energy_columns(boundary) if column in frame.columns]
    if not energies and "energy_j" not in frame.columns:
        advice = f"is missing; an energy of boundary {boundary} needs it (or energy_j), name its header with --column"
        raise FitError("column", energy_columns(boundary)[0], advice)

    # Columns are replaced here, never changed in place, so what both frames have stays one.
    checked = frame.copy(deep=False)
    names = frame["model_name"]
    _refuse(frame, "model_name", names.isna() | (names == ""), "every row needs a model's name")
    # Where its extremes are possible all of a column is, and nothing is asked of each row.
    for column in ("input_tokens", "output_tokens"):
        values = _numbers(frame, column)
        if values.dtype != np.int64 or not (values.min() >= 0 and values.max() < MOST_COUNT):
            whole = (values >= 0) & (values == np.floor(values)) & (values < MOST_COUNT)
            _refuse(frame, column, ~whole, "token counts are whole numbers ≥ 0")
        checked[column] = values.astype("int64")
    values = checked["runtime_s"] = _numbers(frame, "runtime_s").astype("float64")
    runtime_s = values.to_numpy()  # whose extremes are NaN where one of them is
    if not (runtime_s.min() >= LEAST and runtime_s.max() <= MOST):
        _refuse(frame, "runtime_s", ~values.between(LEAST, MOST), f"a runtime is a number of seconds > 0, {_RANGE}")
    for column, bounds in bounds_of(energies or ["energy_j"]).items():
        if column in frame.columns:
            checked[column] = _numbers(frame, column)
            if (beyond := bounds.beyond(checked[column].to_numpy())) is not None:
                _refuse(frame, column, beyond, bounds.rule)
    checked["simulated"] = flags(frame, "simulated")
    return checked


def bounds_of(energies: Collection[str]) -> dict[str, Bounds]:
    """Columns that may be missing or empty, by name.

    They are ``energies``, their deviations and idle shares, the time to the first token, and how many shared a call.
    """
    deviations = (f"{energy.removesuffix('_j')}_std_j" for energy in energies)
    idle = (f"{energy.removesuffix('energy_j')}idle_energy_j" for energy in energies)
    return {
        **dict.fromkeys(energies, _ENERGY),
        **dict.fromkeys(deviations, _STD),
        **dict.fromkeys(idle, _IDLE),
        "time_to_first_token_s": _FIRST_TOKEN,
        **dict.fromkeys(("batch_size", "concurrency"), _REQUESTS),
    }


def energy_columns(boundary: str) -> list[str]:
    """``gpu+cpu`` → ``["gpu_energy_j", "cpu_energy_j"]``."""
    return [f"{part}_energy_j" for part in boundary.split("+")]


def _paths(sources: str | PathLike[str] | Iterable[str | PathLike[str]], option: str) -> list[Path]:
    """Files of all sources in order, each once however many globs find it."""
    paths: dict[Path, None] = {}
    for source in [sources] if isinstance(sources, str | PathLike) else sources:
        found = matches(fspath(source))
        if not found:
            raise InputError(option, source, "no file matches; check the pattern")
        paths.update(dict.fromkeys(map(Path, found)))
    if not paths:
        raise InputError(option, "none", "give at least one measurements file")
    return list(paths)


def _numbers(frame: pd.DataFrame, column: str) -> pd.Series[Any]:
    """As they stand where they are whole numbers or floats, as floats otherwise."""
    import pandas as pd

    if frame[column].dtype in (np.dtype(np.int64), np.dtype(np.float64)):
        return frame[column]
    if frame[column].dtype.kind in NO_NUMBERS:
        _refuse(frame, column, frame[column].notna(), "is not a plain number; give seconds, joules or tokens as such")
    values = pd.to_numeric(frame[column], errors="coerce").astype("float64")
    if frame[column].dtype.kind not in "iuf":  # of those a NaN is empty, though Arrow tells it from what is missing
        _refuse(frame, column, values.isna() & frame[column].notna(), "is not a number")
    return values


def flags(frame: pd.DataFrame, column: str) -> pd.Series[bool]:
    """A column as booleans; a row that does not say is taken for false.

    Raises:
        FitError: something else stands there.
    """
    import pandas as pd

    if column not in frame.columns:
        return pd.Series(False, index=frame.index)
    if frame[column].dtype == bool:
        return frame[column]
    words = frame[column].astype("string").str.lower()
    known = words.isna() | words.isin(["true", "false", "1", "0", "1.0", "0.0"])
    _refuse(frame, column, ~known, "is neither true nor false")
    return words.isin(["true", "1", "1.0"]).astype(bool)


def _refuse(frame: pd.DataFrame, column: str, wrong: pd.Series[bool] | NDArray[np.bool_], rule: str) -> None:
    if not wrong.any():
        return
    value = frame.loc[wrong, column].iloc[0]
    others = f" (and {int(wrong.sum()) - 1} more)" if wrong.sum() > 1 else ""
    ways = "--where or --leave-out" if column in SCREENED else "--where"
    raise FitError(
        column, shown_cell(value), f"{_place(frame, wrong)}{others}: {rule}; correct it, or leave it out by {ways}"
    )


def _place(frame: pd.DataFrame, chosen: pd.Series[bool] | NDArray[np.bool_]) -> str:
    """Where the first chosen row stands: its row and source, or its position in a frame of the caller's own."""
    position = int(np.flatnonzero(chosen)[0])
    if frame.index.names == ["source", "row"]:
        source, row = frame.index[position]
        return f"row {row} of {source}"
    return f"row {position + 1}"
