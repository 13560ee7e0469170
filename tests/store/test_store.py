from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from filling import filled

from llmpower.exceptions import StoreError
from llmpower.store import Store, iter_rows, read_measurements, schema
from llmpower.types import MEASUREMENT_COLUMNS, Measurement

Make = Callable[..., Measurement]


def test_a_row_comes_back_as_it_went_in(path: Path, make_measurement: Make) -> None:
    filled(
        path,
        make_measurement(3, device_uuids=("GPU-1", "GPU-2"), model_name="größer; \x00 or not", gpu_idle_energy_j=25.0),
    )
    frame = read_measurements(path)
    assert tuple(frame.columns) == MEASUREMENT_COLUMNS
    row = frame.iloc[0].to_dict()
    assert row.pop("cpu_energy_j") is not None
    assert np.isnan(row.pop("cpu_energy_std_j"))
    assert np.isnan(row.pop("cpu_idle_energy_j"))
    del row["hostname"]
    assert row == {
        "span_id": "span-3",
        "started_at": "2026-01-01T00:03:00.000000Z",
        "model_name": "größer; \x00 or not",
        "system": "1× card",
        "device_uuids": "GPU-1;GPU-2",
        "input_tokens": 10,
        "output_tokens": 20,
        "batch_size": 1,
        "runtime_s": 2.0,
        "time_to_first_token_s": 0.5,
        "gpu_energy_j": 100.0,
        "gpu_energy_std_j": 1.0,
        "prefill_energy_j": 30.0,
        "decode_energy_j": 70.0,
        "quality": "measured",
        "method": "counter",
        "allocated": False,
        "simulated": True,
        "gpu_idle_energy_j": 25.0,
    }
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT pid, attributes FROM measurements").fetchone() == (7, '{"request": "one"}')


def test_absent_is_null_and_no_gpu_is_not_unknown_gpu(path: Path, make_measurement: Make) -> None:
    absent = {name: None for name in Measurement.__struct_fields__ if name.endswith("_j")}
    nowhere = make_measurement(1, device_uuids=(), first_token_ns=None, quality="unavailable", method="none", **absent)
    filled(path, nowhere, make_measurement(2, device_uuids=None))
    columns = ("device_uuids", "time_to_first_token_s", *absent)
    first, second = iter_rows(path, columns=columns)
    assert first == ("", *[None] * (len(columns) - 1))
    assert second[0] is None
    frame = read_measurements(path)
    assert frame[list(absent)].iloc[0].isna().all()
    assert frame["gpu_energy_j"].dtype == np.float64


def test_an_empty_store_is_an_empty_frame_of_the_same_types(path: Path, make_measurement: Make) -> None:
    empty = read_measurements(filled(path))
    assert empty.empty
    assert list(map(str, empty.dtypes)) == list(map(str, read_measurements(filled(path, make_measurement())).dtypes))


def test_reading_takes_little_more_memory_than_what_is_read(path: Path, make_measurement: Make) -> None:
    rows = 20_000
    filled(path, *(make_measurement(number) for number in range(rows)))
    columns = [name for name in MEASUREMENT_COLUMNS if name.endswith(("_j", "_s"))]
    read_measurements(path, columns=columns)  # what is imported by it is no part of the comparison
    tracemalloc.start()
    frame = read_measurements(path, columns=columns)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(frame.index) == list(range(rows))
    assert most_bytes < 3 * frame.memory_usage().sum()


