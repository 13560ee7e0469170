"""What a real card shows, in one call of less than ten minutes; on the simulated one it shows only that this runs.

In turn: periods and latencies of the driver's fields; the energy counter against integrated power under load; equal
work repeated, with ZeusMonitor where it is installed; a Llama with random weights under instrumented ``generate()``;
what sampling at 100 Hz and 1 kHz costs it in tokens a second; and a soak that must show no fault. The result states
card, driver and date.

    python benchmarks/gpu/run.py --out DIR                       needs an NVIDIA GPU, torch with CUDA and transformers
    python benchmarks/gpu/run.py --out DIR --simulated --quick   anywhere, under a minute

``DIR/gpu-CARD.json`` of a real card belongs in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from fields import Card  # beside this file
from meter import Meter
from numpy.typing import NDArray
from repeat import repeat
from work import SIZES, Bursts, generate, make_llama, make_unit

from llmpower.attribution import Joules
from llmpower.files import write_text
from llmpower.sampling import Sampler, simulated_library, simulation
from llmpower.sampling.sampler import NVML_LIBRARY
from llmpower.spans import instrument, uninstrument
from llmpower.types import Field

SIMULATION = {"preset": "h100", "gpus": 1, "load": "square:60,320,0.73"}


@dataclass(frozen=True)
class Plan:
    """How long each part takes."""

    survey_s: float
    agreement_s: float
    works: tuple[tuple[float, int], ...]
    """Seconds of equal work, and how often."""
    trials: int
    shapes: tuple[tuple[int, int, int], ...]
    """Batch size, input tokens, output tokens."""
    cost_rounds: int
    soak_s: float


PARTS = ("fields", "agreement", "repeated", "spans", "cost", "soak")

WORKS = ((0.02, 50), (0.05, 50), (0.1, 40), (0.3, 25), (1.0, 12))

FULL = Plan(5.0, 20.0, WORKS, 4, ((1, 128, 128), (8, 512, 128), (1, 1024, 16)), 4, 45.0)
QUICK = Plan(1.2, 2.5, ((0.1, 4),), 2, ((1, 16, 16),), 1, 2.0)

FIRST_S = 2.0
"""Until the counter has moved a few times: what runs before is measured badly or not at all."""


def main() -> None:
    """Run all parts and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--simulated", action="store_true", help="the simulated card and a tiny model on the CPU")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--model", choices=sorted(SIZES), help="default: 1b, simulated: tiny")
    parser.add_argument("--parts", default=",".join(PARTS), help="in this order whatever is asked for [%(default)s]")
    parser.add_argument("--keep", type=Path, metavar="FILE.npz", help="hold on to what was read beside equal work")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts.split(",")) - set(PARTS):
        parser.error(f"--parts: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    with ExitStack() as stack:
        if arguments.simulated:
            stack.enter_context(simulation(**SIMULATION))
        else:
            _require_cuda()
        library = str(simulated_library()) if arguments.simulated else NVML_LIBRARY
        result = _about(library)
        name = re.sub(r"[^a-z0-9]+", "-", result["card"].lower()).strip("-")
        arguments.out.mkdir(parents=True, exist_ok=True)
        path = arguments.out / f"gpu-{name}.json"
        parts = _parts(
            library=library,
            cuda=not arguments.simulated,
            plan=QUICK if arguments.quick else FULL,
            size=arguments.model or ("tiny" if arguments.simulated else "1b"),
            wanted=set(arguments.parts.split(",")),
            keep=arguments.keep,
        )
        began_s = time.monotonic()
        for part, found in parts:
            result |= {part: found, "wall_s": round(time.monotonic() - began_s)}
            write_text(path, json.dumps(result, indent=1) + "\n")  # what is measured is not lost with what is not
            print(f"{part}: {json.dumps(found)}", flush=True)
    print(path)


def _require_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device; to see that this runs at all: --simulated --quick")


def _about(library: str) -> dict[str, Any]:
    sampler = _open(library)
    device = sampler.devices[0]
    sampler.close()
    return {
        "card": device.name,
        "driver": device.driver_version,
        "simulated": device.simulated,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _parts(
    *, library: str, cuda: bool, plan: Plan, size: str, wanted: set[str], keep: Path | None
) -> Iterator[tuple[str, Any]]:
    """Each part's name and what it found, when it is done."""
    if "fields" in wanted:
        card = Card(library)
        try:
            with Bursts(cuda):
                yield "fields", card.survey(plan.survey_s)
        finally:
            card.close()
    if "agreement" in wanted:
        yield "agreement", agreement(library, cuda, plan.agreement_s)
    if "repeated" in wanted:
        repeated = {
            seconds: repeat(_open(library), make_unit(seconds, cuda), times, peer=cuda) for seconds, times in plan.works
        }
        if keep:
            kept = {f"samples_{seconds:g}": each.samples for seconds, each in repeated.items()}
            kept |= {f"units_{seconds:g}": each.units_ns for seconds, each in repeated.items()}
            np.savez_compressed(keep, **kept)
        yield "repeated", [each.figures for each in repeated.values()]
    if not wanted & {"spans", "cost", "soak"}:
        return
    model = make_llama(size, cuda)
    yield "model", {"size": size, "parameters": sum(each.numel() for each in model.parameters())}
    if "spans" in wanted:
        yield "spans", [spans(library, model, shape, plan.trials) for shape in plan.shapes]
    if "cost" in wanted:
        yield "cost", cost(library, model, plan.shapes[0], plan.cost_rounds)
    if "soak" in wanted:
        yield "soak", soak(library, cuda, model, plan)


def _open(library: str, rate_hz: float = 100.0) -> Sampler:
    return Sampler(backend="nvml", nvml_library=library, powercap_root=None, rate_hz=rate_hz)


def agreement(library: str, cuda: bool, seconds: float) -> dict[str, Any]:
    """The counter's increase against the trapezoid over power, between the first and the last edge of the counter."""
    with Meter(_open(library), keep=True) as meter, Bursts(cuda):
        time.sleep(seconds)
    samples = np.concatenate(meter.kept)
    own = samples[(samples["device"] == 0) & (samples["status"] == 0)]
    counter = own[own["field"] == Field.ENERGY]
    fields = {int(each) for each in own["field"]} - {int(Field.ENERGY)}
    moved = np.flatnonzero(np.diff(counter["value"]) > 0) + 1
    if len(moved) < 2:
        return {"counter_j": None, "why": "the energy counter did not move twice"}
    first, last = counter[moved[0]], counter[moved[-1]]
    found: dict[str, Any] = {
        "seconds": float(last["after_ns"] - first["after_ns"]) / 1e9,
        "counter_j": float(last["value"] - first["value"]) / 1e6,
    }
    for field in sorted(fields):
        power = own[own["field"] == field]
        energy_j = _integral_j(power, int(first["after_ns"]), int(last["after_ns"]))
        found[f"{Field(field).name.lower()}_j"] = energy_j
        found[f"{Field(field).name.lower()}_over_counter"] = energy_j / found["counter_j"]
    return found


def _integral_j(power: NDArray[np.void], start_ns: int, end_ns: int) -> float:
    time_s = (power["before_ns"] + (power["after_ns"] - power["before_ns"]) // 2 - start_ns) / 1e9
    inside = (time_s > 0) & (time_s < (end_ns - start_ns) / 1e9)
    grid_s = np.concatenate(([0.0], time_s[inside], [(end_ns - start_ns) / 1e9]))
    return float(np.trapezoid(np.interp(grid_s, time_s, power["value"] / 1e6), grid_s))


def spans(library: str, model: Any, shape: tuple[int, int, int], trials: int) -> dict[str, Any]:
    """Joules of instrumented calls of one shape, each between idle time."""
    with Meter(_open(library)) as meter:
        instrument(model, client=meter, model_name="random-llama")
        try:
            time.sleep(FIRST_S)
            for _ in range(trials):
                generate(model, *shape)
                time.sleep(0.5)
            joules = meter.wait(trials)
        finally:
            uninstrument(model)
    return {"batch_size": shape[0], "input_tokens": shape[1], "output_tokens": shape[2], "calls": _calls(joules)}


def _calls(joules: list[Joules]) -> list[dict[str, Any]]:
    return [
        {
            "runtime_s": each.span.runtime_s,
            "time_to_first_token_s": each.span.time_to_first_token_s,
            "input_tokens": each.span.input_tokens,
            "output_tokens": each.span.output_tokens,
            "gpu_energy_j": each.gpu_energy_j,
            "gpu_energy_std_j": each.gpu_energy_std_j,
            "prefill_energy_j": each.prefill_energy_j,
            "decode_energy_j": each.decode_energy_j,
            "quality": each.quality,
        }
        for each in joules
    ]


def cost(library: str, model: Any, shape: tuple[int, int, int], rounds: int) -> dict[str, Any]:
    """Tokens a second without sampling, at 100 Hz and at 1 kHz: in turn, medians over the rounds."""
    rates_hz = (0.0, 100.0, 1000.0)
    generate(model, *shape)
    tokens_per_s: dict[float, list[float]] = {rate_hz: [] for rate_hz in rates_hz}
    effective_hz: dict[float, float] = {}
    for _ in range(rounds):
        for rate_hz in rates_hz:
            with ExitStack() as stack:
                meter = stack.enter_context(Meter(_open(library, rate_hz))) if rate_hz else None
                time.sleep(0.3)
                began_s = time.monotonic()
                generate(model, *shape)
                tokens_per_s[rate_hz].append(shape[0] * shape[2] / (time.monotonic() - began_s))
                if meter:
                    effective_hz[rate_hz] = min(meter.sampler.statistics().effective_hz.values())
    medians = {rate_hz: statistics.median(found) for rate_hz, found in tokens_per_s.items()}
    return {
        f"{rate_hz:g} Hz": {
            "tokens_per_s": medians[rate_hz],
            "of_unsampled": medians[rate_hz] / medians[0.0],
            "effective_hz": effective_hz.get(rate_hz),
        }
        for rate_hz in rates_hz
    }


def soak(library: str, cuda: bool, model: Any, plan: Plan) -> dict[str, Any]:
    """Sampling, load and calls together; what must stay at nothing, and how far the books are out of balance."""
    descriptors, memory_kib = _descriptors(), _memory_kib()
    with Meter(_open(library)) as meter, Bursts(cuda):
        instrument(model, client=meter, model_name="random-llama")
        try:
            time.sleep(FIRST_S)
            until_s = time.monotonic() + plan.soak_s
            calls = 0
            while time.monotonic() < until_s:
                generate(model, *plan.shapes[0])
                calls += 1
            settled = meter.wait(calls)
        finally:
            uninstrument(model)
        found = meter.sampler.statistics()
    totals = meter.totals
    booked_j = totals.inference_j + totals.idle_j + sum(totals.unattributed_j.values())
    return {
        "seconds": plan.soak_s,
        "calls": calls,
        "unsettled": calls - len(settled),
        "unavailable": sum(each.gpu_energy_j is None for each in settled),
        "samples": found.samples_total,
        "dropped": found.dropped_total,
        "missed_ticks": found.missed_ticks_total,
        "read_errors": {f"{kind} {code}": count for (kind, code), count in found.read_errors.items()},
        "sampler_cpu_share": found.cpu_time_s / found.running_time_s,
        "read_time_share": found.read_time_s / found.running_time_s,
        "out_of_balance_j": totals.energy_j - booked_j,
        "descriptors_more": _descriptors() - descriptors,
        "memory_more_kib": _memory_kib() - memory_kib,
    }


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _memory_kib() -> int:
    """The most that was ever resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
