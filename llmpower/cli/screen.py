"""A screen of lines that changes, by the standard library's curses: the terminal is as it was when it is left.

curses knows every terminal by its description, draws only what has changed, notices new sizes, and gives the terminal
back on the way out, whichever way that is; see docs/decisions/061-top.md for what else there would be.
"""

from __future__ import annotations

import contextlib
import curses
import os
import sys
from collections.abc import Iterator, Sequence

from llmpower.cli.layout import STYLES, Line, cut
from llmpower.cli.signals import ended_in_order
from llmpower.exceptions import InputError

COLOURS = {"red": curses.COLOR_RED, "yellow": curses.COLOR_YELLOW, "green": curses.COLOR_GREEN}
RESIZED = curses.KEY_RESIZE


class Screen:
    """What the terminal shows; made by :func:`opened`."""

    def __init__(self, window: curses.window, *, coloured: bool) -> None:
        self._window = window
        self._attributes = {"": curses.A_NORMAL, "head": curses.A_BOLD, "faint": curses.A_DIM}
        with contextlib.suppress(curses.error):  # a cursor that cannot be hidden is no harm
            curses.curs_set(0)
        if coloured and curses.tigetnum("colors") > 0:
            curses.start_color()
            curses.use_default_colors()
            for pair, (style, looks) in enumerate(STYLES.items(), 1):
                if (colour := looks.get("fg")) is not None:
                    curses.init_pair(pair, COLOURS[str(colour)], -1)
                    self._attributes[style] = curses.color_pair(pair)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        rows, columns = self._window.getmaxyx()
        return columns, rows

    def show(self, lines: Sequence[Line]) -> None:
        """Have these lines on the screen and nothing else."""
        self._window.erase()
        columns, rows = self.size
        for row, line in enumerate(lines[:rows]):
            # The last cell of the last row moves the cursor out of the screen, which curses calls an error.
            with contextlib.suppress(curses.error):
                self._window.addstr(row, 0, cut(line.text, columns), self._attributes.get(line.style, curses.A_BOLD))
        self._window.refresh()

    def key(self, wait_s: float) -> int | None:
        """What was typed within this many seconds, :data:`RESIZED` where the terminal's size has changed."""
        self._window.timeout(max(round(wait_s * 1e3), 0))
        typed = self._window.getch()
        if typed == RESIZED:
            # What a terminal keeps of what stood there, and where, is its own affair: all is drawn again.
            self._window.clear()
        return None if typed == -1 else typed


@contextlib.contextmanager
def opened(*, coloured: bool) -> Iterator[Screen]:
    """The whole terminal for as long as the block lasts; SIGTERM and SIGHUP end it in order too.

    Raises:
        InputError: the terminal is of a kind that nothing is known of.
    """
    # They say which size the terminal had once, and curses would believe them.
    for name in ("LINES", "COLUMNS"):
        os.environ.pop(name, None)
    name = os.environ.get("TERM", "")
    try:
        curses.setupterm(fd=sys.stdout.fileno())
    except curses.error as error:
        raise InputError("TERM", name, f"such a terminal is not known ({error}); set it, or use --once") from error
    if curses.tigetstr("cup") is None:
        raise InputError("TERM", name, "such a terminal has no way to write anywhere on it; set it, or use --once")
    window = curses.initscr()
    with ended_in_order():
        try:
            curses.noecho()
            curses.cbreak()
            window.keypad(True)
            yield Screen(window, coloured=coloured)
        finally:
            curses.endwin()