def test_a_text_that_comes_again_and_again_takes_a_byte_a_row(path: Path, make_measurement: Make) -> None:
    names = [f"model-{letter}" for letter in "cab"]
    rows = 3_000
    filled(path, *(make_measurement(n, model_name=names[n % 3], device_uuids=None) for n in range(rows)))
    columns = ["hostname", "model_name", "system", "device_uuids", "quality", "method"]
    frame = read_measurements(path, columns=columns)
    assert frame["model_name"].tolist() == names * (rows // 3)
    assert frame["model_name"].cat.categories.tolist() == sorted(names)
    assert frame["device_uuids"].isna().all()
    assert frame.memory_usage(index=False).sum() < 1.2 * rows * len(columns)


def test_rows_are_chosen_by_time_and_model_and_come_in_order(path: Path, make_measurement: Make) -> None:
    filled(path, *(make_measurement(n, model_name="ab"[n % 2]) for n in (3, 1, 2, 0)))
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def ids(**conditions: object) -> list[object]:
        return [row[0] for row in iter_rows(path, columns=("span_id",), **conditions)]  # type: ignore[arg-type] # each is of its type

    assert ids() == ["span-0", "span-1", "span-2", "span-3"]
    assert ids(model="b") == ["span-1", "span-3"]
    assert ids(since=start + timedelta(minutes=1)) == ["span-1", "span-2", "span-3"]
    assert ids(until=start + timedelta(minutes=1)) == ["span-0"]
    east = timezone(timedelta(hours=9))
    assert ids(since=(start + timedelta(minutes=2)).astimezone(east), model="a") == ["span-2"]
    with pytest.raises(ValueError, match="UTC offset"):
        ids(since=datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="no such column"):
        list(iter_rows(path, columns=("1; DROP TABLE measurements",)))


def test_a_span_sent_twice_is_stored_once(path: Path, make_measurement: Make) -> None:
    store = Store(path)
    assert store.append([make_measurement(1), make_measurement(2)]) == (2, 0)
    assert store.append([make_measurement(2, gpu_energy_j=5.0), make_measurement(3)]) == (1, 0)
    assert store.append([]) == (0, 0)
    store.close()
    assert list(iter_rows(path, columns=("span_id", "gpu_energy_j"))) == [
        ("span-1", 100.0),
        ("span-2", 100.0),
        ("span-3", 100.0),
    ]


def test_a_batch_is_stored_whole_or_not_at_all(path: Path, make_measurement: Make) -> None:
    store = Store(path)
    with store.explaining() as connection:
        # Of the statements of one batch, a later one fails.
        connection.execute(
            "CREATE TEMP TRIGGER failing BEFORE INSERT ON measurements WHEN NEW.span_id = 'span-150'"
            " BEGIN SELECT * FROM json_each('no json'); END"
        )
    with pytest.raises(StoreError):
        store.append([make_measurement(number) for number in range(200)])
    assert list(iter_rows(path)) == []
    with store.explaining() as connection:
        connection.execute("DROP TRIGGER failing")
    assert store.append([make_measurement(number) for number in range(200)]) == (200, 0)
    store.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"quality": "splendid"},
        {"gpu_energy_j": "many"},
        {"input_tokens": 2**63},
        {"model_name": "\ud800"},
        {"pid": None},
    ],
)
def test_a_row_that_no_table_can_hold_costs_itself_alone(
    wrong: dict[str, object], path: Path, make_measurement: Make
) -> None:
    store = Store(path)
    batch = [make_measurement(number, **(wrong if number == 70 else {})) for number in range(150)]
    assert store.append(batch) == (149, 1)
    store.close()
    assert "span-70" not in {row[0] for row in iter_rows(path, columns=("span_id",))}


def test_the_tables_refuse_values_of_the_wrong_type(path: Path, make_measurement: Make) -> None:
    connection = sqlite3.connect(filled(path, make_measurement()))
    with pytest.raises(sqlite3.IntegrityError, match="cannot store TEXT value in REAL column"):
        connection.execute("UPDATE measurements SET gpu_energy_j = 'many'")
    connection.close()


def test_close_leaves_one_whole_file(path: Path, make_measurement: Make) -> None:
    filled(path, make_measurement())
    assert {file.name for file in path.parent.iterdir()} == {"spans.db", "spans.db.lock"}
    store = Store(path)
    assert store.append([make_measurement(1)]) == (1, 0)
    store.close()
    store.close()
    assert len(list(iter_rows(path))) == 2


