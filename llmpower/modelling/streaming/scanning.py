"""Batches into tallies: what one process does with the portions that it was given.

A batch is looked at as a whole first: where its extremes are possible, all of its rows are, and nothing more is asked
of them. Only rows that may be wrong are looked at one by one, by the checks that a table goes through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import FitError
from llmpower.modelling.rows.boundary import Boundary
from llmpower.modelling.rows.groups import NUMBERS
from llmpower.modelling.rows.measurements import REQUIRED, check_measurements, energy_columns
from llmpower.modelling.rows.tally import Key, Tally, processors
from llmpower.modelling.rows.where import names_in, select_rows
from llmpower.modelling.streaming.arrays import Batch
from llmpower.modelling.streaming.dataset import Portion
from llmpower.modelling.streaming.doubts import Doubts
from llmpower.modelling.streaming.reading import batches

if TYPE_CHECKING:
    import pyarrow as pa

FLAGS = ("simulated", "allocated", "quality")


@dataclass(frozen=True)
class Job:
    """What is asked of every row: everything that a worker must know beside its portions.

    ``schema`` is what all files share, under their headers; ``columns`` maps our names to those; ``left_out`` are kinds
    of findings whose rows are not fitted; ``threads`` sum at a time, one where workers read beside each other.
    """

    schema: pa.Schema
    boundary: str
    group_by: tuple[str, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    where: str | None = None
    left_out: tuple[str, ...] = ()
    tdp_w: float | None = None
    threads: int = 1

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

    def scan(self, portions: Sequence[Portion], tell: Callable[[int], None] | None = None) -> Scanned:
        """As :func:`scan`."""
        return scan(self, portions, tell)

    def merge(self, parts: Iterable[Scanned]) -> Scanned:
        """All of them, none of them changed."""
        merged = Scanned(Tally(Boundary.parse(self.boundary), threads=processors()), Doubts(self.left_out, self.tdp_w))
        for part in parts:
            merged.merge(part)
        return merged


@dataclass
class Scanned:
    """What portions came down to: the tally of their rows, what was doubtful, and files by what they are."""

    tally: Tally
    doubts: Doubts
    rows: int = 0
    kinds: dict[Key, dict[bool, str]] = field(default_factory=dict)

    def merge(self, other: Scanned) -> None:
        """With what other portions came down to."""
        self.tally.merge(other.tally)
        self.doubts.merge(other.doubts)
        self.rows += other.rows
        for key, files in other.kinds.items():
            self.kinds[key] = files | self.kinds.get(key, {})


def scan(job: Job, portions: Sequence[Portion], tell: Callable[[int], None] | None = None) -> Scanned:
    """Tally all rows of some portions; ``tell`` is called with the number of rows of each batch.

    Raises:
        InputError: a file cannot be read, or ``where`` is not a condition.
        FitError: a row cannot be what it claims.
    """
    boundary = Boundary.parse(job.boundary)
    scanned = Scanned(Tally(boundary, threads=job.threads), Doubts(job.left_out, job.tdp_w))
    for batch in batches(job.schema, job.headers(), portions):
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
    codes, keys, seen = batch.keys(job.group_by)
    scanned.tally.add(keys, codes, rows, seen)
    _note_kinds(scanned, keys, codes, rows["simulated"], batch)


def _note_kinds(
    scanned: Scanned, keys: Sequence[Key], codes: NDArray[np.integer[Any]], simulated: NDArray[np.bool_], batch: Batch
) -> None:
    """The first file with simulated rows of each key, and the first with real ones."""
    for kind, of_kind in ((True, simulated), (False, ~simulated)):
        if not of_kind.any():
            continue
        for number, key in enumerate(keys):
            known = scanned.kinds.setdefault(key, {})
            if kind not in known and (there := of_kind & (codes == number)).any():
                known[kind] = batch.place(int(there.argmax()))[0]
