"""What measuring costs the program that is measured: generate() plain, with llmpower, and in a Zeus window.

A random Llama of two layers (hidden 64) generates in one process, on one processor; a real daemon on a simulated card
takes its spans through the spool. Calls are made in lockstep and compared token by token (costs/lockstep.py), and no
arm changes anything between calls (costs/arms.py). "plain again" is a second plain call: its difference is the
benchmark's own noise, and where that is wider than a bar the run says that it has resolved nothing.

Calls of one new token show what a call costs, those of 64 what a usual one does, and the difference what a token does.
What llmpower executes is also timed by itself, without generate() (costs/path.py): that resolves a microsecond per
token where calls on a busy machine do not. A bar holds when the upper end of the interval is below it.

Zeus runs in the same process, from the packages of .venv-bench, against the same simulated NVML, and reads its counter
in begin_window() and end_window(). The simulated driver answers at once, so Zeus' figure is without the milliseconds
that some boards' counters take to read; llmpower reads none in the program. On a machine without CUDA nobody
synchronises; what that costs on a card, its spans say (synchronise_s).

    python benchmarks/overhead.py [--seconds 150] [--out benchmarks/results]
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from costs.lockstep import estimate_s, run_rounds, undisturbed_s
from daemon import process

from llmpower.exceptions import DaemonUnreachableError
from llmpower.files import write_text
from llmpower.sampling.simulator import simulated_library
from llmpower.spans import request_status

HERE = Path(__file__).parent
PEERS = (
    HERE.parent / ".venv-bench" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
)
SIMULATION = {"LLMPOWER_SIM_GPUS": "1", "LLMPOWER_SIM_LOAD": "square:100,300,0.7", "LLMPOWER_SIM_PRESET": "h100"}
SHORT, USUAL = 1, 64
SHARES = {SHORT: 0.1, USUAL: 0.8}
"""Of the time, for calls of each length; the rest is for the path by itself."""

PLAIN, AGAIN, OURS = "plain", "plain again", "llmpower"
BARS = {"share_percent": 1.0, "token_us": 5.0}
"""Of a call of 64 tokens; neither may be exceeded."""


def summarise(seconds: Mapping[str, Mapping[str, Any]], tokens: int) -> list[dict[str, Any]]:
    """A row for each clock and arm: its calls against the plain ones of the same rounds."""
    rows = []
    for clock, by_arm in seconds.items():
        plain_s = undisturbed_s(by_arm[PLAIN])
        for arm in by_arm:
            if arm == PLAIN:
                continue
            extra = estimate_s(by_arm[arm] - by_arm[PLAIN])
            rows.append(
                {
                    "arm": arm,
                    "tokens": tokens,
                    "clock": clock,
                    "calls": len(by_arm[arm]),
                    "plain_ms": round(plain_s * 1e3, 4),
                    "extra_us": extra.times(1e6).as_json(1),
                    "share_percent": extra.times(100 / plain_s).as_json(),
                }
            )
    return rows


def judge(rows: list[dict[str, Any]], own_path: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a usual call of ours adds, at most, against the bars, and whether the run could have told.

    The share is that of whole calls, and resolved where the plain calls differ by less than the bar among themselves.
    What a token costs is how much more a usual call adds than a short one, over the tokens that it has more. Where the
    plain calls do not resolve that, it is taken from the path by itself, all of it over the call's tokens.
    """
    wall = {(row["arm"], row["tokens"]): row for row in rows if row["clock"] == "wall"}

    def token(arm: str) -> tuple[float, float]:
        usual, short = (wall[arm, tokens]["extra_us"] for tokens in (USUAL, SHORT))
        more = usual["value"] - short["value"]
        below = math.hypot(usual["value"] - usual["interval"][0], short["interval"][1] - short["value"])
        above = math.hypot(usual["interval"][1] - usual["value"], short["value"] - short["interval"][0])
        return (more - below) / (USUAL - SHORT), (more + above) / (USUAL - SHORT)

    shares = {arm: wall[arm, USUAL]["share_percent"]["interval"] for arm in (OURS, AGAIN)}
    found = {"share_percent": ("calls", shares[OURS][1], max(map(abs, shares[AGAIN])))}
    found["token_us"] = ("calls", token(OURS)[1], max(map(abs, token(AGAIN))))
    if found["token_us"][2] > BARS["token_us"]:
        path_us = own_path["after_a_call"]["all_us"]["interval"][1] / own_path["tokens"]
        found["token_us"] = ("path", path_us, 0.0)
    verdicts = {}
    for name, (by, at_most, noise) in found.items():
        verdict = {"by": by, "found_at_most": round(at_most, 3), "bar": BARS[name], "noise": round(noise, 3)}
        verdicts[name] = verdict | {"holds": at_most <= BARS[name], "resolved": noise <= BARS[name]}
    return verdicts


