"""Data sets → workload models: scan, merge, solve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from threading import Timer

from llmpower.exceptions import FitError, InputError
from llmpower.modelling.fitted.models import WorkloadModel
from llmpower.modelling.fitting import AUTO, fit_groups, forms_of
from llmpower.modelling.linear import Form
from llmpower.modelling.rows.boundary import Boundary
from llmpower.modelling.rows.groups import Maker, group_columns, makers_of
from llmpower.modelling.rows.tally import processors
from llmpower.modelling.screening import Screening
from llmpower.modelling.streaming.dataset import open_datasets
from llmpower.modelling.streaming.doubts import ALONE
from llmpower.modelling.streaming.scanners import Scanner, here
from llmpower.modelling.streaming.scanning import Job, Scanned

READING_S = 0.1
"""Until rows are being read, here or by workers: who imports meanwhile keeps tasks from being sent."""


@dataclass(frozen=True)
class Streamed:
    """Models of a data set, with what was doubtful about its ``rows``."""

    models: list[WorkloadModel]
    screening: Screening
    rows: int


def fit_datasets(
    sources: Sequence[str],
    *,
    form: str = AUTO,
    intercept: bool = False,
    group_by: Sequence[str] | None = None,
    boundary: str = "gpu",
    match_total: bool = False,
    columns: Mapping[str, str] | None = None,
    where: str | None = None,
    tdp_w: float | None = None,
    leave_out: Sequence[str] = (),
    refuse: Sequence[str] = (),
    scanner: Scanner | None = None,
    threads: int | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> Streamed:
    """Fit energy and runtime of every model in data sets of Parquet files, in the memory of a few batches.

    Args:
        sources: directories, URLs that fsspec knows, Parquet files or globs of them.
        form: as ``intercept``, ``group_by``, ``boundary`` and ``match_total`` of
            :func:`~llmpower.modelling.fitting.fit`.
        intercept: the same.
        group_by: the same.
        boundary: the same.
        match_total: the same.
        columns: our names to the files' headers.
        where: only rows for which this condition holds.
        tdp_w: design power of one device [W], by default what the system's name says.
        leave_out: kinds of findings whose rows are not fitted; those that a row shows by itself.
        refuse: kinds of findings that stop the fit.
        scanner: what reads; by default this process. :func:`~llmpower.modelling.streaming.workers.on_workers` has many.
        threads: that sum rows at a time where they are read; by default one where there is a ``scanner``, else one for
            each processor.
        tell: hears how many rows were read, of how many.

    Raises:
        InputError: a source, an option or a file cannot be used.
        FitError: as :func:`~llmpower.modelling.fitting.fit`; or no rows, or a kind of finding that is refused.
    """
    for option, kinds in (("--leave-out", leave_out), ("--refuse", refuse)):
        for kind in kinds:
            if kind not in ALONE:
                advice = f"takes all rows at once, and a data set is read row by row; of it, use {', '.join(ALONE)}"
                raise InputError(option, kind, advice)
    if tdp_w is not None and not 0 < tdp_w < float("inf"):
        raise InputError("--tdp", tdp_w, "is not a design power; give the watts of one device")
    Boundary.parse(boundary)
    forms = forms_of(form, intercept=intercept)
    renamed = dict(columns or {})
    dataset = open_datasets(sources, renamed)
    found = [*(name for name in dataset.schema.names if name not in renamed.values()), *renamed]
    keys = group_columns(group_by, found)
    threads = threads or (1 if scanner else processors())
    job = Job(dataset.schema, boundary, tuple(keys), renamed, where, tuple(leave_out), tdp_w, threads)
    # Of all that solving needs this takes longest to import: about half as long as twenty models are solved in.
    importing = Timer(READING_S, import_module, ("scipy.special",))
    importing.start()
    try:
        scanned = (scanner or here(tell))(job, dataset)
    finally:
        importing.cancel()
    if not scanned.rows:
        raise FitError("--where", where, "no row satisfies it; loosen the condition")
    screening = scanned.doubts.screening()
    screening.refuse(refuse)
    makers = makers_of(scanned.tally, keys)
    if not makers:
        raise screening.nothing_left(leave_out)
    return Streamed(_models(scanned, makers, forms, match_total=match_total), screening, scanned.rows)


def _models(
    scanned: Scanned, makers: Sequence[Maker], forms: Sequence[Form], *, match_total: bool
) -> list[WorkloadModel]:
    """As fitted; where simulated and real rows are mixed, the error says which files they are in."""
    try:
        return fit_groups(makers, forms, match_total=match_total)
    except FitError as error:
        if error.field != "simulated":
            raise
        # Models are made in the order of their keys, so it is the first that has both.
        mixed = next(files for key in scanned.tally.model_keys() if len(files := scanned.kinds[key]) == 2)
        advice = f"{error.advice} ({mixed[True]} has simulated rows, {mixed[False]} real ones)"
        raise FitError(error.field, error.value, advice) from error
