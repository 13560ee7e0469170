"""One frame of ``llmpower top``: a tick as lines of text, as wide and as high as there is room for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llmpower.cli.layout import ABSENT, Line, aligned, compact, cut, formatted, in_percent, plain, shortened, width
from llmpower.cli.watching import Tick
from llmpower.phrases import SIMULATED_GPU, duration, plural

GAUGE_WIDTH = 100
"""From this many columns on there is room for a gauge of each device's power."""

GAUGE_CELLS, EIGHTHS = 16, ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
FEWEST_MODELS = 4
MAX_PROBLEMS = 3
NAME_CELLS = 40


def frame(tick: Tick, *, columns: int, rows: int | None = None, note: str = "") -> list[Line]:
    """The lines of a tick that had an answer.

    Args:
        tick: of :class:`~llmpower.cli.watching.Watch`.
        columns: no line is wider than this many cells.
        rows: there are no more lines than this; ``None``: as many as it takes.
        note: said of the daemon's absence, above figures that are not of now.
    """
    head = [Line(_title(tick), "head"), *([Line(note, "bad")] if note else []), *_problems(tick), *_summary(tick)]
    room = None if rows is None else rows - len(head) - 4  # two blank lines, two headers
    devices, models = _shared_out(len(tick["devices"]), len(tick["models"]), room)
    lines = [
        *head,
        Line(""),
        *_table(_devices(tick, columns), devices),
        Line(""),
        *_table(_models(tick, columns), models),
    ]
    return [Line(cut(line.text, columns), line.style) for line in lines[:rows]]


def _title(tick: Tick) -> str:
    clock = tick["time"][11:19]
    return f"llmpower top  {clock} UTC  daemon {tick['version']}, pid {tick['pid']}, up {duration(tick['uptime_s'])}"


def _problems(tick: Tick) -> Iterator[Line]:
    if tick["simulated"]:
        yield Line(SIMULATED_GPU, "doubt")
    problems = tick["problems"]
    for problem in problems[:MAX_PROBLEMS]:
        yield Line(f"! {plain(problem['what'])}", "bad")
    if len(problems) > MAX_PROBLEMS:
        yield Line(f"! and {len(problems) - MAX_PROBLEMS} more: llmpower status", "bad")


def _summary(tick: Tick) -> Iterator[Line]:
    requests, sampler, drift, cost = tick["requests"], tick["sampler"], tick["drift"], tick["cost"]
    over = "since the daemon began" if tick["window_s"] is None else f"of the last {duration(tick['window_s'])}"
    behind_s = max((device["booked_s_ago"] or 0.0 for device in tick["devices"]), default=0.0)
    refused = f", {requests['rejected']} refused" if requests["rejected"] else ""
    yield Line(
        f"requests  {requests['running']} running, {requests['pending']} to be measured,"
        f" {compact(requests['measured_per_s'])}/s measured, {requests['measured']} in all{refused}"
    )
    faults = "".join(
        f", {sampler[name]} {said}"
        for name, said in (("dropped_samples", "samples dropped"), ("read_errors", "read errors"))
        if sampler[name]
    )
    yield Line(
        f"meter     {compact(sampler['ticks_per_s'])} reads/s, {sampler['missed_ticks']} missed,"
        f" late {_lateness(sampler['lateness_p50_s'])} (p99 {_lateness(sampler['lateness_p99_s'])}){faults};"
        f" {in_percent(cost['cpu_share'])} % CPU, {cost['memory_bytes'] / 2**20:.0f} MiB"
    )
    if drift["models_file"] is None:
        said = "no models to compare requests with (llmpower daemon --models)"
    else:
        verdict = f"{drift['drifted']} DRIFTED" if drift["drifted"] else "none drifted"
        said = f"{plural(drift['compared'], 'request')} compared with their models, {verdict}"
    yield Line(f"drift     {said}", "bad" if drift["drifted"] else "")
    yield Line(f"figures   {over}; joules are booked up to {behind_s:.1f} s ago")


