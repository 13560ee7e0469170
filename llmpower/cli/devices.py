"""``llmpower devices``: what can be sampled here, how often it moves, and what a read costs."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmpower.cli.layout import aligned

if TYPE_CHECKING:
    from llmpower.sampling import Backend

STEP_S = 0.1


@click.command()
@click.option(
    "--backend",
    type=click.Choice(["auto", "nvml", "simulated"]),
    default="auto",
    show_default=True,
    help="Where GPU power comes from; auto simulates where no driver is installed.",
)
@click.option("--nvml-library", metavar="PATH", help="NVML by another path or name than libnvidia-ml.so.1.")
@click.option(
    "--powercap-root",
    type=click.Path(path_type=Path),
    default=Path("/sys/class/powercap"),
    show_default=True,
    help="Where the kernel shows CPU energy.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.5, 600),
    default=3.0,
    show_default=True,
    help="How long to watch; a reading that does not move meanwhile shows no period.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(backend: Backend, nvml_library: str | None, powercap_root: Path, seconds: float, as_json: bool) -> None:
    """List every device with its sources, periods and call latencies.

    A period is how often a reading moves, seen while watching, and jitter how regularly; a moment is known to so
    much. A latency is what one read costs, and the rate how many reads a second that allows. The daemon calibrates
    devices by itself and keeps what it finds; this command looks anew.

    \b
    Example:
      llmpower devices
      llmpower devices --backend simulated --seconds 10 --json
    """
    from llmpower.sampling import Sampler, calibrate, describe_status

    with Sampler(
        backend=backend, nvml_library=nvml_library, powercap_root=powercap_root, rate_hz=100, ring_capacity=1 << 20
    ) as sampler:
        _watch(seconds, f"Watching {len(sampler.devices)} device(s)")
        samples = sampler.drain()
        devices: list[dict[str, Any]] = [
            {
                "uuid": device.uuid,
                "kind": device.kind,
                "name": device.name,
                "driver_version": device.driver_version or None,
                "simulated": device.simulated,
                "of_module": device.uuid in sampler.of_module,
                "sources": [],
            }
            for device in sampler.devices
        ]
        for channel in sampler.channels():
            found = calibrate(samples, channel.device, channel.field)
            devices[channel.device]["sources"].append(
                {
                    "field": channel.field.name.lower(),
                    "period_s": found.period_s,
                    "jitter_s": found.jitter_s,
                    "update_width_s": found.edge_width_s,
                    "updates": found.updates,
                    "latency_p50_s": found.latency_p50_s,
                    "latency_p99_s": found.latency_p99_s,
                    "effective_hertz": channel.effective_hz,
                    "locked": channel.locked,
                    "status": channel.status,
                    "status_text": describe_status(channel.status),
                }
            )
    if as_json:
        print(json.dumps({"devices": devices}, indent=2, allow_nan=False))
    else:
        print("\n".join(_lines(devices)))


def _watch(seconds: float, label: str) -> None:
    """Let time pass, with a progress bar on a terminal."""
    steps = range(max(round(seconds / STEP_S), 1))
    with click.progressbar(steps, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        for _ in bar:
            time.sleep(STEP_S)


def _lines(devices: list[dict[str, Any]]) -> list[str]:
    rows = [
        (
            device["name"] + (" (SIMULATED)" if device["simulated"] and "Simulated" not in device["name"] else ""),
            device["kind"],
            source["field"],
            _milliseconds(source["period_s"], "none seen"),
            _milliseconds(source["jitter_s"], ""),
            _milliseconds(source["update_width_s"], "no change"),
            _microseconds(source["latency_p50_s"]),
            _microseconds(source["latency_p99_s"]),
            f"{source['effective_hertz']:.3g} Hz",
            source["status_text"],
            device["uuid"],
        )
        for device in devices
        for source in device["sources"]
    ]
    header = (
        "device",
        "kind",
        "source",
        "period",
        "jitter",
        "known to",
        "call p50",
        "call p99",
        "rate",
        "reads",
        "uuid",
    )
    lines = aligned(header, rows, right="period")
    lines += [
        f"{device['uuid']} answers for the whole module: its power includes the module's CPU and memory"
        for device in devices
        if device["of_module"]
    ]
    if any(device["simulated"] for device in devices):
        lines.append("SIMULATED: these GPUs are models of one, and none of their joules is real")
    silent = [device["name"] for device in devices if not device["sources"]]
    return lines + [f"{name} answers neither energy nor power" for name in silent]


def _milliseconds(seconds: float | None, absent: str) -> str:
    return absent if seconds is None else f"{seconds * 1e3:.1f} ms"


def _microseconds(seconds: float | None) -> str:
    return "no read" if seconds is None else f"{seconds * 1e6:.1f} µs"