def main() -> None:
    """Measure, print, write; exit code 1 where a bar does not hold."""
    arguments = _arguments()
    if arguments.work:
        print(json.dumps(work(arguments)))
        return
    processors = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="llmpower-overhead-", dir=arguments.memory) as memory, ExitStack() as stack:
        socket = stack.enter_context(daemon(Path(memory)))
        command = [sys.executable, __file__, "--work", "--socket", str(socket), *sys.argv[1:]]
        environ = os.environ | SIMULATION | {"LD_LIBRARY_PATH": str(simulated_library().parent), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(done.returncode)
        found = json.loads(done.stdout.splitlines()[-1])
    verdicts = judge(found["rows"], found["own_path"])
    print_table(found, verdicts)
    document = {
        "what": "time that measuring adds to generate() of a random two-layer Llama",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.release()}, {len(processors)} processors",
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **found,
        "bars": verdicts,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out / "overhead.json", json.dumps(document, indent=1) + "\n")
    sys.exit(not all(verdict["holds"] and verdict["resolved"] for verdict in verdicts.values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=150.0, help="for calls; half a minute comes on top")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peers", type=Path, default=PEERS, help="packages with Zeus; '' for none")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="where socket and spool lie")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--socket", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peers == Path():
        arguments.peers = None
    elif not (arguments.peers / "zeus").is_dir():
        parser.error(f"{arguments.peers} has no zeus; run make .venv-bench/.installed, or give --peers ''")
    return arguments


@contextmanager
def daemon(memory: Path) -> Iterator[Path]:
    """A daemon on the simulated card, its socket once it answers."""
    socket, log = memory / "s.sock", memory / "daemon.log"
    command = [sys.executable, "-m", "llmpower.cli.main", "daemon", "--backend=simulated", f"--socket={socket}"]
    command += [f"--store={memory / 'spans.db'}", "--web.listen-address=127.0.0.1:0"]
    with process(command, log, **SIMULATION):
        deadline_s = time.monotonic() + 60
        while True:
            try:
                request_status(socket)
                break
            except DaemonUnreachableError:
                if time.monotonic() > deadline_s:
                    sys.exit(f"the daemon does not answer:\n{log.read_text()[-2000:]}")
                time.sleep(0.1)
        yield socket


def work(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make the calls, in a process of its own; rows and what they were made with."""
    # One processor, so that no call begins with the caches of another one.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import torch
    import transformers
    from costs.arms import Arms
    from costs.path import measure_path

    torch.set_num_threads(1)
    arms = Arms(arguments.socket, arguments.peers)
    arms.check()
    shuffled = random.Random(arguments.seed)
    # What the imports left is not looked through again, and no call pays for another's garbage.
    gc.freeze()
    gc.disable()
    rows = []
    for tokens, share in SHARES.items():
        seconds = share * arguments.seconds
        rows += summarise(run_rounds(arms.calls(tokens), seconds, shuffled, between=gc.collect), tokens)
    path = measure_path(arms, USUAL, (1 - sum(SHARES.values())) * arguments.seconds, shuffled)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"seed": arguments.seed, "versions": versions, "rows": rows, "own_path": path}


def print_table(found: Mapping[str, Any], verdicts: Mapping[str, Mapping[str, Any]]) -> None:
    """For people."""
    print(f"{'':14}{'clock':>10}{'tokens':>7}{'plain':>11}{'adds':>11}{'95 % interval':>20}{'share':>9}")
    for row in found["rows"]:
        low, high = row["extra_us"]["interval"]
        print(
            f"{row['arm']:14}{row['clock']:>10}{row['tokens']:>7}{row['plain_ms']:>8.2f} ms"
            f"{row['extra_us']['value']:>8.0f} µs{f'{low:.0f} … {high:.0f} µs':>20}"
            f"{row['share_percent']['value']:>8.2f}%"
        )
    path = found["own_path"]
    for where in ("after_a_call", "in_a_loop"):
        parts = {name: part["value"] for name, part in path[where].items() if name != "calls"}
        print(
            f"own path, {where.replace('_', ' ')}: begin {parts['begin_us']:.0f} µs, "
            f"{parts['token_us']:.2f} µs a token, finish {parts['finish_us']:.0f} µs; "
            f"{parts['all_us']:.0f} µs for {path['tokens']} tokens"
        )
    for name, verdict in verdicts.items():
        word = "FAILS" if not verdict["holds"] else "holds" if verdict["resolved"] else "NOT RESOLVED"
        figures = f"at most {verdict['found_at_most']:.2f}, bar {verdict['bar']:g}, noise {verdict['noise']:.2f}"
        print(f"{name}, by {verdict['by']}: {figures}: {word}")


if __name__ == "__main__":
    main()
