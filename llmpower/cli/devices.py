"""``llmpower devices``: what can be sampled here, how often it moves, and what a read costs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from llmpower.cli.layout import ABSENT, aligned, compact, echo_lines
from llmpower.cli.options import FiniteRange, json_option, powercap_option
from llmpower.phrases import SIMULATED_GPU

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
@powercap_option
@click.option(
    "--seconds",
    type=FiniteRange(0.5, 600),
    default=3.0,
    show_default=True,
    help="How long to watch; a reading that does not move meanwhile shows no period.",
)
@json_option
def command(backend: Backend, nvml_library: str | None, powercap_root: str, seconds: float, as_json: bool) -> None:
    """List every device with its sources, periods and call latencies.

    A period is the time between two updates of a reading, and jitter how much it varies; KNOWN TO is how exactly the
    moment of an update is seen. A latency is what one read takes, and the rate how many reads a second that allows. The
    daemon calibrates devices by itself and keeps what it finds; this command measures again.

    \b
    Example:
      llmpower devices
      llmpower devices --backend simulated --seconds 10 --json
    """
    from llmpower.daemon.config import powercap_root_of
    from llmpower.sampling import Sampler, calibrate, describe_status

    root = powercap_root_of("--powercap-root", powercap_root)
    with Sampler(
        backend=backend, nvml_library=nvml_library, powercap_root=root, rate_hz=100, ring_capacity=1 << 20
    ) as sampler:
        _watch(seconds, f"Watching {len(sampler.devices)} device(s)")
        samples = sampler.drain()
        unopened = {number: describe_status(status) for number, status in sampler.unopened.items()}
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
        print(json.dumps({"devices": devices, "unopened": unopened}, indent=2, allow_nan=False))
    else:
        echo_lines(_lines(devices))
        for number, why in unopened.items():
            echo_lines([click.style(f"GPU {number} cannot be opened: {why}", fg="yellow")])


def _watch(seconds: float, label: str) -> None:
    """Let time pass, with a progress bar on a terminal."""
    steps = range(max(round(seconds / STEP_S), 1))
    with click.progressbar(steps, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        for _ in bar:
            time.sleep(STEP_S)


def _lines(devices: list[dict[str, Any]]) -> Iterator[str]:
    header = (
        *("device", "kind", "source", "period [ms]", "jitter [ms]", "known to [ms]"),
        *("p50 [µs]", "p99 [µs]", "rate [Hz]", "reads", "uuid"),
    )
    yield from aligned(
        header,
        [
            (
                device["name"] + (" (SIMULATED)" if device["simulated"] and "Simulated" not in device["name"] else ""),
                device["kind"],
                source["field"],
                _scaled(source["period_s"], 1e3, "none seen"),
                _scaled(source["jitter_s"], 1e3),
                _scaled(source["update_width_s"], 1e3, "no change"),
                _scaled(source["latency_p50_s"], 1e6, "no read"),
                _scaled(source["latency_p99_s"], 1e6, "no read"),
                compact(source["effective_hertz"]),
                source["status_text"],
                device["uuid"],
            )
            for device in devices
            for source in device["sources"]
        ],
        right=header[3:9],
    )
    yield "period: how often a reading moves; known to: how closely its updates are seen; p50, p99: what one read takes"
    for device in devices:
        if device["of_module"]:
            yield f"{device['uuid']} answers for the whole module: its power includes the module's CPU and memory"
    if any(device["simulated"] for device in devices):
        yield click.style(SIMULATED_GPU, fg="yellow")
    for device in devices:
        if not device["sources"]:
            yield f"{device['name']} answers neither energy nor power"


def _scaled(seconds: float | None, scale: float, absent: str = ABSENT) -> str:
    return absent if seconds is None else f"{seconds * scale:.1f}"
