"""The rows of ``llmpower route``, read while all else is imported and read that a plan takes.

Imports hold the interpreter; what reads Parquet and counts its rows does not.
"""

from __future__ import annotations

import sys
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

import click

from llmpower.cli.streamed import count_streamed
from llmpower.cli.tariffs import tariff_of
from llmpower.exceptions import InputError
from llmpower.routing.plans.rows import Rows
from llmpower.routing.problem.workload import Workload
from llmpower.tables import parse_columns

# Threads that compute in C need the interpreter for microseconds; one that imports would keep it from them for 5 ms.
SWITCH_S = 5e-4


class Read(NamedTuple):
    """Rows and their cells; ``early`` where rows can be written as soon as it is known where they go."""

    rows: Rows
    workload: Workload
    early: bool


def begin_reading(
    context: click.Context,
    source: Path,
    columns: tuple[str, ...],
    tariff_path: Path | None,
    tariff_zone: str | None,
    out: Path | None,
) -> Future[Read]:
    """Open a file, and have it read until ``context`` ends; errors wait for who asks for the result.

    ``out`` is where the rows, one per query, will be written, if anywhere.
    """
    pool = ThreadPoolExecutor(1)
    # What is wrong with an option is said at once, and not when all rows are read.
    context.call_on_close(lambda: pool.shutdown(wait=False, cancel_futures=True))

    def opened() -> Rows:
        tariff = tariff_of(tariff_path, tariff_zone)
        return Rows(source, parse_columns(columns), tariff)

    def read() -> Read:
        rows = opening.result()
        early = out is not None and rows.can_save_early(out)
        return Read(rows, rows.workload(keep=early), early)

    sys.setswitchinterval(SWITCH_S)
    opening = pool.submit(opened)
    # Two threads that import take turns; then reading would begin when there is nothing left to do beside it.
    wait([opening])
    return pool.submit(read)


def count_dataset(
    source: str,
    scheduler: str | None,
    columns: tuple[str, ...],
    tariff_path: Path | None,
    tariff_zone: str | None,
    out: Path | None,
) -> Workload:
    """The cells of a data set, or of any source on the workers of ``scheduler``; it has no rows to write again.

    Raises:
        InputError: rows are to be written all the same, or priced by their times; or as :func:`count_streamed`.
    """
    tariff = tariff_of(tariff_path, tariff_zone)
    if out is not None:
        raise InputError("-o", out, "a data set's plan is written by cells; add --cells, or have a --policy written")
    if tariff is not None:
        raise InputError("--tariff", str(tariff_path), "a data set is counted without its times; give one file")
    return count_streamed(source, scheduler, parse_columns(columns))
