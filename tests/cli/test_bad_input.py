"""Everything a user can get wrong, through the real command: exit code 2, one line, nothing half-written."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from forked import run_forked

from llmpower.store import Store

GRID = "model_name,input_tokens,output_tokens,runtime_s,gpu_energy_j\n" + "".join(
    f"{model},{i},{o},{0.01 * o * factor + 0.0001 * i},{factor * (0.1 * i + 3 * o + 0.001 * i * o)}\n"
    for model, factor in (("small", 1.0), ("large", 4.0))
    for i in (8, 32, 128, 512)
    for o in (8, 32, 128)
)


def llmpower(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_forked(*arguments, env=os.environ | environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("input")
    (folder / "grid.csv").write_text(GRID)
    (folder / "workload.csv").write_text("input_tokens,output_tokens\n" + "16,16\n64,32\n" * 10)
    (folder / "accuracy.csv").write_text("model_name,accuracy\nsmall,0.4\nlarge,0.6\n")
    done = llmpower("fit", folder / "grid.csv", "-o", folder / "models.json")
    assert done.returncode == 0, done.stderr
    return folder


def refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if "warning" not in line]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("llmpower: error: ")
    for words in said:
        assert words in errors[0]


def route(folder: Path, *arguments: object, **files: str) -> subprocess.CompletedProcess[str]:
    given = {"models": "models.json", "workload": "workload.csv", "accuracy": "accuracy.csv"} | files
    options = [part for name, file in given.items() for part in (f"--{name}", folder / file)]
    out = folder / "plan.csv"
    done = llmpower("route", *options, "-o", out, *arguments)
    assert out.exists() == (done.returncode == 0)
    out.unlink(missing_ok=True)
    return done


def test_what_is_right_works(folder: Path) -> None:
    assert route(folder, "--share", "small=0.5", "--share", "large=0.5").returncode == 0


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("model_name,input_tokens,runtime_s,gpu_energy_j\na,1,1,1\n", ["output_tokens"]),
        ("model_name,input_tokens,output_tokens,runtime_s,gpu_energy_j\na,nan,8,1,1\n", ["input_tokens"]),
        ("model_name,input_tokens,output_tokens,runtime_s,gpu_energy_j\na,-8,8,1,1\n", ["input_tokens", "-8"]),
        ("model_name,input_tokens,output_tokens,runtime_s,gpu_energy_j\n", ["rows"]),
    ],
)
def test_measurements_that_cannot_be_fitted(rows: str, said: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(rows)
    done = llmpower("fit", tmp_path / "bad.csv", "-o", tmp_path / "models.json")
    refused(done, *said)
    assert not (tmp_path / "models.json").exists()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("input_tokens,output_tokens\n", ["workload", "0 rows"]),
        ("input_tokens\n1\n", ["output_tokens"]),
        ("input_tokens,output_tokens\n1,\n", ["output_tokens"]),
        ("input_tokens,output_tokens\n1,-4\n", ["output_tokens", "-4"]),
    ],
)
def test_workloads_that_cannot_be_routed(rows: str, said: list[str], folder: Path) -> None:
    (folder / "bad.csv").write_text(rows)
    refused(route(folder, workload="bad.csv"), *said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--share", "small=0.5", "--share", "large=0.6"], ["1.1"]),
        (["--share", "huge=0.5"], ["huge", "small"]),
        (["--only", "huge"], ["huge", "small"]),
        (["--zeta", "1.5"], ["--zeta", "1.5"]),
        (["--share", "small=x"], ["small=x"]),
    ],
)
def test_shares_and_models_that_do_not_fit(arguments: list[str], said: list[str], folder: Path) -> None:
    refused(route(folder, *arguments), *said)


def test_an_accuracy_without_a_fit(folder: Path) -> None:
    (folder / "more.csv").write_text("model_name,accuracy\nsmall,0.4\nlarge,0.6\nhuge,0.7\n")
    refused(route(folder, accuracy="more.csv"), "huge", "small")


def test_an_unknown_model(folder: Path) -> None:
    asked = ["--input-tokens", 8, "--output-tokens", 8]
    refused(
        llmpower("predict", "--models", folder / "models.json", "--model", "huge", *asked), "huge", "large", "small"
    )


def test_models_that_are_no_models(folder: Path) -> None:
    (folder / "no.json").write_text('{"schema": "llmpower.models/1", "models": [')
    refused(route(folder, models="no.json"), "no.json")


def test_a_document_of_another_kind_is_the_wrong_file_and_not_one_to_make_again(folder: Path) -> None:
    simulate = ("simulate", "--workload", folder / "workload.csv", "--policy")
    refused(llmpower(*simulate, folder / "models.json"), "--policy = ", "models.json", "llmpower route --policy")
    (folder / "none.json").write_text("{}")
    refused(route(folder, models="none.json"), "--models = ", "none.json: names no schema", "llmpower fit")


def test_a_store_that_is_corrupt_or_is_none(tmp_path: Path) -> None:
    store = tmp_path / "spans.db"
    store.write_bytes(b"SQLite format 3\0" + b"nonsense" * 1000)
    refused(llmpower("export", "--store", store, "-o", tmp_path / "out.csv"), "spans.db")
    refused(llmpower("export", "--store", tmp_path / "absent.db", "-o", tmp_path / "out.csv"), "absent.db")
    assert not (tmp_path / "out.csv").exists()


@pytest.fixture
def daemon_arguments(tmp_path: Path) -> list[object]:
    return ["daemon", "--backend", "simulated", "--store", tmp_path / "spans.db", "--socket", tmp_path / "s"]


def test_a_store_that_another_holds(daemon_arguments: list[object], tmp_path: Path) -> None:
    Store(tmp_path / "spans.db").close()
    with (tmp_path / "spans.db.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(llmpower(*daemon_arguments, "--web.listen-address", "127.0.0.1:0"), "spans.db", "another")


def test_a_port_in_use(daemon_arguments: list[object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(llmpower(*daemon_arguments, "--web.listen-address", f"127.0.0.1:{port}"), str(port))


def test_a_socket_path_too_long(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    done = llmpower("daemon", "--backend", "simulated", "--store", tmp_path / "spans.db", "--socket", long)
    refused(done, "--socket", "107")
    refused(llmpower("status", "--socket", long), "--socket", "107")


def test_a_library_of_the_wrong_kind(daemon_arguments: list[object]) -> None:
    arguments = [*daemon_arguments[:1], *daemon_arguments[3:], "--nvml-library", "libm.so.6"]
    refused(llmpower(*arguments), "libm.so.6", "--nvml-library")


def test_no_daemon(tmp_path: Path) -> None:
    refused(llmpower("status", "--socket", tmp_path / "s"), "llmpower daemon")
    refused(llmpower("profile", "any/model", "--socket", tmp_path / "s"), "llmpower daemon")


@pytest.mark.parametrize(
    ("missing", "source", "fix"),
    [("pandas", "grid.csv", "pip install 'llmpower'"), ("pyarrow", "", "pip install 'llmpower[parquet]'")],
)
def test_a_command_whose_dependency_is_not_there_says_which(folder: Path, missing: str, source: str, fix: str) -> None:
    """And what brings it: a directory is read as a data set, which takes an extra."""
    arguments = ["llmpower", "fit", str(folder / source)]
    program = f"import sys; sys.modules['{missing}'] = None; sys.argv = {arguments}"
    command = [sys.executable, "-c", f"{program}; from llmpower.cli.main import main; main()"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    refused(done, f"{missing} = not installed", fix)
