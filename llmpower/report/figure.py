"""A figure of the page: pictures, what they show in words, and the numbers behind them as a table.

Whoever cannot see a picture, or wants its numbers, reads the table; nothing is drawn that has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under ``header``. Cells are text as it is shown, or numbers, shown to four digits and copied in full.

    ``None`` is a value that is not known. The first ``n_labels`` columns say what a row is about.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]
    n_labels: int = 1


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: a chart of Altair's with its ``title``, which may be empty where the figure's says it all."""

    title: str
    chart: Any


@dataclass(frozen=True, slots=True)
class Figure:
    """Pictures that belong together under one ``title``.

    ``name`` is fit for a file and for an anchor, ``alt`` what somebody who cannot see it is told, ``caption`` what is
    drawn and of which rows. ``legend`` are names and their colours; none where panels or axes name everything.
    """

    name: str
    title: str
    alt: str
    caption: str
    panels: Sequence[Panel]
    table: Table
    legend: Sequence[tuple[str, str]] = ()
