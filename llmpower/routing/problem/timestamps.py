"""When queries came: dates, or seconds as numbers, as a column of a table has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from llmpower.exceptions import InputError
from llmpower.modelling.linear import FloatArray
from llmpower.routing.pointers import IntArray

if TYPE_CHECKING:
    import pandas as pd

END_S = 253_402_300_800
"""The year 10000 in seconds since 1970. A number beyond is in milliseconds, or in less."""


def check_times(frame: pd.DataFrame, why: str) -> None:
    """Refuse a workload that does not say when its queries came."""
    if "timestamp" not in frame.columns:
        advice = f"{why} (columns: {', '.join(map(str, frame.columns))}); name its header with --column"
        raise InputError("timestamp", "missing", f"{advice} timestamp=HEADER")


def since_first_s(column: pd.Series) -> tuple[FloatArray, float]:
    """Seconds from the first, in any order, and when that was, in seconds since 1970 of UTC as numbers are taken for.

    Raises:
        InputError: a cell is neither a date nor a number.
    """
    times = _times(column)
    if times.dtype.kind == "f":
        first_s = float(times.min())
        return np.asarray(times.to_numpy(np.float64) - first_s), first_s
    # Before they become floats: nanoseconds since 1970 have more digits than a float.
    since = times - times.min()
    return np.asarray(since.dt.total_seconds().to_numpy(np.float64)), times.min().timestamp()


def since_1970_s(column: pd.Series, what: str = "the time of arrival") -> IntArray:
    """Whole seconds of UTC, rounded down; numbers are seconds since 1970, and dates without an offset are of UTC.

    Raises:
        InputError: a cell is neither a date nor a number; ``what`` says what it should be.
    """
    times = _times(column, what)
    if times.dtype.kind == "f":
        return np.asarray(np.floor(times.to_numpy(np.float64)), np.int64)
    return np.asarray(times.dt.floor("s").dt.tz_localize(None).to_numpy("datetime64[s]").astype(np.int64))


def _times(column: pd.Series, what: str = "the time of arrival") -> pd.Series[Any]:
    """Floats, or dates of UTC."""
    import pandas as pd

    times: pd.Series[Any]
    if column.dtype.kind in "mc":  # durations and complex numbers are no times, whatever pandas makes of them
        times, wrong = column, np.ones(len(column), dtype=bool)
    elif pd.api.types.is_numeric_dtype(column):
        times = column.astype(np.float64)
        wrong = ~(np.abs(times.to_numpy()) < END_S)
    else:
        times = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
        wrong = times.isna().to_numpy()
        if wrong.any() and column.dtype.kind != "M":
            # One cell that is not a number makes texts of a column of seconds.
            seconds = pd.to_numeric(column.where(wrong), errors="coerce").astype(np.float64)
            if (numbers := np.abs(seconds.to_numpy()) < END_S).any():
                if not wrong.all():
                    raise _mixed(column, int(np.argmin(wrong)), int(np.argmax(numbers)))
                times, wrong = seconds, ~numbers
    if wrong.any():
        row = int(np.argmax(wrong))
        shown = "empty" if column.isna().iloc[row] else column.iloc[row]
        advice = f"row {row + 1} needs {what}, as an ISO date or in seconds since 1970; correct it or leave it out"
        raise InputError("timestamp", shown, advice)
    return times


def _mixed(column: pd.Series, date: int, seconds: int) -> InputError:
    told = f"row {seconds + 1} is in seconds, and row {date + 1} a date ({column.iloc[date]})"
    advice = f"{told}; write all of this column as ISO dates, or all in seconds"
    return InputError("timestamp", column.iloc[seconds], advice)
