"""The figures as a table for a terminal or a page, and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .figures import OURS, verdicts

PEER_ORDER = ("ZeusMonitor", "Zeus PowerMonitor", "nvidia-ml-py", "CodeCarbon", "nvitop")
COLOURS = ("#c2410c", "#d97706", "#4d7c0f", "#0f766e", "#7c3aed")


def percent(value: float | None) -> str:
    """``0.0123`` → ``1.23``; three digits that count."""
    return "–" if value is None else f"{100 * value:#.3g}".rstrip(".")


def span(seconds: float) -> str:
    """``0.03`` → ``30 ms``."""
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:g} s"


def columns(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: mean absolute error of each tool in %, then ratios, coverage and width of llmpower's."""
    peers = [tool for tool in PEER_ORDER if any(tool in row["tools"] for row in rows)]
    head = ["card", "load", "arrangement", "span", OURS, *peers, "/ Zeus", "/ best", "bias", "covers", "width"]
    lines = []
    for row in rows:
        ours = row["tools"][OURS]
        errors = [percent(row["tools"][tool]["error"]) if tool in row["tools"] else "–" for tool in peers]
        ratios = [_ratio(row["ratio_to_zeus_monitor"]), _ratio(row["ratio_to_best_peer"])]
        honesty = [percent(ours["bias"]), percent(ours.get("coverage")), _ratio(ours.get("width_ratio"))]
        cell = [row["preset"], row["shape"], row["arrangement"], span(row["span_s"])]
        lines.append([*cell, percent(ours["error"]), *errors, *ratios, *honesty])
    return head, lines


def as_text(rows: Sequence[Mapping[str, Any]], coverage: Mapping[str, Mapping[str, float]]) -> str:
    """For a terminal."""
    head, lines = columns(rows)
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    pads = [str.ljust] * 4 + [str.rjust] * (len(head) - 4)

    def aligned(line: Sequence[str]) -> str:
        return "  ".join(pad(text, width) for pad, text, width in zip(pads, line, widths, strict=True))

    return "\n".join([*(aligned(line) for line in [head, *lines]), "", *_verdict_lines(rows), coverage_line(coverage)])


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """For a page."""
    head, lines = columns(rows)
    rule = ["---"] * 4 + ["--:"] * (len(head) - 4)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])


def _verdict_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{bar}: holds in {held} of {asked} cells" for bar, (held, asked) in verdicts(rows).items() if asked]


def coverage_line(coverage: Mapping[str, Mapping[str, float]]) -> str:
    """Coverage over all cells together."""
    parts = [f"{pool} {percent(found['coverage'])} % of {found['windows']}" for pool, found in coverage.items()]
    return "covered over all cells: " + ", ".join(parts)


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def draw(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Error over span, one panel for each card and kind of load, as SVG."""
    import altair as alt

    from llmpower.report import save_chart
    from llmpower.report.style import values

    presets = list(dict.fromkeys(row["preset"] for row in rows))
    kinds = list(dict.fromkeys((row["arrangement"], row["shape"]) for row in rows))
    tools = [*(tool for tool in PEER_ORDER if any(tool in row["tools"] for row in rows)), OURS]
    colour = alt.Color("tool:N", title=None).scale(domain=tools, range=[*COLOURS[: len(tools) - 1], "#1d4ed8"])
    decades = [10.0**power for power in range(-4, 5)]
    panels = []
    for arrangement, shape in kinds:
        for preset in presets:
            points = [
                {"span": row["span_s"], "error": 100 * row["tools"][tool]["error"], "tool": tool}
                for row in rows
                if (row["preset"], row["arrangement"], row["shape"]) == (preset, arrangement, shape)
                for tool in tools
                if tool in row["tools"] and row["tools"][tool]["error"]
            ]
            chart = alt.Chart(values(points)).encode(
                x=alt.X("span:Q", title="span [s]").scale(type="log").axis(values=[0.01, 0.1, 1, 10]),
                y=alt.Y("error:Q", title="mean |error| [%]").scale(type="log").axis(values=decades, format="~r"),
                color=colour,
            )
            width = alt.when(f"datum.tool == '{OURS}'").then(alt.value(2.6)).otherwise(alt.value(1.3))
            panel = alt.layer(
                chart.mark_line().encode(strokeWidth=width), chart.mark_point(filled=True, size=18, opacity=1)
            )
            panels.append(panel.properties(width=220, height=150, title=f"{preset}, {shape}, {arrangement}"))
    whole = alt.concat(*panels, columns=len(presets), title=title).resolve_scale(x="shared", y="shared")
    save_chart(whole, path, "--json")
