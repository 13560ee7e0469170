from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from forked import run_forked

from llmpower.phrases import plural
from llmpower.store import Store, read_measurements, schema
from llmpower.tables import read_table
from llmpower.types import MEASUREMENT_COLUMNS, Measurement

Make = Callable[..., Measurement]


@pytest.fixture
def store(tmp_path: Path, make_measurement: Make) -> Path:
    path = tmp_path / "spans.db"
    writer = Store(path)
    writer.append([make_measurement(number, model_name="ab"[number % 2]) for number in range(4)])
    absent = make_measurement(9, gpu_energy_j=None, first_token_ns=None, quality="unavailable")
    writer.append([absent])
    writer.append([make_measurement(10, started_at=datetime.now(UTC) - timedelta(minutes=90))])
    writer.close()
    return path


def export(*options: object, **environ: str) -> subprocess.CompletedProcess[str]:
    return run_forked("export", *options, env=environ or None)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_every_format_holds_the_same_rows(suffix: str, store: Path, tmp_path: Path) -> None:
    out = tmp_path / f"measurements{suffix}"
    ended = export("--store", store, "-o", out)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr == f"6 rows from {store} to {out}\n"
    frame = read_table(out)
    assert tuple(frame.columns) == MEASUREMENT_COLUMNS
    expected = read_measurements(store)
    assert list(frame["span_id"]) == list(expected["span_id"])
    assert list(frame["gpu_energy_j"].isna()) == list(expected["gpu_energy_j"].isna())
    assert frame["gpu_energy_j"].sum() == expected["gpu_energy_j"].sum()
    assert frame["simulated"].all()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_where_the_daemon_lives_alone_rows_are_exported_without_pandas(
    suffix: str, store: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"m{suffix}"
    arguments = ["llmpower", "export", "--store", str(store), "-o", str(out)]
    program = f"import sys; sys.modules['pandas'] = None; sys.argv = {arguments}"
    command = [sys.executable, "-c", f"{program}; from llmpower.cli.main import main; main()"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, f"6 rows from {store} to {out}\n")
    read = [frame.drop(columns="started_at").astype(object) for frame in (read_table(out), read_measurements(store))]
    pd.testing.assert_frame_equal(*read, check_dtype=False)


def test_an_absent_reading_is_an_empty_cell(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.csv"
    export("--store", store, "-o", out)
    cells = pd.read_csv(out, dtype=str, keep_default_na=False).set_index("span_id").to_dict("index")
    assert cells["span-9"]["gpu_energy_j"] == cells["span-9"]["time_to_first_token_s"] == ""
    assert cells["span-1"]["started_at"] == "2026-01-01T00:01:00.000000Z"


@pytest.mark.parametrize(
    ("options", "spans"),
    [
        (["--model", "b"], ["span-1", "span-3"]),
        (["--since", "2026-01-01T00:02:00Z", "--until", "2026-01-01T00:09:00+00:00"], ["span-2", "span-3"]),
        (["--since", "2h"], ["span-10"]),
        (["--since", "1.6h", "--until", "30m"], ["span-10"]),
        (["--since", "2026-01-01T09:03:00+09:00", "--until", "1d"], ["span-3", "span-9"]),
        (["--since", "45s"], []),
    ],
)
def test_rows_are_chosen(options: list[str], spans: list[str], store: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.jsonl"
    ended = export("--store", store, *options, "-o", out)
    assert ended.stderr.startswith(f"{plural(len(spans), 'row')} from")
    assert [*read_table(out).get("span_id", [])] == spans


def test_the_users_are_exported_to_whom_asks(tmp_path: Path, make_measurement: Make) -> None:
    writer = Store(tmp_path / "spans.db")
    writer.append([make_measurement(1, uid=1000), make_measurement(2)])
    writer.close()
    out = tmp_path / "m.csv"
    assert export("--store", tmp_path / "spans.db", "--with-uid", "-o", out).returncode == 0
    lines = out.read_text("utf-8").splitlines()
    assert lines[0].split(",") == [*MEASUREMENT_COLUMNS, "uid"]
    assert [line.rpartition(",")[2] for line in lines[1:]] == ["1000", ""]


def test_the_store_of_an_earlier_version_is_exported_as_it_is(tmp_path: Path) -> None:
    store = tmp_path / "spans.db"
    scripts = dict(schema._migrations())
    with closing(sqlite3.connect(store)) as connection:
        connection.executescript(
            f"{scripts[1]}; {scripts[2]}; PRAGMA application_id = {schema.APPLICATION_ID}; PRAGMA user_version = 2;"
            "INSERT INTO measurements (span_id, started_at, hostname, pid, model_name, system, input_tokens,"
            " output_tokens, batch_size, runtime_s, quality, method, allocated, simulated, attributes) VALUES"
            " ('old', '2025-01-01T00:00:00.000000Z', 'h', 1, 'm', 's', 1, 1, 1, 1.0, 'measured', 'counter', 0, 0, '{}')"
        )
    before = store.read_bytes()
    ended = export("--store", store, "--with-uid", "-o", tmp_path / "m.jsonl")
    assert (ended.returncode, ended.stderr) == (0, f"1 row from {store} to {tmp_path / 'm.jsonl'}\n")
    assert read_table(tmp_path / "m.jsonl")["span_id"].tolist() == ["old"]
    assert store.read_bytes() == before


def test_a_disk_without_room_is_one_line_and_leaves_what_was_there(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.csv"
    out.write_text("of yesterday", encoding="utf-8")
    command = [sys.executable, "-m", "llmpower.cli.main", "export", "--store", str(store), "-o", str(out)]
    ended = subprocess.run(
        ["prlimit", "--fsize=100", "--", *command], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    advice = "cannot be written (File too large); make room there, or give another place"
    assert ended.stderr == f"llmpower: error: -o = {out}: {advice}\n"
    assert out.read_text("utf-8") == "of yesterday"
    assert not list(tmp_path.glob(".m.csv*"))


def test_a_time_without_offset_is_this_machines(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.csv"
    for zone, rows in (("UTC", 6), ("UTC-5", 6), ("UTC+5", 1)):
        ended = export("--store", store, "--since", "2026-01-01T00:00", "-o", out, TZ=zone, PATH="/usr/bin:/bin")
        assert ended.stderr.startswith(f"{plural(rows, 'row')} from"), (zone, ended.stderr)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--since", "yesterday"], "--since = yesterday: is not a time; write 2026-01-31T12:00 or"),
        (["--until", "2x"], "--until = 2x: is not a time"),
        (["--since", "99999999w"], "--since = 99999999w: is not a time"),
        (["--since", "1h", "--until", "2h"], "--until = 20"),
        (["--until", "2026-01-01T00:00Z", "--since", "2026-01-01T00:00Z"], "--until = 20"),
        (["--store", "/dev/null/spans.db"], "--store = /dev/null/spans.db: no such file; start 'llmpower daemon'"),
        (["-o", "m.xlsx"], "-o = m.xlsx: cannot tell the format"),
        (["-o", "/dev/null/m.csv"], "-o = /dev/null/m.csv: cannot write there"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(options: list[str], told: str, store: Path, tmp_path: Path) -> None:
    ended = export("--store", store, "-o", tmp_path / "m.csv", *options)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"llmpower: error: {told}")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "m.csv").exists()


def test_an_end_before_the_beginning_is_told_with_both(store: Path, tmp_path: Path) -> None:
    times = ["--since", "2026-01-02T00:00", "--until", "2026-01-01T12:30Z"]
    ended = export("--store", store, *times, "-o", tmp_path / "m.csv", TZ="UTC-5", PATH="/usr/bin:/bin")
    told = "--until = 2026-01-01T17:30:00+05:00: must come after --since = 2026-01-02T00:00:00+05:00"
    assert (ended.returncode, ended.stderr) == (2, f"llmpower: error: {told}; swap them, or leave one out\n")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_who_watches_sees_how_far_it_is(suffix: str, store: Path, on_terminal: Callable[..., Any]) -> None:
    terminal = on_terminal(
        *(sys.executable, "-m", "llmpower.cli.main", "export"),
        *("--store", store, "-o", store.with_name(f"rows.{suffix}")),
    )
    assert terminal.wait() == 0
    assert re.fullmatch(r"export  \[#+\]  (\d+)/\1", terminal.lines[0])
