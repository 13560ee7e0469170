"""What measuring costs and how well it divides: the daemon, a scrape, a command, a call, shares of a card."""

from __future__ import annotations

from typing import Any

from sections.markdown import bars, ms, percent, ratio, section, table, whole

BARS = {
    "idle_rss_mb": "memory at rest, MiB",
    "idle_cpu_percent": "at rest, % of a processor",
    "load_shortfall_percent": "spans sent short of 5,000 a second, %",
    "load_lost": "spans lost",
    "load_finish_p99_us": "a program waits under load, p99, µs",
    "scrape_ms": "a scrape under load, ms",
    "steady_rss_growth_mb": "growth of memory over the steady minutes, MiB",
}


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
        "A simulated node of 8 GPUs at the default rate. At rest, compared with nvitop-exporter, which reads no"
        " counter and measures no request:",
        table(("at rest", "of a processor", "memory", "a scrape, p50"), idle),
        table(("sending", "spans", "lost", "a program waits, p99", "daemon: of a processor", "most memory"), load),
        bars({BARS[name]: (of["figure"], of["bar"], of["holds"]) for name, of in found["bars"].items()}),
    )


def scrape(found: dict[str, Any]) -> str:
    """A scrape, against prometheus_client."""
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


def slow_counter(found: dict[str, Any]) -> str:
    """Requests on cards with slow counters, with and without power sensors."""
    names = {"without": "counter alone", "with": "counter and power"}
    rows = [
        (
            f"{row['share']:g}, {row['reads_hz']:.1f} reads a second: {names[name]}",
            *(f"{percent(of['rms'])} % ({percent(of['within_two_deviations'], 0)} %)" for of in row[name]["spans"]),
            f"{percent(row[name]['cpu'])} %",
        )
        for row in found["rows"]
        for name in names
    ]
    spans = found["rows"][0]["with"]["spans"]
    lengths = [f"{of['from_s']:g} to {of['to_s']:g} s ({of['requests']})" for of in spans[:-1]]
    lengths.append(f"longer ({spans[-1]['requests']})")
    return section(
        "Cards whose counters are slow to read",
        "benchmarks/slow_counter.py",
        f"{found['gpus']} simulated cards whose calls take as long as a real H100's, under one `--max-read-share`; no"
        " two requests draw the same. How far they were off, by how long they lasted (and how many there were): root"
        " mean square of the relative error, and how many were within two of their stated deviations. The same reads"
        " are settled twice.",
        table(("max-read-share", *lengths, "settling: of a processor"), rows),
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


BY = {
    "calls": "how much more a call of 64 adds than one of a single token",
    "path": "llmpower's own code, timed by itself: the calls differed too much among themselves",
}


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
        "A random Llama of two layers, whose tokens take less than a millisecond: the worst case. Calls in lockstep,"
        " with the 95 % interval; `plain again` is what the benchmark finds where there is nothing to find. A token is"
        f" judged by {BY[token['by']]}.",
        table(("measured by", "tokens", "clock", "the call itself", "more"), rows),
        bars(
            {
                "of a call, %": (share["found_at_most"], share["bar"], share["holds"]),
                "a token, µs": (token["found_at_most"], token["bar"], token["holds"]),
            }
        ),
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
        f"Mean error of {found['requests']:,} requests' energies where nine laws say what each truly cost ([the"
        " page](allocation.md) says how), by number of concurrent requests. The other rules are given the card's true"
        " energy.",
        table(("at a time", *rules, "interval covers"), rows),
    )
