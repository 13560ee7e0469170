"""Writes grafana/llmpower.json; run it after changing what the dashboard shows.

The rows go from what is asked first to what is asked last: what is drawn now and what does it cost, which model costs
what and why, which host, and may the figures be believed. The JSON is made with Grafana's own typed builders, so a
misspelt option fails here and not as an empty panel; ``tests/grafana`` holds the file to this program, and
``make test-system`` asks a Prometheus every query.
"""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from operations import add_fleet, add_trust
from panels import RED, SOURCE
from queries import HOSTS
from usage import add_drift, add_models, add_now, add_phases

FILE = Path(__file__).with_name("llmpower.json")


def make() -> str:
    """The dashboard as JSON."""
    board = (
        dashboard.Dashboard("llmpower: joules per request")
        .uid("llmpower")
        .description("Which LLM request cost how many joules. Made by grafana/make_dashboard.py.")
        .tags(["llm", "energy", "gpu"])
        .time("now-1h", "now")
        .refresh("10s")
        .timezone("browser")
        .editable()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .annotation(_alerts())
    )
    for variable in _variables():
        board = board.with_variable(variable)
    for add_row in (add_now, add_models, add_phases, add_drift, add_fleet, add_trust):
        board = add_row(board)
    built = board.build()
    for number, panel in enumerate(built.panels or [], 1):
        panel.id_val = number  # Grafana tells panels apart by it, links to single panels too
    return json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _variables() -> list[
    dashboard.DatasourceVariable | dashboard.QueryVariable | dashboard.CustomVariable | dashboard.TextBoxVariable
]:
    def of_label(name: str, label: str, metric: str) -> dashboard.QueryVariable:
        everything = models.VariableOption(selected=True, text="All", value="$__all")
        return (
            dashboard.QueryVariable(name)
            .label(label)
            .datasource(SOURCE)
            .query(f"label_values({metric}, {name})")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(everything)
        )

    def number(name: str, label: str, value: str) -> dashboard.TextBoxVariable:
        chosen = models.VariableOption(selected=True, text=value, value=value)
        return dashboard.TextBoxVariable(name).label(label).default_value(value).current(chosen).options([chosen])

    return [
        dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
        of_label("job", "Job", "llmpower_build_info"),
        of_label("instance", "Host", 'llmpower_build_info{job=~"$job"}'),
        of_label("model_name", "Model", f"llmpower_inference_requests_total{{{HOSTS}}}"),
        dashboard.CustomVariable("window")
        .label("Averaged over")
        .values("1m,5m,15m,1h,6h,1d")
        .current(models.VariableOption(selected=True, text="5m", value="5m")),
        number("price", "Price per kWh", "0.25"),
        number("carbon", "g CO₂ per kWh", "400"),
        number("pue", "PUE", "1.3"),
    ]


def _alerts() -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name("Alerts")
        .datasource(SOURCE)
        .enable(True)
        .icon_color(RED)
        .expr(f'ALERTS{{alertname=~"Llmpower.*",alertstate="firing",{HOSTS}}}')
    )


if __name__ == "__main__":
    FILE.write_text(make(), encoding="utf-8")
