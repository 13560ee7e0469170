"""All checks over one table, and what may be done about what they find."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llmpower.exceptions import FitError, InputError
from llmpower.modelling.screening.alone import check_rows
from llmpower.modelling.screening.claims import check_claims
from llmpower.modelling.screening.costs import check_costs
from llmpower.modelling.screening.kinds import KINDS, parse_kinds
from llmpower.modelling.screening.marks import Checked, Mark
from llmpower.modelling.screening.order import Mask
from llmpower.modelling.screening.rows import Rows, rows_of
from llmpower.modelling.screening.times import check_times
from llmpower.phrases import plural
from llmpower.tables import check_frame, number_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Finding:
    """Rows of one model with one kind of finding: how many, of how many, and the worst of them in words."""

    kind: str
    model_name: str
    n_rows: int
    of_rows: int
    place: str
    example: str

    def __str__(self) -> str:
        rows = f"{self.n_rows:,} of {plural(self.of_rows, 'row')}"
        return f"{rows} of {self.model_name}, such as {self.place} ({self.example})"


@dataclass(frozen=True)
class Screening:
    """What was found in a table of ``n_rows``, and what could not be looked for, with the reason.

    ``marks`` has for each kind that was found which rows it is about, in their order. Rows that went by one by one and
    are gone have none; ``n_left_out`` then says how many of them were left out.
    """

    n_rows: int
    findings: tuple[Finding, ...]
    not_looked_for: Mapping[str, str]
    marks: Mapping[str, Mask]
    n_left_out: int | None = None

    def left_out(self, kinds: str | Iterable[str]) -> int:
        """How many rows leaving out these kinds leaves out."""
        return int(self.rows(kinds).sum()) if self.n_left_out is None else self.n_left_out

    def rows(self, kinds: str | Iterable[str]) -> Mask:
        """Which rows have a finding of one of the kinds; shape (n_rows,).

        Raises:
            InputError: there is no such kind.
        """
        found = np.zeros(self.n_rows, dtype=bool)
        for kind in parse_kinds(kinds, "kinds"):
            if kind in self.marks:
                found |= self.marks[kind]
        return found

    def count(self, kind: str) -> int:
        """How many rows have this finding."""
        return sum(finding.n_rows for finding in self.findings if finding.kind == kind)

    def leave_out(self, measurements: pd.DataFrame, kinds: str | Iterable[str]) -> pd.DataFrame:
        """The rows of the screened table without findings of these kinds.

        Raises:
            InputError: there is no such kind, or the table is another.
            FitError: no row is left.
        """
        kinds = parse_kinds(kinds, "--leave-out")
        if len(measurements) != self.n_rows:
            advice = f"{self.n_rows} rows were screened; give the table that was"
            raise InputError("measurements", f"{len(measurements)} rows", advice)
        left = measurements[~self.rows(kinds)]
        if self.n_rows and not len(left):
            raise self.nothing_left(kinds)
        return left

    def nothing_left(self, kinds: Collection[str]) -> FitError:
        """What to say where all rows have a finding of these kinds, as a file in another unit has."""
        found = [finding for finding in self.findings if finding.kind in kinds]
        names = ", ".join(dict.fromkeys(finding.kind for finding in found))
        advice = f"all rows have such a finding: {found[0]}; correct them, or leave fewer kinds out"
        return FitError("--leave-out", names, advice)

    def refuse(self, kinds: str | Iterable[str]) -> None:
        """Go no further where there is a finding of these kinds.

        Raises:
            InputError: there is no such kind.
            FitError: there is one; it is the first by the order of the kinds.
        """
        kinds = parse_kinds(kinds, "--refuse")
        for finding in self.findings:
            if finding.kind in kinds:
                advice = f"{finding}: {KINDS[finding.kind].rule}; correct them, or leave them out"
                raise FitError("--refuse", finding.kind, advice)

    def document(self, left_out: str | Iterable[str] = ()) -> dict[str, Any]:
        """All of it as JSON types; ``left_out`` are the kinds whose rows were not fitted."""
        left_out = parse_kinds(left_out, "left_out")
        return {
            "rows": self.n_rows,
            "rows_left_out": self.left_out(left_out),
            "findings": [
                {**asdict(finding), "rule": KINDS[finding.kind].rule, "left_out": finding.kind in left_out}
                for finding in self.findings
            ],
            "not_looked_for": dict(self.not_looked_for),
        }


def screen(measurements: pd.DataFrame, *, tdp_w: float | None = None) -> Screening:
    """Look for what is wrong with measurements, and change nothing.

    Args:
        measurements: one row per span, with the columns of a measurements file; those it has decide what can be looked
            for. ``num_gpus``, ``tdp_w`` [W], ``total_tokens``, ``requested_output_tokens`` and ``provenance`` are
            read too where they are there.
        tdp_w: design power of one device [W]; by default what the column ``system`` names.

    Raises:
        InputError: ``tdp_w`` is not a power, or ``measurements`` is not a table or has a column twice.

    Example:
        >>> import pandas as pd
        >>> rows = pd.DataFrame(
        ...     {
        ...         "model_name": "llama",
        ...         "input_tokens": [8, 64, 512],
        ...         "output_tokens": 32,
        ...         "runtime_s": 1.0,
        ...         "gpu_energy_j": [70.0, -3.0, 95.0],
        ...     }
        ... )
        >>> [(finding.kind, finding.n_rows) for finding in screen(rows).findings]
        [('negative_energy', 1)]
    """
    if tdp_w is not None:
        if not 0 < number_of(tdp_w) < np.inf:
            raise InputError("--tdp", tdp_w, "is not a design power; give the watts of one device")
        tdp_w = float(tdp_w)
    check_frame(measurements, "measurements")
    if len(measurements) == 0:
        return Screening(0, (), {}, {})
    rows = rows_of(measurements, tdp_w)
    marks: list[Mark] = []
    unasked: dict[str, str] = {}
    for checked in _checks(rows, marks):
        if isinstance(checked, Mark):
            if checked.rows.any():
                marks.append(checked)
        else:
            unasked[checked.kind] = checked.reason
    marks.sort(key=lambda mark: list(KINDS).index(mark.kind))
    findings = tuple(finding for mark in marks for finding in _findings(rows, mark))
    return Screening(len(rows), findings, unasked, {mark.kind: mark.rows for mark in marks})


def _checks(rows: Rows, marks: list[Mark]) -> Iterator[Checked]:
    """Each group of checks compares only rows in which those before have found nothing."""

    def sound() -> Mask:
        found = np.zeros(len(rows), dtype=bool)
        for mark in marks:
            if KINDS[mark.kind].of_rows:
                found |= mark.rows
        return ~found

    yield from check_rows(rows)
    yield from check_claims(rows, sound())
    yield from check_times(rows, sound())
    yield from check_costs(rows, sound())


def _findings(rows: Rows, mark: Mark) -> Iterator[Finding]:
    """One finding for each model, by the model's first row."""
    counts = np.bincount(rows.model[mark.rows], minlength=len(rows.model_names))
    of = np.bincount(rows.model, minlength=len(rows.model_names))
    for model in np.flatnonzero(counts):
        own = np.flatnonzero(mark.rows & (rows.model == model))
        worst = int(own[np.nanargmax(np.nan_to_num(mark.severity[own], nan=-np.inf))])
        yield Finding(
            kind=mark.kind,
            model_name=rows.model_names[model],
            n_rows=int(counts[model]),
            of_rows=int(of[model]),
            place=rows.place(worst),
            example=mark.says(worst),
        )