def _devices(tick: Tick, columns: int) -> tuple[list[str], list[str]]:
    """Header and lines. A device's name takes what the figures leave."""
    header = ("NOW W", "LIMIT W", "MEAN W", "IDLE %", "UNATTR %", "REQ", "J/REQ", "J/TOKEN")
    figures = [
        (
            f"stalled {duration(device['stalled_s'])}" if device["stalled_s"] else formatted(device["power_w"], ".1f"),
            formatted(device["power_limit_w"], ".0f"),
            formatted(device["mean_power_w"], ".1f"),
            in_percent(device["idle_share"], 0),
            in_percent(device["unattributed_share"]),
            str(device["requests"]),
            compact(device["energy_per_request_j"]),
            compact(device["energy_per_output_token_j"]),
        )
        for device in tick["devices"]
    ]
    names = [_name(place, device) for place, device in enumerate(tick["devices"])]
    if columns < GAUGE_WIDTH:
        return _fitted("DEVICE", names, header, figures, columns)
    gauged = [
        (_gauge(device["power_w"], device["power_limit_w"]), *row)
        for device, row in zip(tick["devices"], figures, strict=True)
    ]
    return _fitted("DEVICE", names, ("OF LIMIT", *header), gauged, columns, left=("OF LIMIT",))


def _name(place: int, device: dict[str, Any]) -> str:
    """With its number, as eight cards of a machine are called alike; an older daemon tells none."""
    number = place if device["number"] is None else device["number"]
    said = not device["simulated"] or "simulated" in device["name"].lower()
    return f"{number} {device['name'] if said else 'SIMULATED ' + device['name']}"


def _models(tick: Tick, columns: int) -> tuple[list[str], list[str]]:
    header = ("REQ/s", "TOKENS/s", "J/REQ", "J/TOKEN", "REQ IN ALL", "OF PREDICTED")
    figures = [
        (
            compact(model["measured_per_s"]),
            compact(model["output_tokens_per_s"]),
            compact(model["energy_per_request_j"]),
            compact(model["energy_per_output_token_j"]),
            str(model["requests"]),
            _ratio(model["drift"]),
        )
        for model in tick["models"]
    ]
    return _fitted("MODEL", [model["model_name"] for model in tick["models"]], header, figures, columns)


def _fitted(
    title: str,
    names: Sequence[str],
    header: Sequence[str],
    figures: Sequence[Sequence[str]],
    columns: int,
    left: Sequence[str] = (),
) -> tuple[list[str], list[str]]:
    """A table whose first column is as wide as the others let it be; the last ones go where there is no room."""
    right = [name for name in header if name not in left]

    def room_beside() -> int:
        return columns - max(map(width, aligned(header, figures, right, columns=10 * columns))) - 2

    while len(header) > 1 and room_beside() < len(title):
        header, figures = header[:-1], [row[:-1] for row in figures]
    room = max(min(room_beside(), NAME_CELLS), len(title))
    rows = [(shortened(plain(name), room), *row) for name, row in zip(names, figures, strict=True)]
    first, *rest = aligned((title, *header), rows, right, columns=10 * columns)
    return [first], rest


def _table(table: tuple[list[str], list[str]], room: int) -> Iterator[Line]:
    header, lines = table
    yield from (Line(line, "head") for line in header)
    if len(lines) > room:
        lines = [*lines[: max(room - 1, 0)], f"… and {len(lines) - max(room - 1, 0)} more"]
    yield from (Line(line, "bad" if "DRIFTED" in line or "stalled" in line else "") for line in lines)
    if not lines:
        yield Line("none yet", "faint")


def _shared_out(devices: int, models: int, room: int | None) -> tuple[int, int]:
    """How many lines each table gets: models a few at least, devices the rest."""
    if room is None or devices + models <= room:
        return devices, models
    kept = min(models, max(FEWEST_MODELS, room - devices))
    return max(room - kept, 1), kept


def _gauge(power_w: float | None, limit_w: float | None) -> str:
    if power_w is None or not limit_w:
        return ABSENT
    eighths = round(min(max(power_w / limit_w, 0.0), 1.0) * GAUGE_CELLS * 8)
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8]).ljust(GAUGE_CELLS, "·")


def _ratio(drift: dict[str, Any] | None) -> str:
    if drift is None:
        return ABSENT
    return f"{drift['ratio']:.3f}{' DRIFTED' if drift['drifted'] else ''}"


def _lateness(seconds: float | None) -> str:
    """A bound of the histogram that it lies below."""
    if seconds is None:
        return ABSENT
    return f"< {seconds * 1e6:.0f} µs" if seconds < 1e-3 else f"< {seconds * 1e3:g} ms"
