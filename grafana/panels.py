"""How panels look: one place for colours, units and sizes, so that the rows say only what is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREY, RED, ORANGE, GREEN, BLUE, PURPLE = "#8e8e8e", "#e02f44", "#ff9830", "#56a64b", "#5794f2", "#b877d9"
FIXED = {"idle": GREY, "unattributed": RED, "prefill": ORANGE, "decode": BLUE, "unsplit": PURPLE}
QUALITIES = {"measured": GREEN, "interpolated": BLUE, "modelled": ORANGE, "unavailable": RED}

Query = tuple[str, str]
"""PromQL and the legend of its series."""


def numbers(title: str, description: str, expr: str, unit: str, steps: Mapping[float, str] | None = None) -> stat.Panel:
    """One big number with its recent course behind it; ``steps`` colours it from each value on."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .no_value("no data")
        .thresholds(_thresholds({0.0: BLUE} if steps is None else steps))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .color_mode(common_models.BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .height(4)
        .span(4)
        .targets([_target("A", expr, "")])
    )


def lines(
    title: str, description: str, queries: Sequence[Query], unit: str, width: int = 12, exemplars: bool = False
) -> timeseries.Panel:
    """Courses over time, each a line; with ``exemplars`` the requests behind them as points."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .line_width(2)
        .fill_opacity(8)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "mean", "max"])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
        .height(9)
        .span(width)
        .targets(
            [_target(ref, expr, legend, exemplars) for ref, (expr, legend) in zip("ABCDEFGH", queries, strict=False)]
        )
    )
    for name, color in (FIXED | QUALITIES).items():
        panel = panel.override_by_regexp(f"^(.* )?{name}$", [_color(color)])
    return panel


def stacked(
    title: str, description: str, queries: Sequence[Query], unit: str, width: int = 12, percent: bool = False
) -> timeseries.Panel:
    """Parts of a whole over time."""
    mode = common_models.StackingMode.PERCENT if percent else common_models.StackingMode.NORMAL
    return (
        lines(title, description, queries, unit, width)
        .stacking(common.StackingConfig().mode(mode).group("A"))
        .fill_opacity(70)
        .line_width(0)
    )


def bars(title: str, description: str, expr: str, legend: str, unit: str, width: int = 6) -> bargauge.Panel:
    """One bar for each of a few things that are compared, the largest first."""
    return (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .display_mode(common_models.BarGaugeDisplayMode.GRADIENT)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.CONTINUOUS_BL_YL_RD))
        .height(9)
        .span(width)
        .targets([_target("A", f"sort_desc({expr})", legend).instant()])
    )


def spread(title: str, description: str, expr: str, unit: str, width: int = 12) -> heatmap.Panel:
    """A histogram over time, with exemplars as points."""
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_models.HeatmapColorMode.SCHEME)
            .scheme("Turbo")
            .scale(heatmap_models.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .height(9)
        .span(width)
        .targets([_target("A", expr, "{{le}}", True).format(PromQueryFormat.HEATMAP)])
    )


def grid(
    title: str, description: str, key: str, columns: Sequence[tuple[str, str, str]], height: int = 9
) -> table.Panel:
    """A table with a row for each value of the label ``key``; columns are (heading, PromQL, unit)."""
    targets: list[Builder[Dataquery]] = []
    names = {key: key.replace("_", " ").removesuffix(" name")}
    panel = table.Panel().title(title).description(description).datasource(SOURCE).height(height).span(24)
    for ref, (heading, expr, unit) in zip("ABCDEFGHIJKLMNOP", columns, strict=False):
        targets.append(_target(ref, expr, "").instant().format(PromQueryFormat.TABLE))
        names[f"Value #{ref}"] = heading
        panel = panel.override_by_name(heading, [models.DynamicConfigValue("unit", unit)])
    order = {column: number for number, column in enumerate(names)}
    return panel.targets(targets).transformations(
        [
            models.DataTransformerConfig("merge", options={}),
            models.DataTransformerConfig(
                "organize", options={"excludeByName": {"Time": True}, "indexByName": order, "renameByName": names}
            ),
        ]
    )


def _target(ref: str, expr: str, legend: str, exemplars: bool = False) -> prometheus.Dataquery:
    query = prometheus.Dataquery().ref_id(ref).datasource(SOURCE).expr(expr).legend_format(legend)
    return query.exemplar(True) if exemplars else query


def _thresholds(steps: Mapping[float, str]) -> dashboard.ThresholdsConfig:
    # Grafana wants the first step without a value.
    colors = [
        models.Threshold(value=None if number == 0 else value, color=color)
        for number, (value, color) in enumerate(steps.items())
    ]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(colors)


def _color(color: str) -> models.DynamicConfigValue:
    return models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": color})
