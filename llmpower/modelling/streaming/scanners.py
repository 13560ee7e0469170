"""What is asked of a data set, and who reads it: any job, in this process or on workers.

A job brings portions down to something small, and some of those to one. A fit's are tallies; a plan's are cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from llmpower.modelling.streaming.dataset import Dataset, Portion

T = TypeVar("T")


class Work(Protocol[T]):
    """What is done with rows; it goes to other processes as it is."""

    def scan(self, portions: Sequence[Portion], tell: Callable[[int], None] | None = None) -> T:
        """What portions reduce to; ``tell`` is called with the number of rows of each batch."""
        ...

    def merge(self, parts: Iterable[T]) -> T:
        """All of them, none of them changed: a task may run again, and its arguments stay others' results."""
        ...


class Scanner(Protocol):
    """Brings all portions of a data set down to one: here, or on workers."""

    def __call__(self, work: Work[T], dataset: Dataset, /) -> T:
        """What all of them come down to."""
        ...


def here(tell: Callable[[int, int], None] | None = None) -> Scanner:
    """A scanner in this process; ``tell`` hears how many rows were read, of how many."""

    def scanner(work: Work[T], dataset: Dataset, /) -> T:
        read = 0

        def told(rows: int) -> None:
            nonlocal read
            read += rows
            if tell is not None:
                tell(read, dataset.rows)

        return work.scan(dataset.portions, told)

    return scanner
