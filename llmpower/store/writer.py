"""The one writer. Rows arrive in batches, each batch in one transaction: all of it is there, or none.

Write-ahead logging lets readers work while the daemon writes; ``synchronous=NORMAL`` means that a killed daemon loses
nothing it committed, and that a power cut may cost the last moments but never the file. That there is one writer is
held by a lock beside the database: SQLite would let two daemons take turns, and both would count the same device.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from llmpower.exceptions import StoreError
from llmpower.store import schema
from llmpower.types import MEASUREMENT_COLUMNS, Measurement

_COLUMNS = (*MEASUREMENT_COLUMNS, "pid", "attributes")
_INSERT = (
    f"INSERT INTO measurements ({', '.join(_COLUMNS)}) VALUES ({', '.join(f':{name}' for name in _COLUMNS)}) "
    "ON CONFLICT (span_id) DO NOTHING"
)


class Store:
    """The measurements database, opened for writing; creates the file where there is none.

    Raises:
        StoreError: another daemon writes to it, or it is locked, damaged, newer than this program, or out of reach.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _lock(path)
        try:
            self._connection = _open(path)
        except BaseException:
            os.close(self._lock)
            raise

    def append(self, measurements: Sequence[Measurement]) -> int:
        """Store all of them in one transaction and return how many were new.

        A span that is there already stays as it is: a sender may repeat itself, and its joules must not double.

        Raises:
            StoreError: nothing was stored; the same call may be made again.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                inserted = self._connection.executemany(_INSERT, map(_row, measurements)).rowcount
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite itself rolls back on some errors, such as a full disk; there is then nothing left to undo.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise schema.explain(self.path, error) from error
        return max(inserted, 0)

    def close(self) -> None:
        """Fold the log into the database file and let go of it; a second call does nothing."""
        if self._lock < 0:
            return
        # The last connection to close checkpoints the log and removes it; a reader still there will do so instead.
        self._connection.close()
        os.close(self._lock)
        self._lock = -1


def iso(moment: datetime) -> str:
    """UTC, to the microsecond, always of the same length: the order of the text is the order in time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _lock(path: Path) -> int:
    """The descriptor that holds ``<path>.lock``; the kernel lets go of it however the process ends."""
    lock_path = path.with_name(f"{path.name}.lock")
    try:
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError as error:
        advice = f"there is no directory {path.parent}; create it, or give another file"
        raise StoreError(schema.OPTION, path, advice) from error
    except OSError as error:
        raise StoreError(schema.OPTION, path, f"cannot write there ({error.strerror}); mend that") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        advice = f"another daemon (pid {holder or 'unknown'}) writes to it; stop that one, or give another file"
        raise StoreError(schema.OPTION, path, advice) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _open(path: Path) -> sqlite3.Connection:
    try:
        connection = schema.connect(path, "rwc")
        try:
            # Asked first: switching the journal of a file that is not ours would already be a change to it.
            schema.check(connection, path, newest=schema.newest_version())
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            schema.migrate(connection, path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise schema.explain(path, error) from error
    return connection


def _row(measurement: Measurement) -> dict[str, object]:
    span = measurement.span
    return {
        "span_id": span.span_id,
        "started_at": iso(measurement.started_at),
        "hostname": span.hostname,
        "pid": span.pid,
        "model_name": span.model_name,
        "system": measurement.system,
        "device_uuids": None if span.device_uuids is None else ";".join(span.device_uuids),
        "input_tokens": span.input_tokens,
        "output_tokens": span.output_tokens,
        "batch_size": span.batch_size,
        "runtime_s": span.runtime_s,
        "time_to_first_token_s": span.time_to_first_token_s,
        "gpu_energy_j": measurement.gpu_energy_j,
        "gpu_energy_std_j": measurement.gpu_energy_std_j,
        "cpu_energy_j": measurement.cpu_energy_j,
        "cpu_energy_std_j": measurement.cpu_energy_std_j,
        "prefill_energy_j": measurement.prefill_energy_j,
        "decode_energy_j": measurement.decode_energy_j,
        "quality": measurement.quality,
        "method": measurement.method,
        "allocated": measurement.allocated,
        "simulated": measurement.simulated,
        "gpu_idle_energy_j": measurement.gpu_idle_energy_j,
        "cpu_idle_energy_j": measurement.cpu_idle_energy_j,
        "attributes": json.dumps(dict(span.attributes), ensure_ascii=False, sort_keys=True),
    }
