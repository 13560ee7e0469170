"""The plans along ζ as pictures that the page's slider moves: the front, the shares, and what goes where.

In each, the marks of all plans are there in their order (``plans``), and the one that is shown is a mark of its own
(``chosen``), which the page's script puts where its plan's is. So a picture drawn once, by a library that is not in the
page, moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import floor, log10
from typing import Any

from llmpower.phrases import percent, plural
from llmpower.report.amounts import AIMS, said
from llmpower.report.figure import Figure, Panel, Table
from llmpower.report.hour_figures import hour_figure
from llmpower.report.plans import Figures, Map, Plans
from llmpower.report.style import HEIGHT, INK, PAPER, PLAIN, QUIET, WIDTH, colour, legend, values
from llmpower.routing import Outcome
from llmpower.routing.problem.rates import AMOUNTS, UNITS
from llmpower.routing.tradeoffs.tradeoff import EDGE

TALL = HEIGHT + 20


def plan_figures(plans: Plans) -> Iterator[Figure]:
    """The front and the shares; where the queries are known, the map, and with a tariff the hours."""
    first, last = plans.steps[0], plans.steps[-1]
    kind = accuracy_words(plans)
    aim, saved = AIMS[plans.weighs], 1 - plans.amount(last) / plans.amount(first)
    names, billed = list(plans.model_names), plans.tariff
    panels = [Panel(f"{aim.capitalize()} against accuracy", _front(plans))]
    if names:
        panels.append(Panel("Shares of the queries", _shares(plans)))
    yield Figure(
        name="frontier",
        title="Efficient plans of the workload",
        alt=f"{len(plans.steps)} efficient plans. The one of most accuracy ({percent(plans.accuracy(first))}, {kind})"
        f" takes {said(plans.weighs, plans.amount(first))}; the one of least {aim} takes"
        f" {said(plans.weighs, plans.amount(last))},"
        f" {percent(saved)} less, at {percent(plans.accuracy(last))}.",
        caption=f"Each point is an exact optimum; the circle is the slider's plan. Accuracy is the {kind}."
        + (" Crosses: one model for all queries." if plans.singles else "")
        + (" Dashed: equally accurate, ignoring the hours." if first.flat is not None else "")
        + (f" In every plan {plans.limited}." if plans.limited else ""),
        panels=panels,
        table=Table(
            (
                *("ζ", "Energy [J]", *(f"{AIMS[kind].capitalize()} [{UNITS[kind].name}]" for kind in billed)),
                *("Runtime [s]", "Accuracy by token [%]", "Accuracy by query [%]"),
                *(f"A point is worth [{UNITS[plans.weighs].name}]", *(f"{name} [%]" for name in names)),
                *(() if first.flat is None else (f"Hours ignored [{UNITS[plans.weighs].name}]",)),
            ),
            [
                (
                    *(zeta_words(step.zeta), step.energy_j, *(getattr(step, AMOUNTS[kind]) for kind in billed)),
                    *(step.runtime_s, _percent(step.accuracy_token_weighted), _percent(step.accuracy_query_mean)),
                    *(step.amount_per_point, *(100 * step.shares[name] for name in names)),
                    *(() if step.flat is None else (plans.amount(step.flat),)),
                )
                for step in plans.steps
            ],
        ),
        legend=legend(names),
    )
    if plans.by_hour is not None:
        yield hour_figure(plans, plans.by_hour)
    if plans.mapped is not None:
        yield _map_figure(plans, plans.mapped)


def accuracy_words(plans: Plans) -> str:
    """Which mean accuracy is meant."""
    return f"mean over {plans.weighting}"


def zeta_words(zeta: float) -> str:
    """ζ to three digits of what it lacks of its nearer end, where all the difference is; the ends as 0 and 1."""
    nearer = min(zeta, 1 - zeta)
    if nearer <= 2 * EDGE:
        return f"{round(zeta)}"
    return f"{zeta:.{max(2, 2 - floor(log10(nearer)))}f}"


def _front(plans: Plans) -> Any:
    import altair as alt

    rows = [_at(plans, step) | {"tip": f"ζ = {zeta_words(step.zeta)}: {_words(plans, step)}"} for step in plans.steps]
    x = _accuracy_axis(plans)
    title = f"{AIMS[plans.weighs]} of the queries [{UNITS[plans.weighs].name}]"
    y = alt.Y("amount:Q", title=title).scale(zero=True).axis(format="~s", tickCount=5)
    data = alt.Chart(values(rows))
    layers = [data.mark_line(color=QUIET, strokeWidth=1.5, aria=False).encode(x=x, y=y)]
    if flat := [_at(plans, step.flat) for step in plans.steps if step.flat is not None]:
        dashed = alt.Chart(values(flat)).mark_line(color=QUIET, strokeWidth=1.5, strokeDash=[5, 4], aria=False)
        layers.append(dashed.encode(x=x, y=y))
    if plans.singles:
        singles = [
            _at(plans, single) | {"model": name, "tip": f"all queries to {name}: {_words(plans, single)}"}
            for name, single in plans.singles.items()
        ]
        crosses = alt.Chart(values(singles)).mark_point(shape="cross", filled=True, size=70)
        layers.append(crosses.encode(x=x, y=y, color=colour(plans.model_names), description="tip:N"))
    dots = alt.Chart(values(rows), name="plans").mark_point(filled=True, size=22, color=QUIET, opacity=1)
    layers.append(dots.encode(x=x, y=y, description="tip:N"))
    chosen = alt.Chart(values([rows[plans.chosen]]), name="chosen")
    ring = chosen.mark_point(size=150, color=INK, strokeWidth=2.5, filled=False, opacity=1, aria=False)
    layers.append(ring.encode(x=x, y=y))
    return alt.layer(*layers).properties(width=WIDTH, height=TALL)


def _at(plans: Plans, of: Figures | Outcome) -> dict[str, float | str]:
    return {"accuracy": plans.accuracy(of), "amount": plans.amount(of)}


def _words(plans: Plans, of: Figures | Outcome) -> str:
    return f"{said(plans.weighs, plans.amount(of))}, {percent(plans.accuracy(of))}"


def _shares(plans: Plans) -> Any:
    import altair as alt

    rows = [
        {"accuracy": plans.accuracy(step), "model": name, "share": step.shares[name], "order": number}
        for step in plans.steps
        for number, name in enumerate(plans.model_names)
    ]
    x = _accuracy_axis(plans)
    y = alt.Y("share:Q", title="share of the queries", stack=True).axis(format="%", tickCount=5).scale(domain=[0, 1])
    areas = alt.Chart(values(rows)).mark_area(opacity=0.85, aria=False)
    layers = [areas.encode(x=x, y=y, color=colour(plans.model_names), order="order:Q")]
    stops = [{"accuracy": plans.accuracy(step)} for step in plans.steps]
    everywhere = alt.Chart(values(stops), name="plans").mark_rule(opacity=0, aria=False).encode(x=x)
    chosen = alt.Chart(values([stops[plans.chosen]]), name="chosen")
    layers += [everywhere, chosen.mark_rule(color=INK, strokeWidth=2.5, opacity=1, aria=False).encode(x=x)]
    return alt.layer(*layers).properties(width=WIDTH, height=TALL)


def _map_figure(plans: Plans, mapped: Map) -> Figure:
    names = list(plans.model_names)
    return Figure(
        name="map",
        title="What goes where",
        alt="Which model most queries of like lengths go to under the chosen plan, by input and output tokens; the"
        " table has each of the lengths.",
        caption="A rectangle holds the workload's queries of like lengths; its colour is the model that most of them go"
        " to, and paler where others take a part. The slider moves it.",
        panels=[Panel("", _map_chart(plans, mapped))],
        table=Table(
            ("Input tokens", "Output tokens", "Queries", "Most go to", "Its part [%]"),
            [
                (
                    span(mapped.input_low[n], mapped.input_high[n]),
                    span(mapped.output_low[n], mapped.output_high[n]),
                    int(mapped.count[n]),
                    names[int(mapped.model[plans.chosen, n])],
                    100 * float(mapped.share[plans.chosen, n]),
                )
                for n in range(len(mapped.count))
            ],
            n_labels=2,
        ),
        legend=legend(names),
    )


def _map_chart(plans: Plans, mapped: Map) -> Any:
    import altair as alt

    names = list(plans.model_names)
    rows = [
        {
            "left": mapped.input_low[n],
            "right": mapped.input_high[n],
            "below": mapped.output_low[n],
            "above": mapped.output_high[n],
            "model": names[int(mapped.model[plans.chosen, n])],
            "share": float(mapped.share[plans.chosen, n]),
            "tip": f"{span(mapped.input_low[n], mapped.input_high[n])} in,"
            f" {span(mapped.output_low[n], mapped.output_high[n])} out: {plural(int(mapped.count[n]), 'query')}",
        }
        for n in range(len(mapped.count))
    ]
    log = alt.Scale(type="log", base=2, nice=False)
    axis = alt.Axis(format=PLAIN, labelOverlap="parity", tickCount=8, grid=False)
    return (
        alt.Chart(values(rows), name="map")
        .mark_rect(strokeWidth=0.5, stroke=PAPER)
        .encode(
            x=alt.X("left:Q", title="input tokens", scale=log, axis=axis),
            x2="right:Q",
            y=alt.Y("below:Q", title="output tokens", scale=log, axis=axis),
            y2="above:Q",
            color=colour(names),
            opacity=alt.Opacity("share:Q", legend=None).scale(domain=[0, 1], range=[0.1, 1]),
            description="tip:N",
        )
        .properties(width=WIDTH, height=TALL)
    )


def span(low: float, high: float) -> str:
    """Whole lengths between two bounds: ``23–32``."""
    first, last = int(-(-low // 1)), int(high // 1)
    return f"{first:,}" if last <= first else f"{first:,}–{last:,}"


def _accuracy_axis(plans: Plans) -> Any:
    import altair as alt

    axis = alt.Axis(format=".1%", tickCount=5, labelOverlap="parity")
    scale = alt.Scale(zero=False, nice=False, padding=14)
    found = [plans.accuracy(step) for step in plans.steps] + [plans.accuracy(s) for s in plans.singles.values()]
    if min(found) < max(found):
        room = 0.04 * (max(found) - min(found))
        scale = alt.Scale(domain=[min(found) - room, max(found) + room], nice=False, zero=False)
    return alt.X("accuracy:Q", title=f"accuracy, {accuracy_words(plans)}", axis=axis, scale=scale)


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction
