"""A measurement as a row, and the statement that inserts many of them.

Many rows go into one statement: Python gives up its interpreter lock at every statement and has to win it back, and
beside a busy thread a batch inserted row by row was seen to take 7 s instead of 12 ms.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from llmpower.types import MEASUREMENT_COLUMNS, Measurement

COLUMNS = (*MEASUREMENT_COLUMNS, "pid", "attributes", "uid")
FLAGS = ("allocated", "simulated")
"""Columns of truths, which SQLite keeps as 0 or 1."""

SPAN_ID, UID = COLUMNS.index("span_id"), COLUMNS.index("uid")

CHUNKS = (128, 16, 1)
"""Rows of one statement. Few sizes, so that SQLite compiles few statements; 128 rows stay far below its variables."""

Row = tuple[object, ...]


def insert(rows: int) -> str:
    """The statement that inserts this many rows; a span that is there already stays as it is."""
    row = f"({', '.join('?' * len(COLUMNS))})"
    values = ", ".join([row] * rows)
    return f"INSERT INTO measurements ({', '.join(COLUMNS)}) VALUES {values} ON CONFLICT (span_id) DO NOTHING"


def chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The rows in order, in pieces of the sizes that :data:`CHUNKS` names."""
    start = 0
    for size in CHUNKS:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


def iso(moment: datetime) -> str:
    """UTC, to the microsecond, always of the same length: the order of the text is the order in time."""
    return f"{moment.astimezone(UTC).isoformat(timespec='microseconds')[: -len('+00:00')]}Z"


def row_of(measurement: Measurement) -> Row:
    """The values of :data:`COLUMNS`."""
    span = measurement.span
    return (
        stored_ids(span.span_id, span.uid)[0],
        iso(measurement.started_at),
        span.hostname,
        span.model_name,
        measurement.system,
        None if span.device_uuids is None else ";".join(span.device_uuids),
        span.input_tokens,
        span.output_tokens,
        span.batch_size,
        span.runtime_s,
        span.time_to_first_token_s,
        measurement.gpu_energy_j,
        measurement.gpu_energy_std_j,
        measurement.cpu_energy_j,
        measurement.cpu_energy_std_j,
        measurement.prefill_energy_j,
        measurement.decode_energy_j,
        measurement.quality,
        measurement.method,
        measurement.allocated,
        measurement.simulated,
        measurement.gpu_idle_energy_j,
        measurement.cpu_idle_energy_j,
        span.pid,
        json.dumps(dict(span.attributes), ensure_ascii=False, sort_keys=True) if span.attributes else "{}",
        span.uid,
    )


def under_own_id(row: Row) -> Row:
    """The row under the id ``<span_id>@<uid>``, for when another user's span has its own already.

    Nobody else can hold that id: what somebody sends in this form is itself kept with the sender's uid behind it.
    """
    return (f"{row[SPAN_ID]}@{row[UID]}", *row[SPAN_ID + 1 :])


def stored_ids(span_id: str, uid: int | None) -> tuple[str, ...]:
    """Under which ids a user's span may be found: the one it has, and the one it gets if that is another user's."""
    if uid is None:
        return (span_id,)
    _, at, end = span_id.rpartition("@")
    own = f"{span_id}@{uid}"
    first = own if at and end.isdecimal() else span_id
    return (first, f"{first}@{uid}")
