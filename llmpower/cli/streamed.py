"""``llmpower fit`` and ``llmpower route`` over data sets: in this process, or on Dask's workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmpower.cli.progress import shown

if TYPE_CHECKING:
    from llmpower.modelling.streaming import Streamed
    from llmpower.modelling.streaming.scanners import Scanner
    from llmpower.routing import Workload


def fit_streamed(sources: Sequence[str], scheduler: str | None, **options: Any) -> Streamed:
    """As :func:`~llmpower.modelling.streaming.fit_datasets`; ``scheduler`` is what ``--dask`` says."""
    from llmpower.modelling.rows.tally import processors
    from llmpower.modelling.streaming import fit_datasets

    # Workers are as many as there are processors.
    threads = processors() if scheduler is None else 1
    with _reading(scheduler) as scanner:
        return fit_datasets(sources, scanner=scanner, threads=threads, **options)


def count_streamed(source: str, scheduler: str | None, columns: dict[str, str]) -> Workload:
    """As :func:`~llmpower.routing.problem.counting.count_datasets`, of one source."""
    from llmpower.routing.problem.counting import count_datasets

    with _reading(scheduler) as scanner:
        return count_datasets([source], columns, scanner=scanner)


@contextmanager
def _reading(scheduler: str | None) -> Iterator[Scanner]:
    """What reads, with its progress."""
    from llmpower.modelling.streaming.scanners import here
    from llmpower.modelling.streaming.workers import on_workers

    with shown("read") as progress:
        if scheduler is None:
            yield here(progress)
        else:
            with on_workers(scheduler, progress) as scanner:
                yield scanner
