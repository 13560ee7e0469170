"""Throughput and joules per token against input and output tokens: the pictures that the paper opens with.

One length varies along the axis while the other is held: rows whose other length lies within half an octave of its
median. On a grid of powers of two these are the rows with exactly that length, as in the paper's sweeps; in traffic
they are those that are near it, and the caption says how near. The same holds for how many requests share a step.

    throughput = (τin + τout) · B / runtime  [tokens/s],   energy per token = energy / (τin + τout)  [J]

of one request of a batch of B (form ``batched``; else of a row, B = 1), over all its tokens as in Wilkins, Keshav and
Mortier (HotCarbon 2024).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.forms import FloatArray
from llmpower.phrases import number
from llmpower.report.figure import Figure, Panel, Table
from llmpower.report.gathering import Gathered, gather
from llmpower.report.judged import Judged
from llmpower.report.style import HEIGHT, PLAIN, WIDTH, colour, legend, shape, tokens_axis, values

MOST_POINTS = 24
"""Of one model in one panel."""
STEPS_OF_LINE = 40
NEAR = 2**0.5

AXES = (("input_tokens", "output_tokens"), ("output_tokens", "input_tokens"))


@dataclass(frozen=True, slots=True)
class Quantity:
    """What is drawn upwards."""

    name: str
    title: str
    target: str
    unit: str

    def of(self, τin: FloatArray, τout: FloatArray, batch_size: FloatArray | float, y: FloatArray) -> FloatArray:
        """From what one request takes: joules or seconds."""
        if self.target == "energy":
            return np.asarray(y / (τin + τout))
        return np.asarray((τin + τout) * batch_size / y)


QUANTITIES = (
    Quantity("throughput", "Throughput", "runtime", "tokens/s"),
    Quantity("energy-per-token", "Energy per token", "energy", "J/token"),
)


def length_figures(judged: Sequence[Judged]) -> Iterator[Figure]:
    """Throughput, then joules per token, each against both lengths; and against batches where they vary."""
    for quantity in QUANTITIES:
        ours = [j for j in judged if j.target == quantity.target]
        if not ours:
            continue
        names = [j.label for j in ours]
        panels, rows, held = [], [], []
        for axis, other in AXES:
            slices = [_Slice.of(j, quantity, axis, other) for j in ours]
            held.append(f"against {_words(axis)} at {_spread(slices)} {_words(other)}")
            panels.append(Panel(f"against {_words(axis)}", _chart(quantity, slices, axis, names)))
            rows += [row for part in slices for row in part.rows(axis)]
        if any(np.ptp(j.sharing) > 0 for j in ours):
            slices = [_Slice.of(j, quantity, "sharing", "") for j in ours]
            held.append("against requests that share a step, lengths near their medians")
            panels.append(Panel("against requests at a time", _chart(quantity, slices, "sharing", names)))
            rows += [row for part in slices for row in part.rows("sharing")]
        yield Figure(
            name=quantity.name,
            title=f"{quantity.title} against tokens",
            alt=f"{quantity.title} in {quantity.unit} of {_listed(names)}, " + "; ".join(held) + ". The table below has"
            " every point.",
            caption=_sentence("; ".join(held))
            + ". Points: medians of what was measured, bars from the 10th to the 90th percentile; lines: what the fits"
            f" predict. Tokens are input and output together{_batch_note(ours)}.",
            panels=panels,
            table=Table(
                ("Model", "Against", "Tokens", "Rows", f"Median [{quantity.unit}]", "10 %", "90 %", "Predicted"),
                rows,
                n_labels=2,
            ),
            legend=legend(names),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Slice:
    """Rows of one model along one axis: points, and the line of the fit."""

    judged: Judged
    held: FloatArray
    x: FloatArray
    count: NDArray[np.intp]
    quantiles: FloatArray
    predicted: FloatArray
    line: list[tuple[float, float]]

    @classmethod
    def of(cls, j: Judged, quantity: Quantity, axis: str, other: str) -> _Slice:
        """``other`` is the length that is held; none where both are and the axis is of requests at a time."""
        lengths = {"input_tokens": j.input_tokens, "output_tokens": j.output_tokens, "sharing": j.sharing}
        near = np.ones(len(j.measured), dtype=bool)
        for name in [name for name in lengths if name != axis]:
            near &= _near(lengths[name], near)
        # Never empty: the centre of each is the value of a row that is left.
        x = lengths[axis][near]
        y = quantity.of(j.input_tokens[near], j.output_tokens[near], j.batch_size[near], j.measured[near])
        expected = quantity.of(j.input_tokens[near], j.output_tokens[near], j.batch_size[near], j.predicted[near])
        points: Gathered = gather([x], MOST_POINTS)
        held = lengths[other][near] if other else np.array([1.0])
        return cls(
            judged=j,
            held=held,
            x=points.mean(x),
            count=points.count(),
            quantiles=points.quantiles(y),
            predicted=points.quantiles(expected, (0.5,))[0],
            line=_line(j, quantity, axis, near, x),
        )

    def rows(self, axis: str) -> Iterator[tuple[str | float | None, ...]]:
        low, middle, high = self.quantiles
        for x, n, at, least, most, expected in zip(self.x, self.count, middle, low, high, self.predicted, strict=True):
            name = "requests at a time" if axis == "sharing" else _words(axis)
            figures = (float(at), float(least), float(most), None if np.isnan(expected) else float(expected))
            yield (self.judged.label, name, float(x), int(n), *figures)

    def points(self) -> Iterator[dict[str, Any]]:
        low, middle, high = self.quantiles
        for x, n, at, least, most in zip(self.x, self.count, middle, low, high, strict=True):
            rows = f"{n:,} row{'s' if n > 1 else ''}"
            text = f"{self.judged.label}: {number(float(at))} at {number(float(x))} ({rows})"
            figures = {"x": float(x), "y": float(at), "low": float(least), "high": float(most)}
            yield {"model": self.judged.label, **figures, "tip": text}


def _near(values: FloatArray, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Within half an octave of the median, which is a value that occurs."""
    centre = float(np.quantile(values[among], 0.5, method="lower"))
    return (values >= centre / NEAR) & (values <= centre * NEAR)


