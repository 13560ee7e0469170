"""What measuring costs the program that is measured: generate() plain, with llmpower, and in a Zeus window.

A random Llama of two layers (hidden 64) generates in one process, on one thread; a real daemon on simulated cards takes
its spans through the spool. In every round each arm makes one call, in an order drawn anew, so that a machine whose
speed drifts slows all of them alike; what is counted is the difference to the plain call of the same round. "plain
again" is a second plain call: its difference is the benchmark's own noise. Before each timed call, of every arm,
methods are replaced and an untimed call warms up what that has cooled (Python forgets what it knew of a class).

Figures are the median over rounds with a 95 % confidence interval of the median, distribution-free (the order
statistics that a binomial gives). A bar holds when the interval's upper end is below it. Calls of one new token show
what a call costs, those of 64 what a usual one does; their difference over 63 tokens is the cost of each token.

Wall time is what a program waits. Where others use the machine it drowns in their noise, and the thread's own processor
time, given beside it, still tells: neither llmpower nor Zeus waits for anything but the driver.

Zeus runs in the same process, from the packages of .venv-bench, against the same simulated NVML, and reads its counter
in begin_window() and end_window(): the simulated driver's latency is part of its figure, as the real one's would be.
On a machine without CUDA nobody synchronises; what that costs on a card, its spans say (synchronise_s).

    python benchmarks/overhead.py [--rounds 200] [--out benchmarks/results]
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

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
LENGTHS = (1, 64)
WARM_TOKENS = 8
PLAIN, AGAIN, OURS, ZEUS = "plain", "plain again", "llmpower", "zeus"
BARS = {"share_percent": 1.0, "token_us": 5.0}
"""Of a call of 64 tokens; neither may be exceeded."""


@dataclass(frozen=True)
class Median:
    """A median with the bounds of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def median(values: Sequence[float]) -> Median:
    """The median of at least one value; with fewer than six the interval is all that was seen."""
    ordered = sorted(values)
    reach = 1.96 * math.sqrt(len(ordered)) / 2
    below = max(math.floor(len(ordered) / 2 - reach), 0)
    above = min(math.ceil(len(ordered) / 2 + reach), len(ordered) - 1)
    return Median(statistics.median(ordered), ordered[below], ordered[above])


def summarise(seconds: dict[str, list[float]], tokens: int, clock: str) -> list[dict[str, Any]]:
    """A row an arm: its calls against the plain ones of the same rounds."""
    plain = statistics.median(seconds[PLAIN])
    rows = []
    for arm, values in seconds.items():
        if arm == PLAIN:
            continue
        extra = median([value - base for value, base in zip(values, seconds[PLAIN], strict=True)])
        rows.append(
            {
                "arm": arm,
                "tokens": tokens,
                "clock": clock,
                "rounds": len(values),
                "plain_ms": plain * 1e3,
                "extra_us": extra.value * 1e6,
                "extra_us_interval": [extra.low * 1e6, extra.high * 1e6],
                "share_percent": extra.value / plain * 100,
                "share_percent_interval": [extra.low / plain * 100, extra.high / plain * 100],
            }
        )
    return rows


