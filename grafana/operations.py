"""The rows for those on call: which host draws what, and whether the meter works."""

from __future__ import annotations

import queries as q
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import units
from panels import grid, lines, stacked
from queries import HOSTS, STEP


def add_fleet(board: dashboard.Dashboard) -> dashboard.Dashboard:
    """Which host costs what, and which waits."""
    return (
        board.with_row(dashboard.Row("Fleet"))
        .with_panel(
            grid(
                "Hosts",
                "One row per host. Shares are of the cards' energy over the window.",
                "instance",
                [
                    ("GPUs", f"count by (instance) (llmpower_gpu_info{{{HOSTS}}})", units.Short),
                    ("power", f"sum by (instance) (llmpower_gpu_power_watts{{{HOSTS}}})", units.Watt),
                    ("requests/s", q.requests_hz("instance", HOSTS), units.RequestsPerSecond),
                    ("J/output token", q.joules_per_output_token("instance", HOSTS), units.Joule),
                    (
                        "inference",
                        q.share(
                            q.total("llmpower_gpu_inference_energy_joules_total", by="instance"), q.gpu_w("instance")
                        ),
                        units.PercentUnit,
                    ),
                    ("idle", q.share(q.idle_w("instance"), q.gpu_w("instance")), units.PercentUnit),
                    ("unattributed", q.share(q.unattributed_w("instance"), q.gpu_w("instance")), units.PercentUnit),
                    ("cost/h", q.cost_per_hour("instance"), units.Short),
                    ("CO₂/h", q.co2_g_per_hour("instance"), units.Gram),
                    (
                        "cards stalled",
                        f"sum by (instance) (llmpower_device_stalled_seconds{{{HOSTS}}} > bool 0)",
                        units.Short,
                    ),
                ],
            )
        )
        .with_panel(
            stacked("Power by host", "Cards and CPU packages.", [(q.all_w("instance"), "{{instance}}")], units.Watt, 8)
        )
        .with_panel(
            stacked(
                "Unattributed power by reason",
                "What belongs to no request and is not idle; a working fleet shows next to nothing here.",
                [(q.unattributed_w("reason", STEP), "{{reason}}")],
                units.Watt,
                8,
            )
        )
        .with_panel(
            lines(
                "Idle share by host",
                "Cards that wait: candidates for fewer hosts.",
                [(q.share(q.idle_w("instance"), q.gpu_w("instance")), "{{instance}}")],
                units.PercentUnit,
                8,
            )
        )
    )


