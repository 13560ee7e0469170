"""How all of our pictures look: Vega-Lite's theme, the colours, and what axes of tokens and joules are.

Charts are described with Altair and drawn by Vega when the page is made, so a page carries pictures and no plotting
library. Every colour of a chart is one of those below, and each stands for a property of the page's style sheet
(:func:`themed`), which is how a picture drawn once is right on light and on dark paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt

INK, QUIET, LINE, BAND, PAPER = "#1c1d21", "#5a5e66", "#dcdfe4", "#e6e9ee", "#ffffff"
SERIES = ("#0069a8", "#c4520a", "#00795a", "#a8437f", "#8a6100", "#5b4bb5", "#3f6f74", "#7a3b2e")
"""Colours of models, each with a contrast of 4 to 1 and more on white; shapes tell them apart as well."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")

PROPERTIES = {INK: "--ink", QUIET: "--quiet", LINE: "--line", BAND: "--band", PAPER: "--paper"} | {
    colour: f"--c{number}" for number, colour in enumerate(SERIES)
}
"""The style sheet's property that stands for each colour."""

WIDTH, HEIGHT = 400, 260
PLAIN = ",~r"
"""Numbers of an axis in full, with commas."""

THEME: dict[str, Any] = {
    "font": "Helvetica Neue, Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": QUIET,
        "titleColor": INK,
        "gridColor": LINE,
        "domainColor": QUIET,
        "tickColor": QUIET,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "gridWidth": 0.6,
        "tickSize": 4,
    },
    "legend": {
        "labelColor": INK,
        "titleColor": QUIET,
        "labelFontSize": 11,
        "orient": "bottom",
        "columns": 3,
        "labelLimit": 240,
        "symbolStrokeWidth": 2,
        "symbolSize": 60,
    },
    "title": {"color": INK, "anchor": "start", "fontSize": 13, "fontWeight": 600, "subtitleColor": QUIET},
    "text": {"color": INK, "fontSize": 11},
    "rule": {"color": QUIET},
    "concat": {"spacing": 28},
    # English as Vega has it, but for the space before the sign.
    "locale": {
        "number": {"decimal": ".", "thousands": ",", "grouping": [3], "currency": ["", ""], "percent": "\u00a0%"}
    },
}


def colour(names: Sequence[str]) -> alt.Color:
    """The models' colours, by their place among ``names``; beyond eight they start over, and names remain."""
    import altair as alt

    return alt.Color("model:N", title=None).scale(domain=list(names), range=[drawn for _, drawn in legend(names)])


def legend(names: Sequence[str]) -> list[tuple[str, str]]:
    """The models' names with the colours that :func:`colour` gives them."""
    return [(name, SERIES[number % len(SERIES)]) for number, name in enumerate(names)]


def shape(names: Sequence[str]) -> alt.Shape:
    """The models' shapes: what is left of their difference in print without colours."""
    import altair as alt

    spread = [SHAPES[number % len(SHAPES)] for number in range(len(names))]
    return alt.Shape("model:N", title=None).scale(domain=list(names), range=spread)


def tokens_axis(field: str, title: str) -> alt.X:
    """Token counts double from tick to tick."""
    import altair as alt

    axis = alt.Axis(format=PLAIN, labelOverlap="parity", tickCount=6)
    return alt.X(f"{field}:Q", title=title, axis=axis).scale(type="log", base=2, nice=False, padding=10)


def round_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two bounds; with their doubles and halves where there are few."""
    decades = [10.0**power for power in range(floor(log10(low)), ceil(log10(high)) + 1)]
    within = [tick for tick in decades if low <= tick <= high]
    if len(within) < 4:
        within = [factor * tick for tick in decades for factor in (1, 2, 5) if low <= factor * tick <= high]
    return within if len(within) < 8 else within[::2]


def values(rows: Sequence[dict[str, Any]]) -> alt.InlineData:
    """Rows as data of a chart, with a name that depends on nothing but them."""
    import altair as alt

    return alt.InlineData(values=list(rows))
