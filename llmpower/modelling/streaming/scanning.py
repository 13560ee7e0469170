"""Batches into tallies: what one process does with the portions that it was given.

A batch is looked at as a whole first: where its extremes are possible, all of its rows are, and nothing more is asked
of them. Only rows that may be wrong are looked at one by one, by the checks that a table goes through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import FitError, InputError
from llmpower.modelling.boundary import Boundary
from llmpower.modelling.groups import NUMBERS
from llmpower.modelling.measurements import REQUIRED, check_measurements, energy_columns
from llmpower.modelling.streaming.arrays import Batch, batch_of
from llmpower.modelling.streaming.dataset import Portion
from llmpower.modelling.streaming.doubts import Doubts
from llmpower.modelling.tally import Key, Tally
from llmpower.modelling.where import names_in, select_rows
from llmpower.places import failures, first_line

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 1 << 18
READ_AHEAD = 2

FLAGS = ("simulated", "allocated", "quality")


@dataclass(frozen=True)
class Job:
    """What is asked of every row: everything that a worker must know beside its portions.

    ``schema`` is what all files share, under their headers; ``columns`` maps our names to those; ``left_out`` are kinds
    of findings whose rows are not fitted.
    """

    schema: pa.Schema
    boundary: str
    group_by: tuple[str, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    where: str | None = None
    left_out: tuple[str, ...] = ()
    tdp_w: float | None = None

    def headers(self) -> dict[str, str]:
        """The columns that are read: headers by our names."""
        boundary = Boundary.parse(self.boundary)
        wanted = [
            *self.group_by,
            *REQUIRED,
            *NUMBERS,
            *sorted(boundary.consulted()),
            *FLAGS,
            "system",
            "num_gpus",
            "tdp_w",
        ]
        if self.where is not None:
            wanted += names_in(self.where)
        named = {ours: self.columns.get(ours, ours) for ours in dict.fromkeys(wanted)}
        return {ours: header for ours, header in named.items() if header in self.schema.names}


@dataclass
class Scanned:
    """What portions came down to: the tally of their rows, what was doubtful, and files by what they are."""

    tally: Tally
    doubts: Doubts
    rows: int = 0
    kinds: dict[Key, dict[bool, str]] = field(default_factory=dict)

    def merge(self, other: Scanned) -> Scanned:
        """With what other portions came down to."""
        self.tally.merge(other.tally)
        self.doubts.merge(other.doubts)
        self.rows += other.rows
        for key, files in other.kinds.items():
            self.kinds[key] = files | self.kinds.get(key, {})
        return self


def scan(job: Job, portions: Sequence[Portion], tell: Callable[[int], None] | None = None) -> Scanned:
    """Tally all rows of some portions; ``tell`` hears of every so many rows.

    Raises:
        InputError: a file cannot be read, or ``where`` is no condition.
        FitError: a row cannot be what it claims.
    """
    boundary = Boundary.parse(job.boundary)
    scanned = Scanned(Tally(boundary), Doubts(job.left_out, job.tdp_w))
    for batch in _batches(job, portions):
        read = len(batch)
        if job.where is not None:
            chosen = select_rows(batch.frame(names_in(job.where)), job.where)
            batch = batch.take(np.asarray(chosen.index))
        if len(batch):
            _add(scanned, job, boundary, batch)
        if tell is not None:
            tell(read)
    return scanned


def _add(scanned: Scanned, job: Job, boundary: Boundary, batch: Batch) -> None:
    energies = [name for name in energy_columns(boundary.parts_name) if name in batch] or ["energy_j"]
    if energies == ["energy_j"] and "energy_j" not in batch:
        name = energy_columns(boundary.parts_name)[0]
        advice = (
            f"is missing; an energy of boundary {job.boundary} needs it (or energy_j), name its header with --column"
        )
        raise FitError("column", name, advice)
    scanned.rows += len(batch)
    kept = scanned.doubts.look(batch, energies)
    if kept is not None:
        batch = batch.take(np.flatnonzero(kept))
        if not len(batch):
            return
    if (impossible := batch.impossible(energies)) is not None:
        # This names the row, by the same rules as for a table.
        check_measurements(batch.take(impossible).placed_frame(), boundary.parts_name)
        raise AssertionError("a row was taken for impossible that is not")
    rows = batch.rows(sorted({*NUMBERS, *boundary.consulted()}))
    codes, keys = batch.keys(job.group_by)
    scanned.tally.add(keys, codes, rows)
    _note_kinds(scanned, keys, codes, rows["simulated"], batch)


def _note_kinds(
    scanned: Scanned, keys: Sequence[Key], codes: NDArray[np.int64], simulated: NDArray[np.bool_], batch: Batch
) -> None:
    """The first file with simulated rows of each key, and the first with real ones."""
    of_all, of_simulated = (np.bincount(each, minlength=len(keys)) for each in (codes, codes[simulated]))
    for number, key in enumerate(keys):
        known = scanned.kinds.setdefault(key, {})
        for kind, there in ((True, of_simulated[number]), (False, of_all[number] - of_simulated[number])):
            if there and kind not in known:
                known[kind] = batch.place(int(np.argmax((codes == number) & (simulated == kind))))[0]


def _batches(job: Job, portions: Sequence[Portion]) -> Iterator[Batch]:
    """Record batches under our names, small ones joined."""
    headers = job.headers()
    waiting: list[tuple[str, int, Any]] = []
    rows = 0
    for name, first, record_batch in record_batches(job, portions):
        waiting.append((name, first, record_batch))
        rows += len(record_batch)
        if rows >= BATCH_ROWS:
            yield batch_of(waiting, headers)
            waiting, rows = [], 0
    if waiting:
        yield batch_of(waiting, headers)


def record_batches(job: Job, portions: Sequence[Portion]) -> Iterator[tuple[str, int, Any]]:
    """Batches with the file that each is of and the number of its first row there."""
    import pyarrow as pa
    from pyarrow import dataset as pads

    headers = job.headers()
    fields = [job.schema.field(header) for header in headers.values()]
    words = [f.name for f in fields if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    # Words that repeat stay numbers of a dictionary, as they are in the file.
    numbered = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema([f.with_type(numbered) if f.name in words else f for f in fields])
    form = pads.ParquetFileFormat(read_options=pads.ParquetReadOptions(dictionary_columns=words))
    for file, pieces in _by_file_system(portions):
        fragments = [
            form.make_fragment(
                piece.fragment.path,
                file,
                piece.fragment.partition_expression,
                row_groups=[group.id for group in piece.fragment.row_groups],
            )
            for piece in pieces
        ]
        dataset = pads.FileSystemDataset(fragments, schema, form, file)
        places = {fragment.path: piece for fragment, piece in zip(reversed(fragments), reversed(pieces), strict=True)}
        rows_of = {path: piece.first_row for path, piece in places.items()}
        scanner = dataset.scanner(
            columns=list(headers.values()),
            batch_size=BATCH_ROWS,
            batch_readahead=READ_AHEAD,
            fragment_readahead=READ_AHEAD,
            use_threads=True,
        )
        try:
            for tagged in scanner.scan_batches():
                path = tagged.fragment.path
                if len(tagged.record_batch):
                    yield places[path].name, rows_of[path], tagged.record_batch
                    rows_of[path] += len(tagged.record_batch)
        except failures() as error:
            reason = first_line(error)
            raise InputError("SOURCE", pieces[0].name, f"or a file beside it cannot be read ({reason})") from error


def _by_file_system(portions: Sequence[Portion]) -> Iterator[tuple[Any, list[Portion]]]:
    """Runs of portions that lie in one file system."""
    run: list[Portion] = []
    for portion in portions:
        if run and not run[-1].fragment.filesystem.equals(portion.fragment.filesystem):
            yield run[-1].fragment.filesystem, run
            run = []
        run.append(portion)
    if run:
        yield run[-1].fragment.filesystem, run