def add_trust(board: dashboard.Dashboard) -> dashboard.Dashboard:
    """Whether the figures may be believed."""
    late, commit = "llmpower_sampler_lateness_seconds", "llmpower_store_commit_seconds"
    return (
        board.with_row(dashboard.Row("Can the figures be trusted?"))
        .with_panel(
            stacked(
                "Requests by quality",
                "measured: 10 or more ticks of the counter inside the request; interpolated 2 to 9, or by power; "
                "modelled fewer; unavailable: no joules.",
                [(q.requests_hz("quality"), "{{quality}}")],
                units.RequestsPerSecond,
                8,
                percent=True,
            )
        )
        .with_panel(
            lines(
                "Lateness of the sampler",
                "How late the sampling thread woke. Above one read's period (10 ms by default) edges are missed.",
                [
                    (q.quantile(0.5, late, HOSTS, "instance"), "{{instance}} p50"),
                    (q.quantile(0.99, late, HOSTS, "instance"), "{{instance}} p99"),
                ],
                units.Seconds,
                8,
            )
        )
        .with_panel(
            lines(
                "Reads per second",
                "In effect, by source; fewer than asked for when the driver's calls are slow.",
                [(f"llmpower_sampler_effective_hertz{{{HOSTS}}}", "{{instance}} {{source}}")],
                units.Hertz,
                8,
            )
        )
        .with_panel(
            lines(
                "What goes wrong with reads",
                "Failed reads by code, samples lost, deadlines missed, per second.",
                [
                    (
                        q.total("llmpower_sampler_read_errors_total", by="instance, source, code"),
                        "{{instance}} {{source}} error {{code}}",
                    ),
                    (q.total("llmpower_sampler_dropped_samples_total", by="instance"), "{{instance}} samples dropped"),
                    (q.total("llmpower_sampler_missed_ticks_total", by="instance"), "{{instance}} deadlines missed"),
                ],
                units.Short,
                8,
            )
        )
        .with_panel(
            lines(
                "Cards that do not answer",
                "stalled: for how long a driver call that does not return has kept a card from being read; "
                "silent: for how long no read of it was good, or its energy counter has failed.",
                [
                    (f"llmpower_device_stalled_seconds{{{HOSTS}}}", "{{instance}} {{gpu_uuid}} stalled"),
                    (f"llmpower_device_silent_seconds{{{HOSTS}}}", "{{instance}} {{gpu_uuid}} silent"),
                ],
                units.Seconds,
                8,
            )
        )
        .with_panel(
            lines(
                "Sharpness of the counter's edges",
                "How closely the moments are known at which the card's counter moves.",
                [(f"llmpower_device_update_width_seconds{{{HOSTS}}}", "{{instance}} {{gpu_uuid}} {{field}}")],
                units.Seconds,
                8,
            )
        )
        .with_panel(
            lines(
                "Spans refused",
                "Per second, by reason.",
                [(q.total("llmpower_spans_rejected_total", by="instance, reason"), "{{instance}} {{reason}}")],
                units.Short,
                8,
            )
        )
        .with_panel(
            lines(
                "Spans on their way",
                "Running, waiting for their joules, waiting for the disk; and those lost to it.",
                [
                    (f"llmpower_spans_running{{{HOSTS}}}", "{{instance}} running"),
                    (f"llmpower_spans_pending{{{HOSTS}}}", "{{instance}} pending"),
                    (f"llmpower_store_waiting_spans{{{HOSTS}}}", "{{instance}} waiting for the disk"),
                    (f"increase(llmpower_store_lost_spans_total{{{HOSTS}}}[$window])", "{{instance}} lost"),
                    (f"increase(llmpower_store_errors_total{{{HOSTS}}}[$window])", "{{instance}} failed writes"),
                ],
                units.Short,
                8,
            )
        )
        .with_panel(
            lines(
                "Spans reported too late",
                "Of the requests, those that came when their time was accounted for, and so have no joules.",
                [
                    (
                        q.share(
                            q.total("llmpower_spans_late_total", by="instance"),
                            q.requests_hz("instance", HOSTS),
                        ),
                        "{{instance}}",
                    )
                ],
                units.PercentUnit,
                8,
            )
        )
        .with_panel(
            lines(
                "What prices leave unexplained of shared energy",
                "By card. Requests that share a card divide its energy by what their work costs there; the more is "
                "left over, the less their shares say.",
                [
                    (
                        q.share(
                            q.total("llmpower_allocation_residual_joules_total", by="instance, gpu_uuid"),
                            q.total("llmpower_allocated_energy_joules_total", by="instance, gpu_uuid"),
                        ),
                        "{{instance}} {{gpu_uuid}}",
                    )
                ],
                units.PercentUnit,
                8,
            )
        )
        .with_panel(
            lines(
                "Behind the present",
                "How long after its end a request has its joules; more where spans come by OpenTelemetry.",
                [(f"llmpower_settle_delay_seconds{{{HOSTS}}}", "{{instance}}")],
                units.Seconds,
                8,
            )
        )
        .with_panel(
            lines(
                "What the meter costs",
                "Processor time of the daemon; one core is 100 %.",
                [
                    (q.rate("process_cpu_seconds_total"), "{{instance}} CPU"),
                    (q.rate("llmpower_sampler_cpu_seconds_total"), "{{instance}} of it sampling"),
                ],
                units.PercentUnit,
                8,
            )
        )
        .with_panel(
            lines(
                "The store and the spool",
                "The database, its write-ahead log, and finished spans that wait in the spool for room.",
                [
                    (f"llmpower_store_size_bytes{{{HOSTS}}}", "{{instance}} database"),
                    (f"llmpower_store_log_bytes{{{HOSTS}}}", "{{instance}} log"),
                    (f"llmpower_spool_waiting_bytes{{{HOSTS}}}", "{{instance}} spool"),
                ],
                units.BytesIEC,
                8,
            )
        )
        .with_panel(
            lines(
                "Time of a commit",
                "How long the database takes for a batch of spans, the disk included.",
                [
                    (q.quantile(0.5, commit, HOSTS, "instance"), "{{instance}} p50"),
                    (q.quantile(0.99, commit, HOSTS, "instance"), "{{instance}} p99"),
                ],
                units.Seconds,
                8,
            )
        )
        .with_panel(
            lines(
                "Memory of the meter",
                "Resident memory of the daemon.",
                [(f"process_resident_memory_bytes{{{HOSTS}}}", "{{instance}}")],
                units.BytesIEC,
                8,
            )
        )
    )
