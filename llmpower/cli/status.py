"""``llmpower status``: ask the daemon what it is doing, and show the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from llmpower.cli.layout import aligned


@click.command()
@click.option("--socket", type=click.Path(path_type=Path), help="The daemon's socket.  [default: where it is]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(socket: Path | None, as_json: bool) -> None:
    """Show what the daemon is doing.

    Devices and their power now, spans stored, pending and refused, the last error, and what the daemon itself costs.

    \b
    Example:
      llmpower status
      llmpower status --json | jq '.devices[].power_w'
    """
    from llmpower.spans.client import default_socket_path, request_status

    status = request_status(socket or default_socket_path())
    print(json.dumps(status, indent=2, allow_nan=False) if as_json else "\n".join(_lines(status)))


def _lines(status: dict[str, Any]) -> Iterator[str]:
    yield f"llmpower {status['version']}, pid {status['pid']}, up {_duration(status['uptime_s'])}"
    if status["simulated"]:
        yield "SIMULATED: the GPU is a model of one, and none of its joules is real"
    yield ""
    yield from aligned(
        ("device", "power", "energy", "uuid"),
        [
            (
                device["name"],
                _power(device),
                _joules(device["energy_j"]),
                device["uuid"],
            )
            for device in status["devices"]
        ],
        right="power energy",
    )
    spans, store, cost = status["spans"], status["store"], status["cost"]
    reasons = ", ".join(f"{reason} {count}" for reason, count in spans["rejected"].items())
    yield ""
    yield f"spans       {spans['stored']} stored, {spans['pending']} pending, {spans['running']} running"
    yield f"rejected    {reasons or 'none'}"
    yield f"store       {store['path']}, {store['errors']} errors, {store['waiting']} waiting, {store['lost']} lost"
    # A daemon that was not restarted after an upgrade does not tell.
    if "size_bytes" in store:
        yield f"            {_size(store)}, {store['deleted']} deleted by retention{_corruptions(store)}"
    yield f"metrics     {status['metrics_url']}"
    yield f"last error  {status['last_error'] or 'none'}"
    yield f"own cost    {cost['cpu_share']:.2%} of one CPU, {cost['memory_bytes'] / 2**20:.0f} MiB"


def _power(device: dict[str, Any]) -> str:
    if device.get("stalled_s"):
        return f"stalled {_duration(device['stalled_s'])}"
    return "no reading" if device["power_w"] is None else f"{device['power_w']:.1f} W"


def _size(store: dict[str, Any]) -> str:
    if store["size_bytes"] is None:
        return "cannot be reached"
    return f"{store['size_bytes'] / 2**20:.0f} MiB and a log of {store['log_bytes'] / 2**20:.0f} MiB"


def _corruptions(store: dict[str, Any]) -> str:
    return f", {store['corruptions']} damaged ones set aside" if store["corruptions"] else ""


def _duration(seconds: float) -> str:
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {seconds % 60:.0f} s" if minutes else f"{seconds:.0f} s"


def _joules(joules: float) -> str:
    for unit, size in (("GJ", 1e9), ("MJ", 1e6), ("kJ", 1e3)):
        if joules >= size:
            return f"{joules / size:.2f} {unit}"
    return f"{joules:.1f} J"