def test_readers_see_what_is_committed_while_the_daemon_writes(path: Path, make_measurement: Make) -> None:
    store = Store(path)
    for number in range(20):
        store.append([make_measurement(number)])
        assert len(list(iter_rows(path))) == number + 1
    rows = iter_rows(path, columns=("span_id",))
    assert next(rows) == ("span-0",)
    # In the middle of a read the writer goes on, and the reader keeps the view it began with.
    store.append([make_measurement(99)])
    assert len(list(rows)) == 19
    store.close()


def test_one_writer_only(path: Path, make_measurement: Make) -> None:
    store = Store(path)
    with pytest.raises(StoreError, match=rf"another daemon \(pid {os.getpid()}\) writes to it"):
        Store(path)
    assert store.append([make_measurement()]) == (1, 0)
    store.close()
    Store(path).close()


def test_a_database_locked_by_another_program_fails_the_append_and_no_more(path: Path, make_measurement: Make) -> None:
    store = Store(path)
    intruder = sqlite3.connect(path, isolation_level=None)
    intruder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="holds the database locked"):
        store.append([make_measurement()])
    intruder.execute("ROLLBACK")
    intruder.close()
    assert store.append([make_measurement()]) == (1, 0)
    store.close()


def test_a_full_disk_fails_the_append_and_no_more(path: Path, make_measurement: Make) -> None:
    store = Store(path)
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    batch = [make_measurement(number) for number in range(1000)]
    with pytest.raises(StoreError, match="the disk is full; make room"):
        store.append(batch)
    store._connection.execute("PRAGMA max_page_count = 1000000")
    assert store.append(batch) == (1000, 0)
    store.close()


def test_a_store_of_the_first_version_grows_and_keeps_its_rows(path: Path, make_measurement: Make) -> None:
    first = dict(schema._migrations())[1]
    with sqlite3.connect(path) as connection:
        connection.executescript(f"{first}; PRAGMA application_id = {schema.APPLICATION_ID}; PRAGMA user_version = 1;")
        connection.execute(
            "INSERT INTO measurements (span_id, started_at, hostname, pid, model_name, system, input_tokens,"
            " output_tokens, batch_size, runtime_s, quality, method, allocated, simulated, attributes)"
            " VALUES ('old', '2025-01-01T00:00:00.000000Z', 'h', 1, 'm', 's', 1, 1, 1, 1.0, 'measured', 'counter',"
            " 0, 0, '{}')"
        )
    connection.close()
    filled(path, make_measurement(1, gpu_idle_energy_j=3.0))
    frame = read_measurements(path)
    assert frame["span_id"].tolist() == ["old", "span-1"]
    assert np.isnan(frame["gpu_idle_energy_j"][0])
    assert frame["gpu_idle_energy_j"][1] == 3.0


def test_migrations_are_numbered_without_gaps_and_recorded(path: Path) -> None:
    numbers = [number for number, _ in schema._migrations()]
    assert numbers == list(range(1, len(numbers) + 1))
    with sqlite3.connect(filled(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (numbers[-1],)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


_WRITER = """
import sys
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from llmpower.store import Store
from llmpower.types import Measurement, Span

store = Store(Path(sys.argv[1]))
number = 0
while True:
    span = Span(f"{number}", "llama", (), 0, None, 1, 1, 1, 1, "host", 1)
    at = datetime.now(UTC)
    store.append([Measurement(span, "s", at, *[None] * 6, "unavailable", "none", False, True)])
    print(number, flush=True)
    number += 1
"""


def test_kill_9_keeps_every_committed_row(path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for line in writer.stdout:
        if int(line) == 200:
            writer.send_signal(signal.SIGKILL)
            break
    committed = max([200, *map(int, writer.stdout.read().split())])
    writer.wait()
    assert path.with_name("spans.db-wal").exists(), "killed too late to mean anything"
    rows = [int(str(row[0])) for row in iter_rows(path, columns=("span_id",))]
    # The row being reported when the blow fell may be there as well.
    assert rows[: committed + 1] == list(range(committed + 1))
    assert len(rows) <= committed + 2
    Store(path).close()
    assert [int(str(row[0])) for row in iter_rows(path, columns=("span_id",))] == rows
