"""``llmpower fit`` over data sets: in this process, or on Dask's workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmpower.cli.progress import shown

if TYPE_CHECKING:
    from llmpower.modelling.streaming import Streamed


def fit_streamed(sources: Sequence[str], scheduler: str | None, **options: Any) -> Streamed:
    """As :func:`~llmpower.modelling.streaming.fit_datasets`; ``scheduler`` is what ``--dask`` says."""
    from llmpower.modelling.streaming import fit_datasets
    from llmpower.modelling.streaming.workers import on_workers

    with shown("read") as progress:
        if scheduler is None:
            return fit_datasets(sources, tell=progress, **options)
        with on_workers(scheduler, progress) as scanner:
            return fit_datasets(sources, scanner=scanner, **options)
