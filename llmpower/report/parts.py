"""What the joules of requests are parts of: prefill and decode, and what cards would have drawn with nothing to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from llmpower.modelling.forms import FloatArray
from llmpower.modelling.rows.frames import floats
from llmpower.phrases import percent
from llmpower.report.figure import Figure, Panel, Table
from llmpower.report.style import SERIES, WIDTH, values

if TYPE_CHECKING:
    import pandas as pd

BAR_HEIGHT = 26
PHASES = (("prefill", SERIES[0]), ("decode", SERIES[1]))
IDLE = (("above idle", SERIES[2]), ("idle", SERIES[4]))


def part_figures(measurements: pd.DataFrame) -> Iterator[Figure]:
    """The phase split and the idle share, each where measurements tell it."""
    yield from _figure(
        measurements,
        ("prefill_energy_j", "decode_energy_j"),
        PHASES,
        name="phases",
        title="Prefill and decode",
        caption="GPU energy until the first token and after it, of all rows in which both were measured.",
    )
    if {"gpu_energy_j", "gpu_idle_energy_j"} <= set(measurements.columns):
        gross, idle = floats(measurements, "gpu_energy_j"), floats(measurements, "gpu_idle_energy_j")
        net = measurements[["model_name"]].assign(above_j=gross - idle, idle_j=idle)
        yield from _figure(
            net,
            ("above_j", "idle_j"),
            IDLE,
            name="idle",
            title="Idle share",
            caption="The part of the requests' GPU energy that the cards would have drawn with nothing to do, by the"
            " idle power that was last seen.",
        )


def _figure(
    measurements: pd.DataFrame,
    columns: tuple[str, str],
    parts: tuple[tuple[str, str], tuple[str, str]],
    *,
    name: str,
    title: str,
    caption: str,
) -> Iterator[Figure]:
    """One bar per model, all of the same length; none where no row has both parts."""
    if not {"model_name", *columns} <= set(measurements.columns):
        return
    first, second = (floats(measurements, column) for column in columns)
    told = np.isfinite(first) & np.isfinite(second) & (first + second > 0)
    told &= measurements["model_name"].notna().to_numpy()  # which screening names
    rows = [_row(str(model), first[index], second[index]) for model, index in _by_model(measurements, told)]
    if not rows:
        return
    words = [part for part, _ in parts]
    yield Figure(
        name=name,
        title=title,
        alt=f"{title}: "
        + "; ".join(f"{row[0]} {percent(row[4])} {words[0]}, {percent(row[5])} {words[1]}" for row in rows)
        + ".",
        caption=caption,
        panels=[Panel("", _bars(rows, parts))],
        table=Table(
            ("Model", "Rows", f"{words[0]} [J]", f"{words[1]} [J]", f"{words[0]} [%]", f"{words[1]} [%]"),
            [(*row[:4], 100 * row[4], 100 * row[5]) for row in rows],
        ),
        legend=parts,
    )


def _by_model(measurements: pd.DataFrame, told: Any) -> Iterator[tuple[Any, Any]]:
    """Each model and which of its rows tell; sums are over rows, so a batch counts as the batch that it is."""
    names = measurements["model_name"].to_numpy(dtype=object)
    for model in sorted(set(names[told])):
        yield model, np.flatnonzero(told & (names == model))


def _row(model: str, first: FloatArray, second: FloatArray) -> tuple[str, int, float, float, float, float]:
    a, b = float(first.sum()), float(second.sum())
    return model, len(first), a, b, a / (a + b), b / (a + b)


def _bars(rows: list[tuple[str, int, float, float, float, float]], parts: Any) -> Any:
    import altair as alt

    words, colours = [part for part, _ in parts], [colour for _, colour in parts]
    data = [
        {"model": row[0], "part": part, "share": share, "start": start, "tip": f"{row[0]}: {percent(share)} {part}"}
        for row in rows
        for part, share, start in ((words[0], row[4], 0.0), (words[1], row[5], row[4]))
    ]
    base = alt.Chart(values(data))
    y = alt.Y("model:N", title=None, sort=None).axis(labelLimit=180, ticks=False, domain=False)
    share = alt.X("start:Q", title="share of the energy").axis(format="%", tickCount=5).scale(domain=[0, 1])
    spread = alt.Color("part:N", title=None).scale(domain=words, range=colours)
    bars = base.mark_bar(height=BAR_HEIGHT - 8).encode(
        x=share, x2=alt.X2("end:Q"), y=y, color=spread, description="tip:N"
    )
    return bars.transform_calculate(end="datum.start + datum.share").properties(
        width=WIDTH, height=BAR_HEIGHT * len(rows)
    )
