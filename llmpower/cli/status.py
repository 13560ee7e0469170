"""``llmpower status``: ask the daemon what it is doing, and show the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from llmpower.cli.layout import ABSENT, aligned, compact, echo_lines, energy_unit, in_percent, plain
from llmpower.cli.options import json_option, socket_option
from llmpower.phrases import SIMULATED_GPU, duration, percent, plural

SILENT_S = 10.0
"""After so long without a good read a device gives none."""


@click.command()
@socket_option
@json_option
def command(socket: Path | None, as_json: bool) -> None:
    """Show what the daemon is doing.

    What is wrong and what fixes it; devices and their power now; what each model costs; spans stored, pending and
    refused; the last error and when it was; and what the daemon itself costs.

    \b
    Example:
      llmpower status
      llmpower status --json | jq '.devices[].power_w'
    """
    from llmpower.spans.daemon_socket import default_socket_path, request_status

    status = request_status(socket or default_socket_path())
    if as_json:
        click.echo(json.dumps(status, indent=2, allow_nan=False))
    else:
        echo_lines(_lines(status))


def _lines(status: dict[str, Any]) -> Iterator[str]:
    yield f"llmpower {status['version']}, pid {status['pid']}, up {duration(status['uptime_s'])}"
    if status["simulated"]:
        yield click.style(SIMULATED_GPU, fg="yellow")
    yield from _problems(status)
    yield ""
    joules, unit = energy_unit(device["energy_j"] for device in status["devices"])
    header = ("device", "power [W]", f"energy [{unit}]", "requests [%]", "idle [%]", "uuid")
    yield from aligned(
        header,
        [
            (
                device["name"],
                _power(device),
                f"{device['energy_j'] / joules:,.2f}",
                _share(device["inference_j"], device["energy_j"]),
                _share(device["idle_j"], device["energy_j"]),
                device["uuid"],
            )
            for device in status["devices"]
        ],
        right=header[1:-1],
    )
    yield from _models(status.get("models", ()))
    yield from _drift(status)
    spans, store, cost = status["spans"], status["store"], status["cost"]
    reasons = ", ".join(f"{reason} {count}" for reason, count in spans["rejected"].items())
    yield ""
    yield f"spans       {spans['stored']} stored, {spans['pending']} pending, {spans['running']} running"
    yield f"rejected    {reasons or 'none'}"
    errors = plural(store["errors"], "error")
    yield f"store       {store['path']}, {errors}, {store['waiting']} waiting, {store['lost']} lost"
    # A daemon that was not restarted after an upgrade does not tell.
    if "size_bytes" in store:
        yield f"            {_size(store)}, {store['deleted']} deleted by retention{_corruptions(store)}"
    yield f"metrics     {status['metrics_url']}"
    if "otlp" in status:
        yield f"otlp        {_otlp(status)}"
    yield f"last error  {plain(_last_error(status))}"
    yield f"own cost    {percent(cost['cpu_share'])} of one CPU, {cost['memory_bytes'] / 2**20:.0f} MiB"


def _problems(status: dict[str, Any]) -> Iterator[str]:
    if "problems" not in status:  # not restarted after an upgrade
        return
    if not status["problems"]:
        yield "all is well"
    for problem in status["problems"]:
        yield click.style("! ", fg="red") + plain(problem["what"])
        yield f"  -> {plain(problem['fix'])}"


def _models(models: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What each model costs, the most expensive first."""
    if not models:
        return
    yield ""
    joules, unit = energy_unit(model["energy_j"] for model in models)
    header = ("model", "requests", f"energy [{unit}]", "J/request", "J/token")
    yield from aligned(
        header,
        [
            (
                model["model_name"],
                f"{model['requests']:,}",
                f"{model['energy_j'] / joules:,.2f}",
                compact(model["energy_per_request_j"]),
                compact(model["energy_per_output_token_j"]),
            )
            for model in models
        ],
        right=header[1:],
    )


def _drift(status: dict[str, Any]) -> Iterator[str]:
    """What requests cost relative to what their models predict; nothing where the daemon was given no models."""
    drift = status.get("drift", {})
    if not drift.get("models_file"):
        return
    yield ""
    header = ("model against measurement", "requests", "measured/predicted", "± [%]", "claims [%]", "verdict", "system")
    if drift["charts"]:
        yield from aligned(
            header,
            [
                (
                    f"{chart['model_name']} ({chart['sharing']}){' SIMULATED' if chart['simulated'] else ''}",
                    f"{chart['spans']:,}",
                    f"{chart['ratio']:.3f}",
                    in_percent(chart["std_error"]),
                    in_percent(chart["tolerance"]),
                    "DRIFTED" if chart["drifted"] else "not known yet" if chart["std_error"] is None else "holds",
                    chart["system"] or ABSENT,
                )
                for chart in drift["charts"]
            ],
            right=header[1:5],
        )
    outcomes = ", ".join(f"{outcome} {count}" for outcome, count in drift["outcomes"].items())
    models = f"{plural(drift['models'], 'model')} of {plain(drift['models_file'])}"
    yield f"compared    with {models}: {outcomes or 'no requests yet'}"


def _otlp(status: dict[str, Any]) -> str:
    """Where OpenTelemetry's spans are taken, and if any come, how many requests were in them."""
    otlp, delay_s = status["otlp"], status["settle_delay_s"]
    if otlp["url"] is None:
        return "nowhere"
    if not otlp["spans"]:
        return str(otlp["url"])
    refused = f", {otlp['spans']['refused']} refused" if otlp["spans"].get("refused") else ""
    accepted = otlp["spans"].get("accepted", 0)
    return f"{otlp['url']}, {plural(accepted, 'request')} accepted{refused}; energy comes {duration(delay_s)} later"


def _last_error(status: dict[str, Any]) -> str:
    if status["last_error"] is None:
        return "none"
    age_s = status.get("last_error_age_s")
    return status["last_error"] if age_s is None else f"{duration(age_s)} ago: {status['last_error']}"


def _power(device: dict[str, Any]) -> str:
    if device.get("stalled_s"):
        return f"stalled {duration(device['stalled_s'])}"
    if device["power_w"] is not None:
        return f"{device['power_w']:.1f}"
    # A CPU package has a counter of energy and no power of its own; so have some cards.
    return "no reading" if (device.get("silent_s") or 0.0) > SILENT_S else ABSENT


def _size(store: dict[str, Any]) -> str:
    if store["size_bytes"] is None:
        return "cannot be reached"
    return f"{store['size_bytes'] / 2**20:.0f} MiB and a log of {store['log_bytes'] / 2**20:.0f} MiB"


def _corruptions(store: dict[str, Any]) -> str:
    return f", {store['corruptions']} damaged ones set aside" if store["corruptions"] else ""


def _share(part_j: float, whole_j: float) -> str:
    return in_percent(part_j / whole_j if whole_j > 0 else None, 0)
