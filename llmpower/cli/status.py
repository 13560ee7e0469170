"""``llmpower status``: ask the daemon what it is doing, and show the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from llmpower.cli.layout import aligned
from llmpower.phrases import duration

SILENT_S = 10.0
"""After so long without a good read a device gives none."""


@click.command()
@click.option("--socket", type=click.Path(path_type=Path), help="The daemon's socket.  [default: where it is]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(socket: Path | None, as_json: bool) -> None:
    """Show what the daemon is doing.

    What is wrong and what mends it; devices and their power now; what each model costs; spans stored, pending and
    refused; the last error and when it was; and what the daemon itself costs.

    \b
    Example:
      llmpower status
      llmpower status --json | jq '.devices[].power_w'
    """
    from llmpower.spans.daemon_socket import default_socket_path, request_status

    status = request_status(socket or default_socket_path())
    click.echo(json.dumps(status, indent=2, allow_nan=False) if as_json else "\n".join(_lines(status)))


def _lines(status: dict[str, Any]) -> Iterator[str]:
    yield f"llmpower {status['version']}, pid {status['pid']}, up {duration(status['uptime_s'])}"
    if status["simulated"]:
        yield "SIMULATED: the GPU is a model of one, and none of its joules is real"
    yield from _problems(status)
    yield ""
    yield from aligned(
        ("device", "power", "energy", "requests", "idle", "uuid"),
        [
            (
                device["name"],
                _power(device),
                _joules(device["energy_j"]),
                _share(device["inference_j"], device["energy_j"]),
                _share(device["idle_j"], device["energy_j"]),
                device["uuid"],
            )
            for device in status["devices"]
        ],
        right="power energy requests idle",
    )
    if status.get("models"):
        yield ""
        yield from aligned(
            ("model", "requests", "energy", "J/request", "J/token"),
            [
                (
                    model["model_name"],
                    str(model["requests"]),
                    _joules(model["energy_j"]),
                    _number(model["energy_per_request_j"]),
                    _number(model["energy_per_output_token_j"]),
                )
                for model in status["models"]
            ],
            right="requests energy J/request J/token",
        )
    yield from _drift(status)
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
    if "otlp" in status:
        yield f"otlp        {_otlp(status)}"
    yield f"last error  {_last_error(status)}"
    yield f"own cost    {cost['cpu_share']:.2%} of one CPU, {cost['memory_bytes'] / 2**20:.0f} MiB"


def _problems(status: dict[str, Any]) -> Iterator[str]:
    if "problems" not in status:  # not restarted after an upgrade
        return
    if not status["problems"]:
        yield "all is well"
    for problem in status["problems"]:
        yield click.style("! ", fg="red") + problem["what"]
        yield f"  -> {problem['mend']}"


def _drift(status: dict[str, Any]) -> Iterator[str]:
    """What requests cost beside what their models predict; nothing where the daemon was given no models."""
    drift = status.get("drift", {})
    if not drift.get("models_file"):
        return
    yield ""
    charts = drift["charts"]
    if charts:
        yield from aligned(
            ("model against measurement", "requests", "measured/predicted", "±", "model claims", "system"),
            [
                (
                    f"{chart['model_name']} ({chart['sharing']}){' SIMULATED' if chart['simulated'] else ''}",
                    str(chart["spans"]),
                    f"{chart['ratio']:.3f}{' DRIFTED' if chart['drifted'] else ''}",
                    "-" if chart["std_error"] is None else f"{chart['std_error']:.1%}",
                    f"{chart['tolerance']:.1%}",
                    chart["system"] or "-",
                )
                for chart in charts
            ],
            right="requests measured/predicted ±",
        )
    outcomes = ", ".join(f"{outcome} {count}" for outcome, count in drift["outcomes"].items())
    yield f"compared    with {drift['models']} models of {drift['models_file']}: {outcomes or 'no requests yet'}"


def _otlp(status: dict[str, Any]) -> str:
    """Where OpenTelemetry's spans are taken, and if any come, how many requests were in them."""
    otlp, delay_s = status["otlp"], status["settle_delay_s"]
    if otlp["url"] is None:
        return "nowhere"
    if not otlp["spans"]:
        return str(otlp["url"])
    refused = f", {otlp['spans']['refused']} refused" if otlp["spans"].get("refused") else ""
    accepted = otlp["spans"].get("accepted", 0)
    return f"{otlp['url']}, {accepted} requests accepted{refused}; energy comes {duration(delay_s)} later"


def _last_error(status: dict[str, Any]) -> str:
    if status["last_error"] is None:
        return "none"
    age_s = status.get("last_error_age_s")
    return status["last_error"] if age_s is None else f"{duration(age_s)} ago: {status['last_error']}"


def _power(device: dict[str, Any]) -> str:
    if device.get("stalled_s"):
        return f"stalled {duration(device['stalled_s'])}"
    if device["power_w"] is not None:
        return f"{device['power_w']:.1f} W"
    # A CPU package has a counter of energy and no power of its own; so have some cards.
    return "no reading" if (device.get("silent_s") or 0.0) > SILENT_S else "-"


def _size(store: dict[str, Any]) -> str:
    if store["size_bytes"] is None:
        return "cannot be reached"
    return f"{store['size_bytes'] / 2**20:.0f} MiB and a log of {store['log_bytes'] / 2**20:.0f} MiB"


def _corruptions(store: dict[str, Any]) -> str:
    return f", {store['corruptions']} damaged ones set aside" if store["corruptions"] else ""


def _joules(joules: float) -> str:
    for unit, size in (("GJ", 1e9), ("MJ", 1e6), ("kJ", 1e3)):
        if joules >= size:
            return f"{joules / size:.2f} {unit}"
    return f"{joules:.1f} J"


def _share(part_j: float, whole_j: float) -> str:
    return f"{part_j / whole_j:.0%}" if whole_j > 0 else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"
