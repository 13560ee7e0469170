"""Help that fits its terminal: no line of it is wider, and an example that goes on below can still be pasted.

Click fills paragraphs; examples, tables and the values of an option it leaves as wide as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import click

from llmpower.cli.layout import HANGING, filled, width

NARROWEST = 20
"""A second column of fewer cells is not a column: its text goes on at the margin."""


class FittingFormatter(click.HelpFormatter):
    """Click's, whose longer lines go on below."""

    def getvalue(self) -> str:
        """All that was written."""
        return "\n".join(_fitted(super().getvalue().split("\n"), self.width))


def _fitted(lines: Iterable[str], columns: int) -> Iterator[str]:
    continued = False
    for line in lines:
        text = line.lstrip()
        margin = line[: len(line) - len(text)]
        columned = re.match(r" *\S+(?: \S+)*  +(?=\S)", line)
        if width(line) <= columns:
            yield line
        elif continued or (text.startswith("llmpower ") and not columned):
            # A shell goes on after a backslash; an option stays with its value, a file with its arrow.
            below = margin if continued else margin + HANGING
            *others, last = filled(re.split(r"(?<= )(?=--?\w|> )", text), columns - len(" \\"), margin, below)
            yield from (f"{part} \\" for part in others)
            yield last
        else:
            head = columned.group() if columned and columned.end() + NARROWEST <= columns else margin
            below = " " * len(head) if head.strip() else margin + HANGING
            yield from filled(re.split(r"(?<=[ |])", line[len(head) :]), columns, head, below)
        continued = line.endswith("\\")
