"""Writes docs/accuracy.md from the committed results; run it after a benchmark whose results are to be kept.

python benchmarks/make_accuracy_page.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accuracy.figures import COVERAGE_BAR, ERROR_BARS, OURS, WIDTH_BAR
from accuracy.table import as_markdown, coverage_line, percent, span

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"
COVERED = " to ".join(f"{100 * bar:.0f} %" for bar in COVERAGE_BAR)

HEAD = """# Accuracy

Written by `python benchmarks/make_accuracy_page.py` from the results in `benchmarks/results/`. Every figure here is
from the **simulated** NVML, whose true joules are known, unless a section says otherwise.
"""

METHOD = """## How it was measured

`python benchmarks/accuracy.py` runs every tool in a process of its own, all at the same time, against the same
simulated cards and over the same windows. What the cards do is a script, so the true joules of each window are known in
closed form.

- **Load**: `square` is one power level (isolated) or a square wave of 0.731 s, independent of the windows (back to
  back); `llm` is a prefill and a decode at 87 % and 43 % of the card's range. Power flickers by 2 % every 50 ms.
- **Isolated** windows hold one piece of work, with 0.4 to 0.6 s of idle time on both sides. **Back to back**, one
  window follows the other without a pause; for `llm` each is one request.
- **Span** is nominal; windows last that ± 10 %, so that they are not whole numbers of counter periods.
- **Tools** see a window as they would in a program: a call, the work, a call. llmpower sees samples at the daemon's
  default rate and the times of spans, through the same `Timeline` and `Ledger` as the daemon; for `llm` also the moment
  of the first token.
- **Error**, under each tool's name, is the mean of abs(measured − true) / true, in %. **bias** is llmpower's mean
  signed error, in %. **covers** is the share of windows whose truth lies within llmpower's energy ± 1.96 standard
  deviations, in %. **width** is the median width of that interval over what the actual error would justify
  (2 · 1.96 · rmse). **/ Zeus** and **/ best** are llmpower's error over ZeusMonitor's and over the best peer's.
"""

CHANCE = """A share of 400 windows is known to about one point, of 800 to 0.8. Beyond sampling error, requests of 30 ms
with a prefill and a decode are more accurate than they state where the counter moves every 100 ms. Several of them fall
into one tick, whose total does not show how their flicker is correlated; the deviation assumes that it is not."""

LIMITS = """## What this does not show

- Gain and offset of the simulated sensors are perfect. A real card's own gain error, −8 % to +13 % in published
  comparisons with external meters, adds to this for every tool here.
- The presets follow published measurements of sensors. What one real card showed, whose true joules are not known, is
  on [a page of its own](h100.md): its counter is less exact than these.
- llmpower read at its full rate throughout. From two seconds after the last span on the daemon reads counters a quarter
  as often, so the first span after a rest is cut from a longer tick
  ([decision 012](decisions/012-phase-locked-polling.md)).
- The simulated load changes instantly. Real power ramps, and real requests queue.
- All tools ran side by side on one small machine. How late their calls came is in the results
  (`began_late_*`, `ended_late_*`).
