"""A workload's rows between their file and the plan's: read, collapsed into cells, and written with a model each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpower.files import replacing
from llmpower.routing.plans.expansion import rows_table
from llmpower.routing.plans.parquet import ParquetRows
from llmpower.routing.problem.workload import OPTIONAL, REQUIRED, Workload
from llmpower.tables import check_suffix, read_table, write_table

if TYPE_CHECKING:
    import pandas as pd

    from llmpower.routing.plans.loaded import Assigned
    from llmpower.routing.plans.plan import RoutingPlan
    from llmpower.routing.problem.tariff import Tariff


class Rows:
    """One row per query, or a row with its ``count``; ``columns`` maps our names to the file's headers.

    A ``tariff`` needs the column ``timestamp`` too.
    Parquet is read a row group at a time where it is written again, every other table through pandas.

    Raises:
        InputError: the file cannot be read, or lacks a column.
    """

    def __init__(self, path: Path, columns: Mapping[str, str], tariff: Tariff | None = None) -> None:
        self._path, self._columns, self.tariff = path, columns, tariff
        self._required = REQUIRED if tariff is None else (*REQUIRED, "timestamp")
        self._parquet: ParquetRows | None = None
        self._frame: pd.DataFrame | None = None
        # What else may bear such a name, a directory of parts, is pandas' to read.
        if path.suffix == ".parquet" and not path.is_dir():
            self._parquet = ParquetRows(path, columns, self._required, "--workload")

    def workload(self, *, keep: bool = False) -> Workload:
        """The cells; errors as :meth:`Workload.from_tokens`, and as of the tariff.

        Columns that :meth:`saving` will write are in memory until then, if they are to ``keep``.
        """
        if self._parquet is None:
            return Workload.from_frame(self._read(), self.tariff)
        found = self._parquet.columns((*self._required, *OPTIONAL), keep=keep)
        rates = None if self.tariff is None else self.tariff.rates(found.pop("timestamp"))
        further = (found.get(name) for name in OPTIONAL)
        return Workload.from_tokens(*(found[name] for name in REQUIRED), *further, row_rates=rates)

    def save(self, plan: RoutingPlan, path: Path) -> None:
        """Write the rows in their order, each with the model that it goes to.

        Raises:
            InputError: the file cannot be written, or its suffix says no format.
        """
        check_suffix(path, "-o")
        if self.can_save_early(path):
            with self.saving(path) as solved:
                solved(plan)
        else:
            write_table(rows_table(plan, self._read()), path)

    @contextmanager
    def saving(self, path: Path) -> Iterator[Callable[[RoutingPlan | Assigned], None]]:
        """Gives what takes the plan, and writes in the background; the file is in its place when the block has ended
        without error.

        Only from Parquet to Parquet: :meth:`can_save_early`. Errors as :meth:`save`.
        """
        assert self._parquet is not None
        plan: Future[Any] = Future()
        with replacing(path, "-o") as temporary, ThreadPoolExecutor(1) as pool:
            writing = pool.submit(self._parquet.write, plan, temporary)
            try:
                yield plan.set_result
            finally:
                plan.cancel()  # Where there is one, this does nothing.
            writing.result()

    def can_save_early(self, path: Path) -> bool:
        """Whether :meth:`saving` writes such a file."""
        return self._parquet is not None and path.suffix == ".parquet"

    def _read(self) -> pd.DataFrame:
        if self._frame is None:
            self._frame = read_table(self._path, columns=self._columns, required=self._required, what="--workload")
        return self._frame