def _line(
    j: Judged, quantity: Quantity, axis: str, near: NDArray[np.bool_], x: FloatArray
) -> list[tuple[float, float]]:
    """The fit's figure along the axis, at the medians of everything else."""
    low, high = max(float(x.min()), 1.0), float(x.max())
    if not high > low:
        return []
    along = np.geomspace(low, high, STEPS_OF_LINE)
    at = {name: np.full_like(along, np.median(getattr(j, name)[near])) for name in ("input_tokens", "output_tokens")}
    sharing, batch = float(np.median(j.sharing[near])), float(np.median(j.batch_size[near]))
    if axis == "sharing":
        concurrency = sharing / batch
        y = np.concatenate([j.line(at["input_tokens"][:1], at["output_tokens"][:1], s) for s in along])
        batches: FloatArray | float = along / concurrency if j.batch_size.max() > 1 else 1.0
    else:
        at[axis] = along
        y, batches = j.line(at["input_tokens"], at["output_tokens"], sharing), batch
    drawn = quantity.of(at["input_tokens"], at["output_tokens"], batches, y)
    return [(float(a), float(b)) for a, b in zip(along, drawn, strict=True) if b > 0]


def _chart(quantity: Quantity, slices: Sequence[_Slice], axis: str, names: Sequence[str]) -> Any:
    import altair as alt

    title = "requests at a time" if axis == "sharing" else _words(axis)
    y = alt.Y("y:Q", title=quantity.unit).scale(zero=True).axis(tickCount=5, format=PLAIN)
    points = alt.Chart(values([point for part in slices for point in part.points()]))
    line = [{"model": p.judged.label, "x": x, "y": v} for p in slices for x, v in p.line]
    bars = points.mark_rule(strokeWidth=1.2, opacity=0.6, aria=False).encode(
        x=tokens_axis("x", title), y=alt.Y("low:Q", title=quantity.unit), y2="high:Q", color=colour(names)
    )
    dots = points.mark_point(filled=True, size=34, opacity=0.9).encode(
        x=tokens_axis("x", title), y=y, color=colour(names), shape=shape(names), description="tip:N"
    )
    lines = (
        alt.Chart(values(line))
        .mark_line(strokeWidth=1.4, aria=False)
        .encode(x=tokens_axis("x", title), y=y, color=colour(names))
    )
    return alt.layer(lines, bars, dots).properties(width=WIDTH, height=HEIGHT)


def _spread(slices: Sequence[_Slice]) -> str:
    """What was held: one length, or from which to which."""
    low, high = min(float(p.held.min()) for p in slices), max(float(p.held.max()) for p in slices)
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def _batch_note(judged: Sequence[Judged]) -> str:
    batched = any(np.ptp(j.sharing) > 0 for j in judged)
    return ", of one request; rows near the median number of requests at a time" if batched else ""


def _words(field: str) -> str:
    return field.replace("_", " ")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
