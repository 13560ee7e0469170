"""From windows to figures: errors of each tool in each cell, and whether llmpower's intervals cover what they claim.

With e = (measured − true)/true over the windows of a cell:

    error = mean |e|        bias = mean e        rmse = √mean e²

A tool that gives no figure for a window is not charged with an error, but with ``unavailable``; one that was still busy
with the window before was not asked, and has fewer windows.

An interval is measured ± 1.96 std. Its *coverage* is the share of windows whose truth it holds. Its *width ratio* is
the median of std/true over the cell's rmse: at 1 it is as wide as the actual error justifies.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

OURS = "llmpower"
Z95 = 1.96

ERROR_BARS = {
    ("back to back", 5.0): 0.003,
    ("back to back", 1.0): 0.015,
    ("back to back", 0.3): 0.05,
    ("isolated", 1.0): 0.007,
    ("isolated", 0.3): 0.02,
    ("isolated", 0.1): 0.06,
}
"""Mean absolute relative error that llmpower means to stay within."""

ZEUS_BAR = 1 / 3
"""At most this share of ZeusMonitor's error."""

COVERAGE_BAR = (0.93, 0.99)
WIDTH_BAR = 2.5


class Cell(NamedTuple):
    """One kind of window on one card."""

    preset: str
    shape: str
    arrangement: str
    span_s: float


class Result(NamedTuple):
    """One window of one GPU as one tool saw it."""

    true_j: float
    energy_j: float | None
    std_j: float | None
    quality: str | None


def summarise(results: Mapping[str, Mapping[Cell, Sequence[Result]]]) -> list[dict[str, Any]]:
    """One row a cell: figures of every tool, ratios, and which bars hold.

    Args:
        results: tool → cell → its windows.
    """
    rows = []
    for cell in results[OURS]:
        tools = {tool: _figures(cells[cell]) for tool, cells in results.items() if cell in cells}
        ours = tools[OURS]
        peers = {tool: found["error"] for tool, found in tools.items() if tool != OURS and found["error"] is not None}
        row: dict[str, Any] = {**cell._asdict(), "tools": tools}
        best = min(peers, key=lambda tool: peers[tool], default=None)
        row["best_peer"] = best
        row["ratio_to_best_peer"] = None if best is None else _ratio(ours["error"], peers[best])
        row["ratio_to_zeus_monitor"] = _ratio(ours["error"], peers.get("ZeusMonitor"))
        row["bars"] = _bars(cell, row)
        rows.append(row)
    return rows


def pooled_coverage(results: Mapping[str, Mapping[Cell, Sequence[Result]]]) -> dict[str, dict[str, float | int]]:
    """Coverage of llmpower's intervals over all cells together, in all and by quality, with the number of windows."""
    pools: defaultdict[str, list[Result]] = defaultdict(list)
    for windows in results[OURS].values():
        for window in windows:
            if window.energy_j is not None and window.std_j is not None:
                pools["all"].append(window)
                pools[str(window.quality)].append(window)
    return {pool: {"coverage": _coverage(windows), "windows": len(windows)} for pool, windows in pools.items()}


def rounded(value: Any) -> Any:
    """The same document with six digits that count in every number: more would be noise, and four times the file."""
    if isinstance(value, Mapping):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _figures(windows: Sequence[Result]) -> dict[str, Any]:
    known = [window for window in windows if window.energy_j is not None]
    relative = [(window.energy_j - window.true_j) / window.true_j for window in known if window.energy_j is not None]
    figures: dict[str, Any] = {"windows": len(windows), "unavailable": len(windows) - len(known)}
    if not relative:
        return figures | {"error": None, "bias": None, "rmse": None}
    rmse = math.sqrt(statistics.fmean(e * e for e in relative))
    figures |= {
        "error": statistics.fmean(abs(e) for e in relative),
        "bias": statistics.fmean(relative),
        "rmse": rmse,
        "zero": sum(window.energy_j == 0 for window in known),
    }
    with_std = [window for window in known if window.std_j is not None]
    if with_std:
        figures["coverage"] = _coverage(with_std)
        figures["width_ratio"] = statistics.median(w.std_j / w.true_j for w in with_std if w.std_j is not None) / rmse
        by_quality: defaultdict[str, list[Result]] = defaultdict(list)
        for window in with_std:
            by_quality[str(window.quality)].append(window)
        figures["coverage_by_quality"] = {quality: _coverage(found) for quality, found in by_quality.items()}
    qualities = Counter(window.quality for window in windows if window.quality is not None)
    return figures | ({"qualities": dict(qualities)} if qualities else {})


def _coverage(windows: Sequence[Result]) -> float:
    held = [
        abs(window.energy_j - window.true_j) <= Z95 * window.std_j
        for window in windows
        if window.energy_j is not None and window.std_j is not None
    ]
    return sum(held) / len(held)


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or not theirs else ours / theirs


def _bars(cell: Cell, row: Mapping[str, Any]) -> dict[str, bool | None]:
    """Each bar: holds, fails, or ``None`` where it does not apply or cannot be judged."""
    ours = row["tools"][OURS]
    limit = ERROR_BARS.get((cell.arrangement, cell.span_s))
    zeus, best = row["ratio_to_zeus_monitor"], row["ratio_to_best_peer"]
    coverage, width = ours.get("coverage"), ours.get("width_ratio")
    return {
        "error": None if limit is None else ours["error"] is not None and ours["error"] <= limit,
        "a third of ZeusMonitor": None if zeus is None else zeus <= ZEUS_BAR,
        "below every peer": None if best is None else best < 1,
        "coverage": None if coverage is None else COVERAGE_BAR[0] <= coverage <= COVERAGE_BAR[1],
        "width": None if width is None else width <= WIDTH_BAR,
    }


def verdicts(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """For each bar, in how many cells it holds, and of how many it can be asked."""
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        for bar, holds in row["bars"].items():
            held, asked = found.get(bar, (0, 0))
            found[bar] = (held + bool(holds), asked + (holds is not None))
    return found
