"""Sections, tables and figures of pages, as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence


def section(title: str, program: str, text: str, *parts: str) -> str:
    """A heading, what was done, and what was found."""
    return "\n".join([f"## {title}\n", paragraph(f"`python {program}`. {text}"), *parts])


def paragraph(text: str) -> str:
    """Lines as long as those of other pages."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown, with figures on the right of what they are of."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ("---", *("--:" for _ in head[1:])), *rows)]
    return "\n".join(lines) + "\n"


def bars(found: Mapping[str, tuple[float, float, bool]]) -> str:
    """What had to be reached: by name what was found, what it may be at most, and whether it holds."""
    rows = [
        (name, f"{figure:.4g}", f"{bar:g}", "held" if holds else "**missed**")
        for name, (figure, bar, holds) in found.items()
    ]
    return table(("bar", "found", "at most", ""), rows)


def percent(fraction: float, digits: int = 1) -> str:
    """0.0123 → 1.2; nothing is neither above nor below zero."""
    return f"{round(100 * fraction, digits) + 0.0:.{digits}f}".replace("-", "−")


def whole(number: float) -> str:
    """−26.5 → −26; nothing is neither above nor below zero."""
    return f"{round(number)}".replace("-", "−")


def ms(seconds: float) -> str:
    """Milliseconds."""
    return f"{1e3 * seconds:.1f} ms"


def ratio(ours: float, theirs: float) -> str:
    """Ours by theirs."""
    return f"{ours / theirs:.2f}"
