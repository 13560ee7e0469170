"""Measured against predicted, and what is left: where a form misses, which no single error figure shows.

A form that is right leaves a cloud about zero whatever it is plotted against. A slope, a bend or a step is something
that the form does not say; a lone point is a row to look at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llmpower.modelling import WorkloadModel
from llmpower.modelling.forms import FloatArray
from llmpower.phrases import number, percent, plural, quantity
from llmpower.report.figure import Figure, Panel, Table
from llmpower.report.gathering import Gathered, gather
from llmpower.report.judged import Judged, judge
from llmpower.report.style import BAND, HEIGHT, PLAIN, QUIET, SERIES, WIDTH, round_ticks, tokens_axis, values

if TYPE_CHECKING:
    import pandas as pd

MOST_POINTS = 300
"""On all panels of one figure together, as far as lengths within a factor of 2 can be that few."""
LEAST_POINTS = 30
"""Of one model, however many there are."""
TITLES = {"energy": "Energy", "runtime": "Runtime"}


def predicted_figures(judged: Sequence[Judged]) -> Iterator[Figure]:
    """Measured against predicted with intervals, for energy and for runtime; one panel per model."""
    for target in ("energy", "runtime"):
        ours = [j for j in judged if j.target == target]
        if not ours:
            continue
        drawn = [_Points(j, _most(ours)) for j in ours]
        unit = ours[0].unit
        yield Figure(
            name=f"predicted-{target}",
            title=f"{TITLES[target]}: measured against predicted",
            alt=f"Measured against predicted {target} in {unit} on logarithmic axes, one panel per model: "
            + "; ".join(f"{points.j.label} {points.verdict()}" for points in drawn)
            + ".",
            caption=f"A point is {_gathered(drawn)}: upwards from the 10th to the 90th percentile of what was measured,"
            " across the 95 % interval of the predicted mean. The grey band is what 95 % of the held-out errors stay"
            " within, where the fit knows it; the line is exact agreement.",
            panels=[Panel(points.j.label, _predicted_chart(points, n)) for n, points in enumerate(drawn)],
            table=Table(
                (
                    *("Model", "Input tokens", "Output tokens", "At a time", "Rows"),
                    *(f"Measured [{unit}]", "10 %", "90 %", f"Predicted [{unit}]", "95 % from", "to"),
                ),
                [row for points in drawn for row in points.rows()],
            ),
        )


def residual_figures(judged: Sequence[Judged]) -> Iterator[Figure]:
    """What the fits miss against input tokens, output tokens and the prediction, for energy and for runtime."""
    for target in ("energy", "runtime"):
        ours = [j for j in judged if j.target == target]
        if not ours:
            continue
        drawn = [_Points(j, _most(ours)) for j in ours]
        yield Figure(
            name=f"residuals-{target}",
            title=f"{TITLES[target]}: what the fits miss",
            alt=f"Measured over predicted {target}, less 1, against input tokens and output tokens, one row of panels"
            " per model: " + "; ".join(f"{points.j.label} {points.verdict()}" for points in drawn) + ".",
            caption=f"Measured over predicted, less 1, in %. A point is {_gathered(drawn)}: the median, with bars from"
            " the 10th to the 90th percentile. The grey band is twice the noise of repeated trials, where there were"
            " any; a form that is right leaves a cloud about zero whatever it is plotted against.",
            panels=[
                Panel(f"{points.j.label}, {title}", _residual_chart(points, n, x, title))
                for n, points in enumerate(drawn)
                for x, title in (("input", "input tokens"), ("output", "output tokens"))
            ],
            table=Table(
                ("Model", "Input tokens", "Output tokens", "At a time", "Rows", "Median [%]", "10 % [%]", "90 % [%]"),
                [row for points in drawn for row in points.residual_rows()],
            ),
        )


def residual_charts(
    models: Sequence[WorkloadModel], measurements: pd.DataFrame, *, group_by: Sequence[str] | None = None
) -> Iterator[tuple[str, Any]]:
    """A name fit for a file, and a chart, for each target of each model that ``measurements`` have rows of.

    ``group_by`` is that of the fit.
    """
    import altair as alt

    for j in judge(models, measurements, group_by):
        place = " ".join(filter(None, (j.model.model_name, j.model.system)))
        title = f"{place}: {j.target} by form {j.fit.label}{' SIMULATED' if j.model.simulated else ''}"
        points = _Points(j, MOST_POINTS)
        axes = (("input", "input tokens"), ("output", "output tokens"), ("predicted", f"predicted {j.target}"))
        charts = [_residual_chart(points, 0, x, name) for x, name in axes]
        yield re.sub(r"\W+", "-", f"residuals {place} {j.target}").strip("-"), alt.hconcat(*charts, title=title)


class _Points:
    """One target of one model gathered into points; arrays of shape (n_points,)."""

    def __init__(self, j: Judged, most: int) -> None:
        self.j = j
        known = np.isfinite(j.predicted)
        self.unknown = int((~known).sum())
        self.measured_rows = int(known.sum())
        pick = np.flatnonzero(known)
        lengths = [j.input_tokens[pick], j.output_tokens[pick], j.sharing[pick]]
        self.gathered: Gathered = gather(lengths, most)
        mean = self.gathered.mean
        self.input, self.output, self.sharing = (mean(column) for column in lengths)
        self.predicted = mean(j.predicted[pick])
        self.low, self.high = mean(j.low[pick]), mean(j.high[pick])
        self.residual = self.gathered.quantiles(j.residual[pick])
        self.count = self.gathered.count()
        self.errors = np.abs(j.residual[pick])

    def verdict(self) -> str:
        """In words, for who does not see the picture."""
        if not len(self.errors):
            return "predicts nothing above zero"
        below = f"; {plural(self.unknown, 'row')} predicted at or below zero not drawn" if self.unknown else ""
        median, p95 = np.quantile(self.errors, (0.5, 0.95))
        errors = f"{percent(float(median))} in the median and {percent(float(p95))} at the 95th percentile"
        return f"is off by {errors}{below}"

    def rows(self) -> Iterator[tuple[str | float | None, ...]]:
        """For the table of measured against predicted."""
        least, middle, most = (1 + self.residual) * self.predicted
        for n in range(len(self.count)):
            figures = (float(middle[n]), float(least[n]), float(most[n]), float(self.predicted[n]))
            bounds = (_known(self.low[n]), _known(self.high[n]))
            yield (self.j.label, *self._place(n), *figures, *bounds)

    def residual_rows(self) -> Iterator[tuple[str | float | None, ...]]:
        """For the table of residuals."""
        least, middle, most = 100 * self.residual
        for n in range(len(self.count)):
            yield (self.j.label, *self._place(n), float(middle[n]), float(least[n]), float(most[n]))

    def drawn(self) -> list[dict[str, Any]]:
        """For the charts; what logarithms cannot show is left out."""
        least, middle, most = self.residual
        found = []
        for n in range(len(self.count)):
            expected = float(self.predicted[n])
            low, high = max(_known(self.low[n]) or expected, expected / 10), _known(self.high[n]) or expected
            at = f"{number(self.input[n])} in, {number(self.output[n])} out"
            at += f", {number(self.sharing[n])} at a time" if self.sharing[n] > 1 else ""
            rows = f"{self.count[n]:,} row{'s' if self.count[n] > 1 else ''}"
            measured = expected * (1 + float(middle[n]))
            unit = self.j.unit
            tip = f"{at}: {quantity(measured, unit)} measured, {quantity(expected, unit)} predicted ({rows})"
            found.append(
                {
                    "input": max(float(self.input[n]), 0.5),
                    "output": max(float(self.output[n]), 0.5),
                    "predicted": expected,
                    "low": low,
                    "high": high,
                    "measured": measured,
                    "from": expected * (1 + float(least[n])),
                    "to": expected * (1 + float(most[n])),
                    "residual": 100 * float(middle[n]),
                    "residual_low": 100 * float(least[n]),
                    "residual_high": 100 * float(most[n]),
                    "tip": tip,
                    "n": int(self.count[n]),
                }
            )
        return found

    def _place(self, n: int) -> tuple[float, float, float, float]:
        return float(self.input[n]), float(self.output[n]), float(self.sharing[n]), int(self.count[n])


def _predicted_chart(points: _Points, place: int) -> Any:
    import altair as alt

    rows, unit = points.drawn(), points.j.unit
    colour = SERIES[place % len(SERIES)]
    ends: FloatArray = np.array([row[key] for row in rows for key in ("predicted", "from", "to")] or [1.0])
    low, high = float(ends[ends > 0].min()) / 1.15, float(ends.max()) * 1.15
    log = alt.Scale(type="log", domain=[low, high], nice=False)
    axis = alt.Axis(format=PLAIN, values=round_ticks(low, high))
    x = alt.X("predicted:Q", title=f"predicted [{unit}]", scale=log, axis=axis)
    y = alt.Y("measured:Q", title=f"measured [{unit}]", scale=log, axis=axis)
    p95 = points.j.fit.heldout.p95_ape
    layers = []
    if p95 is not None:
        layers.append(
            alt.Chart(values(_within(p95, low, high)))
            .mark_area(color=BAND, aria=False, clip=True)
            .encode(x=x, y=alt.Y("least:Q", title=f"measured [{unit}]", scale=log), y2="most:Q")
        )
    exact = alt.Chart(values([{"predicted": at, "measured": at} for at in (low, high)]))
    layers.append(exact.mark_line(color=QUIET, strokeWidth=1, aria=False).encode(x=x, y=y))
    data = alt.Chart(values(rows))
    several = data.transform_filter("datum.n > 1")
    across = alt.X("low:Q", title=f"predicted [{unit}]", scale=log)
    layers.append(data.mark_rule(color=colour, opacity=0.5, aria=False, clip=True).encode(x=across, x2="high:Q", y=y))
    upwards = alt.Y("from:Q", title=f"measured [{unit}]", scale=log)
    layers.append(several.mark_rule(color=colour, opacity=0.5, aria=False, clip=True).encode(x=x, y=upwards, y2="to:Q"))
    layers.append(
        data.mark_point(filled=True, size=20, color=colour, opacity=0.85).encode(x=x, y=y, description="tip:N")
    )
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT + 40)


def _within(ape: float, low: float, high: float) -> list[dict[str, float]]:
    """What may have been measured where predictions are off by at most ``ape``, a part of what was measured: from
    ŷ/(1 + ape) to ŷ/(1 − ape), and without end where that is all of it.
    """
    return [
        {"predicted": at, "least": max(at / (1 + ape), low), "most": min(at / (1 - ape), high) if ape < 1 else high}
        for at in np.geomspace(low, high, 30).tolist()
    ]


def _residual_chart(points: _Points, place: int, x: str, title: str) -> Any:
    import altair as alt

    rows = points.drawn()
    colour, noise = SERIES[place % len(SERIES)], points.j.fit.replicate_noise
    # One outlier must not flatten the rest.
    limit = max(5.0, 1.5 * float(np.quantile([abs(row["residual"]) for row in rows] or [0.0], 0.98)))
    scale = alt.Scale(domain=[-limit, limit], nice=False)
    y_title = "residual [%]"
    y = alt.Y("residual:Q", title=y_title, scale=scale).axis(tickCount=5)
    across = tokens_axis(x, title)
    if x == "predicted":
        across = alt.X("predicted:Q", title=f"{title} [{points.j.unit}]").scale(type="log", nice=False, padding=10)
        across = across.axis(format=PLAIN, labelOverlap="parity", tickCount=5)
    layers = []
    if noise is not None:
        band = alt.Chart(values([{"low": -200 * noise, "high": 200 * noise}]))
        layers.append(
            band.mark_rect(color=BAND, aria=False, clip=True).encode(
                y=alt.Y("low:Q", title=y_title, scale=scale), y2="high:Q"
            )
        )
    zero = alt.Chart(values([{"y": 0.0}]))
    layers.append(
        zero.mark_rule(color=QUIET, strokeWidth=1, aria=False).encode(y=alt.Y("y:Q", title=y_title, scale=scale))
    )
    data = alt.Chart(values(rows))
    layers.append(
        data.transform_filter("datum.n > 1")
        .mark_rule(color=colour, opacity=0.3, aria=False, clip=True)
        .encode(x=across, y=alt.Y("residual_low:Q", title=y_title, scale=scale), y2="residual_high:Q")
    )
    layers.append(
        data.mark_point(filled=True, size=20, color=colour, opacity=0.85, clip=True).encode(
            x=across, y=y, description="tip:N"
        )
    )
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT - 40)


def _most(judged: Sequence[Judged]) -> int:
    return max(LEAST_POINTS, MOST_POINTS // len(judged))


def _gathered(drawn: Sequence[_Points]) -> str:
    """What a point stands for, in all panels."""
    rows, points = sum(p.measured_rows for p in drawn), sum(p.gathered.n_points for p in drawn)
    rules = list(dict.fromkeys(p.gathered.rule for p in drawn))
    return f"all rows of {' or '.join(rules)} ({plural(points, 'point')} of {plural(rows, 'row')})"


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
