"""A tariff: the price of a kWh and its carbon by hour, and at which of these rates each query of a workload came.

Rows are hours of the day, 0 to 23, or begin at a timestamp, as markets and grids publish them. Such a row holds until
the next one begins and for an hour at most, so quarters of an hour do as well and a gap is found. Times are of UTC
where they say so or have another offset; without one they are taken as they stand, in the tariff and in the workload
alike. Contracts have hours of local time, which is another one of UTC in summer: with a time zone the hours of the day
are those there, and a query's time is one of UTC where it does not say its offset.

Rates are above 0. At a price below, the least cost is the most energy, and at 0 joules count for nothing: no plan that
anybody wants. What a user pays for a kWh at such an hour, with the grid's fees and taxes, rarely is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import InputError
from llmpower.modelling.forms import FloatArray
from llmpower.phrases import plural
from llmpower.routing.pointers import IntArray
from llmpower.routing.problem.rates import RATE_COLUMNS, UNITS, Rate, Rates, RowRates, Weigh
from llmpower.routing.problem.timestamps import since_1970_s
from llmpower.tables import number_of, read_records

OPTION = "--tariff"
ZONE_OPTION = "--tariff-zone"
HOUR_S = 3600
HOURS = 24


@dataclass(frozen=True, slots=True, eq=False)
class Tariff:
    """Rows in ascending order: ``start`` (n_rows,) is an hour of the ``day``, or seconds since 1970.

    ``per_kwh`` holds the columns that there are, each (n_rows,): EUR or g of CO₂ a kWh. Hours of the day are local ones
    of ``zone``; without one they are those that the times say, or of UTC.
    """

    day: bool
    start: IntArray
    per_kwh: Mapping[str, FloatArray]
    zone: ZoneInfo | None = None

    def rates(self, timestamps: NDArray[Any] | Any) -> RowRates:
        """What held when the queries came: dates or seconds, (n_rows,).

        Raises:
            InputError: a query has no time, or the tariff no row for it.
        """
        import pandas as pd

        time_s = since_1970_s(pd.Series(timestamps))
        key = self._hour(time_s) if self.day else time_s
        row = np.searchsorted(self.start, key, side="right") - 1
        missing = (row < 0) | (key - self.start[row] >= (1 if self.day else HOUR_S))
        if missing.any():
            self._refuse(key[missing], len(key))
        used, of_row = np.unique(row, return_inverse=True)
        # Hours of one rate are one: what tells queries apart is what a joule costs them.
        columns = np.column_stack([values[used] for values in self.per_kwh.values()])
        distinct, of_used = np.unique(columns, axis=0, return_inverse=True)
        by_column = dict(zip(self.per_kwh, distinct.T, strict=True))
        by_kind = {
            kind: Rate(np.ascontiguousarray(by_column[unit.column]), _mean(self.per_kwh[unit.column]))
            for kind, unit in UNITS.items()
            if unit.column in by_column
        }
        return RowRates(Rates(by_kind, len(distinct)), of_used.ravel()[of_row].astype(np.int64))

    def hours(self, timestamps: NDArray[Any] | Any) -> IntArray:
        """The hour of the day, 0 to 23 where the tariff's hours are, at which each query came (n_rows,)."""
        import pandas as pd

        return self._hour(since_1970_s(pd.Series(timestamps)))

    def by_hour(self) -> dict[Weigh, tuple[FloatArray, FloatArray, FloatArray]]:
        """The least, mean and largest rate of the rows at each hour of the day, each (24,); NaN where there is none."""
        hour = self.start if self.day else self._hour(self.start)
        found: dict[Weigh, tuple[FloatArray, FloatArray, FloatArray]] = {}
        for kind, unit in UNITS.items():
            if (values := self.per_kwh.get(unit.column)) is not None:
                rows = [values[hour == each] for each in range(HOURS)]
                least, mean, most = np.array([(r.min(), _mean(r), r.max()) if len(r) else [np.nan] * 3 for r in rows]).T
                found[kind] = least, mean, most
        return found

    def _hour(self, time_s: IntArray) -> IntArray:
        """Of the day, 0 to 23."""
        import pandas as pd

        if self.zone is None:
            return time_s // HOUR_S % HOURS
        local = pd.DatetimeIndex(time_s.astype("datetime64[s]")).tz_localize("UTC").tz_convert(self.zone)
        return local.hour.to_numpy(np.int64)

    def _refuse(self, missing: IntArray, n_rows: int) -> None:
        first = int(missing.min())
        told = f"{len(missing):,} of {plural(n_rows, 'row')} of the workload came when the tariff has no rate"
        if self.day:
            where = "" if self.zone is None else f" ({self.zone.key})"
            raise InputError("hour", first, f"{told}; add a row for this hour{where} to {OPTION}")
        shown = f"{np.datetime64(first, 's')}Z"
        raise InputError("timestamp", shown, f"{told}, this one first; add a row that begins within the hour before")


