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
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    presets = list(dict.fromkeys(row["preset"] for row in rows))
    kinds = list(dict.fromkeys((row["arrangement"], row["shape"]) for row in rows))
    figure = Figure(figsize=(3.1 * len(presets) + 1, 2.5 * len(kinds) + 0.8), layout="constrained")
    panels = figure.subplots(len(kinds), len(presets), sharex=True, sharey=True, squeeze=False)
    peers = [tool for tool in PEER_ORDER if any(tool in row["tools"] for row in rows)]
    for line, (arrangement, shape) in enumerate(kinds):
        for column, preset in enumerate(presets):
            panel = panels[line][column]
            own = [r for r in rows if (r["preset"], r["arrangement"], r["shape"]) == (preset, arrangement, shape)]
            for tool, colour in zip([*peers, OURS], [*COLOURS[: len(peers)], "#1d4ed8"], strict=True):
                points = [
                    (row["span_s"], 100 * row["tools"][tool]["error"])
                    for row in own
                    if tool in row["tools"] and row["tools"][tool]["error"]
                ]
                width = 2.4 if tool == OURS else 1.2
                panel.plot(*zip(*points, strict=True), marker=".", lw=width, color=colour, label=tool)
            panel.set_xscale("log")
            panel.set_yscale("log")
            panel.grid(True, which="major", alpha=0.3)
            panel.set_title(f"{preset}, {shape}, {arrangement}", fontsize=8)
            panel.tick_params(labelsize=7)
    for panel in panels[-1]:
        panel.set_xlabel("span, s", fontsize=8)
    for panel in panels[:, 0]:
        panel.set_ylabel("mean |error|, %", fontsize=8)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "llmpower"}):  # text stays text, and files compare
        FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})
