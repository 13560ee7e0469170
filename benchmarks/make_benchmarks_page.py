"""Writes docs/benchmarks.md from the committed results; run it after any benchmark whose results you keep.

python benchmarks/make_benchmarks_page.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from make_paper_case_page import paragraph, percent

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"

KINDS = ("campaign", "traffic")

BARS = {
    "idle_rss_mb": "memory at rest, MiB",
    "idle_cpu_percent": "at rest, % of a processor",
    "load_shortfall_percent": "spans sent short of 5,000 a second, %",
    "load_lost": "spans lost",
    "load_finish_p99_us": "a program waits under load, p99, µs",
    "scrape_ms": "a scrape under load, ms",
    "steady_rss_growth_mb": "growth of memory over the steady minute, MiB",
}

HEAD = """# Benchmarks

Written by `python benchmarks/make_benchmarks_page.py` from `benchmarks/results/*.json`. Each section is one program and
one run, ours and its peers' in the same minutes on the same machine: two shared processors of a virtual machine without
a GPU. So ratios within a section mean something, and seconds elsewhere are yours to measure: `make bench`. What is
missed is said. [Accuracy](accuracy.md), [allocation](allocation.md), [drift](drift.md) and
[the paper's case](paper_case.md) have pages of their own.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(benchmarks_page(), encoding="utf-8")
    print(PAGE)


def benchmarks_page() -> str:
    """The page as it has to be."""
    sections = (daemon, scrape, startup, overhead, fitting, fleet, campaign, routing, online, allocation)
    return "\n".join([HEAD, *(section(read(section.__name__)) for section in sections)])


def read(name: str) -> dict[str, Any]:
    """The results of a benchmark."""
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return document


def daemon(found: dict[str, Any]) -> str:
    """What the daemon costs at rest and under load, and its bars."""
    idle = [
        (name, f"{100 * of['cpu_share']:.2f} %", f"{of['rss_bytes'] / 2**20:.1f} MiB", ms(of["scrape_p50_s"]))
        for name, of in found["idle"].items()
    ]
    load = [
        (
            f"{of['spans_per_s']:,.0f} spans/s",
            f"{of['spans']:,}",
            f"{of['lost']}",
            f"{1e6 * of['finish_s']['p99']:.0f} µs",
            f"{100 * of['daemon']['cpu_share']:.0f} %",
            f"{of['daemon']['rss_max_bytes'] / 2**20:.0f} MiB",
        )
        for of in (found["steady"], found["load"])
    ]
    return section(
        "The daemon",
        "benchmarks/daemon.py",
        "A simulated node of 8 GPUs at the default rate. At rest, beside nvitop-exporter, which reads no counter and"
        " measures no request:",
        table(("at rest", "of a processor", "memory", "a scrape, p50"), idle),
        table(("sending", "spans", "lost", "a program waits, p99", "daemon: of a processor", "most memory"), load),
        bars({name: (of["figure"], of["bar"], of["holds"]) for name, of in found["bars"].items()}),
    )


def scrape(found: dict[str, Any]) -> str:
    """A scrape, beside prometheus_client."""
    rows = [
        (
            kind,
            ms(of["llmpower"][0]),
            ms(of["prometheus_client"][0]),
            ratio(of["llmpower"][0], of["prometheus_client"][0]),
        )
        for kind, of in found["median_wall_and_cpu_s"].items()
    ]
    return section(
        "A scrape",
        "benchmarks/scrape.py",
        f"{found['gpus']} GPUs and {found['models']} models, {found['lines']:,} lines over HTTP, medians of"
        f" {found['runs']}."
        " The peer is prometheus_client's own server over the same metrics.",
        table(("format", "llmpower", "prometheus_client", "ratio"), rows),
    )


def startup(found: dict[str, Any]) -> str:
    """Time until a command is done."""
    rows = [
        (f"`{what}`", ms(seconds), f"{found['ratio_to_import_click'][what]:.2f}")
        for what, seconds in found["median_s"].items()
    ]
    return section(
        "Starting a command",
        "benchmarks/startup.py",
        f"Medians of {found['runs']}.",
        table(("", "time", "by `import click`"), rows),
    )


def overhead(found: dict[str, Any]) -> str:
    """What measuring adds to generate()."""
    rows = [
        (
            of["arm"],
            str(of["tokens"]),
            of["clock"],
            f"{of['plain_ms']:.1f} ms",
            f"{whole(of['extra_us']['value'])} µs ({whole(of['extra_us']['interval'][0])} to"
            f" {whole(of['extra_us']['interval'][1])})",
        )
        for of in found["rows"]
    ]
    share, token = found["bars"]["share_percent"], found["bars"]["token_us"]
    return section(
        "Measuring a `generate()` call",
        "benchmarks/overhead.py",
        "A random Llama of two layers, whose tokens take microseconds to milliseconds: the worst case. Calls in"
        " lockstep,"
        " with the 95 % interval; `plain again` is what the benchmark finds where there is nothing to find.",
        table(("measured by", "tokens", "clock", "the call itself", "more"), rows),
        bars(
            {
                "of a call, %": (share["found_at_most"], share["bar"], share["holds"]),
                "a token, µs": (token["found_at_most"], token["bar"], token["holds"]),
            }
        ),
    )


def fitting(found: dict[str, Any]) -> str:
    """A fit of a million rows, beside reading them."""
    rows = [
        (
            name,
            f"{found[name]['read_s']:.2f} s",
            f"{found[name]['fit_s']:.2f} s",
            f"{found[name]['time_ratio']:.2f}",
            f"{found[name]['memory_ratio']:.2f}",
        )
        for name in KINDS
    ]
    return section(
        "Fitting",
        "benchmarks/fitting.py",
        f"{found['rows']:,} rows of {found['models']} models, all forms, one cell held out at a time, beside"
        " `pandas.read_parquet` of the same file. In `traffic` almost every row has lengths of its own. The bars are 2"
        f" and 3; {_missed((of['time_ratio'] > 2) + (of['memory_ratio'] > 3) for of in map(found.get, KINDS))}.",
        table(("table", "read", "fit", "ratio", "peak memory by the table's"), rows),
    )


def fleet(found: dict[str, Any]) -> str:
    """A fit of a data set, beside reading it."""
    rows = [
        (
            name,
            f"{of['rows']:,}",
            f"{of['scan_s']:.1f} s",
            f"{of['fit_s']:.1f} s",
            f"{of['time_ratio']:.2f}",
            f"{of['peak_mb']:.0f} MB",
            f"{of['workers_ratio']:.2f}",
        )
        for name in KINDS
        for of in (found[name],)
    ]
    misses = (
        (of["time_ratio"] > 3) + (of["peak_mb"] > 2000) + (of["workers_ratio"] > 1) for of in map(found.get, KINDS)
    )
    note = f" {found['note']}." if "note" in found else ""
    return section(
        "A fleet's data set",
        "benchmarks/fleet.py",
        f"Parquet of {found['models']} models fitted batch by batch, beside pyarrow's scan of the same columns; then on"
        " two local Dask workers, beside one process. The bars are 3 times the scan, 2 GB, and 1;"
        f" {_missed(misses)}.{note}",
        table(("data set", "rows", "scan", "fit", "ratio", "peak memory", "two workers by one process"), rows),
    )


def _missed(misses: Iterable[int]) -> str:
    """Of each kind how many of the bars."""
    missed = [f"`{name}` **missed** {count} of them" for name, count in zip(KINDS, misses, strict=True) if count]
    return " and ".join(missed) or "all are held"


def campaign(found: dict[str, Any]) -> str:
    """Cells chosen against the whole grid."""
    rows = [
        (
            of["model_name"],
            f"`{of['form']}`",
            f"{of['trials']:.0f} of {of['grid_trials']}",
            f"{percent(of['error'])} %",
            f"{percent(of['grid_error'])} %",
            f"{100 * of['excess']:+.2f}",
            f"{100 * of['chance_excess']:+.2f}",
        )
        for of in found["models"]
    ]
    return section(
        "Chosen cells",
        "benchmarks/campaign.py",
        "Held-out error of energy over all cells, each foretold by a fit without it, where a quarter of the trials was"
        f" made on chosen cells, on the whole grid, and on as many cells drawn by chance ({found['seeds']} times).",
        table(("model", "form", "trials", "chosen", "whole grid", "more, points", "by chance, points"), rows),
        paragraph(
            "Campaigns that were run, on a SIMULATED card ([their trials](../examples/README.md)), in turns with the"
            " trials of the grid that they are held against, or apart from it, which tells what drifted in between and"
            " is not judged. The standard error is of the difference, cell by cell; new cells are those that the"
            " campaign has not measured, and the grid's error there; noise is that of one trial."
        ),
        table(
            (
                "model",
                "grid",
                "trials",
                "chosen",
                "whole grid",
                "more, points",
                "new cells",
                "drift",
                "a trial's noise",
            ),
            list(map(_for_real, found["for_real"])),
        ),
    )


def _for_real(of: dict[str, Any]) -> tuple[str, ...]:
    return (
        of["model_name"],
        "in turns" if of["together"] else "apart",
        f"{of['trials']} of {of['grid_trials']}",
        f"{percent(of['error'])} %",
        f"{percent(of['grid_error'])} %",
        f"{100 * of['excess']:+.1f} ± {100 * of['excess_std']:.1f}",
        f"{percent(of['error_new'])}, {percent(of['grid_error_new'])} %",
        f"{100 * of['drift']:+.1f} %",
        f"{percent(of['noise'])} %",
    )


def routing(found: dict[str, Any]) -> str:
    """Plans, beside PuLP and OR-Tools."""
    rows = [
        (
            f"{of['queries']:,}",
            f"{of['cells']:,}",
            f"{of['solve_s']:.2f} s",
            f"{of['ortools']['s']:.1f} s" if "ortools" in of else "–",
            f"{of['total_s']:.1f} s",
            f"{of['optimality_gap']:g}",
        )
        for of in found["flow"]
    ]
    pulp, file = found["pulp"], found["file"]
    limited = [
        (
            f"{of['queries']:,}",
            f"{of['cells']:,}",
            f"{of['ours_s']:.1f} s",
            f"{of['optimality_gap']:.0e}",
            f"{of['highs']['s']:.0f} s" if of["highs"]["solved"] else f"stopped after {of['highs']['s']:.0f} s",
        )
        for of in found["seconds"]
    ]
    return section(
        "Plans",
        "benchmarks/routing.py",
        f"10,000 queries to 3 models with shares: {pulp['ours_s']:.3f} s; PuLP and CBC with a binary a query and model:"
        f" {pulp['pulp_cbc_s']:.1f} s for the same objective (within {pulp['objective_difference']:.0e}). To 7"
        " models with exact"
        " shares, beside OR-Tools' network simplex over the cells alone:",
        table(("queries", "cells", "solved in", "OR-Tools", "from tokens to a model a query", "gap"), rows),
        paragraph(
            f"`llmpower route` from Parquet to Parquet, {file['rows']:,} rows: {file['route_s']:.1f} s, which is"
            f" {file['ratio']:.1f} times what pandas takes to read and write them, the best of both; the runs in turns"
            f" were {', '.join(f'{ratio:.1f}' for ratio in file['ratios'])}. {found['frontier']['points']} points of"
            f" the frontier over {found['frontier']['cells']:,} cells: {found['frontier']['s']:.2f} s. Two models of 7"
            " held to 60 % of the GPU-seconds that they would take, in whole queries, beside HiGHS on the same cells,"
            " which may divide them:"
        ),
        table(("queries", "cells", "solved in", "gap", "HiGHS"), limited),
    )


def online(found: dict[str, Any]) -> str:
    """One query at a time."""
    rows = [
        (
            of["models"],
            f"{of['zeta']:g}",
            f"{percent(of['closed']['online_lengths_known'])} %",
            f"{percent(of['closed']['online'])} %",
            f"{percent(of['closed']['optimum_same_information'])} %",
        )
        for of in found["cases"]
    ]
    times = [
        (of["models"], *(f"{of[kind][at]:.0f} µs" for kind in ("known", "learnt") for at in ("p50_us", "p99_us")))
        for of in found["decisions"]
    ]
    slow = [of[kind]["p99_us"] > 20 for of in found["decisions"] for kind in ("known", "learnt")]
    return section(
        "One query at a time",
        "benchmarks/online.py",
        "Conversations of the Azure trace in time order. How much of the way from random to the clairvoyant optimum"
        " is gone,"
        " with lengths known and learnt, beside an optimum that knows of lengths what their bucket says in hindsight:",
        table(("models", "ζ", "lengths known", "learnt", "optimum, same information"), rows),
        "A decision; the bar is 20 µs at p99, which "
        + (f"{sum(slow)} of {len(slow)} **missed**:\n" if any(slow) else "all hold:\n"),
        table(("models", "known: p50", "p99", "learnt: p50", "p99"), times),
    )


def allocation(found: dict[str, Any]) -> str:
    """Shares of concurrent requests, against the truth."""
    rules = ("llmpower", "equal", "tokens", "tokens by phase", "time overlap")
    rows = [
        (at, *(f"{percent(of[rule])} %" for rule in rules), f"{percent(of['covered'])} %")
        for at, of in found["tables"]["by concurrency"].items()
    ]
    return section(
        "Allocation",
        "benchmarks/allocation.py",
        f"Mean error of {found['requests']:,} requests' energies where nine laws say what each truly cost"
        " ([the page](allocation.md) says how), by how many run at a time. The other rules are given the card's true"
        " energy.",
        table(("at a time", *rules, "interval covers"), rows),
    )


def section(title: str, program: str, text: str, *parts: str) -> str:
    """A heading, what was done, and what was found."""
    return "\n".join([f"## {title}\n", paragraph(f"`python {program}`. {text}"), *parts])


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Markdown, with figures on the right."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ("---", *("--:" for _ in head[1:])), *rows)]
    return "\n".join(lines) + "\n"


def bars(found: dict[str, tuple[float, float, bool]]) -> str:
    """What had to be reached."""
    rows = [
        (BARS.get(name, name), f"{figure:.4g}", f"{bar:g}", "held" if holds else "**missed**")
        for name, (figure, bar, holds) in found.items()
    ]
    return table(("bar", "found", "at most", ""), rows)


def whole(number: float) -> str:
    """−26.5 → −26; nothing is neither above nor below zero."""
    return f"{round(number)}".replace("-", "−")


def ms(seconds: float) -> str:
    """Milliseconds."""
    return f"{1e3 * seconds:.1f} ms"


def ratio(ours: float, theirs: float) -> str:
    """Ours by theirs."""
    return f"{ours / theirs:.2f}"


if __name__ == "__main__":
    main()
