"""What every table on a terminal is made of: columns, units, colours; the one place for them.

A column of numbers has its unit in its header and its decimal points under each other, so that sizes can be compared
by eye; :func:`energy_unit` chooses one unit for all of a column. Text goes to the left.

Names in these tables come from whoever may send spans, and terminals interpret what is written to them: :func:`plain`
makes it harmless. Widths are counted in cells of the terminal, of which Chinese letters take two.

Colours are for people at a terminal. Whether there is one, Click finds out by itself; what the user wants is looked up
here, as no-color.org, force-color.org and bixense.com/clicolors have it.
"""

from __future__ import annotations

import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import click

from llmpower.phrases import number

ABSENT = "–"
"""What stands for a figure that is not there; never 0."""

FEWEST_CELLS = 12
"""No text in a table is made shorter than this."""

UNCUT = 10_000
"""As many columns as it takes: for tables of which no name may lack its end."""

HANGING = "  "

WORDS = re.compile("(?<= )(?!%)")
"""Where a line may go on below: between words, not within what has a hyphen and may be copied, nor before ``%``."""

STYLES: Mapping[str, Mapping[str, str | bool]] = {
    "bad": {"fg": "red"},
    "doubt": {"fg": "yellow"},
    "good": {"fg": "green"},
    "head": {"bold": True},
    "faint": {"dim": True},
    "": {},
}


class Line(NamedTuple):
    """A line to be shown, in one of :data:`STYLES`."""

    text: str
    style: str = ""


