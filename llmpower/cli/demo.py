"""``llmpower demo``: the whole chain on this machine, by the same commands that a user would type.

Every stage runs as its own process: the daemon, the campaigns, and each command on the way from spans to a plan.
What is printed before each step is the command itself, so the demo doubles as a tour.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from llmpower.cli.progress import without_bars_in_pipes
from llmpower.cli.signals import ended_in_order
from llmpower.exceptions import DaemonUnreachableError, InputError, LlmpowerError
from llmpower.files import write_text

READY_S = 30.0
REAL, RANDOM = "SmolLM2-135M-Instruct", "random-llama-34M"
QUERIES = 1000

# Rough placeholders: what matters here is that the plan has two accuracies to weigh against joules.
ACCURACY = f"model_name,accuracy\n{REAL},0.40\n{RANDOM},0.25\n"


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo"),
    show_default=True,
    help="Folder for everything that the demo leaves.",
)
@click.option("--quick", is_flag=True, help="Fewer and shorter trials: under two minutes instead of under five.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=10450, show_default=True, help="Of the daemon's metrics."
)
def command(out: Path, quick: bool, port: int) -> None:
    """Run the whole chain on this machine: daemon, model, profile, fit, route, report.

    With an NVIDIA driver it measures the GPU. Without one, a simulated GPU turns this machine's CPU time into joules,
    and SIMULATED stands on every figure. Leaves spans.db, measurements.csv, models.json, plan.csv and report.html in
    the folder, and nothing else running.

    \b
    Example:
      llmpower demo
      llmpower demo --quick --out /tmp/demo
    """
    started_s = time.monotonic()
    out = _folder(out)
    with ended_in_order(), _daemon(out, port) as socket:
        _profile(out, socket, quick)
        _step("What the daemon has seen", ["status", "--socket", str(socket)])
        _scrape(out, port)
    _step("Measurements, as a table", ["export", "--store", str(out / "spans.db"), "-o", str(out / "measurements.csv")])
    models, workload, accuracy = out / "models.json", out / "workload.csv", out / "accuracy.csv"
    _step("Models of energy and runtime", ["fit", str(out / "measurements.csv"), "-o", str(models)])
    _write_workload(workload, quick)
    write_text(accuracy, ACCURACY)
    click.echo(f"\nA workload of {QUERIES} queries is in {workload}; the accuracies in {accuracy} are placeholders.")
    asked = ["--models", str(models), "--workload", str(workload), "--accuracy", str(accuracy)]
    plan, frontier = out / "plan.csv", out / "frontier.csv"
    _step("A plan", ["route", *asked, "--zeta", "0.5", "--frontier", str(frontier), "-o", str(plan)])
    measured = ["--measurements", str(out / "measurements.csv")]
    _step("A report", ["report", *measured, *asked, "-o", str(out / "report.html")])
    click.echo(f"\nDone in {time.monotonic() - started_s:.0f} s. Open {out / 'report.html'} in a browser.")


def _folder(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("--out", out, f"cannot be made ({error.strerror}); give another folder") from error
    # A store of an earlier run would lend its spans to this one's models.
    for name in ("spans.db", "spans.db-wal", "spans.db-shm"):
        (out / name).unlink(missing_ok=True)
    return out


@contextmanager
def _daemon(out: Path, port: int) -> Iterator[Path]:
    """A real daemon in a process of its own, for as long as the block lasts; yields its socket."""
    from llmpower.sampling import Sampler

    # Fails here, in one line, if there is a driver that does not answer; falls to the simulated GPU if there is none.
    sampler = Sampler(backend="auto")
    simulated, names = sampler.backend == "simulated", ", ".join(device.name for device in sampler.devices)
    sampler.close()
    if simulated:
        click.secho("SIMULATED: no NVIDIA driver here. A simulated GPU turns this machine's CPU time into", bold=True)
        click.secho("joules; every figure below is real arithmetic on power that nobody measured.", bold=True)
    else:
        click.echo(f"Measuring {names}.")
    # Socket paths are limited to 107 bytes, and --out may be longer.
    with tempfile.TemporaryDirectory(prefix="llmpower-") as directory:
        socket, log = Path(directory, "llmpower.sock"), out / "daemon.log"
        arguments = ["daemon", "--backend", "simulated" if simulated else "nvml", "--store", str(out / "spans.db")]
        arguments += ["--socket", str(socket), "--web.listen-address", f"127.0.0.1:{port}"]
        _announce("The daemon", arguments)
        with log.open("w") as stderr:
            process = subprocess.Popen(_llmpower(arguments), stderr=stderr)
        try:
            _wait_until_ready(process, socket, log)
            yield socket
        finally:
            process.terminate()
            try:
                process.wait(timeout=READY_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    from llmpower.spans.daemon_socket import request_status

    deadline_s = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < deadline_s:
        try:
            request_status(socket)
        except DaemonUnreachableError:
            time.sleep(0.1)
        else:
            return
    lines = log.read_text(encoding="utf-8").strip().splitlines()
    message = lines[-1].removeprefix("llmpower: error: ") if lines else "it said nothing"
    error = LlmpowerError(f"the daemon did not start: {message}")
    error.exit_code = process.returncode or 1
    raise error


def _profile(out: Path, socket: Path, quick: bool) -> None:
    from llmpower.profiling.samples import SMALL, random_llama, smollm2_gguf

    without_bars_in_pipes()
    real = smollm2_gguf()
    click.echo(f"\nMaking {RANDOM}, a second model, with random weights.")
    random = out / RANDOM
    random_llama(SMALL).save_pretrained(random)
    grid = ["--input-tokens", "8,32,128", "--output-tokens", "8,16,32"] if quick else []
    grid = grid or ["--input-tokens", "8,32,128,256", "--output-tokens", "8,16,32,64"]
    # On a small model the paper's half a second is met at once; the trials are what makes the fit.
    trials = ["--min-trials", "2", "--max-trials", "2"] if quick else ["--min-trials", "3", "--max-trials", "3"]
    # A simulated card has no temperature to settle.
    trials += ["--idle", "0", "--settle", "0"]
    for name, model in ((REAL, real), (RANDOM, random)):
        journal = out / f"profile-{name}.jsonl"
        journal.unlink(missing_ok=True)
        arguments = ["profile", str(model), "--model-name", name, *grid, *trials, "--socket", str(socket)]
        _step(f"Measuring {name}", [*arguments, "--journal", str(journal)])


def _scrape(out: Path, port: int) -> None:
    """Ask for the metrics as Prometheus does, keep them, and show a few."""
    url = f"http://127.0.0.1:{port}/metrics"
    click.echo(f"\n# What Prometheus would scrape\n$ curl {url}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy stands before this machine
    with opener.open(url, timeout=10) as reply:
        text = reply.read().decode()
    write_text(out / "metrics.txt", text)
    shown = ("llmpower_gpu_info", "llmpower_gpu_energy_joules_total", "llmpower_inference_energy_joules_total")
    lines = [line for line in text.splitlines() if line.startswith(shown)]
    click.echo("\n".join([*lines, f"… {len(text.splitlines())} lines in all, in {out / 'metrics.txt'}"]))


def _write_workload(path: Path, quick: bool) -> None:
    """Queries with lengths like those of people who chat, within what was measured: log-normal, seed 0."""
    import numpy as np

    random = np.random.default_rng(0)
    limit_in, limit_out = (128, 32) if quick else (256, 64)
    τin = np.clip(np.rint(random.lognormal(np.log(48), 0.8, QUERIES)), 8, limit_in).astype(int)
    τout = np.clip(np.rint(random.lognormal(np.log(24), 0.6, QUERIES)), 8, limit_out).astype(int)
    rows = "".join(f"{i},{o}\n" for i, o in zip(τin, τout, strict=True))
    write_text(path, f"input_tokens,output_tokens\n{rows}")


def _llmpower(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "llmpower.cli.main", *arguments]


def _announce(title: str, arguments: Sequence[str]) -> None:
    click.echo(f"\n# {title}\n$ {shlex.join(['llmpower', *arguments])}")


def _step(title: str, arguments: Sequence[str]) -> None:
    """Say the command, run it, and stop the demo where it fails."""
    _announce(title, arguments)
    sys.stdout.flush()
    # The models are on disk, and a look at the hub without a network would only wait.
    status = subprocess.run(_llmpower(arguments), env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=False).returncode
    if status:
        error = LlmpowerError(f"'llmpower {arguments[0]}' failed; its output is above")
        error.exit_code = status
        raise error
