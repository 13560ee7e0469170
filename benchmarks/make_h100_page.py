"""Writes docs/h100.md from the committed results of a real card; run it after benchmarks/gpu/run.py and counter.py.

python benchmarks/make_h100_page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sections.markdown import paragraph, percent, table

RESULTS = Path(__file__).parent / "results" / "gpu-nvidia-h100-80gb-hbm3.json"
PAGE = Path(__file__).parents[1] / "docs" / "h100.md"

HEAD = """# What a real H100 showed

Written by `python benchmarks/make_h100_page.py` from `benchmarks/results/gpu-nvidia-h100-80gb-hbm3.json`, which
`python benchmarks/gpu/run.py` and `python benchmarks/gpu/counter.py` measured. Everything else in this documentation is
of the simulated card, unless it says otherwise.
"""

COUNTER = """## Its energy counter

No vendor says how often it moves, or how it weighs what happens within its 100 ms. So it was read as fast as calls
return, during bursts of equal matrix products that began at any time (`examples/h100-counter.npz` has the reads;
`python benchmarks/gpu/counter.py --from examples/h100-counter.npz` shows all of this again):
"""

WEIGHTS = """The counter is no exact integral. The table has what a burst of 5 ms counted, by how far into a tick it
began, as a multiple of the mean over all 250. The driver's samples of power come {spacing:.0f} ms apart, but now and
then 10 or 30, and what falls where they are irregular may count for more. Over a whole tick it evens out."""

REPEATED = """## Equal work, repeated

No card tells its true joules. But equal work costs equal joules, so the differences between single measurements of it
are their errors, which can be compared with the deviations that they state. The work was matrix products of one kind,
with rests of 0.2 to 0.5 s in between. **By the counter** is the counter's increase from before the first to after the
last, less the rests. **Mean** is how far the single measurements are from that on average. **Spread** and **stated**
are standard deviations over the mean. **Covers** is the share of single measurements whose 95 % interval holds the
mean. ZeusMonitor measured the same work. `examples/h100-reads.npz` has the reads, and a test settles them again.
"""

LEARNT = """## What was learnt

- **Expensive reads come midway between two updates** ([decision
  090](decisions/090-mid-interval-reads-of-a-slow-counter.md)). Two per cent of the time pays for three to eight reads a
  second. As long as these were spent on locating edges closely, they saw one tick a second, and requests in between had
  no joules. Now nearly every read gives a tick's energy.
- **A counter's lag and jitter are part of the uncertainty** ([decision
  091](decisions/091-lag-and-jitter-of-a-counter.md)). A step of power shows 6.5 ms late, and scattered by 2 ms. Before
  both were allowed for, single measurements of equal work were off by five of their stated deviations. Both were found
  on bursts of two earlier runs; the work above was measured after that.
- The simulated card can be this one, except for the lag and the uneven weights of its counter:
  `LLMPOWER_SIM_PRESET=h100-sxm LLMPOWER_SIM_LATENCY=preset`.

## What this does not show

- This is one card of one host, in a virtual machine, under one driver. Other cards are assumed to behave alike until
  somebody measures one; `benchmarks/gpu/counter.py` takes a minute and a half.
- No external meter was available, so an error common to all of these joules is not known.
- `generate()` of one sequence is bound by Python here, and took from 2.0 to 2.9 s for the same 128 tokens. So a cost of
  sampling below a tenth cannot be seen. At 100 and 1,000 reads a second it was no slower than without.
- Driver samples every 20 ms (`nvmlDeviceGetSamples`) are cheap. They are not used yet: single bursts measured by their
  sum deviated more than by the counter.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(h100_page(), encoding="utf-8")
    print(PAGE)


