from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from llmpower.cli.main import cli
from llmpower.exceptions import DaemonUnreachableError, InputError
from llmpower.types import Measurement

SMALL = ("--input-tokens", "4,8", "--output-tokens", "2", "--max-trials", "4", "--pause", "0", "--device", "cpu")
# The receiver knows no joules: the paper's rule, and no look at power.
SMALL += ("--ci-half-width", "0.5", "--idle", "0", "--settle", "0")


def profile(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["profile", *map(str, arguments)], standalone_mode=False)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_a_campaign_from_the_command_line(receiver: Any, tiny_llama_directory: Path, journal: Path) -> None:
    receiver.status = {"simulated": True}
    command = [sys.executable, "-m", "llmpower.cli.main", "profile", tiny_llama_directory, *SMALL, "--json"]
    result = subprocess.run(
        [*command, "--socket", receiver.path, "--journal", journal, "--batch-size", "1,2"],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    document = json.loads(result.stdout)
    assert (document["model_name"], document["simulated"], document["kv_cache"]) == ("tiny-llama", True, True)
    trials = sum(cell["trials"] for cell in document["cells"])
    spans = receiver.wait_for_spans(trials)
    assert len(spans) == trials
    for cell in document["cells"]:
        # A busy machine may take one more to be as sure.
        assert cell["trials"] == 4 or (cell["trials"] == 3 and cell["ci_reached"])
        assert cell["skipped"] is None
        batch = cell["batch_size"]
        runtimes = [
            span.runtime_s
            for span in spans
            if (span.input_tokens, span.batch_size) == (cell["input_tokens"] * batch, batch)
        ]
        assert cell["mean_runtime_s"] == pytest.approx(sum(runtimes) / cell["trials"])
    assert "SIMULATED" in result.stderr
    # No terminal, so a line for each finished cell and no bar.
    assert sum("of 4 cells" in line for line in result.stderr.splitlines()) == 4
    assert "%|" not in result.stderr


def test_a_finished_campaign_resumed_measures_nothing_more(
    receiver: Any, tiny_llama_directory: Path, journal: Path
) -> None:
    arguments = (tiny_llama_directory, *SMALL, "--socket", receiver.path, "--journal", journal, "--model-name", "tiny")
    first = profile(*arguments)
    assert first.exception is None
    # A busy machine may take one more to be as sure of a cell.
    (measured,) = map(int, re.findall(r"(\d+) trials\.", first.stdout))
    receiver.wait_for_spans(measured)
    second = profile(*arguments, "--resume")
    assert second.stdout == first.stdout
    assert (
        "  llmpower export --model tiny -o measurements.csv && llmpower fit measurements.csv"
        in first.stdout.splitlines()
    )
    assert len(receiver.spans) == measured


def test_the_way_to_the_measurements_names_a_store_that_is_elsewhere(
    receiver: Any, tiny_llama_directory: Path, journal: Path
) -> None:
    receiver.status = {"simulated": True, "store": {"path": "/srv/my spans.db"}}
    arguments = (tiny_llama_directory, *SMALL, "--socket", receiver.path, "--journal", journal)
    said = profile(*arguments, "--model-name", "it's tiny").stdout
    (command,) = [line for line in said.splitlines() if "llmpower export" in line]
    assert shlex.split(command)[:6] == ["llmpower", "export", "--model", "it's tiny", "--store", "/srv/my spans.db"]


def test_a_campaign_goes_on_as_it_was_asked_for_unless_the_command_says_otherwise(
    receiver: Any, tiny_llama_directory: Path, journal: Path
) -> None:
    where = (tiny_llama_directory, "--socket", receiver.path, "--journal", journal, "--device", "cpu", "--json")
    first = json.loads(profile(*where, *SMALL).stdout)
    measured = sum(cell["trials"] for cell in first["cells"])
    receiver.wait_for_spans(measured)
    again = profile(*where, "--resume")
    assert json.loads(again.stdout)["cells"] == first["cells"]
    assert "llmpower: resumed: --input-tokens 4,8" in again.stderr.splitlines()
    assert len(receiver.spans) == measured
    wider = json.loads(profile(*where, "--resume", "--output-tokens", "2,3").stdout)
    assert [(cell["input_tokens"], cell["output_tokens"]) for cell in wider["cells"]] == [
        (4, 2),
        (4, 3),
        (8, 2),
        (8, 3),
    ]
    assert [cell["trials"] for cell in wider["cells"] if cell["output_tokens"] == 2] == [
        cell["trials"] for cell in first["cells"]
    ]


def test_without_the_cache_the_measurements_are_called_so(
    receiver: Any, tiny_llama_directory: Path, journal: Path
) -> None:
    result = profile(
        tiny_llama_directory, *SMALL, "--socket", receiver.path, "--journal", journal, "--no-kv-cache", "--json"
    )
    assert json.loads(result.stdout)["model_name"] == "tiny-llama (no KV cache)"
    assert {span.model_name for span in receiver.wait_for_spans(6)} == {"tiny-llama (no KV cache)"}


def test_the_journal_is_kept_by_model_where_none_is_named(
    receiver: Any, tiny_llama_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    profile(tiny_llama_directory, *SMALL, "--socket", receiver.path, "--model-name", "org/tiny")
    assert [path.name for path in (tmp_path / "state" / "llmpower").iterdir()] == ["profile-org--tiny.jsonl"]


@pytest.fixture
def _joules(receiver: Any, make_measurement: Callable[..., Measurement]) -> None:
    """Have every span cost 10 J a token read and 100 J a token written."""
    receiver.measured = lambda span: make_measurement(
        gpu_energy_j=10.0 * span.input_tokens + 100.0 * span.output_tokens, gpu_energy_std_j=0.1
    )


FOR_ENERGY = ("--pause", "0", "--idle", "0", "--settle", "0", "--device", "cpu", "--json")


@pytest.mark.usefixtures("_joules")
def test_cells_stop_by_their_energy(receiver: Any, tiny_llama_directory: Path, journal: Path) -> None:
    result = profile(
        *(tiny_llama_directory, *FOR_ENERGY, "--input-tokens", "4,8", "--output-tokens", "2"),
        *("--socket", receiver.path, "--journal", journal),
    )
    assert result.exception is None
    cells = json.loads(result.stdout)["cells"]
    assert [(cell["trials"], cell["mean_energy_j"], cell["ci_reached"]) for cell in cells] == [
        (3, 240.0, True),
        (3, 280.0, True),
    ]


@pytest.mark.usefixtures("_joules")
def test_chosen_cells_are_a_part_of_the_grid(receiver: Any, tiny_llama_directory: Path, journal: Path) -> None:
    arguments = (
        *(tiny_llama_directory, *FOR_ENERGY, "--input-tokens", "4,8,16,32", "--output-tokens", "1,2,4,8"),
        *("--cells", "chosen", "--trials", "9", "--socket", receiver.path, "--journal", journal),
    )
    result = profile(*arguments)
    assert result.exception is None
    document = json.loads(result.stdout)
    assert document["plan"]["most_trials"] == 9
    trials = sum(cell["trials"] for cell in document["cells"])
    assert trials == len(receiver.wait_for_spans(trials)) <= 9
    assert len(document["cells"]) == 16
    said = profile(*(each for each in arguments if each != "--json"), "--resume").stdout
    assert "fit them with 'llmpower fit --robust'" in said


def test_a_plan_comes_first_and_may_be_all(receiver: Any, tiny_llama_directory: Path, journal: Path) -> None:
    arguments = (tiny_llama_directory, *SMALL, "--socket", receiver.path, "--journal", journal)
    planned = profile(*arguments, "--plan")
    assert planned.exception is None
    assert "plan: 2 cells; 6 trials expected, 8 at most; about " in planned.stderr
    assert (planned.stdout, receiver.messages) == ("", [])
    plan = json.loads(profile(*arguments, "--plan", "--json").stdout)["plan"]
    assert (plan["expected_trials"], plan["most_trials"], plan["expected_s"] > 0) == (6, 8, True)
    # It has begun nothing that would have to be resumed.
    assert profile(*arguments).exception is None


def test_a_server_is_measured_with_the_campaigns_own_spans(
    receiver: Any, serve: Callable[..., Any], journal: Path
) -> None:
    result = profile(
        *("--endpoint", serve().url, "--spans", "client", *SMALL, "--concurrency", "1,2", "--json"),
        *("--socket", receiver.path, "--journal", journal),
    )
    assert result.exception is None
    document = json.loads(result.stdout)
    assert document["model_name"] == "tiny"
    spans = receiver.wait_for_spans(sum(cell["trials"] for cell in document["cells"]))
    assert {(span.input_tokens, span.output_tokens, span.batch_size) for span in spans} == {
        (4, 2, 1),
        (8, 2, 1),
        (8, 4, 2),
        (16, 4, 2),
    }


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((), "MODEL"),
        (("any/model", "--concurrency", "2"), "--concurrency"),
        (("--endpoint", "http://127.0.0.1:9", "--batch-size", "2"), "--batch-size"),
        (("--endpoint", "http://127.0.0.1:9", "--no-kv-cache"), "--no-kv-cache"),
        (("any/model", "--cells", "chosen", "--form", "cubic"), "form"),
        (("any/model", "--form", "cubic"), "--form"),
        (("any/model", "--trials", "20"), "--trials"),
        (("any/model", "--cells", "chosen", "--output-tokens", "8"), "--cells chosen"),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_daemon_is_asked(
    socket_directory: Path, arguments: tuple[str, ...], field: str
) -> None:
    result = profile(*arguments, "--socket", socket_directory / "nobody.sock")
    assert isinstance(result.exception, InputError)
    assert not isinstance(result.exception, DaemonUnreachableError)
    assert result.exception.field == field


def test_options_are_checked_before_the_daemon_and_the_model(socket_directory: Path) -> None:
    nobody = ("--socket", socket_directory / "nobody.sock")
    result = profile("no/such/model", *nobody, "--output-tokens", "8..100")
    assert isinstance(result.exception, InputError)
    assert result.exception.field == "--output-tokens"
    result = profile("no/such/model", *nobody)
    assert isinstance(result.exception, DaemonUnreachableError)


def test_a_grid_beyond_the_models_positions_is_refused_before_anything_runs(
    receiver: Any, tiny_llama_directory: Path, journal: Path
) -> None:
    (tiny_llama_directory / "model.safetensors").unlink()
    result = profile(
        *(tiny_llama_directory, "--input-tokens", "256..512", "--output-tokens", "8"),
        *("--socket", receiver.path, "--journal", journal),
    )
    assert isinstance(result.exception, InputError)
    assert "512 positions" in str(result.exception)
    assert not journal.exists()
    assert receiver.messages == []


def test_a_model_that_is_not_there_is_named(receiver: Any) -> None:
    result = profile("/no/such/model", "--socket", receiver.path)
    assert isinstance(result.exception, InputError)
    assert (result.exception.field, result.exception.value) == ("MODEL", "/no/such/model")


def test_a_hub_is_asked_with_a_word_since_it_may_take_long(receiver: Any, tmp_path: Path) -> None:
    command = (sys.executable, "-m", "llmpower", "profile", "nobody/nothing", "--socket", receiver.path)
    environ = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    told, refusal = (
        done.stderr.index(part) for part in ("looking for nobody/nothing on the", "MODEL = nobody/nothing")
    )
    assert told < refusal
    assert done.returncode == 2


def test_options_and_help_are_had_without_torch() -> None:
    code = (
        "import sys, llmpower.cli.profile, llmpower.cli.run, llmpower.profiling, llmpower.spans\n"
        "print(sorted({'torch', 'transformers', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
