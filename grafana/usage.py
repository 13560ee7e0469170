"""The rows for those who pay and those who build: what is drawn, which model costs what, and in which phase."""

from __future__ import annotations

import queries as q
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units
from panels import GREEN, ORANGE, RED, bars, grid, lines, numbers, spread, stacked
from queries import HOSTS, MODELS, STEP


def add_now(board: dashboard.Dashboard) -> dashboard.Dashboard:
    """What is drawn now, what it costs, and where it goes."""
    simulated = f'count(llmpower_gpu_info{{{HOSTS},simulated="true"}}) or vector(0)'
    honest = models.ValueMap({"0": models.ValueMappingResult(text="hardware", color=GREEN)})
    return (
        board.with_row(dashboard.Row("Now"))
        .with_panel(
            numbers(
                "GPU power",
                "All cards chosen above, latest reading.",
                f"sum(llmpower_gpu_power_watts{{{HOSTS}}})",
                units.Watt,
            )
        )
        .with_panel(
            numbers(
                "Joules per output token",
                "All joules of the requests (prefill, decode, CPU) over the tokens that they wrote.",
                q.joules_per_output_token(),
                units.Joule,
            )
        )
        .with_panel(
            numbers(
                "Joules per request", "Mean over requests whose joules are known.", q.joules_per_request(), units.Joule
            )
        )
        .with_panel(
            numbers(
                "Idle share",
                "Of the cards' energy, the part drawn while no request ran.",
                q.share(q.idle_w(), q.gpu_w()),
                units.PercentUnit,
                {0.0: GREEN, 0.3: ORANGE, 0.6: RED},
            )
        )
        .with_panel(
            numbers(
                "Electricity per hour",
                "Cards and CPU packages, times $pue and $price; in the currency of $price.",
                q.cost_per_hour(),
                units.Short,
            )
        )
        .with_panel(
            numbers(
                "Source of the joules",
                "Whether a simulated card is among them.",
                simulated,
                units.Short,
                {0.0: GREEN, 1.0: RED},
            ).mappings([honest, _above(1, "SIMULATED", RED)])
        )
        .with_panel(
            stacked(
                "Where the watts go",
                "The cards' power, divided: requests by model, idle, and what belongs to neither. "
                "The sum is the increase of the cards' own counters.",
                [
                    (q.inference_w(f'{MODELS},device_kind="gpu"', "model_name", STEP), "{{model_name}}"),
                    (q.idle_w(over=STEP), "idle"),
                    (q.unattributed_w(over=STEP), "unattributed"),
                ],
                units.Watt,
            )
        )
        .with_panel(
            lines(
                "Live power by card",
                "The latest reading of each card.",
                [(f"llmpower_gpu_power_watts{{{HOSTS}}}", "{{instance}} · {{gpu}}")],
                units.Watt,
            )
        )
    )


