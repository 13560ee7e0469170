"""What measurements are turned into, and how fast: fits, campaigns, plans, choices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sections.markdown import paragraph, percent, section, table

KINDS = ("campaign", "traffic")


def fitting(found: dict[str, Any]) -> str:
    """A fit of a million rows, against reading them."""
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
        f"{found['rows']:,} rows of {found['models']} models, all forms, one cell held out at a time, compared with"
        " `pandas.read_parquet` of the same file. In `traffic` almost every row has lengths of its own. The bars are 2"
        f" and 3; {_missed((of['time_ratio'] > 2) + (of['memory_ratio'] > 3) for of in map(found.get, KINDS))}.",
        table(("table", "read", "fit", "ratio", "peak memory by the table's"), rows),
    )


def fleet(found: dict[str, Any]) -> str:
    """A fit of a data set, against reading it."""
    rows = [
        (
            name,
            f"{of['rows']:,}",
            f"{of['scan_s']:.1f} s",
            f"{of['fit_s']:.1f} s",
            _with_quartiles(of, "time_ratio"),
            f"{of['peak_mb']:.0f} MB",
            _with_quartiles(of, "workers_ratio"),
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
        f"Parquet of {found['models']} models fitted batch by batch, compared with pyarrow's scan of the same columns;"
        " then on two local Dask workers, compared with one process. Seconds are medians, and ratios those of each"
        f" turn, with their quartiles. The bars are 3 times the scan, 2 GB, and 1; {_missed(misses)}.{note}",
        table(("data set", "rows", "scan", "fit", "ratio", "peak memory", "two workers by one process"), rows),
    )


def _with_quartiles(of: dict[str, Any], name: str) -> str:
    lower, upper = of[f"{name}_quartiles"]
    return f"{of[name]:.2f} ({lower:.2f}–{upper:.2f})"


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
        "Held-out error of energy over all cells, each predicted by a fit without it: with a quarter of the trials, on"
        f" chosen cells; with the whole grid; and with as many cells drawn at random ({found['seeds']} times).",
        table(("model", "form", "trials", "chosen", "whole grid", "more, points", "at random, points"), rows),
        paragraph(
            "Campaigns that were run ([their trials](../examples/README.md)): `random-llama-1b` on a real H100, the"
            " others on the SIMULATED card. Interleaved ones alternate with the trials of the grid that they are"
            " compared with. Separate ones show what drifted in between, and are not judged. The standard error is of"
            " the difference, cell by cell. New cells are those that the campaign has not measured: its error there,"
            " and the grid's. Noise is that of one trial."
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
        "interleaved" if of["together"] else "separate",
        f"{of['trials']} of {of['grid_trials']}",
        f"{percent(of['error'])} %",
        f"{percent(of['grid_error'])} %",
        f"{100 * of['excess']:+.1f} ± {100 * of['excess_std']:.1f}",
        f"{percent(of['error_new'])}, {percent(of['grid_error_new'])} %",
        f"{100 * of['drift']:+.1f} %",
        f"{percent(of['noise'])} %",
    )


def routing(found: dict[str, Any]) -> str:
    """Plans, against PuLP and OR-Tools."""
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
        f"10,000 queries to 3 models with shares: {pulp['ours_s']:.3f} s; PuLP and CBC with one binary per query and"
        f" model: {pulp['pulp_cbc_s']:.1f} s for the same objective (within {pulp['objective_difference']:.0e}). To 7"
        " models with exact shares, compared with OR-Tools' network simplex over the cells alone:",
        table(("queries", "cells", "solved in", "OR-Tools", "from tokens to a model per query", "gap"), rows),
        paragraph(
            f"`llmpower route` from Parquet to Parquet, {file['rows']:,} rows: {file['route_s']:.1f} s, which is"
            f" {file['ratio']:.1f} times what pandas takes to read and write them, the best of both; the alternating"
            f" runs were {', '.join(f'{ratio:.1f}' for ratio in file['ratios'])}. {found['frontier']['points']} points"
            f" of the frontier over {found['frontier']['cells']:,} cells: {found['frontier']['s']:.2f} s. Two models of"
            " 7 held to 60 % of the GPU-seconds that they would take, in whole queries, compared with HiGHS on the"
            " same cells, which may divide them:"
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
        "Conversations of the Azure trace in time order. How much of the distance from random to the clairvoyant"
        " optimum is closed, with lengths known and learnt, next to an optimum that knows of lengths what their"
        " bucket says in hindsight:",
        table(("models", "ζ", "lengths known", "learnt", "optimum, same information"), rows),
        "A decision; the bar is 20 µs at p99, which "
        + (f"{sum(slow)} of {len(slow)} **missed**:\n" if any(slow) else "all hold:\n"),
        table(("models", "known: p50", "p99", "learnt: p50", "p99"), times),
    )
