"""``llmpower top``: the daemon's answer again and again, on a screen, as one frame of text, or as lines of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmpower.cli.layout import colours_wanted, echo_styled, terminal_columns
from llmpower.cli.options import FiniteRange, socket_option
from llmpower.exceptions import InputError
from llmpower.phrases import duration

if TYPE_CHECKING:
    from llmpower.cli.screen import Screen
    from llmpower.cli.watching import Tick, Watch

FEWEST_S = 0.25
"""The daemon's own step: asked more often it would give the same answer twice."""

WIDE = 200
"""Columns of a frame that goes to no terminal."""

HELP = "q: quit   a: since the daemon began, or lately"


@click.command()
@socket_option
@click.option(
    "--interval",
    "interval_s",
    type=FiniteRange(FEWEST_S, 3600),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Ask the daemon every S seconds.",
)
@click.option(
    "--window",
    "window_s",
    type=FiniteRange(1, 86400),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Rates, shares and costs are of the last S seconds.",
)
@click.option("--once", is_flag=True, help="Print one frame, of all since the daemon began, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line at each tick; with --once, one.")
def command(socket: Path | None, interval_s: float, window_s: float, once: bool, as_json: bool) -> None:
    """Watch watts, requests and joules per token as they come.

    \b
    On a terminal it fills the screen; q or Ctrl-C ends it.
      NOW W      the latest reading, and above which LIMIT W a card slows itself down
                 (asked for while somebody watches: from the second frame on)
      MEAN W     by the energy counter, over the time that is booked
      IDLE %     of the energy, with no request running; UNATTR % belongs to nobody
      J/REQ      joules of the requests that were measured, and J/TOKEN by output tokens
      OF PREDICTED  what requests cost relative to their model's prediction (docs/drift.md)

    A figure that is not there is a dash. When the daemon goes away it says so, and goes on when it is back. Where
    output is not a terminal it prints one frame, as with --once.

    \b
    Example:
      llmpower top
      llmpower top --interval 5 --window 600
      llmpower top --json --interval 10 | jq '.devices[].power_w'
    """
    from llmpower.cli.watching import Watch
    from llmpower.spans.daemon_socket import default_socket_path, request_status

    path = socket or default_socket_path()
    watch = Watch(lambda: request_status(path), window_s)
    # Whoever watches ends it by Ctrl-C, which is then no failure.
    with contextlib.suppress(KeyboardInterrupt):
        if as_json:
            _print_ticks(watch, interval_s, once=once)
        elif once or not (sys.stdin.isatty() and sys.stdout.isatty()):
            _print_frame(watch.tick())
        else:
            _watch(watch, interval_s)


def _print_ticks(watch: Watch, interval_s: float, *, once: bool) -> None:
    next_s = time.monotonic()
    while True:
        click.echo(json.dumps(watch.tick(), ensure_ascii=False, allow_nan=False))
        if once:
            return
        next_s += interval_s
        time.sleep(max(next_s - time.monotonic(), 0.0))


def _print_frame(tick: Tick) -> None:
    from llmpower.cli.top_frame import frame

    echo_styled(frame(tick, columns=terminal_columns() or WIDE))


def _watch(watch: Watch, interval_s: float) -> None:
    # Before the screen is taken: whoever has no daemon is told so in one line on the terminal that stays.
    tick = watch.tick()
    try:
        from llmpower.cli.screen import opened
    except ImportError as error:
        raise InputError("Python", f"without {error.name}", "this one cannot fill a screen; use --once") from error
    with opened(coloured=colours_wanted(os.environ) is not False) as screen:
        _loop(screen, watch, tick, interval_s)


def _loop(screen: Screen, watch: Watch, tick: Tick, interval_s: float) -> None:
    seen, next_s = tick, time.monotonic() + interval_s
    while True:
        _show(screen, seen, tick)
        key = screen.key(next_s - time.monotonic())
        if key is None:
            next_s = max(next_s, time.monotonic()) + interval_s
        elif key in map(ord, "qQ"):
            return
        elif key in map(ord, "aA"):
            watch.lately = not watch.lately
        else:
            # A new size, or a key that means nothing: the same figures again.
            continue
        tick = watch.tick()
        seen = tick if tick["connected"] else seen


def _show(screen: Screen, seen: Tick, tick: Tick) -> None:
    """The tick, or the last one that had an answer under a word on why there is none."""
    from llmpower.cli.layout import Line
    from llmpower.cli.top_frame import frame

    columns, rows = screen.size
    note = ""
    if not tick["connected"]:
        note = f"NO ANSWER for {duration(tick['lost_s'])}, figures are from before: {tick['error']}"
    lines = frame(seen, columns=columns, rows=max(rows - 1, 1), note=note)
    lines += [Line("")] * (rows - 1 - len(lines))
    screen.show([*lines, Line(HELP, "faint")])