def add_models(board: dashboard.Dashboard) -> dashboard.Dashboard:
    """Which model costs what."""
    energy = "llmpower_inference_request_energy_joules"
    return (
        board.with_row(dashboard.Row("Models"))
        .with_panel(
            grid(
                "What each model costs",
                "Over the window chosen above. Prices and grams are of the electricity alone.",
                "model_name",
                [
                    ("requests/s", q.requests_hz("model_name"), units.RequestsPerSecond),
                    ("output tokens/s", q.tokens_hz("output", "model_name"), units.Short),
                    ("power", q.inference_w(by="model_name"), units.Watt),
                    ("J/request", q.joules_per_request("model_name"), units.Joule),
                    ("J/request p95", q.quantile(0.95, energy, MODELS, "model_name"), units.Joule),
                    ("J/output token", q.joules_per_output_token("model_name"), units.Joule),
                    ("prefill J/input token", q.prefill_joules_per_token(), units.Joule),
                    ("decode J/output token", q.decode_joules_per_token(), units.Joule),
                    ("cost per 1M output tokens", q.cost_per_million_tokens(), units.Short),
                    ("CO₂ per 1M output tokens", q.co2_g_per_million_tokens(), units.Gram),
                ],
            )
        )
        .with_panel(
            bars(
                "J per output token",
                "By model.",
                q.joules_per_output_token("model_name"),
                "{{model_name}}",
                units.Joule,
            )
        )
        .with_panel(
            bars("J per request", "By model.", q.joules_per_request("model_name"), "{{model_name}}", units.Joule)
        )
        .with_panel(
            spread(
                "Joules of single requests",
                "How many requests cost how much. Points are exemplars: their span_id finds the request's row "
                "in the daemon's store.",
                f"sum by (le) (increase({energy}_bucket{{{MODELS}}}[{STEP}]))",
                units.Joule,
            )
        )
        .with_panel(
            lines(
                "Joules per request",
                "Median and 95th percentile by model; points are single requests.",
                [
                    (q.quantile(0.5, energy, MODELS, "model_name"), "{{model_name}} p50"),
                    (q.quantile(0.95, energy, MODELS, "model_name"), "{{model_name}} p95"),
                ],
                units.Joule,
                exemplars=True,
            )
        )
        .with_panel(
            lines(
                "Duration of requests",
                "Median and 95th percentile by model.",
                [
                    (
                        q.quantile(0.5, "llmpower_inference_duration_seconds", MODELS, "model_name"),
                        "{{model_name}} p50",
                    ),
                    (
                        q.quantile(0.95, "llmpower_inference_duration_seconds", MODELS, "model_name"),
                        "{{model_name}} p95",
                    ),
                ],
                units.Seconds,
                exemplars=True,
            )
        )
    )


def add_phases(board: dashboard.Dashboard) -> dashboard.Dashboard:
    """Reading against writing."""
    return (
        board.with_row(dashboard.Row("Prefill against decode"))
        .with_panel(
            stacked(
                "Power by phase",
                "unsplit: requests whose first token was not seen.",
                [(q.inference_w(f'{MODELS},device_kind="gpu"', "phase", STEP), "{{phase}}")],
                units.Watt,
                8,
            )
        )
        .with_panel(
            lines(
                "Joules per token",
                "Reading an input token (prefill) against writing an output token (decode), on the cards.",
                [
                    (q.prefill_joules_per_token(), "{{model_name}} prefill"),
                    (q.decode_joules_per_token(), "{{model_name}} decode"),
                ],
                units.Joule,
                8,
            )
        )
        .with_panel(
            lines(
                "Tokens per second",
                "Whole batches, padding excluded.",
                [(q.total("llmpower_inference_tokens_total", MODELS, "direction"), "{{direction}}")],
                units.Short,
                8,
            )
        )
    )


def add_drift(board: dashboard.Dashboard) -> dashboard.Dashboard:
    """Whether models still say what requests cost."""
    ratio, tolerance = (f"llmpower_model_energy_ratio{suffix}{{{MODELS}}}" for suffix in ("", "_tolerance"))
    of = "{{instance}} {{model_name}} ({{sharing}}) {{system}}"
    return (
        board.with_row(dashboard.Row("Do the models still hold?"))
        .with_panel(
            lines(
                "Measured over predicted energy",
                "Of the requests of each model that ran alone and that shared their card, beside the models given by "
                "--models; the thin lines are how far off a model claims to be.",
                [
                    (ratio, of),
                    (f"1 + {tolerance}", f"{of} claims at most"),
                    (f"1 / (1 + {tolerance})", f"{of} claims at least"),
                ],
                units.Short,
                8,
            )
        )
        .with_panel(
            lines(
                "Drifted",
                "1 where a model is further off than it claims, by five standard errors: fit it again, or find out "
                "what has changed.",
                [(f"llmpower_model_energy_drifted{{{MODELS}}}", of)],
                units.Short,
                8,
            )
        )
        .with_panel(
            stacked(
                "What requests are compared with",
                "Requests per second, by whether they were compared with a model, or why not: simulated means that"
                " only one of model and card is.",
                [(q.total("llmpower_model_comparisons_total", by="outcome"), "{{outcome}}")],
                units.RequestsPerSecond,
                8,
            )
        )
    )


def _above(value: float, text: str, color: str) -> models.RangeMap:
    result = models.ValueMappingResult(text=text, color=color)
    return models.RangeMap(models.DashboardRangeMapOptions(from_val=value, to=None, result=result))
