"""The hours of the day as pictures: what a kWh is in each, and what the plan draws in each.

The bars of the plan that is shown are marks of their own (``hours``), as are the lines at what the plan that looks at
no hours would draw (``flat``); the page's script gives them the heights of the slider's plan.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llmpower.phrases import number, quantity
from llmpower.report.amounts import RATES
from llmpower.report.figure import Figure, Panel, Table
from llmpower.report.plans import ByHour, Plans
from llmpower.report.style import HEIGHT, INK, SERIES, WIDTH, colour, legend, values
from llmpower.routing.problem.rates import UNITS, Weigh
from llmpower.routing.problem.tariff import HOURS

SHOWN = 3
"""Hours from one label of an axis to the next."""


def hour_figure(plans: Plans, by_hour: ByHour) -> Figure:
    """Rates and energy by hour of the day."""
    names, rates = list(plans.model_names), by_hour.hours.per_kwh
    chosen_j = by_hour.energy_j[plans.chosen]
    busiest = int(chosen_j.sum(axis=1).argmax())
    spread = any((most > least).any() for least, _, most in rates.values())
    ranges = " and ".join(
        f"{number(float(np.nanmin(least)))} to {number(float(np.nanmax(most)))} {UNITS[kind].name}"
        for kind, (least, _, most) in rates.items()
    )
    return Figure(
        name="hours",
        title="Over the hours of the day",
        alt=f"A kWh is {ranges}, by the hour of the day. The plan that is shown first takes most energy at"
        f" {_name(busiest)} o'clock, {quantity(float(chosen_j[busiest].sum()), 'J')}; the table has each hour.",
        caption=f"Queries by the hour at which they came{_place(by_hour)}; the slider moves the bars."
        + (" Lines across them: equally accurate, ignoring the hours." if by_hour.flat_j is not None else "")
        + (" A band: from the least to the largest rate of that hour." if spread else ""),
        panels=[
            Panel("Energy of the plan", _energy(plans, by_hour)),
            *(Panel(RATES[kind], _rates(by_hour, kind)) for kind in rates),
        ],
        table=Table(
            (
                *("Hour", "Queries", *(RATES[kind] for kind in rates), *(f"{name} [J]" for name in names)),
                *(() if by_hour.flat_j is None else ("Hours ignored [J]",)),
            ),
            [_row(plans, by_hour, hour) for hour in range(HOURS)],
        ),
        legend=legend(names),
    )


def _row(plans: Plans, by_hour: ByHour, hour: int) -> list[str | float]:
    row: list[str | float] = [_name(hour), int(by_hour.queries[hour])]
    row += [float(mean[hour]) for _, mean, _ in by_hour.hours.per_kwh.values()]
    row += by_hour.energy_j[plans.chosen, hour].tolist()
    return row if by_hour.flat_j is None else [*row, float(by_hour.flat_j[plans.chosen, hour])]


def _name(hour: int) -> str:
    return f"{hour:02}"


def _place(by_hour: ByHour) -> str:
    return f" ({by_hour.hours.place})" if by_hour.hours.place else ""


def _axis(by_hour: ByHour) -> Any:
    import altair as alt

    axis = alt.Axis(labelAngle=0, values=[_name(hour) for hour in range(0, HOURS, SHOWN)], grid=False)
    return alt.X("hour:O", title=f"hour of the day{_place(by_hour)}", axis=axis).scale(paddingInner=0.15)


def _energy(plans: Plans, by_hour: ByHour) -> Any:
    import altair as alt

    chosen_j = by_hour.energy_j[plans.chosen]
    above = np.cumsum(chosen_j, axis=1)
    rows = [
        {"hour": _name(hour), "model": name, "from": above[hour, n] - chosen_j[hour, n], "to": above[hour, n]}
        for hour in range(HOURS)
        for n, name in enumerate(plans.model_names)
    ]
    x, y = _axis(by_hour), alt.Y("from:Q", title="energy of the queries [J]").axis(format="~s", tickCount=5)
    y = y.scale(domain=[0, by_hour.most_j], nice=False)
    bars = alt.Chart(values(rows), name="hours").mark_bar(aria=False)
    layers = [bars.encode(x=x, y=y, y2=alt.Y2("to:Q"), color=colour(plans.model_names))]
    if by_hour.flat_j is not None:
        flat = [{"hour": _name(hour), "from": float(by_hour.flat_j[plans.chosen, hour])} for hour in range(HOURS)]
        lines = alt.Chart(values(flat), name="flat").mark_tick(color=INK, thickness=2, opacity=1, aria=False)
        layers.append(lines.encode(x=x, y=y))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)


def _rates(by_hour: ByHour, kind: Weigh) -> Any:
    import altair as alt

    least, mean, most = by_hour.hours.per_kwh[kind]
    rows = [
        {"hour": _name(hour), "rate": mean[hour], "least": least[hour], "most": most[hour]}
        | {"tip": f"{_name(hour)}: {number(float(mean[hour]))} {RATES[kind]}"}
        for hour in np.flatnonzero(np.isfinite(mean)).tolist()
    ]
    x = _axis(by_hour)
    y = alt.Y("rate:Q", title=RATES[kind]).axis(tickCount=5).scale(zero=True)
    drawn = SERIES[3] if kind == "money" else SERIES[2]
    ticks = alt.Chart(values(rows)).mark_tick(color=drawn, thickness=3, opacity=1)
    layers = [ticks.encode(x=x, y=y, description="tip:N")]
    if (most > least).any():
        bands = alt.Chart(values(rows)).mark_bar(color=drawn, opacity=0.25, aria=False)
        layers.insert(0, bands.encode(x=x, y=alt.Y("least:Q", title=RATES[kind]), y2=alt.Y2("most:Q")))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)