def aligned(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Iterable[str] = (), columns: int | None = None
) -> list[str]:
    """Lines of a table.

    Args:
        header: a name for each column, with the unit of what stands below.
        rows: of texts, as many as there are names.
        right: the names of those columns that hold numbers.
        columns: how wide it may be; by default as wide as the terminal that output goes to, if it goes to one. In
            what is wider, long texts lose their middle, and no number a digit; columns that find no room beside
            the first ones stand below, after the first one again.
    """
    of_numbers = set(right)
    numbers = [name in of_numbers for name in header]
    table = [
        _column(name, [plain(row[index]) for row in rows], number=numbers[index]) for index, name in enumerate(header)
    ]
    room = columns or terminal_columns()
    if room is None:
        return _lines(table)
    texts = [index for index, number in enumerate(numbers) if not number]
    spare = sum(max(width(table[index][0]) - FEWEST_CELLS, 0) for index in texts)
    if _width(table) - spare <= room:
        _narrow(table, texts, room)
        return _lines(table)
    for index in texts:
        _shorten(table, index, max(room // 3, FEWEST_CELLS))
    first, *others = table
    parts = [[first]]
    for column in others:
        if len(parts[-1]) > 1 and _width([*parts[-1], column]) > room:
            parts.append([first])
        parts[-1].append(column)
    return [line for number, part in enumerate(parts) for line in ([""] if number else []) + _lines(part)]


def _lines(table: Sequence[Sequence[str]]) -> list[str]:
    return ["  ".join(cells).rstrip() for cells in zip(*table, strict=True)]


def _width(table: Sequence[Sequence[str]]) -> int:
    return sum(width(column[0]) for column in table) + 2 * (len(table) - 1)


def _column(name: str, cells: Sequence[str], *, number: bool) -> list[str]:
    if number:
        # As many blanks after a number as others have digits there; what is not a number ends where the column ends.
        tail = max((_fraction(cell) for cell in cells if _is_number(cell)), default=0)
        cells = [cell + " " * (tail - _fraction(cell)) if _is_number(cell) else cell for cell in cells]
    wide = max(map(width, (name, *cells)))
    pad = [" " * (wide - width(cell)) for cell in (name, *cells)]
    return [blank + cell if number else cell + blank for cell, blank in zip((name, *cells), pad, strict=True)]


def _narrow(table: list[list[str]], texts: Sequence[int], room: int) -> None:
    """Shorten the widest text, again and again, until the table fits."""
    while (excess := _width(table) - room) > 0:
        *_, following, (widest, index) = [(0, 0), *sorted((width(table[index][0]), index) for index in texts)]
        _shorten(table, index, max(widest - excess, min(following[0], widest - 1), FEWEST_CELLS))


def _shorten(table: list[list[str]], index: int, kept: int) -> None:
    cells = [shortened(cell.rstrip(), kept) for cell in table[index]]
    wide = max(map(width, cells))
    table[index] = [cell + " " * (wide - width(cell)) for cell in cells]


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or (cell[:1] in "+-−" and cell[1:2].isdigit())


def _fraction(cell: str) -> int:
    """Characters from the decimal point on."""
    number = cell.split(" ", 1)[0]
    return len(cell) - (cell.index(".") if "." in number else len(number))


def width(text: str) -> int:
    """Cells of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def cut(text: str, cells: int) -> str:
    """The text, or as much of it as fits, with a sign that there is more."""
    if width(text) <= cells:
        return text
    kept = text
    while kept and width(kept) > cells - 1:
        kept = kept[:-1]
    return f"{kept}…" if cells > 0 else ""


def shortened(text: str, cells: int) -> str:
    """The text, or its beginning and its end: names that differ at the end must not look alike."""
    if width(text) <= cells:
        return text
    tail = ""
    for letter in reversed(text):
        if width(letter + tail) > cells // 2:
            break
        tail = letter + tail
    return cut(text[: len(text) - len(tail)], cells - width(tail)) + tail


def plain(text: str) -> str:
    """The text without what a terminal would obey instead of showing it: a ``?`` for each control character."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


def energy_unit(energies_j: Iterable[float | None]) -> tuple[float, str]:
    """The largest unit in which the smallest of these energies is at least 1: how many joules it has, and its name.

    Nothing, and what is not known, can be told in any unit.
    """
    least_j = min((abs(energy_j) for energy_j in energies_j if energy_j), default=0.0)
    for joules, unit in ((1e9, "GJ"), (1e6, "MJ"), (1e3, "kJ")):
        if least_j >= joules:
            return joules, unit
    return 1.0, "J"


def formatted(value: float | None, form: str) -> str:
    """A figure in the given format, or the sign for its absence."""
    return ABSENT if value is None else format(value, form)


def compact(value: float | None, digits: int = 3) -> str:
    """A figure of any size in a few digits, as many as others of its column, or the sign for its absence."""
    return ABSENT if value is None else number(value, digits, zeros=True)


def in_percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction as a column headed by ``%`` has it."""
    return ABSENT if fraction is None else f"{100 * fraction:z.{digits}f}"


def covered(boundary: str | None) -> str:
    """What a model's joules are of."""
    return boundary or "energy_j as the file has it"


def terminal_columns() -> int | None:
    """How wide the terminal is that output goes to; ``None`` where it goes elsewhere, where lines have no end."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def filled(pieces: Iterable[str], columns: int, first: str = "", others: str = "") -> list[str]:
    """Lines of as many pieces as fit, the first after one margin, the others after another; no piece is parted."""
    lines = [first]
    room = columns - width(click.unstyle(first))
    for piece in pieces:
        cells = width(click.unstyle(piece))
        if width(click.unstyle(piece.rstrip())) > room and lines[-1] not in (first, others):
            lines.append(others)
            room = columns - width(others)
        lines[-1] += piece
        room -= cells
    return [line.rstrip() for line in lines]


def echo_lines(lines: Iterable[str]) -> None:
    """Print lines; on a terminal, words of those that are too long for it stand below, a little further in."""
    columns = terminal_columns()
    for line in lines:
        if columns is None or width(click.unstyle(line)) <= columns:
            click.echo(line)
            continue
        margin = line[: len(line) - len(line.lstrip())]
        click.echo("\n".join(filled(WORDS.split(line.strip()), columns, margin, margin + HANGING)))


def echo_labelled(label: str, text: str) -> None:
    """Print a text after its label; on a terminal that is too narrow, the rest of it stands below, after a margin."""
    columns, margin = terminal_columns(), width(click.unstyle(label))
    if columns is None or columns < 2 * margin:
        click.echo(label + text)
    else:
        click.echo("\n".join(filled(WORDS.split(text), columns, label, " " * margin)))


def echo_styled(lines: Iterable[Line]) -> None:
    """Print lines in their styles, as they are."""
    for line in lines:
        click.echo(click.style(line.text, **STYLES[line.style]))  # type: ignore[arg-type]


def colours_wanted(environ: Mapping[str, str]) -> bool | None:
    """Whether the user wants colours: true or false wherever output goes, ``None`` on terminals alone.

    ``NO_COLOR`` says no whatever else is said, ``FORCE_COLOR`` and ``CLICOLOR_FORCE`` say yes in a pipe too,
    ``CLICOLOR=0`` and a terminal that is called dumb say no.
    """
    if environ.get("NO_COLOR"):
        return False
    forced = next((environ[name] for name in ("FORCE_COLOR", "CLICOLOR_FORCE") if environ.get(name)), None)
    if forced is not None:
        return forced.lower() not in ("0", "false")
    if environ.get("CLICOLOR") == "0" or environ.get("TERM") == "dumb":
        return False
    return None