def check_tariff(tariff: object) -> None:
    """Refuse what is no tariff.

    Raises:
        InputError: it is something else, such as the name of its file.
    """
    if not isinstance(tariff, Tariff):
        shown = tariff if isinstance(tariff, str) else type(tariff).__name__
        raise InputError("tariff", shown, "is not a tariff; give read_tariff of its file")


def read_tariff(path: str | PathLike[str], zone: str | None = None) -> Tariff:
    """Read ``hour`` or ``timestamp``, and ``eur_per_kwh``, ``g_co2_per_kwh`` or both; errors name row and column.

    ``zone`` says where the hours are local ones, by its IANA name such as Europe/Berlin.

    Raises:
        InputError: the file cannot be read or has no rows, lacks a column or has another one, says two things of one
            time, or holds a rate that is not a number above 0; the zone is unknown, or the rows begin at timestamps.
    """
    where = None if zone is None else zone_of(zone)
    path = Path(path)
    records = read_records(path, what=OPTION)
    if not records:
        raise InputError(OPTION, path, "holds no rows; give one row per hour")
    columns, known = list(records[0]), ("hour", "timestamp", *RATE_COLUMNS)
    for name in columns:
        if name not in known:
            raise InputError("column", name, f"{path} may have {', '.join(known)}; rename it or leave it out")
    times = [name for name in ("hour", "timestamp") if name in columns]
    if len(times) != 1:
        found = " and ".join(times) or "neither"
        raise InputError("column", found, f"{path} needs one of hour (0 to 23) and timestamp, to say when a rate holds")
    if where is not None and times == ["timestamp"]:
        advice = f"is of hours of the day, and {path} has timestamps, which say their own offsets; leave it out"
        raise InputError(ZONE_OPTION, zone, advice)
    kinds = [name for name in RATE_COLUMNS if name in columns]
    if not kinds:
        raise InputError("column", "neither", f"{path} needs {' or '.join(RATE_COLUMNS)}")
    start = _hours(records, path) if times == ["hour"] else _starts(records)
    order = np.argsort(start, kind="stable")
    if len(again := np.flatnonzero(np.diff(start[order]) == 0)):
        row = int(order[again[0] + 1])
        raise InputError(times[0], records[row][times[0]], f"row {row + 1} of {path} repeats it; keep one row each")
    per_kwh = {name: np.array(_rates(records, name, path))[order] for name in kinds}
    return Tariff(times == ["hour"], start[order], per_kwh, where)


def zone_of(name: str) -> ZoneInfo:
    """By its IANA name.

    Raises:
        InputError: none is known by it.
    """
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # absent, no name at all, or a directory of zones
        advice = "no time zone of this name is known here; take one of the IANA database, such as Europe/Berlin"
        raise InputError(ZONE_OPTION, name or "empty", advice) from None


def _hours(records: Sequence[Mapping[str, object]], path: Path) -> IntArray:
    hours = []
    for row, record in enumerate(records, start=1):
        hour = number_of(record["hour"])
        if not (0 <= hour < HOURS and hour.is_integer()):
            shown = "empty" if record["hour"] is None else record["hour"]
            raise InputError("hour", shown, f"row {row} of {path} needs a whole number from 0 to {HOURS - 1}")
        hours.append(int(hour))
    return np.array(hours, np.int64)


def _starts(records: Sequence[Mapping[str, object]]) -> IntArray:
    import pandas as pd

    values = pd.Series([record["timestamp"] for record in records], dtype=object)
    numbers = pd.to_numeric(values, errors="coerce")
    column = values if numbers.isna().any() else numbers
    return since_1970_s(column, f"of {OPTION} the time from which it holds")


def _rates(records: Sequence[Mapping[str, object]], column: str, path: Path) -> list[float]:
    found = []
    for row, record in enumerate(records, start=1):
        value = number_of(record[column])
        if not 0 < value < np.inf:
            shown = "empty" if record[column] is None else record[column]
            advice = f"row {row} of {path} needs a number above 0"
            if value <= 0:
                advice += (
                    ", as below it the least cost is the most energy; write what a kWh costs you with fees and taxes"
                )
            raise InputError(column, shown, advice)
        found.append(value)
    return found


def _mean(values: FloatArray) -> float:
    """Exactly the value, where all are the same."""
    return float(values.min() + (values - values.min()).mean())
