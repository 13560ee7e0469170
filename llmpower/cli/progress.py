"""Progress of long work, with the time left: on stderr, and on a terminal alone.

Work reports how far it is by calling ``progress(done, total)``; the total may grow meanwhile. Where nobody watches
there is nothing to call, so that progress costs nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

Progress = Callable[[int, int], None]

_Item = TypeVar("_Item")


@contextmanager
def shown(label: str) -> Iterator[Progress | None]:
    """Where to report progress, for as long as the block lasts; ``None`` where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    # A step of nothing may still change the total.
    bar: Any = click.progressbar(length=1, label=label, file=sys.stderr, show_pos=True, update_min_steps=0)

    def tell(done: int, total: int) -> None:
        # Of nothing, all is done.
        bar.length = max(total, 1)
        bar.update((done if total else 1) - bar.pos)

    with bar:
        yield tell


def without_bars_in_pipes() -> None:
    """Keep the progress bars of libraries to terminals too; before they are imported, as tqdm reads it then."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")


def told(items: Iterable[_Item], total: int, progress: Progress, steps: int = 200) -> Iterator[_Item]:
    """The items, of which progress is told now and then as they are taken."""
    often = max(total // steps, 1)
    done = 0
    for done, item in enumerate(items, 1):
        yield item
        if done % often == 0:
            progress(done, max(total, done))
    progress(done, done)


def counted(progress: Progress | None, stages: int) -> Callable[[], None]:
    """What is to be called after each of these stages."""
    done = 0

    def stage() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, stages)

    return stage