"""


def accuracy_page(results: Path = RESULTS) -> str:
    """The whole page."""
    found = json.loads((results / "accuracy.json").read_text(encoding="utf-8"))
    sections = [HEAD, METHOD, _result(found), _bars(found["rows"], found["coverage"])]
    if "without_counter" in found:
        sections.append(_without_counter(found["without_counter"]))
    sections.append(_tools(found["tools"]))
    thread = results / "sampling_thread.json"
    if thread.is_file():
        sections.append(_thread(json.loads(thread.read_text(encoding="utf-8"))))
    sections += [_card(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(results.glob("gpu-*.json"))]
    return "\n".join([*sections, LIMITS])


def _result(found: Mapping[str, Any]) -> str:
    rough = "A quick run: the figures are rough. " if found["quick"] else ""
    counts = sorted({row["tools"][OURS]["windows"] for row in found["rows"]})
    windows = f"{' or '.join(map(str, counts))} windows per cell, on {found['gpus']} GPUs"
    where = f"{found['date']}, {found['machine']}, {found['wall_s']} s"
    plot = "![Error over span, by card and load](../benchmarks/results/accuracy.svg)"
    return (
        f"## Result\n\n{rough}{windows}, whose counters tick at different times. {where}.\n\n"
        f"{plot}\n\n{as_markdown(found['rows'])}\n"
    )


def _bars(rows: Sequence[Mapping[str, Any]], coverage: Mapping[str, Mapping[str, float]]) -> str:
    """What was aimed at, and where it was missed."""
    limits = ", ".join(f"{arrangement} {span(span_s)} ≤ {percent(bar)} %" for (arrangement, span_s), bar in _limits())
    aims = {
        "error": f"Mean absolute error: {limits}",
        "a third of ZeusMonitor": "At most a third of ZeusMonitor's error",
        "below every peer": "Below every peer's error",
        "coverage": f"The stated 95 % interval covers {COVERED} of the truths",
        "width": f"Its median width is at most {WIDTH_BAR:g} times what the actual error justifies",
    }
    lines = ["## Aims, and where they are missed\n"]
    for bar, aim in aims.items():
        asked = [row for row in rows if row["bars"].get(bar) is not None]
        missed = [row for row in asked if not row["bars"][bar]]
        lines.append(f"- **{aim}**: holds in {len(asked) - len(missed)} of {len(asked)} cells.")
        lines += [f"  - not: {_name(row)}, {_found(bar, row)}" for row in missed]
    line = coverage_line(coverage)
    return "\n".join([*lines, "", f"{line[0].upper()}{line[1:]} windows.", "", CHANCE]) + "\n"


def _without_counter(found: Mapping[str, Any]) -> str:
    """The same windows from power alone."""
    missed = [
        f"- not: {_name(row)}: {_found(bar, row)}{' covered' if bar == 'coverage' else ' times as wide'}"
        for row in found["rows"]
        for bar in ("coverage", "width")
        if row["bars"][bar] is False
    ]
    held = {bar: "{holds} of {of} cells".format(**found["verdicts"][bar]) for bar in ("coverage", "width")}
    line = coverage_line(found["coverage"])
    return (
        "\n".join(
            [
                "## Without a counter\n",
                "The same samples, settled as if no card had an energy counter: from power alone, by",
                "[decision 076](decisions/076-power-without-a-counter.md). Peers were not asked.\n",
                f"{as_markdown(found['rows'])}\n",
                f"The interval covers {COVERED} of the truths in",
                f"{held['coverage']},",
                f"and is at most {WIDTH_BAR:g} times as wide as the actual error justifies in {held['width']}.",
                f"{line[0].upper()}{line[1:]} windows.\n",
                *missed,
            ]
        )
        + "\n"
    )


def _limits() -> list[tuple[tuple[str, float], float]]:
    return sorted(ERROR_BARS.items())


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['preset']}, {row['shape']}, {row['arrangement']}, {span(row['span_s'])}"


def _found(bar: str, row: Mapping[str, Any]) -> str:
    ours = row["tools"][OURS]
    return {
        "error": f"{percent(ours['error'])} %",
        "a third of ZeusMonitor": f"{row['ratio_to_zeus_monitor'] or 0:.2f} of it",
        "below every peer": f"{row['ratio_to_best_peer'] or 0:.2f} of {row['best_peer']}'s",
        "coverage": f"{percent(ours.get('coverage'))} %",
        "width": f"{ours.get('width_ratio') or 0:.2f}",
    }[bar]


def _tools(tools: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["## Tools and their settings\n", "| tool | version | settings |", "|---|---|---|"]
    for tool, machines in tools.items():
        settings = list(dict.fromkeys(about["settings"] for about in machines.values()))
        version = next(iter(machines.values())).get("version", "this one")
        lines.append(f"| {tool} | {version} | {'; or '.join(settings)} |")
    lines.append("\nA tool that is still busy with one window when the next begins is not asked about the next.")
    return "\n".join(lines) + "\n"


def _thread(found: Mapping[str, Any]) -> str:
    head = ["sampler", "alongside", "time", "ticks held", "late p50", "p99", "longest", "samples/s", "CPU a sample"]
    head += ["samples lost", "stolen", "bare timer", "program"]
    lines = [head, ["---"] * 2 + ["--:"] * (len(head) - 2)]
    for row in found["rows"]:
        late_s = (row[f"lateness_{each}_s"] for each in ("p50", "p99", "max"))
        late = ["–" if each is None else f"{each * 1e3:.2f} ms" for each in late_s]
        cost = [f"{row['samples_per_s']:.0f}", f"{row['cpu_per_sample_s'] * 1e6:.1f} µs", str(row["lost"])]
        # Measured since it was seen what a host takes; an older file does not say.
        cost.append(f"{100 * row['stolen_share']:.1f} %" if "stolen_share" in row else "–")
        bare = row.get("bare_held_share")
        cost.append("–" if bare is None else f"{100 * bare:.2f} %, p99 {row['bare_lateness_p99_s'] * 1e3:.2f} ms")
        kept = [f"{row['seconds']:.0f} s", f"{100 * row['held_share']:.2f} %"]
        high, low = row["program_slowed_quartiles"]
        program = f"{-100 * row['program_slowed']:+.1f} % ({-100 * low:+.0f} % to {-100 * high:+.0f} %)"
        lines.append([row["sampler"], row["program"], *kept, *late, *cost, program])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    where = f"{found['date']}, {found['machine']}"
    heading = f"## The sampling thread\n\n`benchmarks/sampling_thread.py`: {found['what']}. {where}."
    said = (
        "*Stolen* is what the host gave to others, *bare timer* what a thread without reads held next to ours."
        " *Program* is its pace with the sampler, in alternating seconds with and without it: the median of 20, and"
        " the quartiles."
    )
    return f"{heading} {said}\n\n{table}\n"


def _card(found: Mapping[str, Any]) -> str:
    """One real card: what calibration and the agreement of its two sources say."""
    lines = [f"## {found['card']}, driver {found['driver']}, {found['date']}\n"]
    for name, field in found["fields"].items():
        period = "no period seen" if field["period_s"] is None else f"every {field['period_s'] * 1e3:.1f} ms"
        lines.append(f"- {name}: {period}, a call {field['latency_p50_s'] * 1e6:.0f} µs")
    agreement = {name: each for name, each in found["agreement"].items() if name.endswith("_over_counter")}
    lines += [f"- {name.removesuffix('_over_counter')} / counter: {each:.4f}" for name, each in agreement.items()]
    lines += [
        f"- sampling at {rate}: {100 * each['of_unsampled']:.1f} % of tokens/s" for rate, each in found["cost"].items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(accuracy_page(), encoding="utf-8")