def h100_page() -> str:
    """The page as it has to be."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    counter = found["counter"]
    spacing_ms = counter["driver_samples"]["spacing_ms"]["p50"]
    sections = [
        HEAD,
        paragraph(f"{found['card']}, driver {found['driver']}, {found['date']}. Host: {found['host']}."),
        paragraph(f"{found['of_a_run_before']}."),
        COUNTER,
        _counter(counter, found["fields"]),
        paragraph(WEIGHTS.format(spacing=spacing_ms)),
        _weights(counter["bursts"][0]),
        REPEATED,
        _repeated(found["repeated"]),
        "## Requests\n",
        paragraph(
            f"A Llama of {found['model']['parameters'] / 1e9:.2f} billion random parameters under instrumented"
            " `generate()`, each call between idle time. The first call of each kind compiles and warms up."
        ),
        _requests(found["spans"]),
        LEARNT,
    ]
    return "\n".join(sections)


def _counter(counter: dict[str, Any], fields: dict[str, Any]) -> str:
    instant = fields["power instant (186)"]
    bursts = ", ".join(f"{each['spread_s'] * 1e3:.1f} of {each['runtime_s'] * 1e3:.0f}" for each in counter["bursts"])
    rows = [
        ["it moves every", f"{counter['period_s'] * 1e3:.4f} ms"],
        ["off a straight line, if a call's value is that of its beginning", _off(counter, "first")],
        ["the same if it is that of its end", _off(counter, "last")],
        ["one read of it takes", _times(counter["call_ms"])],
        ["one read of the power takes", f"{instant['latency_p50_s'] * 1e6:.1f} µs"],
        ["the power moves every", f"{instant['period_s'] * 1e3:.1f} ms"],
        ["500 ms of the driver's own samples take", _times(counter["driver_samples"]["call_ms"])],
        ["equal bursts vary by (standard deviation, ms of its ms)", bursts],
    ]
    return table(["", "measured"], rows)


def _off(counter: dict[str, Any], looked: str) -> str:
    return f"at most {counter[f'off_line_if_looked_at_{looked}_ms']:.2f} ms"


def _times(quantiles: dict[str, float]) -> str:
    return f"{quantiles['p50']:.2g} ms (median), {quantiles['p95']:.2g} (p95), {quantiles['p99']:.2g} (p99)"


def _weights(burst: dict[str, Any]) -> str:
    by_phase = burst["by_phase"]
    half = len(by_phase) // 2
    step_ms = 100 // len(by_phase)
    head = ["begun at", *(f"+{number * step_ms} ms" for number in range(half))]
    rows = [
        [f"**{first * step_ms} ms on**", *(f"{each:.2f}" for each in by_phase[first : first + half])]
        for first in (0, half)
    ]
    return table(head, rows)


def _repeated(works: list[dict[str, Any]]) -> str:
    head = ["work", "times", "by the counter", "llmpower: mean", "spread", "stated", "covers", "Zeus: mean", "spread"]
    rows = []
    for work in works:
        ours, zeus, counter_j = work["llmpower"], work["zeus"], work["by_counter_j"]
        rows.append(
            [
                f"{work['runtime_s'] * 1e3:.0f} ms",
                str(work["times"]),
                f"{counter_j:.1f} J",
                f"{100 * (ours['mean_j'] / counter_j - 1):+.2f} %",
                f"{percent(ours['spread'])} %",
                f"{percent(ours['stated'])} %",
                f"{percent(ours['within_interval'], 0)} %",
                f"{100 * (zeus['mean_j'] / counter_j - 1):+.1f} %",
                f"{percent(zeus['spread'], 0)} %",
            ]
        )
    return table(head, rows)


def _requests(shapes: list[dict[str, Any]]) -> str:
    head = ["sequences", "in", "out", "calls: seconds, joules ± standard deviation, quality"]
    rows = []
    for shape in shapes:
        calls = "; ".join(
            f"{each['runtime_s']:.2f} s, {each['gpu_energy_j']:.1f} ± {each['gpu_energy_std_j']:.1f} J,"
            f" {each['quality']}"
            for each in shape["calls"]
        )
        rows.append([str(shape["batch_size"]), str(shape["input_tokens"]), str(shape["output_tokens"]), calls])
    return table(head, rows)


if __name__ == "__main__":
    main()
