"""Readers of the database: they never write, and the daemon never waits for them.

A reader sees the rows committed when it began. It opens the file read-only, so it works for anyone who may read the
file, also where SQLite could not leave its own files beside it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from llmpower.exceptions import StoreError
from llmpower.store import schema
from llmpower.store.writer import iso
from llmpower.types import MEASUREMENT_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

_TYPES = {
    "input_tokens": "int64",
    "output_tokens": "int64",
    "batch_size": "int64",
    "runtime_s": "float64",
    "time_to_first_token_s": "float64",
    "gpu_energy_j": "float64",
    "gpu_energy_std_j": "float64",
    "cpu_energy_j": "float64",
    "cpu_energy_std_j": "float64",
    "prefill_energy_j": "float64",
    "decode_energy_j": "float64",
    "gpu_idle_energy_j": "float64",
    "cpu_idle_energy_j": "float64",
    "allocated": "bool",
    "simulated": "bool",
}


def iter_rows(
    path: Path,
    *,
    columns: Sequence[str] = MEASUREMENT_COLUMNS,
    since: datetime | None = None,
    until: datetime | None = None,
    model: str | None = None,
) -> Iterator[tuple[object, ...]]:
    """Yield one tuple of ``columns`` a span, in order of start, without pandas.

    ``since`` is the first moment (UTC offset required) included, ``until`` the first excluded; ``model`` is an exact
    model name. ``None`` stands for NULL, 0 and 1 for booleans.

    Raises:
        StoreError: no such file, or not a store of this version.
        ValueError: a column that is not one of :data:`~llmpower.types.MEASUREMENT_COLUMNS`, or a naive time.
    """
    if unknown := set(columns) - set(MEASUREMENT_COLUMNS):
        raise ValueError(f"no such column: {', '.join(sorted(unknown))}")
    conditions: dict[str, object] = {}
    if since is not None:
        conditions["started_at >= ?"] = _aware(since)
    if until is not None:
        conditions["started_at < ?"] = _aware(until)
    if model is not None:
        conditions["model_name = ?"] = model
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    query = f"SELECT {', '.join(columns)} FROM measurements{where} ORDER BY started_at, id"
    try:
        connection = _open(path)
        try:
            yield from connection.execute(query, tuple(conditions.values()))
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise schema.explain(path, error) from error


def read_measurements(
    path: Path, *, since: datetime | None = None, until: datetime | None = None, model: str | None = None
) -> pd.DataFrame:
    """The stored spans as a frame of exactly :data:`~llmpower.types.MEASUREMENT_COLUMNS`, in order of start.

    Arguments as :func:`iter_rows`. ``started_at`` is text (UTC, ISO 8601), ``device_uuids`` joined by ``;``; absent
    readings are NaN.

    Raises:
        StoreError: no such file, or not a store of this version.
    """
    import pandas as pd

    rows = list(iter_rows(path, since=since, until=until, model=model))
    frame = pd.DataFrame.from_records(rows, columns=list(MEASUREMENT_COLUMNS))
    return frame.astype({name: _TYPES.get(name, "object") for name in MEASUREMENT_COLUMNS})


def _open(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise StoreError(schema.OPTION, path, "no such file; start 'llmpower daemon', or give the store it writes to")
    connection = schema.connect(path, "ro")
    try:
        try:
            version = schema.check(connection, path, newest=schema.newest_version())
        except sqlite3.OperationalError:
            # A log-keeping database wants its index file beside it. Where we may not create that, and no daemon has,
            # nobody is writing either, and the file can be read as it lies.
            if path.with_name(f"{path.name}-wal").exists():
                raise
            connection.close()
            connection = schema.connect(path, "ro&immutable=1")
            version = schema.check(connection, path, newest=schema.newest_version())
        if version < schema.newest_version():
            advice = "this is not yet a store of this version of llmpower; start its daemon on it once"
            raise StoreError(schema.OPTION, path, advice)
    except BaseException:
        connection.close()
        raise
    return connection


def _aware(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no UTC offset")
    return iso(moment)