def judge(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What a call of ours adds, at most, against the bars."""
    (row,) = [row for row in rows if (row["arm"], row["tokens"], row["clock"]) == (OURS, LENGTHS[-1], "wall")]
    found = {
        "share_percent": row["share_percent_interval"][1],
        "token_us": row["extra_us_interval"][1] / row["tokens"],
    }
    return {name: {"found": found[name], "bar": bar, "holds": found[name] <= bar} for name, bar in BARS.items()}


def main() -> None:
    """Measure, print, write; exit code 1 where a bar does not hold."""
    arguments = _arguments()
    if arguments.work:
        print(json.dumps(work(arguments)))
        return
    with tempfile.TemporaryDirectory(prefix="llmpower-overhead-", dir=arguments.memory) as memory, ExitStack() as stack:
        socket = stack.enter_context(daemon(Path(memory)))
        command = [sys.executable, __file__, "--work", "--socket", str(socket), *sys.argv[1:]]
        environ = os.environ | SIMULATION | {"LD_LIBRARY_PATH": str(simulated_library().parent), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(done.returncode)
        found = json.loads(done.stdout.splitlines()[-1])
    verdicts = judge(found["rows"])
    print_table(found["rows"], verdicts)
    document = {
        "what": "time that measuring adds to generate() of a random two-layer Llama",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} processors",
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        **found,
        "bars": verdicts,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out / "overhead.json", json.dumps(document, indent=1) + "\n")
    sys.exit(not all(verdict["holds"] for verdict in verdicts.values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peers", type=Path, default=PEERS, help="packages with Zeus; '' for none")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="where socket and spool lie")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--socket", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peers != Path() and not (arguments.peers / "zeus").is_dir():
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
    import torch
    import transformers

    torch.set_num_threads(1)
    model = tiny_llama()
    ids = torch.randint(3, 128, (1, 32))
    arms = make_arms(arguments)
    rows = []
    gc.freeze()  # what the imports left is not looked through at every collection
    shuffled = random.Random(arguments.seed)
    for tokens in LENGTHS:
        seconds: dict[str, list[float]] = {arm: [] for arm in arms}
        cpu_seconds: dict[str, list[float]] = {arm: [] for arm in arms}
        for number in range(arguments.rounds + 1):
            for arm in shuffled.sample(list(arms), len(arms)):
                prepare, around = arms[arm]
                prepare()
                model.generate(ids, max_new_tokens=WARM_TOKENS)
                gc.collect()
                gc.disable()
                start_ns, start_cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
                around(partial(model.generate, ids, max_new_tokens=tokens))
                took_s = (time.perf_counter_ns() - start_ns) / 1e9
                took_cpu_s = (time.thread_time_ns() - start_cpu_ns) / 1e9
                gc.enable()
                if number:  # the first round warms up
                    seconds[arm].append(took_s)
                    cpu_seconds[arm].append(took_cpu_s)
        rows += summarise(seconds, tokens, "wall") + summarise(cpu_seconds, tokens, "processor")
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"seed": arguments.seed, "versions": versions, "rows": rows}


def tiny_llama() -> Any:
    """A random Llama of two layers, which nothing but the length ends."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    model.generation_config.do_sample = False
    return model


Arm = tuple[Callable[[], None], Callable[[Callable[[], Any]], Any]]
"""What is done before an arm's turn, untimed, and how its call is made."""


def make_arms(arguments: argparse.Namespace) -> dict[str, Arm]:
    """The arms, by name."""
    from llmpower.spans import SpanClient, instrument, uninstrument

    client = SpanClient(arguments.socket)

    def ours() -> None:
        uninstrument()
        instrument(client=client, model_name="tiny")

    def theirs() -> None:
        # Replacing methods cools Python's caches: it is done before every arm's call, or the figure would be of that.
        ours()
        uninstrument()

    arms: dict[str, Arm] = {
        PLAIN: (theirs, lambda call: call()),
        AGAIN: (theirs, lambda call: call()),
        OURS: (ours, lambda call: call()),
    }
    if arguments.peers != Path():
        sys.path.append(str(arguments.peers))
        from zeus.monitor import ZeusMonitor

        monitor = ZeusMonitor(gpu_indices=[0], cpu_indices=[])

        def in_window(call: Callable[[], Any]) -> Any:
            monitor.begin_window("call", sync_execution=False)
            result = call()
            monitor.end_window("call", sync_execution=False)
            return result

        arms[ZEUS] = (theirs, in_window)
    return arms


def print_table(rows: Sequence[dict[str, Any]], verdicts: dict[str, dict[str, Any]]) -> None:
    """For people."""
    print(f"{'':14}{'clock':>10}{'tokens':>7}{'plain':>10}{'adds':>12}{'95 % interval':>22}{'share':>9}")
    for row in rows:
        low, high = row["extra_us_interval"]
        interval = f"{low:.0f} … {high:.0f} µs"
        print(
            f"{row['arm']:14}{row['clock']:>10}{row['tokens']:>7}{row['plain_ms']:>7.1f} ms{row['extra_us']:>9.0f} µs"
            f"{interval:>22}{row['share_percent']:>8.2f}%"
        )
    for name, verdict in verdicts.items():
        print(f"{name}: {verdict['found']:.2f}, at most {verdict['bar']:g}: {'holds' if verdict['holds'] else 'FAILS'}")


if __name__ == "__main__":
    main()
